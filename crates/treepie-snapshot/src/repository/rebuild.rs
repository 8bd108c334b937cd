//! A manifest made anew of the streams themselves.

use std::{collections::BTreeMap, io::Read, sync::Arc};

use super::{
    Description, Entry, Manifest, RepositoryError, manifest,
    naming::{self, Named},
};
use crate::store::{Name, Store, StoreError, numbered};

/// A file that may be a stream.
#[derive(Debug)]
pub struct StreamFile<'s> {
    /// Its name.
    pub file: Name,
    /// Its length.
    pub bytes: u64,
    store: &'s dyn Store,
}

impl StreamFile<'_> {
    /// Reads it from `offset` on.
    ///
    /// # Errors
    /// What the store says.
    pub fn open(&self, offset: u64) -> Result<Box<dyn Read + Send>, StoreError> {
        self.store.open(&self.file, offset)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// The new manifest.
    pub manifest: Manifest,
    /// Files that are not in it, and why.
    pub left_out: Vec<(Name, String)>,
}

pub(super) fn rebuild(
    store: Arc<dyn Store>,
    mut describe: impl FnMut(&StreamFile<'_>) -> Result<Description, String>,
) -> Result<Rebuilt, RepositoryError> {
    let mut lock = store.lock("rebuild")?;
    let mut found: Vec<Entry> = Vec::new();
    let mut left_out = Vec::new();
    let mut items = store.list(naming::FOLDER)?;
    items.sort_by(|a, b| a.name.cmp(&b.name));
    for item in items {
        let Named::Stream { id, .. } = naming::read(&item.name) else { continue };
        lock.renew()?;
        let file = StreamFile { file: item.name, bytes: item.bytes, store: &*store };
        match describe(&file) {
            Ok(stream) => {
                let (id, bytes) = (format!("{id:016x}"), file.bytes);
                found.push(Entry { id, file: file.file, bytes, stream });
            }
            Err(why) => left_out.push((file.file, why)),
        }
    }
    // Most bytes decide whose repository this is; a stray file of another database does not.
    let mut databases: BTreeMap<[u8; 16], u64> = BTreeMap::new();
    for entry in &found {
        *databases.entry(entry.stream.lineage.database_id.0).or_default() += entry.bytes;
    }
    let owner = databases.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(id, _)| id);
    found.sort_by_key(|entry| {
        (owner != Some(entry.stream.lineage.database_id.0), entry.stream.created_us)
    });
    let mut manifest = Manifest::default();
    for entry in found {
        if manifest.entry(&entry.id).is_some() {
            left_out.push((entry.file, format!("another file has the id {}", entry.id)));
            continue;
        }
        let file = entry.file.clone();
        if let Err(error) = manifest.add(entry) {
            left_out.push((file, error.to_string()));
        }
    }
    let newest = numbered::numbers(&*store, manifest::FOLDER)?.last().copied().unwrap_or(0);
    manifest.number = newest.checked_add(1).ok_or(RepositoryError::Bound {
        what: "the number of the manifest",
        max: u64::MAX,
        hint: "remove the manifest with the highest number, then rebuild again",
    })?;
    manifest.written_us = store.now_us();
    lock.renew()?;
    manifest::save(&*store, &manifest)?;
    tracing::info!(place = store.place(), "a manifest was rebuilt");
    Ok(Rebuilt { manifest, left_out })
}

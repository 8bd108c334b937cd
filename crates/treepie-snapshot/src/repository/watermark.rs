//! What was verified already, so that the next verification reads only what is new.
//!
//! It is a small file beside the manifest, `manifest/verified.json`, replaced as a whole. It vouches for
//! a file only if name, length and digest are those of the entry. One that cannot be read vouches for
//! nothing: then everything is verified again, which costs time and no safety.

use std::{collections::BTreeMap, io::Cursor};

use serde::{Deserialize, Serialize};

use super::{
    Manifest, RepositoryError,
    entry::{Entry, hex},
    manifest::ENTRIES_MAX,
};
use crate::store::{Name, Store, StoreError, read_small};

/// Longest file, in bytes: as many lines as there may be streams.
const LEN_MAX: u64 = 32 << 20;
const VERSION: u32 = 1;

/// What was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    verified: BTreeMap<String, Verified>,
}

/// One verified file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verified {
    bytes: u64,
    digest: String,
    verified_us: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    blake3: String,
    files: BTreeMap<String, Verified>,
}

fn name() -> Name {
    Name::new(format!("{}/verified.json", super::manifest::FOLDER)).expect("it is a name")
}

impl Watermark {
    /// Reads it. One that is absent, damaged or of another version is empty.
    ///
    /// # Errors
    /// What the medium says.
    pub fn load(store: &dyn Store) -> Result<Watermark, RepositoryError> {
        let bytes = match read_small(store, &name(), LEN_MAX) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(StoreError::Bound { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let stored: Option<Stored> = serde_json::from_slice(&bytes).ok();
        let stored = stored.filter(|stored| {
            stored.version == VERSION
                && stored.files.len() <= ENTRIES_MAX
                && stored.blake3 == digest(&stored.files)
        });
        if stored.is_none() && !bytes.is_empty() {
            tracing::warn!(place = store.place(), "what was verified cannot be read; all is anew");
        }
        Ok(Watermark { verified: stored.map(|stored| stored.files).unwrap_or_default() })
    }

    /// Writes it.
    ///
    /// # Errors
    /// What the medium says.
    pub fn save(&self, store: &dyn Store) -> Result<(), RepositoryError> {
        let files = self.verified.clone();
        let stored = Stored { version: VERSION, blake3: digest(&files), files };
        let bytes = serde_json::to_vec_pretty(&stored).expect("strings and numbers are JSON");
        store.put(&name(), &mut Cursor::new(bytes))?;
        Ok(())
    }

    /// When this file was verified; none if it was not, or is another one now.
    #[must_use]
    pub fn verified_us(&self, entry: &Entry) -> Option<u64> {
        let verified = self.verified.get(entry.file.as_str())?;
        let is_same = verified.bytes == entry.bytes && verified.digest == hex(&entry.stream.digest);
        is_same.then_some(verified.verified_us)
    }

    /// What is to be verified: all, or what was not yet.
    #[must_use]
    pub fn pending<'m>(&self, manifest: &'m Manifest, all: bool) -> Vec<&'m Entry> {
        let entries = manifest.entries.iter();
        entries.filter(|entry| all || self.verified_us(entry).is_none()).collect()
    }

    /// Notes that a file was found to be what its entry says.
    pub fn note(&mut self, entry: &Entry, now_us: u64) {
        let digest = hex(&entry.stream.digest);
        let verified = Verified { bytes: entry.bytes, digest, verified_us: now_us };
        self.verified.insert(entry.file.as_str().to_owned(), verified);
    }

    /// Forgets a file, because it was found damaged.
    pub fn forget(&mut self, entry: &Entry) {
        self.verified.remove(entry.file.as_str());
    }

    /// Forgets the files that are no longer in the manifest.
    pub fn retain(&mut self, manifest: &Manifest) {
        let files: std::collections::BTreeSet<&str> =
            manifest.entries.iter().map(|entry| entry.file.as_str()).collect();
        self.verified.retain(|file, _| files.contains(file.as_str()));
    }
}

/// A digest of what it says, so that no flipped bit vouches for anything.
fn digest(files: &BTreeMap<String, Verified>) -> String {
    let bytes = serde_json::to_vec(files).expect("strings and numbers are JSON");
    blake3::hash(&bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use treepie_testkit::SimDisk;

    use super::*;
    use crate::{
        repository::testing::{full, lineage, records},
        store::LocalStore,
    };

    #[test]
    fn only_what_is_new_or_has_changed_is_pending_and_damage_vouches_for_nothing() {
        let disk = SimDisk::new(1);
        let store = LocalStore::on(Arc::new(disk.clone()), "/repo");
        let entries = vec![full(lineage(0), 10), records(lineage(0), 10, 20)];
        let mut manifest = Manifest { entries, ..Manifest::default() };
        let mut watermark = Watermark::load(&store).unwrap();
        assert_eq!(watermark.pending(&manifest, false).len(), 2);
        watermark.note(&manifest.entries[0], 5);
        watermark.save(&store).unwrap();

        let mut watermark = Watermark::load(&store).unwrap();
        assert_eq!(watermark.pending(&manifest, false), [&manifest.entries[1]]);
        assert_eq!(watermark.pending(&manifest, true).len(), 2);
        assert_eq!(watermark.verified_us(&manifest.entries[0]), Some(5));
        manifest.entries[0].stream.digest[0] ^= 1;
        assert_eq!(watermark.pending(&manifest, false).len(), 2);
        manifest.entries[0].stream.digest[0] ^= 1;

        let path = Path::new("/repo/manifest/verified.json");
        let disk = disk.settled(2);
        let store = LocalStore::on(Arc::new(disk.clone()), "/repo");
        let bytes = disk.file_bytes(path).unwrap();
        for bit in 0..bytes.len() as u64 * 8 {
            disk.flip_bit(path, bit);
            let damaged = Watermark::load(&store).unwrap();
            // A flipped bit in white space is none in what it says.
            assert!(damaged == watermark || damaged == Watermark::default(), "bit {bit}");
            disk.flip_bit(path, bit);
        }
        manifest.entries.remove(0);
        watermark.retain(&manifest);
        assert_eq!(watermark, Watermark::default());
    }
}

//! The map of changed pages in its file, from one opening to the next.
//!
//! It is written when the database is closed, and believed when the newest meta page is the one that it
//! names. What happens between, up to a kill, comes through the journal again and is marked anew.

use std::{path::Path, sync::Arc};

use crate::{
    disk::{Disk, OpenMode},
    error::{Error, Result},
    format::{
        changed::{ChangedMap, len_max},
        meta::Meta,
    },
    pager::store::Pager,
    txn::core::Core,
};

/// Name of the file in the folder of a database.
pub const CHANGED_FILE: &str = "changed";
const NEW_CHANGED_FILE: &str = "changed.new";

/// Goes on with what was saved, if it belongs to this meta page; before anything is written. What is
/// damaged, or of another time, is passed over: copies then look at all pages.
///
/// # Errors
/// [`Error::Io`].
pub fn load(disk: &Arc<dyn Disk>, path: &Path, meta: &Meta, pager: &Pager) -> Result<()> {
    let file_path = path.join(CHANGED_FILE);
    if !disk.exists(&file_path).map_err(Error::io("look for", &file_path))? {
        return Ok(());
    }
    let file = disk.open(&file_path, OpenMode::ReadOnly);
    let file = file.map_err(Error::io("open", &file_path))?;
    let len = file.len().map_err(Error::io("measure", &file_path))?;
    if len > len_max(pager.file_pages()) {
        tracing::warn!(file = %file_path.display(), len, "the map of changed pages is too long");
        return Ok(());
    }
    let mut bytes = vec![0; usize::try_from(len).expect("it is below its bound")];
    file.read_at(0, &mut bytes).map_err(Error::io("read", &file_path))?;
    match ChangedMap::decode(&bytes) {
        Ok(map) if is_of(&map, meta) => pager.changed.restore(map.generations),
        Ok(_) => tracing::debug!("the map of changed pages is of another checkpoint"),
        Err(what) => {
            tracing::warn!(file = %file_path.display(), %what, "no map of changed pages");
        }
    }
    Ok(())
}

fn is_of(map: &ChangedMap, meta: &Meta) -> bool {
    (map.database_id, map.epoch) == (meta.lineage.database_id, meta.lineage.epoch)
        && (map.checkpoint, map.chain) == (meta.checkpoint, meta.chain)
        && map.page_size == meta.page_size
        && map.generations.iter().all(|generation| generation.from <= map.checkpoint)
}

/// Saves the map for the next opening, after the last checkpoint. Does nothing where nobody has made a
/// copy.
///
/// # Errors
/// [`Error::Io`]: the database is closed all the same.
pub fn save(core: &Core) -> Result<()> {
    let generations = core.pager.changed.generations();
    let meta = *core.meta.lock();
    if generations.last().is_none_or(|newest| newest.from > meta.checkpoint) {
        return Ok(());
    }
    let map = ChangedMap {
        database_id: meta.lineage.database_id,
        epoch: meta.lineage.epoch,
        checkpoint: meta.checkpoint,
        chain: meta.chain,
        page_size: meta.page_size,
        generations,
    };
    let (disk, path) = (&core.disk, core.path.join(CHANGED_FILE));
    let new = core.path.join(NEW_CHANGED_FILE);
    if disk.exists(&new).map_err(Error::io("look for", &new))? {
        disk.remove(&new).map_err(Error::io("remove", &new))?;
    }
    let file = disk.open(&new, OpenMode::CreateNew).map_err(Error::io("create", &new))?;
    file.write_at(0, &map.encode()).map_err(Error::io("write", &new))?;
    file.sync_data().map_err(Error::io("sync", &new))?;
    disk.rename(&new, &path).map_err(Error::io("rename", &new))?;
    disk.sync_dir(&core.path).map_err(Error::io("sync", &core.path))
}

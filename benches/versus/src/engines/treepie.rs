//! Treepie, with the options that it has by default.
//!
//! - A commit that returned is durable: the default. Writes of several threads are merged.
//! - Pages have the default size unless `--page-size` is given.
//! - There is no append mode: inserts in ascending order fill pages by themselves.
//! - A packed backup is compressed at level 1, a plain one not at all; both with a thread for each
//!   processor, and all pages verified.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use treepie::{Base, Database, Options, Tree, TreeMut, WriteTxn};
use treepie_snapshot::{
    BackupOptions, Control, RestoreOptions, StreamOptions, StreamSummary, backup, restore,
};

use crate::{
    Result,
    engine::{Backup, BackupRequest, Batch, Engine, Pending, Setup, Tally, View},
};

const ENTRIES: &str = "entries";

/// An open Treepie database.
pub struct Treepie {
    database: Database,
    /// The last backup, for an increment on it.
    base: Mutex<Option<Base>>,
}

/// The tree as of a snapshot.
pub struct TreepieView<'a> {
    tree: Tree<'a>,
}

/// The tree of a write transaction.
pub struct TreepieBatch<'a> {
    tree: TreeMut<'a>,
}

impl Treepie {
    fn finished(&self, summary: &StreamSummary) -> Backup {
        let (lineage, last) = (summary.header.lineage, summary.last);
        let base = Base { lineage, lsn: last.lsn, chain: last.chain };
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = Some(base);
        let page_bytes = summary.page_count * summary.header.page_size as u64;
        Backup { page_bytes, stored_bytes: summary.stored_len }
    }
}

impl Engine for Treepie {
    const NAME: &'static str = "treepie";
    const HAS_CHECKPOINT: bool = true;
    type View<'a> = TreepieView<'a>;
    type Batch<'a> = TreepieBatch<'a>;

    fn open(dir: &Path, setup: Setup) -> Result<Treepie> {
        let options = Options::new().create(true).page_size(setup.page_size);
        let treepie = Treepie { database: options.open(dir)?, base: Mutex::default() };
        treepie.write(|_| Ok(()))?;
        Ok(treepie)
    }

    fn read<R>(&self, body: impl FnOnce(&TreepieView<'_>) -> Result<R>) -> Result<R> {
        let snapshot = self.database.read()?;
        body(&TreepieView { tree: snapshot.tree(ENTRIES)? })
    }

    fn write(&self, body: impl FnOnce(&mut TreepieBatch<'_>) -> Result<()> + Send) -> Result<()> {
        let run = |tx: &mut WriteTxn<'_>| {
            body(&mut TreepieBatch { tree: tx.tree(ENTRIES)? }).map_err(treepie::Error::rejected)
        };
        self.database.write(run)?;
        Ok(())
    }

    fn submit(&self, key: &[u8], value: &[u8]) -> Result<Option<Pending<'_>>> {
        let (key, value) = (key.to_owned(), value.to_owned());
        let put = move |tx: &mut WriteTxn<'_>| tx.tree(ENTRIES)?.insert(key, value);
        let submitted = self.database.submit(put)?;
        Ok(Some(Box::new(move || submitted.wait().map(|_| ()).map_err(Into::into))))
    }

    fn settle(&self) -> Result<()> {
        self.database.checkpoint()?;
        Ok(())
    }

    fn can_back_up(&self) -> bool {
        true
    }

    fn back_up(&self, request: BackupRequest<'_>) -> Result<Option<Backup>> {
        let level = if request.is_packed { 1 } else { 0 };
        let options = BackupOptions::new().stream(StreamOptions::new().level(level));
        let control = Control::new();
        let report = match request.file {
            Some(path) => backup(&self.database, File::create(path)?, &options, control)?.1,
            None => backup(&self.database, io::sink(), &options, control)?.1,
        };
        Ok(Some(self.finished(&report.summary)))
    }

    fn back_up_changes(&self) -> Result<Option<Backup>> {
        let base = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let options = BackupOptions::new().base(base.ok_or("there is no backup to build on")?);
        let (_, report) = backup(&self.database, io::sink(), &options, Control::new())?;
        Ok(Some(self.finished(&report.summary)))
    }

    fn restore(file: &Path, dir: &Path, is_checked: bool) -> Result<bool> {
        let options = RestoreOptions::new().check(is_checked);
        restore(File::open(file)?, dir, &options, Control::new())?;
        Ok(true)
    }

    fn close(self) -> Result<()> {
        Ok(self.database.close()?)
    }
}

impl View for TreepieView<'_> {
    fn get(&self, key: &[u8], tally: &mut Tally) -> Result<bool> {
        let value = self.tree.get(key)?;
        value.inspect(|value| tally.add(value));
        Ok(value.is_some())
    }

    fn scan(&self, from: &[u8], limit: u64, tally: &mut Tally) -> Result<()> {
        let end = tally.entries + limit;
        for entry in self.tree.range(from..) {
            tally.add(entry?.1);
            if tally.entries == end {
                break;
            }
        }
        Ok(())
    }

    fn scan_prefix(&self, prefix: &[u8], tally: &mut Tally) -> Result<()> {
        for entry in self.tree.prefix(prefix) {
            tally.add(entry?.1);
        }
        Ok(())
    }
}

impl Batch for TreepieBatch<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.tree.insert(key, value)?;
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.tree.remove(key)?;
        Ok(())
    }
}

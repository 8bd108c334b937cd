//! Treepie, with the options that it has by default.
//!
//! - A commit that returned is durable: the default. Writes of several threads are merged.
//! - Pages have the default size unless `--page-size` is given.
//! - There is no append mode: inserts in ascending order fill pages by themselves.

use std::path::Path;

use treepie::{Database, Options, Tree, TreeMut, WriteTxn};

use crate::{
    Result,
    engine::{Batch, Engine, Pending, Setup, Tally, View},
};

const ENTRIES: &str = "entries";

/// An open Treepie database.
pub struct Treepie {
    database: Database,
}

/// The tree as of a snapshot.
pub struct TreepieView<'a> {
    tree: Tree<'a>,
}

/// The tree of a write transaction.
pub struct TreepieBatch<'a> {
    tree: TreeMut<'a>,
}

impl Engine for Treepie {
    const NAME: &'static str = "treepie";
    const HAS_CHECKPOINT: bool = true;
    type View<'a> = TreepieView<'a>;
    type Batch<'a> = TreepieBatch<'a>;

    fn open(dir: &Path, setup: Setup) -> Result<Treepie> {
        let options = Options::new().create(true).page_size(setup.page_size);
        let treepie = Treepie { database: options.open(dir)? };
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

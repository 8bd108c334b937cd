//! canopydb.
//!
//! - The log is on, the default, and every commit asks for its sync: a commit that returned is
//!   durable.
//! - Exclusive transactions: the documentation advises concurrent ones for transactions that do
//!   other work in between, touch different trees, or read from the disk. These do not, and
//!   concurrent ones hold the same lock while they sync.
//! - The cache holds the whole database, as the documentation's own measurements have it.
//! - Settling is a checkpoint.

use std::path::Path;

use canopydb::{Database, DbOptions, EnvOptions, Tree};

use crate::{
    Result,
    engine::{Batch, Engine, Setup, Tally, View},
};

const ENTRIES: &[u8] = b"entries";

/// An open canopydb database.
pub struct Canopydb {
    database: Database,
}

/// The tree of a transaction, to read or to write.
pub struct CanopydbTree<'a> {
    tree: Tree<'a>,
}

impl Engine for Canopydb {
    const NAME: &'static str = "canopydb";
    type View<'a> = CanopydbTree<'a>;
    type Batch<'a> = CanopydbTree<'a>;

    fn open(dir: &Path, setup: Setup) -> Result<Canopydb> {
        let mut environment = EnvOptions::new(dir);
        environment.page_cache_size = setup.cache_size;
        let mut options = DbOptions::new();
        options.default_commit_sync = true;
        let canopydb = Canopydb { database: Database::with_options(environment, options)? };
        canopydb.write(|_| Ok(()))?;
        Ok(canopydb)
    }

    fn read<R>(&self, body: impl FnOnce(&CanopydbTree<'_>) -> Result<R>) -> Result<R> {
        let txn = self.database.begin_read()?;
        body(&CanopydbTree { tree: txn.get_tree(ENTRIES)?.ok_or("the tree is missing")? })
    }

    fn write(&self, body: impl FnOnce(&mut CanopydbTree<'_>) -> Result<()> + Send) -> Result<()> {
        let txn = self.database.begin_write()?;
        {
            let mut batch = CanopydbTree { tree: txn.get_or_create_tree(ENTRIES)? };
            body(&mut batch)?;
        }
        txn.commit()?;
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        Ok(self.database.checkpoint()?)
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl View for CanopydbTree<'_> {
    fn get(&self, key: &[u8], tally: &mut Tally) -> Result<bool> {
        let value = self.tree.get(key)?;
        if let Some(value) = &value {
            tally.add(value);
        }
        Ok(value.is_some())
    }

    fn scan(&self, from: &[u8], limit: u64, tally: &mut Tally) -> Result<()> {
        let end = tally.entries + limit;
        for entry in self.tree.range(from..)? {
            tally.add(&entry?.1);
            if tally.entries == end {
                break;
            }
        }
        Ok(())
    }

    fn scan_prefix(&self, prefix: &[u8], tally: &mut Tally) -> Result<()> {
        for entry in self.tree.prefix(&prefix)? {
            tally.add(&entry?.1);
        }
        Ok(())
    }
}

impl Batch for CanopydbTree<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.tree.insert(key, value)?)
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.tree.delete(key)?;
        Ok(())
    }
}

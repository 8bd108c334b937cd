//! The new database, filled in transactions of some megabytes.

use crate::{
    Database, Durability,
    error::Result,
    txn::write::{TreeHandle, WriteTxn},
};

/// Bytes of keys and values in a transaction, unless one value is longer.
const BATCH_LEN: usize = 4 << 20;

/// What is written to.
pub(super) struct Sink<'db> {
    db: &'db Database,
    txn: Option<(WriteTxn<'db>, TreeHandle)>,
    tree: Vec<u8>,
    batch_len: usize,
}

impl<'db> Sink<'db> {
    pub(super) fn new(db: &'db Database) -> Sink<'db> {
        Sink { db, txn: None, tree: Vec::new(), batch_len: 0 }
    }

    /// Makes a tree, if it is not there, and goes on with it.
    pub(super) fn begin_tree(&mut self, name: &[u8]) -> Result<()> {
        if self.tree != name {
            self.commit()?;
            self.tree = name.to_vec();
        }
        self.txn().map(|_| ())
    }

    fn txn(&mut self) -> Result<&mut (WriteTxn<'db>, TreeHandle)> {
        if self.txn.is_none() {
            let mut txn = self.db.begin_write()?;
            let tree = txn.tree_handle(&self.tree)?;
            self.txn = Some((txn, tree));
        }
        Ok(self.txn.as_mut().expect("it was just put there"))
    }

    /// Adds an entry to the tree, unless its key is there. Returns whether it was added.
    pub(super) fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        let (txn, tree) = self.txn()?;
        let mut tree = txn.by_handle(*tree)?;
        if tree.contains_key(key)? {
            return Ok(false);
        }
        tree.insert(key, value)?;
        self.batch_len += key.len() + value.len();
        if self.batch_len >= BATCH_LEN {
            self.commit()?;
        }
        Ok(true)
    }

    /// Sets an entry of the engine's own tree.
    pub(super) fn set_metadata(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.commit()?;
        let mut txn = self.db.begin_write()?;
        txn.system_tree(crate::txn::catalog::METADATA)?.insert(key, value)?;
        txn.commit_as(Durability::Buffered).map(|_| ())
    }

    /// Commits what was added since the last time.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.batch_len = 0;
        match self.txn.take() {
            Some((txn, _)) => txn.commit_as(Durability::Buffered).map(|_| ()),
            None => Ok(()),
        }
    }
}

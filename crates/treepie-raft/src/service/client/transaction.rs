//! A transaction, put together.

use std::ops::{Bound, RangeBounds};

use super::super::message::{Condition, Operation};

/// A transaction for [`Client::run`](super::Client::run): conditions, and what is done if they hold.
///
/// ```
/// use treepie_raft::service::Transaction;
///
/// let transfer = Transaction::new()
///     .expect("accounts", "anna", Some("70"))
///     .put("accounts", "anna", "60")
///     .put("accounts", "bert", "40");
/// # drop(transfer);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    pub(super) conditions: Vec<Condition>,
    pub(super) operations: Vec<Operation>,
}

impl Transaction {
    /// One that does nothing.
    #[must_use]
    pub fn new() -> Transaction {
        Transaction::default()
    }

    /// The key must have this value before the transaction, or none.
    #[must_use]
    pub fn expect(
        mut self,
        tree: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        value: Option<impl AsRef<[u8]>>,
    ) -> Transaction {
        let (tree, key) = (tree.as_ref().to_vec(), key.as_ref().to_vec());
        let value = value.map(|value| value.as_ref().to_vec());
        self.conditions.push(Condition { tree, key, value });
        self
    }

    /// Sets a value; makes the tree when it is missing.
    #[must_use]
    pub fn put(
        mut self,
        tree: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Transaction {
        let (tree, key) = (tree.as_ref().to_vec(), key.as_ref().to_vec());
        self.operations.push(Operation::Put { tree, key, value: value.as_ref().to_vec() });
        self
    }

    /// Removes a key.
    #[must_use]
    pub fn delete(mut self, tree: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Transaction {
        let (tree, key) = (tree.as_ref().to_vec(), key.as_ref().to_vec());
        self.operations.push(Operation::Delete { tree, key });
        self
    }

    /// Reads a value, as the operations before have left it. All values together have at most 64 KiB.
    #[must_use]
    pub fn get(mut self, tree: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Transaction {
        let (tree, key) = (tree.as_ref().to_vec(), key.as_ref().to_vec());
        self.operations.push(Operation::Get { tree, key });
        self
    }

    /// Removes the keys of a range.
    #[must_use]
    pub fn delete_range<K: AsRef<[u8]>>(
        mut self,
        tree: impl AsRef<[u8]>,
        keys: impl RangeBounds<K>,
    ) -> Transaction {
        let tree = tree.as_ref().to_vec();
        let (from, to) = (owned(keys.start_bound()), owned(keys.end_bound()));
        self.operations.push(Operation::DeleteRange { tree, from, to });
        self
    }
}

/// A bound of its own.
pub fn owned<K: AsRef<[u8]>>(bound: Bound<&K>) -> Bound<Vec<u8>> {
    bound.map(|key| key.as_ref().to_vec())
}

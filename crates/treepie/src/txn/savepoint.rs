//! Savepoints: parts of a write transaction that can be undone by themselves. Each closure of a merged
//! transaction is one; the user may have more inside it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::Ordering::Relaxed,
};

use crate::{
    error::{Error, Result},
    limits::{ANNOTATIONS_LEN_MAX, RECORD_LEN_MAX},
};

use super::{
    catalog::Catalog,
    open_trees::{OpenTrees, TreesMark},
    pages::PagesMark,
    write::WriteTxn,
};

/// Where a savepoint began.
#[derive(Debug)]
pub(super) struct Savepoint {
    pages: PagesMark,
    trees: TreesMark,
    catalog: Catalog,
    annotations: usize,
}

impl<'db> WriteTxn<'db> {
    /// Runs a part of the transaction that can fail by itself: when `change` returns an error, its
    /// changes are undone, and what was before them stays. Savepoints nest. A panic goes through, after
    /// the same.
    ///
    /// It costs what `change` changes, not what the transaction has changed before.
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// db.write(|tx| {
    ///     tx.tree("log")?.insert("1", "tried")?;
    ///     let booked = tx.savepoint(|tx| {
    ///         tx.tree("seats")?.insert("12A", "anna")?;
    ///         Err::<(), _>(treepie::Error::rejected("she cannot pay"))
    ///     });
    ///     assert!(booked.is_err());
    ///     assert!(tx.tree("seats")?.is_empty());
    ///     Ok(())
    /// })?;
    /// assert_eq!(db.read()?.tree("log")?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `change` returns; [`Error::TransactionBroken`] when it hides that an operation failed half-way.
    pub fn savepoint<T>(
        &mut self,
        change: impl FnOnce(&mut WriteTxn<'db>) -> Result<T>,
    ) -> Result<T> {
        self.check_whole()?;
        let savepoint = self.begin_savepoint();
        let result = match catch_unwind(AssertUnwindSafe(|| change(self))) {
            Ok(result) => result,
            Err(panic) => {
                self.undo_savepoint(savepoint);
                resume_unwind(panic);
            }
        };
        let result = result.and_then(|value| self.check_whole().map(|()| value));
        match &result {
            Ok(_) => self.keep_savepoint(savepoint),
            Err(_) => self.undo_savepoint(savepoint),
        }
        result
    }

    pub(super) fn begin_savepoint(&mut self) -> Savepoint {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        Savepoint {
            pages: pages.begin_savepoint(),
            trees: self.open.begin_savepoint(),
            catalog: self.catalog.clone(),
            annotations: self.annotations.len(),
        }
    }

    fn keep_savepoint(&mut self, savepoint: Savepoint) {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        pages.keep_savepoint(savepoint.pages);
        self.open.keep_savepoint(savepoint.trees);
    }

    pub(super) fn undo_savepoint(&mut self, savepoint: Savepoint) {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        pages.undo_savepoint(savepoint.pages);
        self.open.undo_savepoint(savepoint.trees);
        self.catalog = savepoint.catalog;
        self.annotations.truncate(savepoint.annotations);
        self.broken = None;
    }

    /// Runs the closure of one of the merged callers. `run` returns whether its changes stay; they
    /// are undone otherwise, and nothing else is.
    ///
    /// # Errors
    /// Why they could not stay although they should have.
    pub(super) fn run_merged(
        &mut self,
        run: impl FnOnce(&mut WriteTxn<'db>) -> bool,
    ) -> Result<()> {
        self.number = self.core.counters.transactions.fetch_add(1, Relaxed);
        self.annotations_before = self.annotations.len();
        // Undoing the first closure is undoing everything.
        let savepoint = self.kept.then(|| self.begin_savepoint());
        let stays = run(self);
        let verdict = if stays { self.check() } else { Ok(()) };
        if stays && verdict.is_ok() {
            savepoint.into_iter().for_each(|savepoint| self.keep_savepoint(savepoint));
            self.core.counters.closures.fetch_add(1, Relaxed);
            self.kept = true;
            return Ok(());
        }
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        if !pages.is_clean() {
            self.core.counters.rollbacks.fetch_add(1, Relaxed);
        }
        match savepoint {
            Some(savepoint) => self.undo_savepoint(savepoint),
            None => self.reset(),
        }
        verdict
    }

    /// Undoes everything so far.
    fn reset(&mut self) {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        pages.rollback();
        self.open = OpenTrees::default();
        self.annotations.clear();
        self.broken = None;
        if let Ok(catalog) = Catalog::open(pages) {
            self.catalog = catalog;
        } else {
            // It could be read when the transaction began.
            self.broken = Some("reset");
        }
    }

    fn check_whole(&self) -> Result<()> {
        self.broken.map_or(Ok(()), |operation| Err(Error::TransactionBroken { operation }))
    }

    /// Whether what was changed so far can become a record.
    pub(super) fn check(&self) -> Result<()> {
        self.check_whole()?;
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        let payload_len_max = pages.payload_len_max() + ANNOTATIONS_LEN_MAX as u64 * 4;
        if payload_len_max > RECORD_LEN_MAX {
            return Err(Error::Bound {
                option: "bytes of a transaction",
                max: RECORD_LEN_MAX,
                hint: "split the transaction",
            });
        }
        Ok(())
    }
}

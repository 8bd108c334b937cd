//! Scrubs, as users ask for them and see what they found.

use std::ops::ControlFlow;

use crate::{
    error::Result,
    scrub::{FoundDamage, ScrubProgress, ScrubReport},
};

use super::Database;

impl Database {
    /// Reads everything that is at rest, pages and journal, from the medium, and verifies it: damage is
    /// found before the data is needed. Readers and writers go on meanwhile. Nothing is repaired.
    ///
    /// `rate` is how many bytes a second are read at most; without it, it is as fast as the disk reads.
    /// `going` is asked after each piece, every tenth of a second at least, and may end it. A thread
    /// that does this by itself comes with [`Options::scrub_interval`](crate::Options::scrub_interval).
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// # db.write(|tx| tx.tree("birds")?.insert("pica", "magpie"))?;
    /// db.checkpoint()?;
    /// let report = db.scrub(None, |_| std::ops::ControlFlow::Continue(()))?;
    /// assert!(report.is_complete && report.damage.is_empty() && report.pages_verified > 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Bound`](crate::Error::Bound) when `readers_max` snapshots are open. Damage is in the
    /// report, and so is what the disk does not read.
    pub fn scrub(
        &self,
        rate: Option<u64>,
        mut going: impl FnMut(&ScrubProgress) -> ControlFlow<()>,
    ) -> Result<ScrubReport> {
        let shared = &*self.shared;
        shared.scrubber.pass(&shared.core, &shared.checkpointer, rate, &mut going)
    }

    /// The damage that scrubs have found since the database was opened, each place once, the first
    /// 1,000 of them; it stays in the list when it is gone from the disk. [`stats`](Database::stats) has
    /// the number, and each item is a `tracing` event of the level `error`.
    #[must_use]
    pub fn damage(&self) -> Vec<FoundDamage> {
        self.shared.scrubber.damage()
    }

    /// The inside, for tests of what lies below.
    #[cfg(test)]
    pub(crate) fn shared_core(&self) -> &std::sync::Arc<crate::txn::core::Core> {
        &self.shared.core
    }
}

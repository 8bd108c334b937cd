//! Where tests step in while a node works, and bugs that they plant. A normal build has none of it: there
//! no step does anything, and no bug is planted.

#[cfg(feature = "planted")]
use std::sync::Arc;

use super::NodeError;

/// A point at which tests may wait, look at the folder, fail what is being done, or panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A thread of the running replica begins.
    Begun(&'static str),
    /// So many MiB of a page stream were sent before, and are with the next bytes.
    Sent(u64, u64),
    /// Pages are about to come.
    Receiving,
    /// They have come, and are verified.
    Received,
    /// The running replica has ended, and its database is not yet closed.
    Stopped,
    /// The new database has term and vote, durably, and no name yet that says so.
    Prepared,
    /// It is called installed.
    Installed,
    /// The old one was put aside: nobody has the name.
    Aside,
    /// The new one has the name.
    Swapped,
    /// It runs.
    Started,
}

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The old database is removed, and not put aside, before the new one has its name.
    OldRemovedFirst,
    /// A new database has no term and no vote.
    InstalledWithoutVote,
    /// A start does not complete an exchange that was cut off.
    ExchangeNotCompleted,
    /// The old database goes on, though its folder has another name.
    GoesOnAside,
    /// A read does not ask how old the state is.
    AgeNotAsked,
    /// A thread that panics is not noticed.
    PanicUnseen,
    /// A failure of the journal or the database does not reach the replica.
    FailureUnheard,
    /// A commit waits for the sync of the leader itself.
    OwnSyncAwaited,
    /// The node does not ask for damaged pages.
    NeverRepairs,
    /// A page stream that was cut does not go on.
    NeverResumes,
    /// Applying does not wait for a page that it needs.
    ApplyingStops,
}

/// What a test has put in.
#[derive(Clone, Default)]
pub struct Probe {
    #[cfg(feature = "planted")]
    bug: Option<Bug>,
    #[cfg(feature = "planted")]
    step: Option<Arc<StepFn>>,
}

/// What a test does at a step; an error makes what is being done fail.
#[cfg(feature = "planted")]
pub type StepFn = dyn Fn(Step) -> std::io::Result<()> + Send + Sync;

#[cfg(feature = "planted")]
impl Probe {
    /// Plants a bug.
    #[must_use]
    pub fn bug(mut self, bug: Option<Bug>) -> Probe {
        self.bug = bug;
        self
    }

    /// Is called at each step, on the thread that comes there.
    #[must_use]
    pub fn step(
        mut self,
        step: impl Fn(Step) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Probe {
        self.step = Some(Arc::new(step));
        self
    }
}

impl Probe {
    /// Whether a bug is planted.
    #[cfg(feature = "planted")]
    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Here is a step.
    #[cfg(feature = "planted")]
    pub(super) fn at(&self, step: Step) -> Result<(), NodeError> {
        self.step.as_ref().map_or(Ok(()), |tell| tell(step)).map_err(NodeError::Stream)
    }

    /// Whether a bug is planted: none is.
    #[cfg(not(feature = "planted"))]
    #[expect(clippy::unused_self, reason = "with the feature it is used")]
    pub(super) const fn has(&self, _bug: Bug) -> bool {
        false
    }

    /// Here is a step: nobody steps in.
    #[cfg(not(feature = "planted"))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "with the feature it may fail"
    )]
    pub(super) const fn at(&self, _step: Step) -> Result<(), NodeError> {
        Ok(())
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

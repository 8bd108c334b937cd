//! Bugs that tests plant, to show that they would be found. A normal build has none of them: there
//! [`is_planted`] is `false` for the compiler too.
//!
//! A bug is planted for one thread (and, in a simulation of schedules, for all of its simulated
//! threads), so that tests with and without it run side by side; or, in a process that is to be
//! killed, for all threads and for good.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    // Only some schedules show these.
    /// Who begins a batch that nobody leads does not wake the merger's threads.
    SilentJoin,
    /// Those who sleep on a flag are woken before it is set.
    WokenBeforeSet,
    /// Whether anyone waits for a submitted write is looked up before it is marked as settled.
    StaleLook,
    /// Readers see a commit that is written and not synced.
    EarlyPublish,
    /// A write is acknowledged when it is committed, a moment before readers see it.
    FinalBeforeVisible,
    /// A new reader does not look at the visible LSN a second time.
    OneLook,
    /// A new reader does not tell the writer that it is there.
    QuietReader,
    /// The writer does not look for readers again after it has hidden a version.
    TakenUnseen,
    /// A version that was taken out of its chain is used again although a reader may hold it.
    FrameFreedEarly,
    /// A walk through a chain does not notice that versions were taken out meanwhile.
    WalkNotRepeated,
    /// A copy takes what the data file has for what old readers keep from it.
    KeptLeftOut,
    /// A copy is not given the pages that the checkpoint is about to write over.
    NoHandOver,
    /// It is given them when they are written.
    HandOverAfterWrite,
    /// A copy moves its cursor before it has read the pages.
    CursorBeforeRead,
    /// What is written since a copy began is noted from its end on.
    LateGeneration,

    // The journal.
    /// A sync of the journal does nothing.
    JournalNotSynced,
    /// A sync of the journal that failed counts as done.
    SyncErrorIgnored,
    /// A sync of the journal that failed is tried once more.
    SyncRetried,
    /// A write of the journal that failed does not end writing.
    NotPoisoned,
    /// A roll does not sync the segment that it leaves.
    OldSegmentNotSynced,
    /// A roll does not sync the folder.
    FolderNotSynced,
    /// Every record may be written to what is kept for removals on a full disk.
    ReserveForAll,
    /// A trim gives up one segment too many.
    TrimmedTooFar,
    /// A record of an earlier life of its segment is taken for one of this life.
    StaleRecordAccepted,
    /// The journal ends at the first bad record, whatever vouches for it.
    CutAtFirstBad,
    /// Records need not continue the one before them.
    ChainNotVerified,
    /// What recovery read behind the last vouched record is synced, and not written again.
    TailNotRewritten,
    /// It is not even synced.
    TailNotSynced,
    /// A record that was given up is read where a segment begins that supersedes it.
    SupersededRecordAccepted,
    /// Segments that an interrupted truncation has left are taken for parts of the journal.
    RemainsBelieved,
    /// A segment gets its name before the hard state at its head is durable.
    HeadNotSynced,
    /// A trim gives up the segment with the only durable hard state.
    HardStateTrimmed,
    /// A hard state is not written again in front of records that follow it.
    HardStateNotVouchedFor,
    /// Recovery takes all records of a replicated journal for committed.
    TailApplied,

    // Commits.
    /// A commit is acknowledged when it is written.
    AcknowledgedBeforeSync,
    /// Every second commit is acknowledged before it is written.
    AcknowledgedBeforeWrite,
    /// One step of the undo log of each savepoint is lost.
    UndoLost,
    /// The record of a changed page has an LSN too high.
    WrongPageLsn,
    /// The catalog has one entry too many of each changed tree.
    WrongEntryCount,

    // Replication.
    /// What a leader has sealed stays when it loses leadership.
    SpeculationKept,
    /// A follower does not compare pages with what the leader made of them.
    DivergenceUnseen,
    /// Commits of a follower leave out the first change of each record.
    ChangeLostAtApply,
    /// Callers are told that their commit is final when it is sealed.
    SettledEarly,
    /// The data file gets commits of which the journal does not say that they are.
    CommitsNotVouchedFor,
    /// Members that were decided in an earlier term are sealed.
    MembersOfAnotherTerm,
    /// A request that comes again is run again.
    RequestForgotten,

    // Pages.
    /// Pages that a run takes are not marked in their bitmap page.
    RunNotMarked,
    /// A freed page stays marked as used.
    PageNotFreed,
    /// A tree gives a page back twice.
    PageFreedTwice,
    /// Of a run in the file only the first page is verified.
    RunTailNotVerified,
    /// The separator of a split is too high.
    WrongSeparator,
    /// A join of two leaves loses their last entry.
    JoinLosesEntry,

    // The checkpoint.
    /// It writes what readers that are older must not see.
    PastOldestReader,
    /// It writes commits whose records are not durable.
    PastSync,
    /// It vouches for the newest commit, whatever it has written.
    PastWritten,
    /// It writes the meta page without syncing the data before.
    MetaBeforeData,
    /// It does not sync the meta page.
    MetaNotSynced,
    /// It overwrites the meta page that is in use, and then the other one.
    BothMetas,
    /// The meta page has no pages.
    WrongPageCountInMeta,
    /// The meta page has another chain hash.
    WrongChainInMeta,

    // Opening.
    /// A new data file gets its name before it is durable.
    NewFileNotSynced,
    /// Replay forgets a page that the bitmap says is used.
    BitLostAtReplay,
    /// Replay keeps the pages of a run that became free.
    FreedRunKept,
    /// Replay leaves the first change of each record out.
    ChangeLostAtReplay,

    // Installing.
    /// Pages that were installed are noted as durable before they are synced.
    InstalledNotSynced,
    /// Pages are changed by records before it is noted up to which.
    InstallingNotNoted,
}

#[cfg(not(any(feature = "shuttle", feature = "planted")))]
#[inline(always)]
pub const fn is_planted(_bug: Planted) -> bool {
    false
}

#[cfg(any(feature = "shuttle", feature = "planted"))]
std::thread_local! {
    /// All simulated threads of one run share a real one, and so the bug.
    static PLANTED: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

#[cfg(any(feature = "shuttle", feature = "planted"))]
static FOR_GOOD: std::sync::OnceLock<Planted> = std::sync::OnceLock::new();

/// Whether the bug is planted in this thread.
#[cfg(any(feature = "shuttle", feature = "planted"))]
pub fn is_planted(bug: Planted) -> bool {
    PLANTED.get() == Some(bug) || FOR_GOOD.get() == Some(&bug)
}

/// Plants a bug in this thread, or none.
#[cfg(any(feature = "shuttle", feature = "planted"))]
pub fn plant(bug: Option<Planted>) {
    PLANTED.set(bug);
}

/// Plants a bug in all threads, for as long as the process lives.
///
/// # Panics
/// If there is one already.
#[cfg(feature = "planted")]
pub fn plant_for_good(bug: Planted) {
    FOR_GOOD.set(bug).expect("one bug is enough");
}

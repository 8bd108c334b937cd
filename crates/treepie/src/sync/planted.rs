//! Bugs that the tests of schedules plant, to show that they would be found. A normal build has
//! none of them: there [`is_planted`] is `false` for the compiler too.

/// A bug of a kind that only some schedules show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
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
}

#[cfg(not(feature = "shuttle"))]
#[inline(always)]
pub const fn is_planted(_bug: Planted) -> bool {
    false
}

#[cfg(feature = "shuttle")]
std::thread_local! {
    /// All simulated threads of one run share a real one, and so the bug.
    static PLANTED: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// Whether the bug is planted in the simulations of this thread.
#[cfg(feature = "shuttle")]
pub fn is_planted(bug: Planted) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants a bug in the simulations of this thread, or none.
#[cfg(feature = "shuttle")]
pub fn plant(bug: Option<Planted>) {
    PLANTED.set(bug);
}

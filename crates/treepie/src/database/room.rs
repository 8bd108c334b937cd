//! Back-pressure: writers wait while memory or journal are used up, so that what the checkpoint
//! cannot keep up with slows them down instead of growing.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use crate::{
    checkpoint::Checkpointer,
    error::{Error, Result},
    sync::Mutex,
    txn::{core::Core, signals::Ask},
};

/// How long a writer waits for the checkpoint before it looks again what keeps it.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Waits while memory or journal are used up, so that what the checkpoint cannot keep up with
/// slows writers down instead of growing.
pub(super) fn make_room(core: &Core, checkpointer: &Mutex<Checkpointer>) -> Result<()> {
    core.check_poison()?;
    if !core.bounds.background {
        return make_room_here(core, checkpointer);
    }
    let limits = core.pager.pool.limits();
    if core.pager.pool.memory_used() > limits.memory_max / 16 * 15 {
        core.counters.waits.fetch_add(1, Relaxed);
        core.signals.ask_and_wait(Ask::WriteEarly, WAIT_MAX);
    }
    while journal_is_full(core) {
        core.counters.waits.fetch_add(1, Relaxed);
        let before = core.watermarks.checkpointed();
        core.signals.ask_and_wait(Ask::Checkpoint, WAIT_MAX);
        core.check_poison()?;
        if core.watermarks.checkpointed() == before && journal_is_full(core) {
            checkpoint_here(core, checkpointer)?;
        }
    }
    Ok(())
}

/// The thread has come no further: its pass is a long one, or it has met something. Waits for the
/// pass, and meets it here, to say so.
fn checkpoint_here(core: &Core, checkpointer: &Mutex<Checkpointer>) -> Result<()> {
    let mut checkpointer = checkpointer.lock();
    let before = core.watermarks.checkpointed();
    let visible = core.pager.registry.visible();
    let lsn = checkpointer.checkpoint(core)?;
    // There was something to do, and no other pass that would have been a reader meanwhile.
    if lsn == before && visible > before && journal_is_full(core) {
        return Err(journal_bound(core));
    }
    Ok(())
}

/// The same without a thread: the writer does what the checkpoint would.
fn make_room_here(core: &Core, checkpointer: &Mutex<Checkpointer>) -> Result<()> {
    let journal_bytes = core.journal.bytes_after(core.watermarks.checkpointed());
    let pool = &core.pager.pool;
    if journal_bytes >= core.bounds.checkpoint_distance {
        checkpointer.lock().checkpoint(core)?;
    } else if pool.memory_used() > pool.limits().memory_max / 2 {
        checkpointer.lock().write_early(core, 0)?;
    }
    if journal_is_full(core) { Err(journal_bound(core)) } else { Ok(()) }
}

fn journal_is_full(core: &Core) -> bool {
    core.journal.bytes_after(core.watermarks.checkpointed()) >= core.bounds.journal_max
}

fn journal_bound(core: &Core) -> Error {
    Error::Bound {
        option: "journal_max",
        max: core.bounds.journal_max,
        hint: "an old snapshot keeps the checkpoint back; end it (`report` says where it was \
               opened), or raise the bound",
    }
}

//! Back-pressure: writers wait while memory or journal are used up, so that what the checkpoint
//! cannot keep up with slows them down instead of growing.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use crate::{
    checkpoint::{Checkpointer, is_growth},
    error::{Error, Result},
    sync::Mutex,
    txn::{core::Core, signals::Ask},
};

/// How long a writer waits for the checkpoint before it looks again what keeps it.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Longest pause of a batch while the checkpoint is behind and nothing is used up yet: many short
/// ones instead of one long stop.
const PAUSE_MAX: Duration = Duration::from_millis(8);
/// Longest stop of a batch for memory; then it goes on with what is left, and with scratch files.
const STOP_MAX: Duration = Duration::from_millis(16);

/// Waits while memory or journal are used up, so that what the checkpoint cannot keep up with
/// slows writers down instead of growing.
pub(super) fn make_room(core: &Core, checkpointer: &Mutex<Checkpointer>) -> Result<()> {
    core.check_poison()?;
    if core.journal.is_short() {
        recycle_journal(core, checkpointer)?;
    }
    if !core.bounds.background {
        return make_room_here(core, checkpointer);
    }
    let pressure = pressure(core);
    if pressure > 0.0 {
        core.counters.pauses.fetch_add(1, Relaxed);
        core.signals.pause(PAUSE_MAX.mul_f64(pressure * pressure));
    }
    if pressure >= 1.0 && core.pager.pool.scratch_used() == 0 {
        core.counters.waits.fetch_add(1, Relaxed);
        core.signals.ask_and_wait(Ask::WriteEarly, STOP_MAX);
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

/// The disk is full: a checkpoint, which writes to pages that have their blocks, makes room in the
/// journal from what is there. Where it cannot, the write may still find room, or is refused.
fn recycle_journal(core: &Core, checkpointer: &Mutex<Checkpointer>) -> Result<()> {
    if !core.journal.would_free(core.pager.registry.visible()) {
        core.journal.look_for_room();
        return Ok(());
    }
    match checkpointer.lock().checkpoint(core) {
        Err(error) if is_growth(&error) || matches!(error, Error::Bound { .. }) => {
            tracing::warn!(%error, "the disk is full, and the journal cannot be recycled");
            Ok(())
        }
        done => done.map(|_| ()),
    }
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

/// How near writers are to a stop, from 0 to 1: memory between seven eighths of its bound, where the
/// checkpoint is asked to write, and fifteen sixteenths; the journal between twice the distance and
/// its bound.
fn pressure(core: &Core) -> f64 {
    let share = |used: u64, from: u64, to: u64| {
        used.saturating_sub(from) as f64 / to.saturating_sub(from).max(1) as f64
    };
    let memory_max = core.pager.pool.limits().memory_max as u64;
    let memory = core.pager.pool.memory_used() as u64;
    // With an old reader in the way, the checkpoint frees nothing, and scratch files are in use.
    let is_spilling = core.pager.pool.scratch_used() > 0;
    let memory =
        if is_spilling { 0.0 } else { share(memory, memory_max / 8 * 7, memory_max / 16 * 15) };
    let journal = checkpointable_len(core);
    let distance = core.bounds.checkpoint_distance.saturating_mul(2);
    let journal = share(journal, distance, core.bounds.journal_max);
    memory.max(journal).min(1.0)
}

/// The same without a thread: the writer does what the checkpoint would.
fn make_room_here(core: &Core, checkpointer: &Mutex<Checkpointer>) -> Result<()> {
    let journal_bytes = checkpointable_len(core);
    let pool = &core.pager.pool;
    let made = if journal_bytes >= core.bounds.checkpoint_distance {
        checkpointer.lock().checkpoint(core).map(|_| ())
    } else if pool.memory_used() > pool.limits().memory_max / 2 {
        checkpointer.lock().write_early(core, 0).map(|_| ())
    } else {
        Ok(())
    };
    match made {
        // The disk is full, and the journal is not: what makes room may go on, as with a thread.
        Err(error) if is_growth(&error) && !journal_is_full(core) => {
            tracing::warn!(%error, "the checkpoint waits for room on the disk");
        }
        made => made?,
    }
    if journal_is_full(core) { Err(journal_bound(core)) } else { Ok(()) }
}

fn journal_is_full(core: &Core) -> bool {
    checkpointable_len(core) >= core.bounds.journal_max
}

/// Bytes of journal that a checkpoint could make superfluous. What a replica has received and not applied
/// is not among them: only its own commits change that, and those must not wait for it.
fn checkpointable_len(core: &Core) -> u64 {
    let behind = core.journal.bytes_after(core.watermarks.checkpointed());
    if !core.replicated.is_on() {
        return behind;
    }
    behind.saturating_sub(core.journal.bytes_after(core.watermarks.committed()))
}

fn journal_bound(core: &Core) -> Error {
    Error::Bound {
        option: "journal_max",
        max: core.bounds.journal_max,
        hint: "an old snapshot keeps the checkpoint back; end it (`report` says where it was \
               opened), or raise the bound",
    }
}

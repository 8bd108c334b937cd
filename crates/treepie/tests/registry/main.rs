//! The registry of readers under loom: its source is compiled against loom's atomics, and small
//! models of what rests on it go through every order of their threads' operations in which threads
//! are interrupted five times at most where they do not wait by themselves.
//!
//! ```text
//! cargo test -p treepie --features loom --test registry
//! ```
//!
//! Each model is shown to find bugs that are planted. `TREEPIE_LOOM_PREEMPTIONS=<n>` sets another
//! bound than five.

mod sync;

/// What the registry uses of the engine.
mod error {
    pub use treepie::{Error, Result};
}

mod ids {
    pub use treepie::ids::Lsn;
}

#[path = "../../src/pager/readers.rs"]
#[allow(dead_code, unused_imports, reason = "models use a part of it, and not its unit tests")]
mod readers;

use std::{
    env,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64 as Counter, Ordering::Relaxed},
    },
    time::Instant,
};

use loom::thread;
use treepie_testkit::tally::{self, thousands};

use crate::{
    ids::Lsn,
    readers::{ReaderSlot, Registry},
    sync::{
        Planted,
        atomic::{AtomicU64, Ordering::*},
        is_planted, plant,
    },
};

/// Interruptions of threads that are gone through, unless the environment says otherwise.
const PREEMPTIONS: usize = 5;

fn preemptions() -> usize {
    let wanted = env::var("TREEPIE_LOOM_PREEMPTIONS").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(PREEMPTIONS)
}

/// A promise, and the model that shows it.
type Model = (&'static str, fn());

const OLDEST: Model = ("no page is overwritten that a reader still looks up", oldest_reader);
const BESIDE: Model = ("no page is overwritten while LSNs rise", checkpoint_beside_a_writer);
const TWO: Model = ("each of two readers has its slot and is seen", two_readers);
const TAKEN_OUT: Model = ("no version is used again that a reader may hold", taken_out);
const IN_PLACE: Model = ("no version is changed in place under a reader", changed_in_place);
const MODELS: [Model; 5] = [OLDEST, BESIDE, TWO, TAKEN_OUT, IN_PLACE];

const BUGS: [(Planted, Model); 8] = [
    (Planted::OneLook, OLDEST),
    (Planted::OneLook, BESIDE),
    (Planted::OneLook, TWO),
    (Planted::WeakOrder, OLDEST),
    (Planted::EpochClosedEarly, TAKEN_OUT),
    (Planted::NobodyAsked, TAKEN_OUT),
    (Planted::QuietReader, IN_PLACE),
    (Planted::TakenUnseen, IN_PLACE),
];

fn add(registry: &Registry) -> ReaderSlot {
    registry.add(0, Location::caller()).expect("a slot is free")
}

/// A writer publishes, and the checkpoint overwrites what is below the oldest reader: whoever
/// registers meanwhile is at that LSN or above.
fn oldest_reader() {
    let registry = Arc::new(Registry::new(1, Lsn(1)));
    let shared = Arc::clone(&registry);
    let reader = thread::spawn(move || add(&shared).lsn());
    registry.publish(Lsn(2));
    let overwritten_to = registry.oldest();
    let lsn = reader.join().expect("a reader");
    assert!(lsn >= overwritten_to, "a reader at {lsn} looks up what is overwritten");
}

/// The same with two commits and a checkpoint in a thread of its own, and a slot that changes hands.
fn checkpoint_beside_a_writer() {
    let registry = Arc::new(Registry::new(2, Lsn(1)));
    let first = add(&registry);
    let shared = Arc::clone(&registry);
    let reader = thread::spawn(move || add(&shared).lsn());
    let shared = Arc::clone(&registry);
    let checkpoint = thread::spawn(move || shared.oldest());
    registry.publish(Lsn(2));
    registry.remove(&first);
    registry.publish(Lsn(3));
    let overwritten_to = checkpoint.join().expect("the checkpoint");
    let lsn = reader.join().expect("a reader");
    assert!(lsn >= overwritten_to, "a reader at {lsn} looks up what is overwritten");
}

/// The same with two readers that register at a time.
fn two_readers() {
    let registry = Arc::new(Registry::new(2, Lsn(1)));
    let add = |_| {
        let shared = Arc::clone(&registry);
        thread::spawn(move || add(&shared))
    };
    let readers = [0, 1].map(add);
    registry.publish(Lsn(2));
    let overwritten_to = registry.oldest();
    let [one, other] = readers.map(|reader| reader.join().expect("a reader"));
    for reader in [&one, &other] {
        let lsn = reader.lsn();
        assert!(lsn >= overwritten_to, "a reader at {lsn} looks up what is overwritten");
    }
    assert!(one != other, "two readers have one slot");
    registry.remove(&one);
    assert_eq!(registry.oldest(), other.lsn(), "a reader is not seen");
}

/// A version is taken out of its chain, and its memory used again once nobody needs it: a reader
/// that has found it sees it whole.
fn taken_out() {
    const WHOLE: u64 = 7;
    const USED_AGAIN: u64 = 8;
    let registry = Arc::new(Registry::new(1, Lsn(1)));
    let chain = Arc::new((AtomicU64::new(1), AtomicU64::new(WHOLE)));
    let (shared, looked_at) = (Arc::clone(&registry), Arc::clone(&chain));
    let reader = thread::spawn(move || {
        let (is_there, frame) = &*looked_at;
        let reader = add(&shared);
        if is_there.load(Acquire) == 1 {
            assert_eq!(frame.load(Relaxed), WHOLE, "a version is used again under its reader");
        }
        shared.remove(&reader);
    });
    let (is_there, frame) = &*chain;
    let early = is_planted(Planted::EpochClosedEarly).then(|| registry.close_epoch());
    let early_readers = early.map(|_| registry.readers());
    is_there.store(0, Release);
    let epoch = early.unwrap_or_else(|| registry.close_epoch());
    let readers = early_readers.unwrap_or_else(|| registry.readers());
    let is_needed = readers.need(Lsn(1), Lsn(u64::MAX), epoch);
    if !is_needed || is_planted(Planted::NobodyAsked) {
        frame.store(USED_AGAIN, Relaxed);
    }
    reader.join().expect("a reader");
}

/// A writer hides a version and changes it in place, unless a reader is there by then.
fn changed_in_place() {
    const WHOLE: u64 = 7;
    const CHANGED: u64 = 8;
    let registry = Arc::new(Registry::new(2, Lsn(2)));
    let version = Arc::new((AtomicU64::new(1), AtomicU64::new(WHOLE)));
    let (shared, looked_at) = (Arc::clone(&registry), Arc::clone(&version));
    let reader = thread::spawn(move || {
        let (is_shown, bytes) = &*looked_at;
        let reader = add(&shared);
        if is_shown.load(Acquire) == 1 {
            assert_eq!(bytes.load(Relaxed), WHOLE, "a version changes under its reader");
        }
        shared.remove(&reader);
    });
    let (is_shown, bytes) = &*version;
    if Lsn(2) > registry.latest() {
        is_shown.store(0, SeqCst);
        sync::atomic::fence(SeqCst);
        if Lsn(2) > registry.latest() || is_planted(Planted::TakenUnseen) {
            bytes.store(CHANGED, Relaxed);
        } else {
            is_shown.store(1, Release);
        }
    }
    reader.join().expect("a reader");
}

/// Goes through all orders; returns how many, or what was said first when one fails.
fn explore(model: Model) -> Result<u64, String> {
    let count = Arc::new(Counter::new(0));
    let counted = Arc::clone(&count);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions());
    let said = FirstPanic::listen();
    let result = catch_unwind(AssertUnwindSafe(|| {
        builder.check(move || {
            counted.fetch_add(1, Relaxed);
            model.1();
        });
    }));
    let count = count.load(Relaxed);
    let said = said.end();
    result.map(|()| count).map_err(|_| format!("after {count} orders: {said}"))
}

/// Keeps what the first panic says: later ones are its consequences.
struct FirstPanic(Arc<Mutex<Option<String>>>);

impl FirstPanic {
    fn listen() -> FirstPanic {
        let first = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&first);
        std::panic::set_hook(Box::new(move |info| {
            // Loom ends its threads with panics that say nothing.
            let Some(said) = info.payload_as_str() else { return };
            kept.lock().expect("nobody panics here").get_or_insert_with(|| said.to_owned());
        }));
        FirstPanic(first)
    }

    fn end(self) -> String {
        drop(std::panic::take_hook());
        self.0.lock().expect("nobody panics here").take().unwrap_or_default()
    }
}

fn main() -> ExitCode {
    let begin = Instant::now();
    let (mut orders, mut found) = (0, 0);
    for model in MODELS {
        match explore(model) {
            Ok(count) => {
                println!("{}: {count} orders", model.0);
                orders += count;
            }
            Err(what) => {
                println!("FAILED: {}: {what}", model.0);
                return ExitCode::FAILURE;
            }
        }
    }
    for (bug, model) in BUGS {
        plant(Some(bug));
        let result = explore(model);
        plant(None);
        match result {
            Ok(count) => println!("{bug:?}: NOT FOUND in {count} orders of: {}", model.0),
            Err(what) => {
                println!("{bug:?}: found {}", what.lines().next().unwrap_or_default());
                found += 1;
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let counts = format!(
        "{} orders with up to {} preemptions of {} models, {found} of {} planted bugs found, \
         in {seconds:.0} s",
        thousands(orders),
        preemptions(),
        MODELS.len(),
        BUGS.len()
    );
    tally::note(7, "schedules, loom", &counts);
    if found == BUGS.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

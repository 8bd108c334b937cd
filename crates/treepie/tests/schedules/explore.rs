//! Running a scenario under many schedules, and reporting the one that fails.

use std::{
    cell::{Cell, RefCell},
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use shuttle::{Config, FailurePersistence, MaxSteps, Runner, UngracefulShutdownConfig};
use treepie::schedules::{Planted, plant};
use treepie_testkit::{
    hash_bytes, mix,
    tally::{self, thousands},
};

use crate::{planted::BUGS, strategy::Strategies};

/// Schedules of all tests together, unless `TREEPIE_SCHEDULES` says otherwise.
const COUNT: u64 = 100_000;
/// The tests and their shares of it, in thousandths.
const SHARES: [(&str, u64); 13] = [
    ("writers", 200),
    ("readers", 150),
    ("readers of weaker writes", 80),
    ("checkpoint", 120),
    ("scrub", 20),
    ("copies", 20),
    ("poison", 90),
    ("failing checkpoint", 40),
    ("submit", 100),
    ("pressure", 40),
    ("mixed", 50),
    ("directory", 60),
    ("walks", 30),
];
const _: () = {
    let (mut sum, mut index) = (0, 0);
    while index < SHARES.len() {
        sum += SHARES[index].1;
        index += 1;
    }
    assert!(sum == 1000, "shares are thousandths");
};
/// Bytes of a simulated thread's stack.
const STACK_SIZE: usize = 512 << 10;
/// Decisions after which a schedule counts as one that never ends.
const STEPS_MAX: usize = 300_000;

/// A schedule under which a scenario failed.
#[derive(Debug)]
pub struct Failure {
    /// How many schedules before it did not fail.
    pub after: u64,
    /// What repeats it.
    pub seed: u64,
    /// What was said first.
    pub message: String,
}

/// Runs a scenario under its share of all schedules.
///
/// # Panics
/// If it fails under one.
pub fn explore(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    let begin = Instant::now();
    let share = SHARES.iter().find(|share| share.0 == name).expect("the test has a share").1;
    let seeds = match number("TREEPIE_SCHEDULE") {
        Some(seed) => vec![seed],
        None => seeds(name, number("TREEPIE_SCHEDULES").unwrap_or(COUNT) * share / 1000),
    };
    let count = seeds.len();
    if let Some(failure) = first_failure(seeds, scenario) {
        let Failure { after, seed, message } = failure;
        panic!("{name} fails after {after} schedules: {message}\nTREEPIE_SCHEDULE={seed}");
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{name}: {count} schedules, {:.0} a second", count as f64 / seconds);
    note(count as u64);
}

/// Notes the schedules of all tests together once the last one has ended.
fn note(count: u64) {
    static DONE: Mutex<(usize, u64)> = Mutex::new((0, 0));
    let mut done = DONE.lock().expect("nobody panics here");
    *done = (done.0 + 1, done.1 + count);
    if done.0 == SHARES.len() {
        let counts = format!("{} schedules of {} tests", thousands(done.1), done.0);
        tally::note(7, "schedules, shuttle", &counts);
    }
}

/// Plants a bug, and runs a scenario until a schedule shows it.
///
/// # Panics
/// If none of `count` schedules does, or if what it shows is something else than `sign`.
pub fn expect_found(
    bug: Planted,
    count: u64,
    sign: &str,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    let begin = Instant::now();
    plant(Some(bug));
    IS_QUIET.set(true);
    let failure = first_failure(seeds(&format!("{bug:?}"), count), scenario);
    IS_QUIET.set(false);
    plant(None);
    let failure = failure.unwrap_or_else(|| panic!("{bug:?} is not found in {count} schedules"));
    let Failure { after, seed, message } = failure;
    let message = message.lines().next().unwrap_or_default();
    println!(
        "{bug:?}: found after {after} schedules and {:?} (seed {seed}): {message}",
        begin.elapsed()
    );
    assert!(message.contains(sign), "{bug:?} shows as {message:?}, not as {sign:?}");
    static FOUND: AtomicU64 = AtomicU64::new(0);
    let bugs = BUGS.len();
    if FOUND.fetch_add(1, Relaxed) + 1 == bugs as u64 {
        tally::note(14, "planted bugs, schedules", &format!("{bugs} of {bugs} found"));
    }
}

fn first_failure(seeds: Vec<u64>, scenario: impl Fn() + Send + Sync + 'static) -> Option<Failure> {
    keep_first_message();
    let all = seeds.clone();
    let strategies = Strategies::new(seeds);
    let progress = strategies.progress();
    FIRST_MESSAGE.take();
    let run = AssertUnwindSafe(|| Runner::new(strategies, config()).run(scenario));
    catch_unwind(run).err().map(|_| {
        let seed = progress.seed();
        let after = all.iter().position(|other| *other == seed).unwrap_or_default() as u64;
        Failure { after, seed, message: FIRST_MESSAGE.take().unwrap_or_default() }
    })
}

/// Runs a scenario under some schedules; returns a hash of all their decisions.
pub fn trace(seeds: Vec<u64>, scenario: impl Fn() + Send + Sync + 'static) -> u64 {
    let strategies = Strategies::new(seeds);
    let progress = strategies.progress();
    Runner::new(strategies, config()).run(scenario);
    progress.trace()
}

/// How schedules are simulated.
pub fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = STACK_SIZE;
    // The seed says it in one line.
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    let mut shutdown = UngracefulShutdownConfig::default();
    // What else would run after a failure can only hide it.
    shutdown.immediately_return_on_panic = true;
    config.ungraceful_shutdown_config = shutdown;
    config
}

/// The seeds of the first schedules of a test.
pub fn seeds(name: &str, count: u64) -> Vec<u64> {
    let first = hash_bytes(name.as_bytes());
    (0..count).map(|index| mix(first, index)).collect()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

thread_local! {
    static FIRST_MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether failures are what is wanted, and so not shown.
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Keeps what the first panic of this thread's schedules says: later ones are its consequences.
fn keep_first_message() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            FIRST_MESSAGE.with_borrow_mut(|first| {
                first.get_or_insert_with(|| info.payload_as_str().unwrap_or_default().to_owned());
            });
            if !IS_QUIET.get() {
                before(info);
            }
        }));
    });
}

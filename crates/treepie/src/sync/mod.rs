//! What threads meet at: the one place from which the engine takes locks, conditions, atomics whose
//! order matters, thread-local values and threads.
//!
//! A normal build takes them from `parking_lot` and the standard library (`real`). With the feature
//! `shuttle`, which is for the engine's own tests alone, they are simulated (`scheduled`): a
//! scheduler then decides who runs at each of them, and tests go through many of its decisions
//! (`tests/schedules`). Nothing of such a build works outside of a simulation.
//!
//! A [`LeafMutex`] is a real one in both: nobody waits, does I/O or takes another lock inside.

mod flag;
mod planted;
#[cfg(not(feature = "shuttle"))]
mod real;
#[cfg(feature = "shuttle")]
mod scheduled;

use std::time::{Duration, Instant};

pub use parking_lot::{Mutex as LeafMutex, MutexGuard as LeafMutexGuard};

#[cfg(any(feature = "shuttle", feature = "planted"))]
pub use self::planted::plant;
#[cfg(feature = "planted")]
pub use self::planted::plant_for_good;
#[cfg(not(feature = "shuttle"))]
pub use self::real::*;
#[cfg(feature = "shuttle")]
pub use self::scheduled::*;
pub use self::{
    flag::Flag,
    planted::{Planted, is_planted},
};

/// The moment that is `wait` from `begin`; far away where that cannot be told.
pub fn deadline(begin: Instant, wait: Duration) -> Instant {
    begin.checked_add(wait).unwrap_or_else(|| begin + Duration::from_secs(1 << 30))
}

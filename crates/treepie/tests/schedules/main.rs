//! Schedules: the engine's locks, atomics and threads are simulated, and each test goes through
//! thousands of orders in which they may meet. It runs with the feature `shuttle` alone:
//!
//! ```text
//! cargo test -p treepie --features shuttle --test schedules
//! ```
//!
//! All tests together go through `TREEPIE_SCHEDULES` schedules (100,000 by default), each drawn from
//! a seed of its own. A failure prints the seed; `TREEPIE_SCHEDULE=<seed>` runs that one alone.

mod checkpoint;
mod copies;
mod directory;
mod disk;
mod explore;
mod mixed;
mod planted;
mod poison;
mod pressure;
mod readers;
mod repeat;
mod scrub;
mod strategy;
mod submit;
mod world;
mod writers;

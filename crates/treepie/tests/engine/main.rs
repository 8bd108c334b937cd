//! The engine as a whole, against a model: on a simulated disk that loses, tears and refuses, and
//! on a real one.
//!
//! Everything random follows from a seed, and every failure prints it. `TREEPIE_SEED=<n>` runs one
//! seed alone where a test goes through many; `TREEPIE_SEEDS=<n>` goes through n times as many.

mod bad_input;
mod batches;
mod bit_flips;
mod concurrency;
mod faults;
mod harness;
mod hostile_files;
mod hostile_pages;
mod merged_model;
mod merging;
mod misuse;
mod model;
mod pipeline_cuts;
mod pipeline_faults;
mod planted;
mod power_cuts;
mod recovery;
mod recovery_cuts;
mod savepoints;
mod sectors;
mod submit;
mod thread_cuts;

//! The engine as a whole, against a model: on a simulated disk that loses, tears and refuses, and
//! on a real one.
//!
//! Everything random follows from a seed, and every failure prints it; where real threads or
//! processes race, who comes first does not: then what fails keeps its image or folder, or prints
//! what it saw. `TREEPIE_SEED=<n>` runs one
//! seed alone where a test goes through many; `TREEPIE_SEEDS=<n>` goes through n times as many.
//! `TREEPIE_SCRIPT=<file>` runs a script that a failure printed.

mod bad_input;
mod batches;
mod bit_flips;
mod concurrency;
mod copies;
mod exhaustive;
mod failing_calls;
mod faults;
mod full_disk;
mod harness;
mod hostile_files;
mod hostile_pages;
mod install;
mod kills;
mod life;
mod merged_model;
mod merging;
mod misuse;
mod model;
mod others;
mod pipeline_cuts;
mod pipeline_faults;
#[cfg(feature = "planted")]
mod planted_bugs;
mod power_cuts;
mod records;
mod recovery;
mod recovery_cuts;
mod removals;
mod repair;
mod replication;
mod replication_threads;
mod ruled_disk;
mod salvage;
mod savepoints;
mod script_cuts;
mod script_model;
mod scrub;
mod sectors;
mod shorten;
mod submit;
mod thread_cuts;

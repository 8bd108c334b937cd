//! A repository in a folder of a disk that loses power and fails.

mod conflicts;
mod failing_calls;
mod full_disk;
mod harness;
mod poisoned;
mod power_cuts;
mod readers;

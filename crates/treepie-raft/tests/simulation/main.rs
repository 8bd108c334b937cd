//! Clusters in one thread, from one seed: a network that loses, doubles and reorders, clocks that
//! disagree, processes that end and pause, disks that lose what was not synced, and members that change.

mod check;
mod engine;
mod engine_runs;
mod faults;
mod hostile;
mod model;
mod node;
mod ops;
mod rivals;
mod runs;
mod store;
mod world;

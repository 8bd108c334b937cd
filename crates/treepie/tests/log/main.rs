//! The journal as a log of consensus, by itself on a simulated disk: random scripts of appends, hard
//! states, syncs, truncations, trims and kills, against a model.
//!
//! ```text
//! cargo test -p treepie --features planted --test log
//! ```

mod cuts;
mod failing;
mod model;
mod planted;
mod run;

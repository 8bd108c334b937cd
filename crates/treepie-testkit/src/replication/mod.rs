//! Conformance of the replication door: nodes in one thread, whose records are passed by hand, and the
//! promises that hold for whoever replicates a database.
//!
//! - [`Site`] is one node: a database on a simulated disk, its door, and what came out of it.
//! - [`promises`] are small scripts, one for each promise of the door.
//! - [`script`] is a random one, of three sites, against a model: leaders come and go, records are lost,
//!   the power is cut.
//! - [`cuts`] cuts the power at every operation of a follower.
//!
//! A replication layer of another kind runs the same [`promises`] on its own options: they ask for nothing
//! but how a database is opened.

mod compare;
pub mod cuts;
pub mod promises;
mod returns;
pub mod script;

mod site;
mod steps;

pub use site::{DIR, Site, fingerprint, options};

//! What Treepie's tests stand on: a simulated disk that loses, tears and reorders what was not
//! synced, a model of a database to compare with, seeded workloads, and scripts that become short
//! while they still fail. Everything follows from seeds: the same seed gives the same trace, and a
//! failure prints its seed.
//!
//! A harness for power cuts runs a workload once and looks at every cut:
//!
//! ```
//! use std::path::Path;
//! use treepie::disk::{Disk, OpenMode};
//! use treepie_testkit::SimDisk;
//!
//! let disk = SimDisk::new(7);
//! let file = disk.open(Path::new("data"), OpenMode::CreateNew)?;
//! disk.sync_dir(Path::new(""))?;
//! file.write_at(0, b"first")?;
//! file.sync_data()?;
//! disk.mark(1); // acknowledged
//! file.write_at(0, b"other")?;
//!
//! let log = disk.log();
//! let mut player = log.player(7);
//! while player.advance() {
//!     for seed in 0..10 {
//!         let after_the_cut = player.image(seed);
//!         if player.acknowledged() == Some(1) {
//!             let bytes = after_the_cut.file_bytes(Path::new("data")).expect("its name was synced");
//!             assert!(bytes == b"first" || bytes == b"other", "seed {seed}");
//!         }
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod hostile;
pub mod model;
pub mod replication;
mod rng;
pub mod script;
mod sim;
pub mod tally;
pub mod workload;

pub use rng::{Rng, hash_bytes, mix};
pub use sim::{
    disk::SimDisk,
    fault::{Call, Fault, FaultError, PlantedBug},
    log::Log,
    player::Player,
};

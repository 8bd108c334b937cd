//! The built command, run as its users run it.
#![allow(clippy::unwrap_used, reason = "a test that meets an unexpected `None` stops right there")]

#[path = "cli/arguments.rs"]
mod arguments;
#[path = "cli/backup.rs"]
mod backup;
#[path = "cli/backup_doc.rs"]
mod backup_doc;
#[path = "cli/certificates.rs"]
mod certificates;
#[path = "cli/cluster.rs"]
mod cluster;
#[path = "cli/damage.rs"]
mod damage;
#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/entries.rs"]
mod entries;
#[path = "cli/inspection.rs"]
mod inspection;
#[path = "cli/load.rs"]
mod load;
#[path = "cli/lock.rs"]
mod lock;
#[path = "cli/repository.rs"]
mod repository;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/scan.rs"]
mod scan;
#[path = "cli/service.rs"]
mod service;

//! The hard spots of a node: an exchange of its database that is cut off, disks that fail or are slow,
//! threads that panic, pages that rot. Real sockets, threads and files, in one process; tests step in at
//! the points of `src/node/probe.rs`. Each check is shown to find a bug that is planted.

mod cluster;
mod disk;
mod exchange;
mod failures;
mod gate;
mod resumed;
mod rot;
mod slow;

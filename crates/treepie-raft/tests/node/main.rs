//! Nodes with real sockets, threads and files, in one process.

mod cluster;
mod replication;

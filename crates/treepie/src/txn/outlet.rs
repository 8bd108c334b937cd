//! Where sealed records go in a replicated database, and what it is in its cluster.

use crate::format::shared::SharedRecord;

/// Where sealed records go.
pub trait Outlet: Send + Sync {
    /// Takes a record that was just sealed: it is the one behind the record before, in every respect. It
    /// is called by the writer, in the order of the LSNs, and must only hand the record over: it must not
    /// wait, and must not call the database.
    fn sealed(&self, record: SharedRecord);

    /// The writer has let go after it has sealed something: what takes time, and must not call the
    /// database for writes, can be done here. It is called by the thread that has sealed, without locks.
    fn released(&self) {}
}

/// What a database is in a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Not in one.
    #[default]
    Standalone = 0,
    /// It applies what others have sealed, and takes no writes.
    Follower = 1,
    /// It takes writes.
    Leader = 2,
}

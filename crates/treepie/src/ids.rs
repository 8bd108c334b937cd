//! Newtypes of the numbers that the engine counts with. They do not mix.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// Number of a page of the data file, from 0. A page keeps its number for life.
    PageId(u32)
}

id! {
    /// Log sequence number: the number of a replicated record, from 1, without gaps. It is also
    /// the Raft index and the MVCC version. 0 is the state before the first record.
    Lsn(u64)
}

id! {
    /// Raft term; 0 when never replicated.
    Term(u64)
}

id! {
    /// Number of a tree, for life and never used again. 0 owns no pages, 1 is the catalog.
    TreeId(u32)
}

impl Lsn {
    /// The LSN of the record that follows.
    #[must_use]
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl TreeId {
    /// Owner of pages that belong to no tree (meta pages and free-space bitmaps).
    pub const NONE: TreeId = TreeId(0);
    /// The tree of tree names.
    pub const CATALOG: TreeId = TreeId(1);
}

/// Identity of a database: 16 random bytes, drawn at creation (a version 4 UUID).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DatabaseId(pub [u8; 16]);

impl DatabaseId {
    /// Makes a version 4 UUID of 16 random bytes.
    #[must_use]
    pub fn from_random(mut bytes: [u8; 16]) -> DatabaseId {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        DatabaseId(bytes)
    }
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_id_prints_as_a_version_4_uuid() {
        let id = DatabaseId::from_random([0xff; 16]);
        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}

//! Catalog entry: where a tree is and what it holds, 64 bytes, the value of its name in the catalog.
//!
//! | Offset | Size | Field            | Meaning                                            |
//! |-------:|-----:|------------------|----------------------------------------------------|
//! |      0 |    1 | `kind`           | 1: keys with one value each                        |
//! |      1 |    1 | `depth`          | Levels, from 1: a root that is a leaf              |
//! |      2 |    2 | `reserved`       | Zero                                               |
//! |      4 |    4 | `id`             | Number of the tree                                 |
//! |      8 |    4 | `root`           | Its root page, for life                            |
//! |     12 |    4 | `leaf_pages`     | Leaves                                             |
//! |     16 |    4 | `branch_pages`   | Branches                                           |
//! |     20 |    4 | `overflow_pages` | Pages of all runs                                  |
//! |     24 |    8 | `entries`        | Entries                                            |
//! |     32 |    8 | `payload_len`    | Bytes of all keys and values                       |
//! |     40 |    4 | `next_tree`      | In the catalog's entry about itself: number of the next tree; else zero |
//! |     44 |   20 | `reserved`       | Zero                                               |

use crate::{
    error::{Damage, Structure},
    ids::{PageId, TreeId},
    limits::TREE_DEPTH_MAX,
};

use super::bytes::{get_u16, get_u32, get_u64, is_zero, put_u32, put_u64};

/// Size of a catalog entry in bytes.
pub const TREE_STATE_SIZE: usize = 64;
const KIND_MAP: u8 = 1;
const NEXT_TREE_OFFSET: usize = 40;
const RESERVED_OFFSET: usize = 40;
const _: () = assert!(TREE_STATE_SIZE == 1 + 1 + 2 + 4 + 4 + 4 + 4 + 4 + 8 + 8 + 4 + 20);

/// Where a tree is and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeState {
    /// Number of the tree.
    pub id: TreeId,
    /// Its root page, for life.
    pub root: PageId,
    /// Levels, from 1.
    pub depth: u8,
    /// Entries.
    pub entries: u64,
    /// Leaf pages.
    pub leaf_pages: u32,
    /// Branch pages.
    pub branch_pages: u32,
    /// Pages of all overflow runs.
    pub overflow_pages: u32,
    /// Bytes of all keys and values.
    pub payload_len: u64,
}

impl TreeState {
    /// The 64 bytes of the entry.
    #[must_use]
    pub fn encode(&self) -> [u8; TREE_STATE_SIZE] {
        let mut bytes = [0; TREE_STATE_SIZE];
        bytes[0] = KIND_MAP;
        bytes[1] = self.depth;
        put_u32(&mut bytes, 4, self.id.0);
        put_u32(&mut bytes, 8, self.root.0);
        put_u32(&mut bytes, 12, self.leaf_pages);
        put_u32(&mut bytes, 16, self.branch_pages);
        put_u32(&mut bytes, 20, self.overflow_pages);
        put_u64(&mut bytes, 24, self.entries);
        put_u64(&mut bytes, 32, self.payload_len);
        bytes
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`Damage::Layout`] when it is none.
    pub fn decode(bytes: &[u8]) -> Result<TreeState, Damage> {
        let damage = |what| Err(Damage::layout(Structure::CatalogEntry, what));
        let Some(bytes) = bytes.first_chunk::<TREE_STATE_SIZE>().filter(|b| b.len() == bytes.len())
        else {
            return damage("it does not have 64 bytes");
        };
        let state = TreeState {
            id: TreeId(get_u32(bytes, 4)),
            root: PageId(get_u32(bytes, 8)),
            depth: bytes[1],
            entries: get_u64(bytes, 24),
            leaf_pages: get_u32(bytes, 12),
            branch_pages: get_u32(bytes, 16),
            overflow_pages: get_u32(bytes, 20),
            payload_len: get_u64(bytes, 32),
        };
        if bytes[0] != KIND_MAP {
            return damage("unknown kind of tree");
        }
        if get_u16(bytes, 2) != 0 || !is_zero(&bytes[RESERVED_OFFSET..]) {
            return damage("reserved bytes are not zero");
        }
        if !(1..=TREE_DEPTH_MAX).contains(&usize::from(state.depth)) {
            return damage("the depth is out of range");
        }
        if state.id == TreeId::NONE || state.root.0 < 2 {
            return damage("the tree has no number, or no root");
        }
        Ok(state)
    }
}

/// The catalog's entry about itself: its state, and the number of the next tree.
#[must_use]
pub fn encode_own(state: &TreeState, next_tree: u32) -> [u8; TREE_STATE_SIZE] {
    let mut bytes = state.encode();
    put_u32(&mut bytes, NEXT_TREE_OFFSET, next_tree);
    bytes
}

/// Reads the catalog's entry about itself.
///
/// # Errors
/// [`Damage::Layout`] when it is none.
pub fn decode_own(bytes: &[u8]) -> Result<(TreeState, u32), Damage> {
    let next_tree = get_u32(bytes, NEXT_TREE_OFFSET);
    if next_tree <= TreeId::CATALOG.0 {
        let what = "the number of the next tree is one that no tree can get";
        return Err(Damage::layout(Structure::CatalogEntry, what));
    }
    let mut bytes = bytes.to_vec();
    if let Some(field) = bytes.get_mut(NEXT_TREE_OFFSET..NEXT_TREE_OFFSET + 4) {
        field.fill(0);
    }
    Ok((TreeState::decode(&bytes)?, next_tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: TreeState = TreeState {
        id: TreeId(0x0102),
        root: PageId(0x0304),
        depth: 5,
        entries: 0x0607,
        leaf_pages: 0x08,
        branch_pages: 0x09,
        overflow_pages: 0x0a,
        payload_len: 0x0b0c,
    };

    #[test]
    fn catalog_entry_has_these_bytes() {
        let golden = [
            1, 5, 0, 0, 2, 1, 0, 0, 4, 3, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0, 7, 6, 0, 0, 0,
            0, 0, 0, 0x0c, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(STATE.encode(), golden);
        assert_eq!(TreeState::decode(&golden), Ok(STATE));
    }

    #[test]
    fn next_tree_never_gets_the_number_of_no_tree_or_of_the_catalog() {
        assert_eq!(decode_own(&encode_own(&STATE, 2)), Ok((STATE, 2)));
        for next_tree in [0, 1] {
            assert!(decode_own(&encode_own(&STATE, next_tree)).is_err());
        }
    }

    #[test]
    fn malformed_catalog_entries_are_refused() {
        for offset in [0, 1, 2, 3, 40, 63] {
            let mut bytes = STATE.encode();
            bytes[offset] = 0xee;
            assert!(TreeState::decode(&bytes).is_err(), "byte {offset}");
        }
        assert!(TreeState::decode(&STATE.encode()[..63]).is_err());
        assert!(TreeState::decode(&[1; 65]).is_err());
    }
}

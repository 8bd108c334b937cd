//! Progress of an installation: the file `installing` beside a data file that is being made of a
//! stream of pages and records. Replaced as a whole by each new one.
//!
//! | Offset | Size | Field          | Meaning                                                    |
//! |-------:|-----:|----------------|------------------------------------------------------------|
//! |      0 |    8 | `magic`        | `TREEPIEI`                                                 |
//! |      8 |    4 | `version`      | Format version, now 1                                      |
//! |     12 |    4 | `checksum`     | CRC-32 of the file but these 4 bytes                       |
//! |     16 |    1 | `stage`        | 1 complete, 2 pages are being written, 3 records are       |
//! |     17 |    7 | `reserved`     | Zero                                                       |
//! |     24 |   16 | `database_id`  | Lineage of the state                                       |
//! |     40 |    8 | `epoch`        | Lineage of the state                                       |
//! |     48 |    8 | `forked_at`    | Lineage of the state                                       |
//! |     56 |    8 | `forked_chain` | Lineage of the state                                       |
//! |     64 |    4 | `page_size`    | Bytes of a page                                            |
//! |     68 |    4 | `page_count`   | One past the highest page in use                           |
//! |     72 |    8 | `lsn`          | The state: with stage 2 the one that is coming, else the one that is durable |
//! |     80 |    8 | `chain`        | Chain hash of the record with that LSN                     |
//! |     88 |    8 | `created_us`   | When the database was created, microseconds since 1970     |
//! |     96 |    8 | `base_lsn`     | Stage 2: the state that the pages were put on; 0: none     |
//! |    104 |    8 | `base_chain`   | Stage 2: its chain hash; stage 3: that of `written_to`     |
//! |    112 |    4 | `next_page`    | Stage 2: pages below this one are durable                  |
//! |    116 |    4 | `reserved`     | Zero                                                       |
//! |    120 |    8 | `written_to`   | Stage 3: highest LSN that pages may have changes of        |
//!
//! One that is damaged, or of another version, is as good as none: the installation begins anew.

use crate::ids::{DatabaseId, Lsn, PageId};

use super::{
    bytes::{get_array, get_u32, get_u64, is_zero, put_array, put_u32, put_u64},
    meta::{Lineage, Meta},
};

/// Length of the file in bytes.
pub const INSTALLING_SIZE: usize = 128;
const MAGIC: [u8; 8] = *b"TREEPIEI";
const VERSION: u32 = 1;
const CHECKSUM_OFFSET: usize = 12;
const _: () = assert!(INSTALLING_SIZE == 8 + 4 + 4 + 8 + 16 + 3 * 8 + 2 * 4 + 5 * 8 + 2 * 4 + 8);

/// What pages, taken together, are the state of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseState {
    /// Its lineage.
    pub lineage: Lineage,
    /// Size of a page in bytes.
    pub page_size: usize,
    /// One past the highest page in use.
    pub page_count: u32,
    /// The state is that after this record.
    pub lsn: Lsn,
    /// Chain hash of that record.
    pub chain: u64,
    /// When the database was created, microseconds since 1970.
    pub created_us: u64,
}

/// How far an installation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Nothing is there.
    Nothing,
    /// All pages of this state are there, and durable.
    State(DatabaseState),
    /// Pages of the state `coming` are being put on another state, or on nothing.
    Pages {
        /// The state that they lead to.
        coming: DatabaseState,
        /// LSN and chain hash of the state that they are put on.
        base: Option<(Lsn, u64)>,
        /// Pages below this one are durable.
        next: PageId,
    },
    /// Records are being applied to a state.
    Records {
        /// The durable state.
        state: DatabaseState,
        /// Pages may have changes of records up to this one: less than that cannot be reached.
        written_to: Lsn,
        /// Its chain hash: only the history that has it can be gone on with.
        written_chain: u64,
    },
}

impl Reached {
    /// The file.
    ///
    /// # Panics
    /// If nothing is reached: that is no file.
    #[must_use]
    pub fn encode(&self) -> [u8; INSTALLING_SIZE] {
        let mut bytes = [0; INSTALLING_SIZE];
        let (stage, state) = match self {
            Reached::Nothing => panic!("nothing is written of nothing"),
            Reached::State(state) => (1, state),
            Reached::Pages { coming, base, next } => {
                let (lsn, chain) = base.unwrap_or((Lsn(0), 0));
                put_u64(&mut bytes, 96, lsn.0);
                put_u64(&mut bytes, 104, chain);
                put_u32(&mut bytes, 112, next.0);
                (2, coming)
            }
            Reached::Records { state, written_to, written_chain } => {
                put_u64(&mut bytes, 104, *written_chain);
                put_u64(&mut bytes, 120, written_to.0);
                (3, state)
            }
        };
        put_array(&mut bytes, 0, &MAGIC);
        put_u32(&mut bytes, 8, VERSION);
        put_array(&mut bytes, 16, &[stage]);
        put_array(&mut bytes, 24, &state.lineage.database_id.0);
        put_u64(&mut bytes, 40, state.lineage.epoch);
        put_u64(&mut bytes, 48, state.lineage.forked_at.0);
        put_u64(&mut bytes, 56, state.lineage.forked_chain);
        put_u32(&mut bytes, 64, u32::try_from(state.page_size).expect("pages are small"));
        put_u32(&mut bytes, 68, state.page_count);
        put_u64(&mut bytes, 72, state.lsn.0);
        put_u64(&mut bytes, 80, state.chain);
        put_u64(&mut bytes, 88, state.created_us);
        let checksum = checksum(&bytes);
        put_u32(&mut bytes, CHECKSUM_OFFSET, checksum);
        bytes
    }

    /// Reads the file; nothing where it is not valid.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Reached {
        Reached::decode_valid(bytes).unwrap_or(Reached::Nothing)
    }

    fn decode_valid(bytes: &[u8]) -> Option<Reached> {
        let is_whole = bytes.len() == INSTALLING_SIZE
            && get_array(bytes, 0) == MAGIC
            && get_u32(bytes, CHECKSUM_OFFSET) == checksum(bytes)
            && get_u32(bytes, 8) == VERSION
            && is_zero(bytes.get(17..24)?)
            && get_u32(bytes, 116) == 0;
        let page_size = usize::try_from(get_u32(bytes, 64)).ok()?;
        if !is_whole || !Meta::is_page_size(page_size) {
            return None;
        }
        let state = DatabaseState {
            lineage: Lineage {
                database_id: DatabaseId(get_array(bytes, 24)),
                epoch: get_u64(bytes, 40),
                forked_at: Lsn(get_u64(bytes, 48)),
                forked_chain: get_u64(bytes, 56),
            },
            page_size,
            page_count: get_u32(bytes, 68),
            lsn: Lsn(get_u64(bytes, 72)),
            chain: get_u64(bytes, 80),
            created_us: get_u64(bytes, 88),
        };
        match bytes.get(16)? {
            1 => Some(Reached::State(state)),
            2 => {
                let base = (Lsn(get_u64(bytes, 96)), get_u64(bytes, 104));
                let base = Some(base).filter(|base| base.0 > Lsn(0));
                Some(Reached::Pages { coming: state, base, next: PageId(get_u32(bytes, 112)) })
            }
            3 => Some(Reached::Records {
                state,
                written_to: Lsn(get_u64(bytes, 120)),
                written_chain: get_u64(bytes, 104),
            }),
            _ => None,
        }
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..CHECKSUM_OFFSET).unwrap_or(&[]));
    hasher.update(bytes.get(CHECKSUM_OFFSET + 4..).unwrap_or(&[]));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> DatabaseState {
        DatabaseState {
            lineage: Lineage {
                database_id: DatabaseId(*b"0123456789abcdef"),
                epoch: 2,
                forked_at: Lsn(3),
                forked_chain: 4,
            },
            page_size: 4096,
            page_count: 5,
            lsn: Lsn(6),
            chain: 7,
            created_us: 8,
        }
    }

    fn all() -> [Reached; 4] {
        let (coming, base) = (state(), Some((Lsn(2), 9)));
        [
            Reached::State(state()),
            Reached::Pages { coming, base, next: PageId(10) },
            Reached::Pages { coming, base: None, next: PageId(2) },
            Reached::Records { state: state(), written_to: Lsn(11), written_chain: 12 },
        ]
    }

    #[test]
    fn progress_file_has_these_bytes() {
        let bytes = all()[1].encode();
        let mut golden = b"TREEPIEI\x01\0\0\0".to_vec();
        golden.extend(checksum(&bytes).to_le_bytes());
        golden.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend(b"0123456789abcdef");
        for number in [2_u64, 3, 4] {
            golden.extend(number.to_le_bytes());
        }
        golden.extend([0, 16, 0, 0, 5, 0, 0, 0]);
        for number in [6_u64, 7, 8, 2, 9] {
            golden.extend(number.to_le_bytes());
        }
        golden.extend([10, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([0; 8]);
        assert_eq!(bytes.as_slice(), golden);
    }

    #[test]
    fn progress_is_read_as_it_was_written_and_not_at_all_when_it_is_damaged() {
        for reached in all() {
            let bytes = reached.encode();
            assert_eq!(Reached::decode(&bytes), reached);
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes;
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Reached::decode(&damaged), Reached::Nothing, "bit {bit}");
            }
            assert_eq!(Reached::decode(&bytes[..bytes.len() - 1]), Reached::Nothing);
        }
    }
}

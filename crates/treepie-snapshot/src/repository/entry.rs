//! What a repository knows of a stream: its description, and the file that it is in.

use std::fmt;

use serde::{Deserialize, Serialize};
use treepie::{
    Lineage,
    ids::{DatabaseId, Lsn},
};

use super::naming;
use crate::store::{Name, shortened};

pub use crate::format::header::Position;

/// Longest name of a compression or a key, in bytes.
const TEXT_LEN_MAX: usize = 128;

/// What a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Every page in use.
    Full,
    /// The pages that changed since another stream.
    Increment,
    /// Records of the journal.
    Records,
}

impl Kind {
    /// Whether a stream of this kind is a state of its own, with what it is based on; records are
    /// ways between states.
    #[must_use]
    pub fn is_snapshot(self) -> bool {
        self != Kind::Records
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Full => "full",
            Kind::Increment => "increment",
            Kind::Records => "records",
        })
    }
}

/// What a stream's header and trailer say, as far as a repository needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What it holds.
    pub kind: Kind,
    /// Whose it is.
    pub lineage: Lineage,
    /// What it builds on: where an increment's base ends, or the record before the first one. Zero for
    /// a full stream.
    pub base: Position,
    /// Where it ends.
    pub last: Position,
    /// Time of the first record; of a full stream or an increment that of the last one.
    pub first_time_us: u64,
    /// Time of the record at `last`.
    pub last_time_us: u64,
    /// When the stream was made.
    pub created_us: u64,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages of the database at `last`; 0 for records.
    pub page_count: u32,
    /// The digest in its trailer.
    pub digest: [u8; 32],
    /// How it is compressed: "none", "zstd-3". For people.
    pub compression: String,
    /// Which key it is encrypted with, if it is.
    pub key_id: Option<String>,
    /// How many damaged places of the database were left out of it. Where there are any, it is for who
    /// has nothing else, and no increment is put on it.
    pub damage_count: u64,
}

impl Description {
    /// What is wrong with it, if anything: it may come from a file that somebody else wrote.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let (base, last) = (self.base.lsn, self.last.lsn);
        let has_base = self.kind != Kind::Full;
        let texts = [Some(&self.compression), self.key_id.as_ref()];
        let fits = |text: &String| {
            text.len() <= TEXT_LEN_MAX && !text.is_empty() && !text.chars().any(char::is_control)
        };
        if !has_base && self.base != Position::default() {
            Some("a full stream builds on nothing")
        } else if has_base && base >= last {
            Some("it ends where it begins, or before")
        } else if last < self.lineage.forked_at || has_base && base < self.lineage.forked_at {
            Some("it is from before its lineage began")
        } else if !self.page_size.is_power_of_two() || !(512..=1 << 20).contains(&self.page_size) {
            Some("its page size is none")
        } else if !texts.into_iter().flatten().all(fits) {
            Some("its compression or its key have no proper name")
        } else {
            None
        }
    }

    /// Whether a stream that ends at `at` of `lineage` is what this one builds on.
    #[must_use]
    pub fn builds_on(&self, lineage: &Lineage, at: Position) -> bool {
        self.kind != Kind::Full && self.lineage == *lineage && self.base == at
    }

    /// `full at LSN 1200`, `increment 1200..1300`, `records 1201..1300`, for messages.
    #[must_use]
    pub fn summary(&self) -> String {
        let (base, last) = (self.base.lsn, self.last.lsn);
        match self.kind {
            Kind::Full => format!("full at LSN {last}"),
            Kind::Increment => format!("increment from LSN {base} to {last}"),
            Kind::Records => format!("records {}..{last}", base.0.saturating_add(1)),
        }
    }
}

/// A stream in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct Entry {
    /// Its name in lists and commands: 16 hexadecimal digits.
    pub id: String,
    /// The file.
    pub file: Name,
    /// Length of the file.
    pub bytes: u64,
    /// What is in it.
    pub stream: Description,
}

impl Entry {
    /// Whether this is a stream that a restore may begin with or stop at.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.stream.kind.is_snapshot()
    }

    /// Its lineage and where it ends.
    pub(super) fn end(&self) -> (Lineage, Position) {
        (self.stream.lineage, self.stream.last)
    }
}

/// An entry as it stands in a manifest. Hashes are hexadecimal, because many readers of JSON keep no
/// more than 53 bits of a number.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    id: String,
    kind: Kind,
    file: String,
    bytes: u64,
    database: String,
    epoch: u64,
    forked_at: u64,
    forked_chain: String,
    base_lsn: u64,
    base_chain: String,
    lsn: u64,
    chain: String,
    first_time_us: u64,
    last_time_us: u64,
    created_us: u64,
    page_size: u32,
    page_count: u32,
    digest: String,
    compression: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    key_id: Option<String>,
    #[serde(skip_serializing_if = "is_none", default)]
    damage_count: u64,
}

/// Whether a count is not worth saying.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl From<Entry> for Stored {
    fn from(entry: Entry) -> Stored {
        let stream = entry.stream;
        Stored {
            id: entry.id,
            kind: stream.kind,
            file: entry.file.as_str().to_owned(),
            bytes: entry.bytes,
            database: hex(&stream.lineage.database_id.0),
            epoch: stream.lineage.epoch,
            forked_at: stream.lineage.forked_at.0,
            forked_chain: hex(&stream.lineage.forked_chain.to_be_bytes()),
            base_lsn: stream.base.lsn.0,
            base_chain: hex(&stream.base.chain.to_be_bytes()),
            lsn: stream.last.lsn.0,
            chain: hex(&stream.last.chain.to_be_bytes()),
            first_time_us: stream.first_time_us,
            last_time_us: stream.last_time_us,
            created_us: stream.created_us,
            page_size: stream.page_size,
            page_count: stream.page_count,
            digest: hex(&stream.digest),
            compression: stream.compression,
            key_id: stream.key_id,
            damage_count: stream.damage_count,
        }
    }
}

impl TryFrom<Stored> for Entry {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Entry, String> {
        let chain = |text: &str| unhex(text).map(u64::from_be_bytes);
        let position = |lsn, text| Ok::<_, String>(Position { lsn: Lsn(lsn), chain: chain(text)? });
        let lineage = Lineage {
            database_id: DatabaseId(unhex(&stored.database)?),
            epoch: stored.epoch,
            forked_at: Lsn(stored.forked_at),
            forked_chain: chain(&stored.forked_chain)?,
        };
        let stream = Description {
            kind: stored.kind,
            lineage,
            base: position(stored.base_lsn, &stored.base_chain)?,
            last: position(stored.lsn, &stored.chain)?,
            first_time_us: stored.first_time_us,
            last_time_us: stored.last_time_us,
            created_us: stored.created_us,
            page_size: stored.page_size,
            page_count: stored.page_count,
            digest: unhex(&stored.digest)?,
            compression: stored.compression,
            key_id: stored.key_id,
            damage_count: stored.damage_count,
        };
        let file = Name::new(stored.file).map_err(|error| error.to_string())?;
        if file.folder() != Some(naming::FOLDER) {
            return Err(format!("{file} is not in the folder of streams"));
        }
        if !is_id(&stored.id) {
            return Err(format!("\"{}\" is no id", shortened(&stored.id)));
        }
        match stream.fault() {
            Some(fault) => Err(format!("{file}: {fault}")),
            None => Ok(Entry { id: stored.id, file, bytes: stored.bytes, stream }),
        }
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
        text
    })
}

/// Exactly `N` bytes of hexadecimal, in small letters.
pub(super) fn unhex<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let pairs = text.as_bytes().chunks_exact(2);
    let fits = text.len() == N * 2;
    for (byte, pair) in bytes.iter_mut().zip(pairs).take(if fits { N } else { 0 }) {
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return Err(format!("\"{}\" is not hexadecimal", shortened(text))),
        }
    }
    if fits { Ok(bytes) } else { Err(format!("\"{}\" is not {N} bytes", shortened(text))) }
}

fn is_id(id: &str) -> bool {
    unhex::<8>(id).is_ok()
}

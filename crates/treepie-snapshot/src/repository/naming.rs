//! Names of streams. They sort by kind and LSN, tell people what is inside, and say when they were
//! made, so that the age of a file without an entry is known on every store.
//!
//! - `full-<lsn>-<time>-<id>.tps`
//! - `increment-<base lsn>-<lsn>-<time>-<id>.tps`
//! - `records-<first lsn>-<time>-<id>.tps`: where they will end is not known when they begin
//!
//! Nothing is believed because of a name: what is inside says the stream's header.

use treepie::ids::Lsn;

use super::entry::Kind;
use crate::{
    calendar::{compact, from_compact},
    store::{Name, local::TEMPORARY},
};

/// The folder of streams.
pub const FOLDER: &str = "streams";
/// How a stream's name ends.
const ENDING: &str = ".tps";

/// The name of a new stream. `base` is where it begins after, `last` where it ends.
pub(super) fn name_of(kind: Kind, base: Lsn, last: Lsn, now_us: u64, id: &str) -> Name {
    let (base, last, time) = (base.0, last.0, compact(now_us));
    let stem = match kind {
        Kind::Full => format!("full-{last:020}"),
        Kind::Increment => format!("increment-{base:020}-{last:020}"),
        Kind::Records => format!("records-{:020}", base.saturating_add(1)),
    };
    Name::new(format!("{FOLDER}/{stem}-{time}-{id}{ENDING}")).expect("digits and letters")
}

/// What a file in the folder of streams is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A stream, begun at this time.
    Stream { id: u64, time_us: u64 },
    /// A file that was never finished, begun at this time.
    Temporary { time_us: u64 },
    /// None of ours: it is left alone.
    Foreign,
}

/// Reads a name.
pub(super) fn read(name: &Name) -> Named {
    let file = name.file();
    if let Some(rest) = file.strip_prefix(TEMPORARY) {
        let time = rest.split('-').next().and_then(from_compact);
        return time.map_or(Named::Foreign, |time_us| Named::Temporary { time_us });
    }
    let Some(stem) = file.strip_suffix(ENDING) else { return Named::Foreign };
    let parts: Vec<&str> = stem.split('-').collect();
    let is_lsn = |text: &&str| text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit());
    let (lsns, time, id) = match parts.as_slice() {
        ["full" | "records", lsn, time, id] => (vec![*lsn], *time, *id),
        ["increment", base, lsn, time, id] => (vec![*base, *lsn], *time, *id),
        _ => return Named::Foreign,
    };
    let id = (id.len() == 16).then(|| u64::from_str_radix(id, 16).ok()).flatten();
    match (lsns.iter().all(is_lsn), from_compact(time), id) {
        (true, Some(time_us), Some(id)) => Named::Stream { id, time_us },
        _ => Named::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_lsn_and_are_read_back() {
        let now = 1_700_000_000_000_000;
        let name = |kind, base, last| name_of(kind, Lsn(base), Lsn(last), now, "00000000000000ab");
        assert_eq!(
            name(Kind::Records, 1200, 1300).as_str(),
            "streams/records-00000000000000001201-20231114T221320Z-00000000000000ab.tps"
        );
        assert!(name(Kind::Full, 0, 9) < name(Kind::Full, 0, 10));
        for kind in [Kind::Full, Kind::Increment, Kind::Records] {
            let found = read(&name(kind, u64::MAX, u64::MAX));
            assert_eq!(found, Named::Stream { id: 0xab, time_us: now });
        }
        let read = |file: &str| read(&Name::new(format!("streams/{file}")).unwrap());
        assert_eq!(read("tmp-20231114T221320Z-01"), Named::Temporary { time_us: now });
        for file in [
            "notes.txt",
            "tmp-mine",
            "full-1-20231114T221320Z-00000000000000ab.tps",
            "full-00000000000000000001-20231114T221320Z-ab.tps",
            "full.tps",
        ] {
            assert_eq!(read(file), Named::Foreign, "{file}");
        }
    }
}

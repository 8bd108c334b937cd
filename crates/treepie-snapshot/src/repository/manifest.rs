//! The manifest: which streams a repository has.
//!
//! It is a numbered file (`store/numbered.rs`) in the folder `manifest`, written anew with every
//! change. It is text. Its first line is a JSON object, whose last field is the BLAKE3 digest of all
//! other bytes: the line up to this field, a line feed, and what follows the line. That part of the
//! layout stays as it is in all versions, so that a newer manifest is told from a damaged one.
//!
//! ```text
//! {"format":"treepie-repository","version":1,"number":7,"written_us":1700000000000000,"writer":"…","blake3":"…"}
//! {"database":"…","entries":[
//! {"id":"…","kind":"full",…},
//! {"id":"…","kind":"records",…}
//! ]}
//! ```
//!
//! Streams are the truth and the manifest is what is known of them: it can be rebuilt from their
//! headers. What it says is not believed because its digest is right; see [`Manifest::fault`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use treepie::{
    Lineage,
    ids::{DatabaseId, Lsn},
};

use super::{
    RepositoryError,
    entry::{Description, Entry, Position, hex, unhex},
};
use crate::store::{Store, numbered};

/// The folder of manifests.
pub const FOLDER: &str = "manifest";
/// The version that this build writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Longest manifest, in bytes.
pub const LEN_MAX: u64 = 64 << 20;
/// Most streams: what fits, and what a plan goes through in moments.
pub const ENTRIES_MAX: usize = 65_536;
/// Most lineages: how often a database may have been restored and gone on.
pub const LINEAGES_MAX: usize = 1024;
/// Manifests that are kept, for who wants to see what was there before a prune.
const KEEP: usize = 16;
/// Longest first line, in bytes.
const LINE_LEN_MAX: usize = 4096;
const FORMAT: &str = "treepie-repository";
const DIGEST_FIELD: &str = ",\"blake3\":\"";

/// What a repository has, at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its number, from 1; 0 if there is none yet.
    pub number: u64,
    /// When it was written, microseconds since 1970.
    pub written_us: u64,
    /// Whose streams these are; none as long as there are none.
    pub database: Option<DatabaseId>,
    /// The streams, in the order in which they came.
    pub entries: Vec<Entry>,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    number: u64,
    written_us: u64,
    writer: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    database: Option<String>,
    entries: Vec<Entry>,
}

/// Why bytes are no manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Damaged(String),
    Newer(u32),
}

impl Manifest {
    /// Its bytes. `writer` is what no other writer has.
    pub(super) fn encode(&self, writer: &str) -> Vec<u8> {
        let head = Head {
            format: FORMAT.to_owned(),
            version: VERSION,
            number: self.number,
            written_us: self.written_us,
            writer: writer.to_owned(),
        };
        let head = serde_json::to_string(&head).expect("strings and numbers are JSON");
        let head = head.strip_suffix('}').expect("an object ends so").to_owned();
        let database = match self.database {
            Some(id) => format!("\"{}\"", hex(&id.0)),
            None => "null".to_owned(),
        };
        let entries: Vec<String> = self
            .entries
            .iter()
            .map(|entry| serde_json::to_string(entry).expect("strings and numbers are JSON"))
            .collect();
        let body =
            format!("{{\"database\":{database},\"entries\":[\n{}\n]}}\n", entries.join(",\n"));
        let digest = digest(head.as_bytes(), body.as_bytes());
        format!("{head}{DIGEST_FIELD}{digest}\"}}\n{body}").into_bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, Fault> {
        let damaged = |what: &str| Fault::Damaged(what.to_owned());
        let line_len = bytes.iter().take(LINE_LEN_MAX).position(|&byte| byte == b'\n');
        let (line, rest) = bytes.split_at(line_len.ok_or_else(|| damaged("it has no first line"))?);
        let line = std::str::from_utf8(line).map_err(|_| damaged("its first line is no text"))?;
        let body = &rest[1..];
        let (head, found) = line
            .rsplit_once(DIGEST_FIELD)
            .and_then(|(head, found)| Some((head, found.strip_suffix("\"}")?)))
            .ok_or_else(|| damaged("its first line has no digest"))?;
        if found != digest(head.as_bytes(), body) {
            return Err(damaged("its digest is not that of its bytes"));
        }
        let head: Head = serde_json::from_str(&format!("{head}}}"))
            .map_err(|error| Fault::Damaged(format!("its first line: {error}")))?;
        if head.format != FORMAT {
            return Err(damaged("it is of another format"));
        }
        if head.version != VERSION {
            return Err(Fault::Newer(head.version));
        }
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| Fault::Damaged(format!("its entries: {error}")))?;
        let database = body.database.map(|text| unhex(&text).map(DatabaseId)).transpose();
        let manifest = Manifest {
            number: head.number,
            written_us: head.written_us,
            database: database.map_err(Fault::Damaged)?,
            entries: body.entries,
        };
        match manifest.fault() {
            Some(fault) => Err(Fault::Damaged(fault)),
            None => Ok(manifest),
        }
    }

    /// What is wrong with it, if anything. In one that has no fault ids and files are different from
    /// each other, all streams are of one database, and one LSN of a lineage has one chain hash.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.entries.len() > ENTRIES_MAX {
            return Some(format!("it has more than {ENTRIES_MAX} entries"));
        }
        let (mut ids, mut files) = (BTreeSet::new(), BTreeSet::new());
        let mut known = Known::default();
        for entry in &self.entries {
            if !ids.insert(&entry.id) {
                return Some(format!("two entries have the id {}", entry.id));
            }
            if !files.insert(&entry.file) {
                return Some(format!("two entries have the file {}", entry.file));
            }
            if Some(entry.stream.lineage.database_id) != self.database {
                return Some(format!("entry {} is of another database", entry.id));
            }
            if let Some(fault) = entry.stream.fault() {
                return Some(format!("entry {}: {fault}", entry.id));
            }
            if let Some(lsn) = known.note(&entry.stream) {
                return Some(format!("LSN {lsn} has two chain hashes"));
            }
        }
        if known.lineages() > LINEAGES_MAX {
            return Some(format!("it has more than {LINEAGES_MAX} lineages"));
        }
        None
    }

    /// The entry with this id.
    #[must_use]
    pub fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// Adds a stream that belongs here.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), RepositoryError> {
        let stream = &entry.stream;
        if let Some(what) = stream.fault() {
            return Err(RepositoryError::Description { what });
        }
        let found = stream.lineage.database_id;
        if let Some(expected) = self.database.filter(|expected| *expected != found) {
            return Err(RepositoryError::Stranger { expected, found });
        }
        if self.entries.len() >= ENTRIES_MAX {
            return Err(RepositoryError::Bound {
                what: "the number of streams in the repository",
                max: ENTRIES_MAX as u64,
                hint: "prune it, or cut the archive into larger files",
            });
        }
        let mut known = Known::default();
        for entry in &self.entries {
            known.note(&entry.stream);
        }
        if let Some(lsn) = known.note(stream) {
            return Err(RepositoryError::Diverged { lineage: stream.lineage, lsn });
        }
        if known.lineages() > LINEAGES_MAX {
            return Err(RepositoryError::Bound {
                what: "the number of lineages in the repository",
                max: LINEAGES_MAX as u64,
                hint: "begin a new repository",
            });
        }
        self.database = Some(found);
        self.entries.push(entry);
        Ok(())
    }
}

/// The digest of a manifest's bytes.
fn digest(head: &[u8], body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(b"\n").update(body);
    hasher.finalize().to_hex().to_string()
}

/// A lineage as a key: the database is the same for all.
pub(super) type LineageKey = (u64, Lsn, u64);

pub(super) fn key_of(lineage: &Lineage) -> LineageKey {
    (lineage.epoch, lineage.forked_at, lineage.forked_chain)
}

/// The chain hashes that are known.
#[derive(Debug, Default)]
pub(super) struct Known {
    chains: BTreeMap<LineageKey, BTreeMap<Lsn, u64>>,
}

impl Known {
    /// Notes both ends of a stream; the LSN that was known with another chain hash, if there is one.
    pub(super) fn note(&mut self, stream: &Description) -> Option<Lsn> {
        let chains = self.chains.entry(key_of(&stream.lineage)).or_default();
        let base = (stream.kind != super::Kind::Full).then_some(stream.base);
        let ends = [base, Some(stream.last)];
        ends.into_iter().flatten().find_map(|Position { lsn, chain }| {
            (*chains.entry(lsn).or_insert(chain) != chain).then_some(lsn)
        })
    }

    /// The chain hash at an LSN.
    pub(super) fn chain(&self, lineage: &Lineage, lsn: Lsn) -> Option<u64> {
        self.chains.get(&key_of(lineage))?.get(&lsn).copied()
    }

    fn lineages(&self) -> usize {
        self.chains.len()
    }
}

/// A manifest as it was found.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub manifest: Manifest,
    /// Newer manifests that cannot be read, and why.
    pub damaged: Option<(String, String)>,
}

/// Reads the newest manifest, or the newest that is not damaged. None if there is no manifest at all.
pub(super) fn load(store: &dyn Store) -> Result<Option<Loaded>, RepositoryError> {
    let mut damaged = None;
    let chosen = numbered::newest(store, FOLDER, LEN_MAX, |version| {
        let file = numbered::name_of(FOLDER, version.number).to_string();
        match Manifest::decode(&version.bytes) {
            Ok(manifest) if manifest.number == version.number => Some(Ok(manifest)),
            Err(Fault::Newer(found)) => Some(Err((file, found))),
            Ok(_) => {
                damaged.get_or_insert((file, "it has the number of another one".to_owned()));
                None
            }
            Err(Fault::Damaged(what)) => {
                damaged.get_or_insert((file, what));
                None
            }
        }
    })?;
    match chosen {
        Some(Ok(manifest)) => Ok(Some(Loaded { manifest, damaged })),
        Some(Err((file, found))) => Err(RepositoryError::ManifestVersion {
            place: store.place(),
            file,
            found,
            supported: VERSION,
        }),
        None => damaged.map_or(Ok(None), |(file, what)| {
            Err(RepositoryError::ManifestDamaged { place: store.place(), file, what })
        }),
    }
}

/// Writes a manifest with the number that it has. All or nothing, unless the medium fails: then which
/// of both is not known.
pub(super) fn save(store: &dyn Store, manifest: &Manifest) -> Result<(), RepositoryError> {
    let writer = hex(&store.random()?);
    let bytes = manifest.encode(&writer);
    if bytes.len() as u64 > LEN_MAX {
        return Err(RepositoryError::Bound {
            what: "the length of the manifest",
            max: LEN_MAX,
            hint: "prune the repository",
        });
    }
    if !numbered::append(store, FOLDER, manifest.number, &bytes)? {
        return Err(RepositoryError::Conflict { place: store.place() });
    }
    numbered::trim(store, FOLDER, KEEP);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing::{full, lineage, records};

    fn sample() -> Manifest {
        let entries = vec![full(lineage(0), 10), records(lineage(0), 10, 20)];
        let database = Some(lineage(0).database_id);
        Manifest { number: 7, written_us: 1_700_000_000_000_000, database, entries }
    }

    #[test]
    fn manifest_is_read_back_and_its_text_stays_as_it_is() {
        let manifest = sample();
        let bytes = manifest.encode("00ff");
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("{\"format\":\"treepie-repository\",\"version\":1,\"number\":7,"));
        let empty = Manifest { number: 1, ..Manifest::default() };
        assert_eq!(Manifest::decode(&empty.encode("x")), Ok(empty));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage_and_none_is_a_newer_version() {
        let bytes = sample().encode("00ff");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = Manifest::decode(&flipped);
            assert!(matches!(found, Err(Fault::Damaged(_))), "bit {bit}: {found:?}");
        }
        for len in 0..bytes.len() {
            let found = Manifest::decode(&bytes[..len]);
            assert!(matches!(found, Err(Fault::Damaged(_))), "cut at {len}: {found:?}");
        }
        let flips = treepie_testkit::tally::thousands(bytes.len() as u64 * 8);
        let counts = format!("{flips} flipped bits, {} cuts, all found", bytes.len());
        treepie_testkit::tally::note(13, "repository: manifest", &counts);
    }

    /// Stamps a text as a manifest is, whatever it says.
    fn stamped(head: &str, body: &str) -> Vec<u8> {
        let digest = digest(head.as_bytes(), body.as_bytes());
        format!("{head}{DIGEST_FIELD}{digest}\"}}\n{body}").into_bytes()
    }

    #[test]
    fn newer_version_is_told_apart_whatever_follows_its_first_line() {
        let head = "{\"format\":\"treepie-repository\",\"version\":2,\"number\":7,\
                    \"written_us\":1,\"writer\":\"x\",\"new\":true";
        assert_eq!(Manifest::decode(&stamped(head, "not JSON")), Err(Fault::Newer(2)));
    }

    #[test]
    fn hostile_manifest_with_a_right_digest_is_refused() {
        let text = String::from_utf8(sample().encode("00ff")).unwrap();
        let (line, body) = text.split_once('\n').unwrap();
        let (head, _) = line.rsplit_once(DIGEST_FIELD).unwrap();
        assert!(Manifest::decode(&stamped(head, body)).is_ok());
        for (from, to) in [
            ("streams/full", "streams/../full"),
            ("streams/full", "/etc/full"),
            ("streams/full", "manifest/full"),
            ("\"base_lsn\":10", "\"base_lsn\":20"),
            ("\"base_lsn\":10", "\"base_lsn\":-1"),
            ("\"page_size\":8192", "\"page_size\":0"),
            ("\"kind\":\"records\"", "\"kind\":\"\""),
            ("\"epoch\":0", "\"epoch\":0,\"more\":1"),
            ("\"database\":\"01", "\"database\":\"02"),
            ("\"compression\":\"none\"", "\"compression\":\"\\u001b[2J\""),
            ("entries\":[\n{", "entries\":[\n{},\n{"),
        ] {
            let hostile = body.replacen(from, to, 1);
            assert_ne!(hostile, body, "{from} is not in it");
            let found = Manifest::decode(&stamped(head, &hostile));
            assert!(matches!(found, Err(Fault::Damaged(_))), "{from} -> {to}: {found:?}");
        }
        let entry = &body[body.find("{\"id\"").unwrap()..body.find(",\n{").unwrap()];
        let twice = body.replacen(entry, &format!("{entry},\n{entry}"), 1);
        let found = Manifest::decode(&stamped(head, &twice));
        assert!(matches!(found, Err(Fault::Damaged(what)) if what.contains("two entries")));
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert!(matches!(Manifest::decode(&stamped(head, &deep)), Err(Fault::Damaged(_))));
    }

    #[test]
    fn one_lsn_with_two_chain_hashes_is_refused() {
        let mut manifest = sample();
        let mut other = full(lineage(0), 20);
        other.stream.last.chain ^= 1;
        assert!(matches!(manifest.add(other), Err(RepositoryError::Diverged { lsn: Lsn(20), .. })));
        let mut stranger = full(lineage(0), 20);
        stranger.stream.lineage.database_id = DatabaseId([9; 16]);
        assert!(matches!(manifest.add(stranger), Err(RepositoryError::Stranger { .. })));
        manifest.add(full(lineage(0), 20)).unwrap();
    }
}

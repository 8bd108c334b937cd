//! What the journal promises, on a disk in memory.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

mod replicated;
mod reserve;
mod trim;

use crate::{
    error::{Damage, Error, Result, Structure},
    format::{
        bytes::{get_array, put_array, put_u16, put_u32, put_u64},
        checksum::crc32,
        frame::{FRAME_SIZE, Frame},
        record::{
            Compression, RECORD_CHECKSUM_OFFSET, Record, RecordBuilder, RecordKind, RecordMeta,
            SealedRecord, claimed_checksum, genesis_chain,
        },
        segment::SEGMENT_HEADER_SIZE,
    },
    ids::{DatabaseId, Lsn, PageId, Term},
    limits::LSN_MAX,
};

use super::{
    Journal, JournalConfig, JournalPosition, JournalReader, Keep, Recovered,
    memory_disk::MemoryDisk, segment::segment_name,
};

const ID: DatabaseId = DatabaseId([7; 16]);
const EPOCH: u64 = 3;
const DIR: &str = "db/journal";

fn genesis() -> JournalPosition {
    JournalPosition { lsn: Lsn(0), chain: genesis_chain(&ID, EPOCH) }
}

fn config(disk: &Arc<MemoryDisk>, segment_size_max: u64) -> JournalConfig {
    JournalConfig {
        disk: disk.clone(),
        dir: PathBuf::from(DIR),
        database_id: ID,
        epoch: EPOCH,
        page_size: 4096,
        segment_size_max,
        reserve_len: 0,
        background: false,
        keep: Keep { retention: 0, pins_max: 0 },
    }
}

fn path(first: u64) -> PathBuf {
    Path::new(DIR).join(segment_name(Lsn(first)))
}

/// LSN and chain hash of each record.
type History = Vec<(u64, u64)>;

/// Opens the journal; returns it, what it found, and the records that were applied.
fn recover(config: JournalConfig, from: JournalPosition) -> Result<(Journal, Recovered, History)> {
    let mut applied = Vec::new();
    let (journal, recovered) =
        Journal::recover(config, from, from.lsn == Lsn(0), &mut |record: &Record<'_>| {
            assert!(record.changes().all(|change| change.is_ok()));
            applied.push((record.lsn().0, record.chain()));
            Ok(())
        })?;
    Ok((journal, recovered, applied))
}

/// A journal, and the history that was appended to it.
struct Log {
    disk: Arc<MemoryDisk>,
    journal: Journal,
    last: JournalPosition,
    history: History,
}

impl Log {
    fn new(segment_size_max: u64) -> Log {
        let disk = Arc::new(MemoryDisk::default());
        Log::open(disk, segment_size_max, genesis()).expect("a new journal")
    }

    fn open(disk: Arc<MemoryDisk>, size_max: u64, from: JournalPosition) -> Result<Log> {
        let (journal, recovered, history) = recover(config(&disk, size_max), from)?;
        Ok(Log { disk, journal, last: recovered.last, history })
    }

    fn seal(&mut self, len: usize) -> SealedRecord {
        self.seal_in(len, Term(0), Lsn(0))
    }

    fn seal_in(&mut self, len: usize, term: Term, known_committed: Lsn) -> SealedRecord {
        let lsn = self.last.lsn.next();
        let mut builder = RecordBuilder::default();
        let bytes: Vec<u8> = (0..len).map(|i| (i as u64 ^ lsn.0) as u8).collect();
        builder.run(PageId(20), u32::try_from(len / 4096 + 1).expect("small"), &bytes);
        let meta = RecordMeta {
            kind: RecordKind::Transaction,
            lsn,
            term,
            page_size: 4096,
            time_us: 1,
            known_committed,
            chain_before: self.last.chain,
        };
        let sealed = builder.finish(&meta, Compression::Off);
        self.last = JournalPosition { lsn, chain: sealed.chain };
        self.history.push((lsn.0, sealed.chain));
        sealed
    }

    /// Appends a group of records with payloads of these lengths, in one write.
    fn append(&mut self, lens: &[usize]) {
        let records: Vec<SealedRecord> = lens.iter().map(|&len| self.seal(len)).collect();
        self.journal.append(&records.iter().collect::<Vec<_>>()).expect("the append works");
    }

    fn commit(&mut self, lens: &[usize]) {
        self.append(lens);
        assert_eq!(self.journal.sync().expect("the sync works"), self.last.lsn);
    }

    fn position(&self, lsn: u64) -> JournalPosition {
        let (lsn, chain) = self.history[usize::try_from(lsn - 1).expect("small")];
        JournalPosition { lsn: Lsn(lsn), chain }
    }
}

fn is_loss(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::JournalGap { .. })
}

/// Changes the record whose frame is at `offset`, and makes all checksums right again.
fn forge_record(bytes: &mut [u8], offset: usize, change: impl FnOnce(&mut [u8])) {
    let frame: [u8; FRAME_SIZE] = get_array(bytes, offset);
    let at = offset + FRAME_SIZE;
    let frame = Frame::parse(&frame, claimed_checksum(&bytes[at..])).expect("a frame is there");
    let record = &mut bytes[at..at + frame.record_len as usize];
    change(record);
    put_u32(record, RECORD_CHECKSUM_OFFSET, 0);
    let checksum = crc32(record);
    put_u32(record, RECORD_CHECKSUM_OFFSET, checksum);
    put_array(bytes, offset, &frame.encode(checksum));
}

/// Changes the header of a segment, and makes its checksum right again.
fn forge_header(bytes: &mut [u8], change: impl FnOnce(&mut [u8])) {
    let header = &mut bytes[..SEGMENT_HEADER_SIZE];
    change(header);
    let checksum = crc32(&[&header[..12], &header[16..]].concat());
    put_u32(header, 12, checksum);
}

/// Why the journal does not open.
fn refusal(disk: &Arc<MemoryDisk>) -> Error {
    let opened = recover(config(disk, 64 << 10), genesis());
    opened.map(|(_, _, applied)| applied).expect_err("it must not open")
}

/// A small generator, so that failures repeat.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn records_come_back_from_any_checkpoint() {
    let mut log = Log::new(64 << 10);
    for lens in [&[100][..], &[10, 2000, 5000], &[30_000], &[1, 2, 3], &[50_000], &[60], &[4000]] {
        log.commit(lens);
    }
    assert!(log.journal.report().segments.len() > 1);
    for from in 0..=log.history.len() {
        let position = if from == 0 { genesis() } else { log.position(from as u64) };
        let (_, recovered, applied) =
            recover(config(&log.disk.copy(), 64 << 10), position).expect("it opens");
        assert_eq!(applied, log.history[from..]);
        assert_eq!((recovered.last, recovered.torn_tail), (log.last, None));
        assert_eq!(recovered.records, applied.len() as u64);
    }
    let wrong = JournalPosition { chain: 1, ..log.position(3) };
    assert!(is_loss(&recover(config(&log.disk, 64 << 10), wrong).expect_err("wrong chain")));
}

#[test]
fn one_commit_costs_one_write_of_a_block_and_one_sync() {
    let mut log = Log::new(1 << 20);
    log.commit(&[100]);
    let calls = |log: &Log| {
        let calls = &log.disk.calls;
        (calls.writes.load(Ordering::Relaxed), calls.syncs.load(Ordering::Relaxed))
    };
    let (writes, syncs) = calls(&log);
    let used = log.journal.report().segments[0].used;
    log.commit(&[100]);
    assert_eq!(calls(&log), (writes + 1, syncs + 1));
    assert_eq!(log.journal.report().segments[0].used, used + 4096);
    log.journal.sync().expect("nothing to do");
    assert_eq!(calls(&log), (writes + 1, syncs + 1));
}

/// The records of the very last write cannot be told from a torn tail: nothing vouches for them.
#[test]
fn every_flipped_bit_is_an_error_or_harmless_or_drops_the_last_write() {
    let mut log = Log::new(64 << 10);
    log.commit(&[40]);
    log.commit(&[20, 30]);
    log.commit(&[50]);
    let disk = log.disk.copy();
    let used = log.journal.report().segments[0].used as usize;
    let last_write = used - 4096;
    let mut errors = 0;
    for bit in 0..used * 8 {
        disk.edit(&path(1), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        match recover(config(&disk, 64 << 10), genesis()) {
            Ok((_, _, applied)) if applied == log.history => {}
            Ok((_, recovered, applied)) => {
                assert!(bit / 8 >= last_write, "bit {bit} lost records");
                assert_eq!(applied, log.history[..3], "bit {bit}");
                assert_eq!(recovered.torn_tail.map(|tail| tail.lsn), Some(Lsn(4)), "bit {bit}");
            }
            Err(error) => {
                assert!(is_loss(&error), "bit {bit}: {error}");
                errors += 1;
            }
        }
        disk.edit(&path(1), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
    assert!(errors > 4096 * 8, "only {errors} flips were found");
}

#[test]
fn cut_at_every_byte_keeps_a_prefix_and_never_panics() {
    let mut log = Log::new(64 << 10);
    log.commit(&[40, 41, 42]);
    log.commit(&[43]);
    log.commit(&[3000, 44]);
    let used = log.journal.report().segments[0].used as usize;
    let whole = log.disk.edit(&path(1), |bytes| bytes.clone());
    let disk = log.disk.copy();
    for cut in (0..=used).rev() {
        disk.edit(&path(1), |bytes| *bytes = whole[..cut].to_vec());
        let (_, _, applied) = recover(config(&disk, 64 << 10), genesis()).expect("a prefix");
        assert_eq!(applied, log.history[..applied.len()], "cut at {cut}");
        // Without what vouches for it, a cut at the end of a file is a torn tail; the checkpoint
        // vouches for what it holds.
        let position = log.position(4);
        let from = recover(config(&disk, 64 << 10), position);
        assert_eq!(from.is_ok(), applied.len() >= 4, "cut at {cut}");
    }
}

#[test]
fn power_cut_keeps_every_synced_record_and_opens() {
    for seed in 0..400 {
        let mut state = seed;
        let mut log = Log::new(32 << 10);
        let mut synced = 0;
        for _ in 0..random(&mut state) % 12 {
            let lens: Vec<usize> = (0..=random(&mut state) % 4)
                .map(|_| (random(&mut state) % 9000) as usize)
                .collect();
            log.append(&lens);
            if random(&mut state).is_multiple_of(2) {
                synced = log.journal.sync().expect("the sync works").0;
            }
        }
        let disk = log.disk.power_cut(&mut || random(&mut state).is_multiple_of(2));
        let again = Log::open(disk, 32 << 10, genesis());
        let mut again = again.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(again.history.len() as u64 >= synced, "seed {seed}");
        assert_eq!(again.history, log.history[..again.history.len()], "seed {seed}");
        again.commit(&[100, 200]);
        again.commit(&[300]);
        let third = Log::open(again.disk.copy(), 32 << 10, genesis());
        let third = third.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(third.history, again.history, "seed {seed}");
    }
}

#[test]
fn records_found_after_a_kill_survive_a_power_cut_after_the_next_commit() {
    let mut log = Log::new(64 << 10);
    log.commit(&[100]);
    log.append(&[200]);
    let mut again = Log::open(log.disk.clone(), 64 << 10, genesis()).expect("it opens");
    assert_eq!(again.history, log.history, "a killed process leaves its page cache behind");
    again.commit(&[300]);
    let cut = again.disk.power_cut(&mut || false);
    let third = Log::open(cut, 64 << 10, genesis()).expect("it opens");
    assert_eq!(third.history, again.history);
}

#[test]
fn stale_bytes_of_a_recycled_segment_are_never_accepted() {
    let mut log = Log::new(16 << 10);
    for _ in 0..30 {
        log.commit(&[100]);
    }
    log.journal.trim(log.last.lsn).expect("it trims");
    assert!(log.journal.report().spare_count > 0);
    let from = log.last;
    let before = log.history.len();
    for _ in 0..7 {
        log.commit(&[100]);
        let (_, recovered, applied) =
            recover(config(&log.disk.copy(), 16 << 10), from).expect("it opens");
        assert_eq!(applied, log.history[before..]);
        assert_eq!(recovered.torn_tail, None);
    }
    // A recycled file whose new header never reached the disk is an empty segment.
    let spares: Vec<String> =
        log.disk.names().into_iter().filter(|name| name.starts_with("spare")).collect();
    let next = log.last.lsn.next().0;
    let disk = log.disk.copy();
    crate::disk::Disk::rename(&*disk, &Path::new(DIR).join(&spares[0]), &path(next))
        .expect("a spare is there");
    let again = Log::open(disk, 16 << 10, from).expect("it opens");
    assert_eq!(again.history, log.history[before..]);
}

/// A journal with two records, each in a block of its own; the second one is nobody's to vouch for.
fn two_records() -> (Log, usize) {
    let mut log = Log::new(64 << 10);
    log.commit(&[40]);
    log.commit(&[50]);
    let last = log.journal.report().segments[0].used as usize - 4096;
    (log, last)
}

#[test]
fn last_record_of_a_newer_version_is_refused_and_not_dropped_as_a_torn_tail() {
    for (version, is_other_layout) in [(2, true), (0x0102, false)] {
        let (log, last) = two_records();
        log.disk.edit(&path(1), |bytes| {
            forge_record(bytes, last, |record| {
                put_u16(record, 8, version);
                if is_other_layout {
                    record[10..].fill(0xee);
                }
            });
        });
        let error = refusal(&log.disk);
        let Error::UnsupportedVersion { file, offset, structure, found, supported } = &error else {
            panic!("{error}")
        };
        assert_eq!((file, *offset), (&path(1), (last + FRAME_SIZE) as u64));
        assert_eq!(
            (*structure, *found, *supported),
            (Structure::Record(Lsn(2)), version.into(), 1)
        );
        let mut reader =
            JournalReader::open(log.disk.clone(), Path::new(DIR)).expect("the first is ours");
        assert!(reader.next().expect("one").is_ok());
        let second = reader.next().expect("the reader does not end before it");
        assert!(matches!(second, Err(Error::UnsupportedVersion { .. })), "{second:?}");
        // Without its checksum it is a torn write, whatever version it claims.
        log.disk.edit(&path(1), |bytes| bytes[last + FRAME_SIZE + 130] ^= 1);
        let (_, recovered, applied) =
            recover(config(&log.disk, 64 << 10), genesis()).expect("a torn tail");
        assert_eq!(
            (applied, recovered.torn_tail.map(|t| t.lsn)),
            (log.history[..1].to_vec(), Some(Lsn(2)))
        );
    }
}

#[test]
fn last_record_that_breaks_a_rule_under_a_right_checksum_is_corruption() {
    let fields: [(usize, u8); 7] =
        [(0, 9), (8, 0), (10, 4), (10, 0), (11, 2), (24 - 8, 9), (100, 1)];
    for (offset, value) in fields {
        let (log, last) = two_records();
        log.disk.edit(&path(1), |bytes| forge_record(bytes, last, |record| record[offset] = value));
        let error = refusal(&log.disk);
        let Error::Corrupt { file, offset: at, what: Damage::Layout { structure, .. } } = &error
        else {
            panic!("byte {offset}: {error}")
        };
        assert_eq!((file, *at), (&path(1), (last + FRAME_SIZE) as u64), "byte {offset}");
        assert!(matches!(structure, Structure::Record(_)), "byte {offset}: {error}");
    }
}

#[test]
fn newest_segment_of_a_newer_version_is_refused_only_if_its_checksum_holds() {
    let mut log = Log::new(16 << 10);
    while log.journal.report().segments.len() < 2 {
        log.commit(&[100]);
    }
    let first = log.journal.report().segments[1].first_lsn.0;
    let whole = log.disk.edit(&path(first), |bytes| bytes.clone());
    log.disk.edit(&path(first), |bytes| {
        forge_header(bytes, |header| {
            put_u32(header, 8, 7);
            header[16..].fill(0xee);
        });
    });
    let error = refusal(&log.disk);
    let Error::UnsupportedVersion { file, offset: 0, structure, found: 7, supported: 1 } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((file, *structure), (&path(first), Structure::Segment));

    log.disk.edit(&path(first), |bytes| {
        bytes.clone_from(&whole);
        forge_header(bytes, |header| header[4000] = 1);
    });
    let error = refusal(&log.disk);
    assert!(matches!(&error, Error::Corrupt { file, offset: 0, .. } if *file == path(first)));

    // Torn: its records were never known to be durable, so it is empty.
    log.disk.edit(&path(first), |bytes| {
        bytes.clone_from(&whole);
        bytes[8] ^= 2;
    });
    let (_, _, applied) = recover(config(&log.disk, 16 << 10), genesis()).expect("a torn tail");
    assert_eq!(applied, log.history[..first as usize - 1]);
}

/// A dropped tail may come back in a recycled file with just the LSN, and even the chain, that is
/// expected at its place. Only the incarnation tells.
#[test]
fn stale_record_with_the_expected_lsn_and_chain_is_not_accepted() {
    for first_len in [100, 101] {
        let mut old = Log::new(64 << 10);
        (0..4).for_each(|_| old.commit(&[100]));
        let stale = old.disk.edit(&path(1), |bytes| bytes.clone());
        let disk = Arc::new(MemoryDisk::default());
        crate::disk::Disk::random(&*disk).expect("another incarnation than in the old life");
        let mut new = Log::open(disk, 64 << 10, genesis()).expect("it opens");
        new.commit(&[first_len]);
        new.commit(&[100]);
        assert_eq!(new.last.chain == old.position(2).chain, first_len == 100);
        let used = new.journal.report().segments[0].used as usize;
        new.disk.edit(&path(1), |bytes| bytes[used..].copy_from_slice(&stale[used..]));
        let (_, recovered, applied) =
            recover(config(&new.disk, 64 << 10), genesis()).expect("it opens");
        assert_eq!(applied, new.history);
        assert!(recovered.last == new.last);
    }
}

#[test]
fn torn_tail_then_new_records_then_recovery_again() {
    let mut log = Log::new(64 << 10);
    log.commit(&[100]);
    log.commit(&[200]);
    log.append(&[300, 6000]);
    let used = log.journal.report().segments[0].used as usize;
    log.disk.edit(&path(1), |bytes| bytes[used - 8192 + 200] ^= 1);
    let mut again = Log::open(log.disk.copy(), 64 << 10, genesis()).expect("it opens");
    assert_eq!(again.history, log.history[..2]);
    again.commit(&[400]);
    again.commit(&[500]);
    assert_eq!(again.disk.names()[..2], [segment_name(Lsn(1)), segment_name(Lsn(3))]);
    let third = Log::open(again.disk.copy(), 64 << 10, genesis()).expect("it opens");
    assert_eq!(third.history, again.history);
}

#[test]
fn segment_named_after_an_impossible_lsn_is_an_error_that_names_it() {
    for name in [
        "18446744073709551615.seg",
        "18446744073709551614.seg",
        "09223372036854775809.seg",
        "99999999999999999999.seg",
        "00000000000000000000.seg",
    ] {
        let (log, _) = two_records();
        let file = Path::new(DIR).join(name);
        let mode = crate::disk::OpenMode::CreateNew;
        crate::disk::Disk::open(&*log.disk, &file, mode).expect("it is new");
        let error = refusal(&log.disk);
        assert!(matches!(&error, Error::Corrupt { file: found, .. } if *found == file), "{error}");
        let reader = JournalReader::open(log.disk.clone(), Path::new(DIR));
        assert!(matches!(reader, Err(Error::Corrupt { .. })));
    }
}

#[test]
fn records_up_to_the_highest_lsn_are_read_and_the_writer_goes_on_from_there() {
    for first in [LSN_MAX - 1, LSN_MAX] {
        let disk = Arc::new(MemoryDisk::default());
        let from = JournalPosition { lsn: Lsn(first - 1), chain: 7 };
        let mut log = Log::new(64 << 10);
        log.commit(&[10]);
        let forged = log.disk.edit(&path(1), |bytes| {
            forge_header(bytes, |header| {
                put_u64(header, 40, first);
                put_u64(header, 56, 7);
            });
            forge_record(bytes, 4096, |record| {
                put_u64(record, 16, first);
                put_u64(record, 32, 7);
            });
            // The frame's number, behind its checksum.
            let mut frame: [u8; FRAME_SIZE] = get_array(bytes, 4096);
            put_u64(&mut frame, 24, first);
            let sum = claimed_checksum(&bytes[4096 + FRAME_SIZE..]).to_le_bytes();
            let sum = crc32(&[&frame[..4], &frame[8..], &sum].concat());
            put_u32(&mut frame, 4, sum);
            put_array(bytes, 4096, &frame);
            bytes.clone()
        });
        let mode = crate::disk::OpenMode::CreateNew;
        let file = crate::disk::Disk::open(&*disk, &path(first), mode).expect("it is new");
        file.write_at(0, &forged).expect("it is written");
        let mut log = Log::open(disk, 64 << 10, from).expect("it opens");
        assert_eq!(log.last.lsn, Lsn(first));
        log.commit(&[20]);
        assert_eq!(log.last.lsn, Lsn(first + 1));
    }
}

#[test]
fn spare_with_the_highest_number_is_left_alone() {
    let disk = Arc::new(MemoryDisk::default());
    for number in [u64::MAX, u64::MAX - 1] {
        let path = Path::new(DIR).join(format!("spare-{number}.seg"));
        let mode = crate::disk::OpenMode::CreateNew;
        crate::disk::Disk::open(&*disk, &path, mode).expect("it is new");
    }
    let mut log = Log::open(disk, 16 << 10, genesis()).expect("it opens");
    for _ in 0..8 {
        log.commit(&[100]);
    }
    log.journal.trim(log.last.lsn).expect("it trims");
    assert!(log.disk.names().contains(&format!("spare-{}.seg", u64::MAX - 1)));
}

#[test]
fn missing_segment_is_a_gap() {
    let mut log = Log::new(16 << 10);
    for _ in 0..12 {
        log.commit(&[100]);
    }
    let segments = log.journal.report().segments;
    assert!(segments.len() >= 4);
    for missing in &segments[..segments.len() - 1] {
        let disk = log.disk.copy();
        crate::disk::Disk::remove(&*disk, &path(missing.first_lsn.0)).expect("it is there");
        let error = recover(config(&disk, 16 << 10), genesis()).expect_err("a gap");
        let Error::JournalGap { missing: lsn, .. } = &error else { panic!("{error}") };
        assert_eq!(*lsn, missing.first_lsn);
        // A checkpoint behind the gap needs nothing before it.
        recover(config(&disk, 16 << 10), log.last).expect("it opens");
    }
    let empty = Arc::new(MemoryDisk::default());
    let error = recover(config(&empty, 16 << 10), log.last).expect_err("a gap");
    assert!(matches!(error, Error::JournalGap { .. }), "{error}");
}

#[test]
fn damaged_tail_of_an_older_segment_is_corruption() {
    let mut log = Log::new(16 << 10);
    for _ in 0..6 {
        log.commit(&[100]);
    }
    let first = &log.journal.report().segments[0];
    let at = first.used as usize - 4096 + 100;
    log.disk.edit(&path(1), |bytes| bytes[at] ^= 4);
    let error = recover(config(&log.disk, 16 << 10), genesis()).expect_err("damage");
    let Error::Corrupt { file, offset, .. } = &error else { panic!("{error}") };
    assert_eq!((file, *offset), (&path(1), first.used - 4096));
}

#[test]
fn segment_of_another_database_or_lineage_is_refused() {
    let mut log = Log::new(64 << 10);
    log.commit(&[100]);
    let other = [
        JournalConfig { database_id: DatabaseId([8; 16]), ..config(&log.disk, 64 << 10) },
        JournalConfig { epoch: 4, ..config(&log.disk, 64 << 10) },
        JournalConfig { page_size: 8192, ..config(&log.disk, 64 << 10) },
    ];
    for config in other {
        let error = recover(config, genesis()).expect_err("another database");
        assert!(matches!(&error, Error::Corrupt { file, .. } if *file == path(1)), "{error}");
    }
}

#[test]
fn record_longer_than_a_segment_gets_one_of_its_own() {
    let mut log = Log::new(64 << 10);
    log.commit(&[10]);
    log.commit(&[9 << 20]);
    log.commit(&[10, 5 << 20, 20]);
    log.commit(&[10]);
    let report = log.journal.report();
    assert!(report.segments[1].len > 9 << 20);
    let again = Log::open(log.disk.copy(), 64 << 10, genesis()).expect("it opens");
    assert_eq!(again.history, log.history);
    log.journal.trim(log.last.lsn).expect("it trims");
    assert!(log.journal.report().bytes < 1 << 20, "long segments are not kept as spares");
}

#[test]
fn failed_write_or_sync_poisons_for_good() {
    for call in ["sync_data", "write_at"] {
        let mut log = Log::new(64 << 10);
        log.commit(&[10]);
        let record = log.seal(20);
        log.disk.calls.fail_after(call, 0);
        let first = log.journal.append(&[&record]).and_then(|()| log.journal.sync().map(|_| ()));
        assert!(matches!(first, Err(Error::Io { .. })), "{call}");
        assert!(matches!(log.journal.sync(), Err(Error::Poisoned { .. })), "{call}");
        assert!(matches!(log.journal.append(&[&record]), Err(Error::Poisoned { .. })), "{call}");
        let again = Log::open(log.disk.copy(), 64 << 10, genesis()).expect("it opens");
        assert!(!again.history.is_empty(), "{call}");
    }
}

#[test]
fn interrupted_roll_leaves_a_journal_that_opens() {
    for call in ["open", "allocate", "write_at", "sync_data", "rename", "sync_dir"] {
        for skip in 0..2 {
            let mut log = Log::new(16 << 10);
            for _ in 0..3 {
                log.commit(&[100]);
            }
            let record = log.seal(100);
            log.disk.calls.fail_after(call, skip);
            match log.journal.append(&[&record]) {
                Ok(()) => assert!(skip == 1, "{call} did not fail"),
                Err(_) => drop(log.history.pop()),
            }
            let mut again = Log::open(log.disk.copy(), 16 << 10, genesis()).expect("it opens");
            assert_eq!(again.history, log.history, "{call}");
            for _ in 0..5 {
                again.commit(&[100]);
            }
            let third = Log::open(again.disk.copy(), 16 << 10, genesis()).expect("it opens");
            assert_eq!(third.history, again.history, "{call}");
        }
    }
}

#[test]
fn segments_grow_and_spares_are_recycled_within_bounds() {
    let mut log = Log::new(1 << 20);
    let mut spares_max = 0;
    for round in 0..200 {
        log.commit(&[60_000]);
        if round % 40 == 39 {
            let checkpointed = log.position(log.last.lsn.0 - 1);
            log.journal.trim(checkpointed.lsn).expect("it trims");
            let report = log.journal.report();
            assert!(report.first_lsn <= checkpointed.lsn.next());
            spares_max = spares_max.max(report.spare_count);
            let (_, _, applied) =
                recover(config(&log.disk.copy(), 1 << 20), checkpointed).expect("it opens");
            assert_eq!(applied, log.history[log.history.len() - 1..]);
        }
    }
    assert!((1..=8).contains(&spares_max), "{spares_max}");
    let report = log.journal.report();
    assert_eq!(report.segments.last().map(|segment| segment.len), Some(1 << 20));
    assert_eq!(report.last_lsn, log.last.lsn);
}

#[test]
fn unfinished_spares_are_removed_and_finished_ones_are_used() {
    let disk = Arc::new(MemoryDisk::default());
    for name in ["spare-4.new", "spare-7.seg"] {
        let path = Path::new(DIR).join(name);
        let mode = crate::disk::OpenMode::CreateNew;
        let file = crate::disk::Disk::open(&*disk, &path, mode).expect("it is new");
        file.set_len(300 << 10).expect("it grows");
    }
    let mut log = Log::open(disk, 1 << 20, genesis()).expect("it opens");
    assert_eq!(log.disk.names(), ["spare-7.seg"]);
    log.commit(&[10]);
    assert_eq!(log.disk.names(), [segment_name(Lsn(1))]);
    assert_eq!(log.journal.report().segments[0].len, 300 << 10);
}

#[test]
fn spares_are_prepared_in_the_background() {
    let disk = Arc::new(MemoryDisk::default());
    let background = JournalConfig { background: true, ..config(&disk, 64 << 10) };
    let (journal, recovered, _) = recover(background, genesis()).expect("it opens");
    let mut log = Log { disk, journal, last: recovered.last, history: Vec::new() };
    for _ in 0..100 {
        log.commit(&[3000]);
    }
    drop(log.journal);
    assert!(log.disk.names().iter().all(|name| name.ends_with(".seg")));
    let again = Log::open(log.disk, 64 << 10, genesis()).expect("it opens");
    assert_eq!(again.history, log.history);
}

#[test]
fn bytes_after_grow_with_each_append_and_shrink_with_trim() {
    let mut log = Log::new(64 << 10);
    let mut before = 0;
    for _ in 0..100 {
        log.commit(&[10]);
        let bytes = log.journal.bytes_after(Lsn(0));
        assert!(bytes >= before + 4096);
        before = bytes;
    }
    let again = Log::open(log.disk.copy(), 64 << 10, genesis()).expect("it opens");
    assert_eq!(again.journal.bytes_after(Lsn(0)), before);
    log.journal.trim(Lsn(90)).expect("it trims");
    assert!((10 * 4096..before).contains(&log.journal.bytes_after(Lsn(90))));
}

#[test]
fn reader_follows_a_journal_that_is_written_across_segments() {
    let mut log = Log::new(16 << 10);
    log.commit(&[10]);
    let open = |log: &Log| JournalReader::open(log.disk.clone(), Path::new(DIR)).expect("it opens");
    let mut reader = open(&log);
    let first = reader.next().expect("one").expect("valid");
    assert_eq!((first.file, first.offset), (path(1), 4096 + 32));
    for _ in 0..10 {
        log.commit(&[100, 200]);
    }
    let rest: Vec<u64> = reader
        .map(|stored| Record::parse(&stored.expect("valid").bytes).expect("valid").chain())
        .collect();
    let chains: Vec<u64> = log.history.iter().map(|record| record.1).collect();
    assert_eq!(rest, chains[1..]);
    for from in 0..=log.last.lsn.0 + 2 {
        let reader = open(&log).from(Lsn(from)).expect("it opens");
        let count = reader.inspect(|stored| assert!(stored.is_ok())).count();
        assert_eq!(count as u64, (log.last.lsn.0 + 1).saturating_sub(from.max(1)), "from {from}");
    }
}

#[test]
fn hostile_frames_and_headers_are_errors_or_ends_and_never_panics() {
    let mut log = Log::new(64 << 10);
    log.commit(&[40]);
    log.commit(&[50]);
    let disk = log.disk.copy();
    let whole = disk.edit(&path(1), |bytes| bytes.clone());
    for seed in 0..20_000 {
        let mut state = seed;
        disk.edit(&path(1), |bytes| {
            bytes.clone_from(&whole);
            for _ in 0..=random(&mut state) % 3 {
                let at = random(&mut state) as usize % 16_384;
                let len = (random(&mut state) as usize % 16).min(bytes.len() - at);
                let value =
                    [0, 0xff, 0x7f, random(&mut state) as u8][random(&mut state) as usize % 4];
                bytes[at..at + len].fill(value);
            }
        });
        match recover(config(&disk, 64 << 10), genesis()) {
            Ok((_, _, applied)) => {
                assert_eq!(applied, log.history[..applied.len()], "seed {seed}");
            }
            Err(error) => {
                assert!(is_loss(&error), "seed {seed}: {error}");
            }
        }
    }
}

#[test]
#[ignore = "a measurement: run it in release mode"]
fn recovery_of_64_mib_is_fast() {
    for len in [300, 3000, 30_000] {
        let mut log = Log::new(16 << 20);
        while log.journal.bytes_after(Lsn(0)) < 64 << 20 {
            log.append(&vec![len; 60_000 / len]);
        }
        for _ in 0..3 {
            let start = std::time::Instant::now();
            let (_, found) =
                Journal::recover(config(&log.disk, 16 << 20), genesis(), true, &mut |_| Ok(()))
                    .expect("it opens");
            println!("{} records, {} bytes: {:?}", found.records, found.bytes, start.elapsed());
        }
    }
}

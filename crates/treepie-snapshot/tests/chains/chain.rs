//! Chains of streams: full backups, increments and records, made under load.

use std::path::Path;

use treepie::{Base, CopyOptions, disk::Disk, ids::Lsn};
use treepie_snapshot::{
    BackupOptions, Control, Error, Position, ReadOptions, RestoreOptions, StreamHeader, StreamKind,
    StreamOptions, StreamWriter, backup, repository::Until, restore_chain,
};
use treepie_testkit::{Rng, SimDisk, mix, tally};

use crate::{
    for_seeds, seeds,
    source::{Beside, Source, options},
};

/// Where chains are restored.
pub const TARGET: &str = "/restored";

/// A stream, and where it leads.
#[derive(Clone, Debug)]
pub struct Part {
    pub kind: StreamKind,
    pub bytes: Vec<u8>,
    pub base: Position,
    pub last: Position,
}

/// One database and a chain of streams of it.
pub struct Chain {
    pub source: Source,
    pub parts: Vec<Part>,
}

/// Frames as short as they may be, so that there are several; one thread.
fn stream_options(rng: &mut Rng, page_size: usize) -> StreamOptions {
    let level = *rng.pick(&[0, 1, 1, 3]);
    StreamOptions::new().threads(rng.index(3)).level(level).frame_len(128 * page_size)
}

impl Chain {
    /// Makes the chain of a seed: a full backup, then increments and records.
    pub fn new(seed: u64) -> Chain {
        let source = Source::new(seed);
        let mut rng = source.rng.clone();
        source.steps(5 + rng.index(30));
        let mut chain = Chain { source, parts: Vec::new() };
        chain.add_pages(&mut rng, false);
        for _ in 0..1 + rng.index(4) {
            chain.source.steps(rng.index(12));
            match rng.below(3) {
                0 => chain.add_records(&mut rng),
                _ => chain.add_pages(&mut rng, true),
            }
        }
        chain
    }

    fn end(&self) -> Position {
        self.parts.last().map(|part| part.last).unwrap_or_default()
    }

    /// A backup while the database goes on: an increment on the last stream, or a full one.
    fn add_pages(&mut self, rng: &mut Rng, is_increment: bool) {
        let end = self.end();
        if is_increment && end.lsn == self.source.lsn() {
            return;
        }
        let lineage = self.source.db().lineage();
        let base = is_increment.then_some(Base { lineage, lsn: end.lsn, chain: end.chain });
        let part = match rng.below(4) {
            0 => self.back_up(rng, base),
            _ => self.copy_slowly(rng, base),
        };
        self.parts.push(part);
    }

    /// As users do it. Pages are read a megabyte at a time: most of these databases at once.
    fn back_up(&self, rng: &mut Rng, base: Option<Base>) -> Part {
        let db = self.source.db();
        let mut options = BackupOptions::new().stream(stream_options(rng, db.page_size()));
        if let Some(base) = base {
            options = options.base(base);
        }
        let beside = Beside::new(&self.source, *rng.pick(&[1, 5_000, 60_000]));
        let (beside, report) = backup(&db, beside, &options, Control::new()).expect("a backup");
        let header = report.summary.header;
        let (kind, base, last) = (header.kind, header.base, header.position);
        Part { kind, bytes: beside.into_bytes(), base, last }
    }

    /// The same a few pages at a time, with commits and checkpoints between any two.
    fn copy_slowly(&self, rng: &mut Rng, base: Option<Base>) -> Part {
        let db = self.source.db();
        let copy_options = base.map_or_else(CopyOptions::new, |base| CopyOptions::new().base(base));
        let mut copy = db.copy_pages(&copy_options).expect("a copy");
        let base = base.map(|base| Position { lsn: base.lsn, chain: base.chain });
        let last = Position { lsn: copy.lsn(), chain: copy.chain() };
        let kind = if base.is_some() { StreamKind::Increment } else { StreamKind::Full };
        let header = StreamHeader {
            kind,
            lineage: copy.lineage(),
            page_size: copy.page_size(),
            page_count: copy.page_count(),
            position: last,
            base: base.unwrap_or_default(),
            time_us: copy.time_us(),
            database_created_us: copy.created_us(),
            created_us: 1,
        };
        let options = stream_options(rng, db.page_size());
        let mut writer = StreamWriter::new(Vec::new(), header, &options).expect("a stream");
        let len_max = db.page_size() * (1 + rng.index(8));
        let mut chunk = Vec::new();
        while let Some(first) = copy.next(&mut chunk, len_max).expect("pages") {
            writer.pages(first, &chunk).expect("they ascend");
            chunk.clear();
            if rng.chance(1, 3) {
                self.source.step(false);
            }
            if rng.chance(1, 6) {
                db.checkpoint().expect("a checkpoint");
            }
        }
        let (bytes, _) = writer.finish(last).expect("it ends");
        Part { kind, bytes, base: base.unwrap_or_default(), last }
    }

    /// The records since the last stream.
    fn add_records(&mut self, rng: &mut Rng) {
        let db = self.source.db();
        let end = self.end();
        if end.lsn == db.durable_lsn() {
            return;
        }
        let header = StreamHeader {
            kind: StreamKind::Records,
            lineage: db.lineage(),
            page_size: db.page_size(),
            page_count: 0,
            position: end,
            base: end,
            time_us: 1,
            database_created_us: 1,
            created_us: 1,
        };
        let options = stream_options(rng, db.page_size());
        let mut writer = StreamWriter::new(Vec::new(), header, &options).expect("a stream");
        let mut records = db.records(end.lsn).expect("they are kept");
        while let Some(record) = records.next_record().expect("they are there") {
            writer.record(record.lsn, &record.bytes).expect("it follows");
        }
        let last = writer.position();
        let (bytes, _) = writer.finish(last).expect("it ends");
        self.parts.push(Part { kind: StreamKind::Records, bytes, base: end, last });
    }

    /// Restores streams onto a disk, up to `until`.
    pub fn restore(&self, disk: &SimDisk, parts: &[Part], until: Until) -> Result<Position, Error> {
        let options = RestoreOptions::new()
            .engine(options(disk))
            .read(ReadOptions::new().threads(1))
            .until(until);
        let inputs = parts.iter().map(|part| &part.bytes[..]);
        restore_chain(inputs, TARGET, &options, Control::new()).map(|report| report.position)
    }

    /// What is wrong with what was restored onto a disk, if anything is there.
    pub fn verify(&self, disk: &SimDisk, at: Position) -> Result<(), String> {
        let db = options(disk).open(TARGET).map_err(|error| error.to_string())?;
        let lsn = self.source.verify(&db)?;
        if lsn != at.lsn {
            return Err(format!("it is at LSN {lsn}, and the streams lead to {}", at.lsn));
        }
        let (found, old) = (db.lineage(), self.source.db().lineage());
        if found.epoch == old.epoch || (found.forked_at, found.forked_chain) != (at.lsn, at.chain) {
            return Err(format!("its lineage is {found:?}"));
        }
        db.write(|tx| tx.tree("after")?.insert("k", "v")).map_err(|error| error.to_string())?;
        db.close().map_err(|error| error.to_string())
    }
}

/// Whether a database, or a part of one, has the name that it gets at the very end.
pub fn is_published(disk: &SimDisk) -> bool {
    disk.exists(Path::new(TARGET)).expect("it can be asked")
}

/// Restores each prefix of a chain, and some LSNs between; returns how many.
pub fn check(seed: u64) -> Result<u64, String> {
    let chain = Chain::new(seed);
    let mut rng = Rng::new(mix(seed, 1));
    let mut count = 0;
    for len in 1..=chain.parts.len() {
        let disk = SimDisk::new(mix(seed, len as u64));
        let parts = &chain.parts[..len];
        let at = |what: String| format!("seed {seed}, the first {len} streams: {what}");
        let found = chain.restore(&disk, parts, Until::End).map_err(|e| at(e.to_string()))?;
        let last = &parts[len - 1];
        if found != last.last {
            return Err(at(format!("they lead to {found:?}, not to {:?}", last.last)));
        }
        chain.verify(&disk, found).map_err(at)?;
        count += 1;
        if last.kind == StreamKind::Records {
            let lsn = Lsn(last.base.lsn.0 + 1 + rng.below(last.last.lsn.0 - last.base.lsn.0));
            let at = |what: String| format!("seed {seed}, the first {len} to LSN {lsn}: {what}");
            let disk = SimDisk::new(mix(seed, !(len as u64)));
            let found = chain.restore(&disk, parts, Until::Lsn(lsn));
            let found = found.map_err(|error| at(error.to_string()))?;
            if found.lsn != lsn {
                return Err(at(format!("it ends at {}", found.lsn)));
            }
            chain.verify(&disk, found).map_err(at)?;
            count += 1;
        }
    }
    Ok(count)
}

#[test]
fn backups_under_load_restore_the_state_of_their_lsn() {
    let seeds = seeds(1000);
    let work = |seed| check(seed).unwrap_or_else(|what| panic!("{what}"));
    let count = for_seeds(&seeds, work, |sum, count| *sum += count);
    let chains = tally::thousands(seeds.len() as u64);
    tally::note(13, "chains", &format!("{chains}, {} restores", tally::thousands(count)));
}

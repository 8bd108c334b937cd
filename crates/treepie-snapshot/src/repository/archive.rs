//! The archive of records: when a file of it is cut, and where it goes on.

use treepie::{Lineage, ids::Lsn};

use super::{Kind, Manifest, Position};

/// When a file of records is finished and the next one begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivePolicy {
    /// Bytes of records, before compression.
    pub bytes_max: u64,
    /// Microseconds since its first record came: how much a lost machine costs.
    pub age_max_us: u64,
}

impl Default for ArchivePolicy {
    /// 64 MiB, or a minute.
    fn default() -> ArchivePolicy {
        ArchivePolicy { bytes_max: 64 << 20, age_max_us: 60_000_000 }
    }
}

/// Decides when to cut. It knows no clock and no file: times come in, decisions go out.
#[derive(Clone, Copy, Debug)]
pub struct Cutter {
    policy: ArchivePolicy,
    open: Option<OpenFile>,
}

#[derive(Clone, Copy, Debug)]
struct OpenFile {
    since_us: u64,
    bytes: u64,
}

impl Cutter {
    /// With no file begun.
    #[must_use]
    pub fn new(policy: ArchivePolicy) -> Cutter {
        Cutter { policy, open: None }
    }

    /// Whether the file that is open must be cut before a record of so many bytes goes into it. A
    /// record that is longer than a whole file gets one of its own.
    #[must_use]
    pub fn cuts_before(&self, record_len: u64, now_us: u64) -> bool {
        self.open.is_some_and(|open| {
            open.bytes.saturating_add(record_len) > self.policy.bytes_max || self.is_due(now_us)
        })
    }

    /// Notes a record that went into the file, which begins with it if none is open.
    pub fn added(&mut self, record_len: u64, now_us: u64) {
        let open = self.open.get_or_insert(OpenFile { since_us: now_us, bytes: 0 });
        open.bytes = open.bytes.saturating_add(record_len);
    }

    /// Whether the file that is open is to be cut now, even if no record comes.
    #[must_use]
    pub fn is_due(&self, now_us: u64) -> bool {
        self.wait_us(now_us) == Some(0)
    }

    /// How long to wait for records before the file is due; none if no file is open. A clock
    /// that was set back makes nobody wait longer than the age.
    #[must_use]
    pub fn wait_us(&self, now_us: u64) -> Option<u64> {
        let open = self.open?;
        if open.bytes >= self.policy.bytes_max {
            return Some(0);
        }
        let age = now_us.saturating_sub(open.since_us);
        Some(self.policy.age_max_us.saturating_sub(age))
    }

    /// Notes that the file was cut.
    pub fn cut(&mut self) {
        self.open = None;
    }
}

/// Where an archive goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveStart {
    /// The repository has nothing of this lineage that it could go on from. Write a full backup
    /// first, or begin with all that the journal has.
    Fresh,
    /// After this record, without a hole.
    After(Position),
    /// The journal no longer has the records from `first` to `last`. Points between them cannot be
    /// restored; the archive can begin behind them, and leads on from the next full backup.
    Hole {
        /// The first missing record.
        first: Lsn,
        /// The last one.
        last: Lsn,
    },
    /// The repository is ahead of the journal: this is an older copy of the database than the one that
    /// was archived.
    Behind {
        /// Where the repository ends.
        archived: Lsn,
    },
}

/// Where the archive of a lineage goes on, with a journal that has the records from `first` to `last`.
///
/// It goes on where its newest file ended. Where there is none, it begins at the oldest snapshot from which
/// the journal still leads on, so that as much as possible can be restored; or where the lineage forked
/// from one whose streams are here.
#[must_use]
pub fn archive_start(
    manifest: &Manifest,
    lineage: &Lineage,
    (first, last): (Lsn, Lsn),
) -> ArchiveStart {
    let ends = |kind_fits: fn(Kind) -> bool| {
        let entries = manifest.entries.iter().map(|entry| &entry.stream);
        let own =
            entries.filter(move |stream| stream.lineage == *lineage && kind_fits(stream.kind));
        own.map(|stream| stream.last)
    };
    let is_fork_of_ours = lineage.epoch > 0
        && manifest.entries.iter().any(|entry| {
            let other = &entry.stream.lineage;
            other.database_id == lineage.database_id
                && other.epoch < lineage.epoch
                && entry.stream.last.lsn >= lineage.forked_at
        });
    let fork = Position { lsn: lineage.forked_at, chain: lineage.forked_chain };
    let reachable = ends(Kind::is_snapshot).filter(|end| end.lsn.next() >= first).min();
    let end = (ends(|kind| kind == Kind::Records).max())
        .or(reachable)
        .or_else(|| ends(Kind::is_snapshot).max())
        .or_else(|| is_fork_of_ours.then_some(fork));
    match end {
        None => ArchiveStart::Fresh,
        Some(end) if end.lsn > last => ArchiveStart::Behind { archived: end.lsn },
        Some(end) if end.lsn.next() < first => {
            ArchiveStart::Hole { first: end.lsn.next(), last: Lsn(first.0 - 1) }
        }
        Some(end) => ArchiveStart::After(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing::{chain, fork, full, lineage, records};

    const POLICY: ArchivePolicy = ArchivePolicy { bytes_max: 1000, age_max_us: 60 };

    #[test]
    fn file_is_cut_by_size_before_the_record_that_would_pass_it() {
        let mut cutter = Cutter::new(POLICY);
        assert!(!cutter.cuts_before(5000, 0), "there is nothing to cut");
        cutter.added(600, 0);
        assert!(!cutter.cuts_before(400, 1));
        assert!(cutter.cuts_before(401, 1));
        cutter.cut();
        cutter.added(5000, 2);
        assert!(cutter.is_due(2), "a long record has a file of its own");
        assert!(cutter.cuts_before(1, 2));
        assert!(cutter.cuts_before(u64::MAX, 2));
    }

    #[test]
    fn file_is_cut_by_age_from_its_first_record_on() {
        let mut cutter = Cutter::new(POLICY);
        assert_eq!(cutter.wait_us(1000), None);
        cutter.added(1, 1000);
        cutter.added(1, 1030);
        assert_eq!(cutter.wait_us(1030), Some(30));
        assert!(!cutter.is_due(1059));
        assert!(cutter.is_due(1060) && cutter.cuts_before(1, 1060));
        assert_eq!(cutter.wait_us(10), Some(60), "the clock was set back");
        cutter.cut();
        assert!(!cutter.is_due(9999));
    }

    #[test]
    fn no_record_stays_in_an_open_file_for_longer_than_the_age_and_none_is_lost() {
        let seed = 20_260_701;
        let mut rng = treepie_testkit::Rng::new(seed);
        let mut cutter = Cutter::new(POLICY);
        let (mut now, mut file, mut archived, mut given) = (0, Vec::new(), 0, 0_u64);
        for _ in 0..10_000 {
            let next = now + rng.below(50);
            // The waiting loop: it wakes when the file is due.
            while let Some(wait) = cutter.wait_us(now).filter(|wait| now + wait <= next) {
                now += wait;
                assert!(cutter.is_due(now), "seed {seed}");
                archived += file.drain(..).count() as u64;
                cutter.cut();
            }
            now = next;
            let len = 1 + rng.below(700);
            if cutter.cuts_before(len, now) {
                archived += file.drain(..).count() as u64;
                cutter.cut();
            }
            cutter.added(len, now);
            file.push((len, now));
            given += 1;
            let bytes: u64 = file.iter().map(|(len, _)| len).sum();
            assert!(bytes <= POLICY.bytes_max || file.len() == 1, "seed {seed}");
            assert!(file.iter().all(|(_, since)| now - since <= POLICY.age_max_us), "seed {seed}");
        }
        assert_eq!(archived + file.len() as u64, given);
    }

    #[test]
    fn archive_goes_on_where_it_ended_and_tells_holes() {
        let main = lineage(0);
        let at = |lineage, lsn| Position { lsn: Lsn(lsn), chain: chain(lineage, lsn) };
        let mut manifest = Manifest::default();
        let journal = (Lsn(1), Lsn(100));
        assert_eq!(archive_start(&manifest, &main, journal), ArchiveStart::Fresh);
        manifest.entries = vec![full(main, 10)];
        assert_eq!(archive_start(&manifest, &main, journal), ArchiveStart::After(at(main, 10)));
        manifest.entries.extend([records(main, 10, 20), full(main, 30)]);
        assert_eq!(archive_start(&manifest, &main, journal), ArchiveStart::After(at(main, 20)));
        let trimmed = (Lsn(26), Lsn(100));
        let hole = ArchiveStart::Hole { first: Lsn(21), last: Lsn(25) };
        assert_eq!(archive_start(&manifest, &main, trimmed), hole);
        let old = (Lsn(1), Lsn(19));
        let behind = ArchiveStart::Behind { archived: Lsn(20) };
        assert_eq!(archive_start(&manifest, &main, old), behind);
        let child = fork(main, 15);
        let after = ArchiveStart::After(at(main, 15));
        assert_eq!(archive_start(&manifest, &child, (Lsn(16), Lsn(16))), after);
        assert_eq!(archive_start(&manifest, &fork(main, 99), journal), ArchiveStart::Fresh);
    }
}

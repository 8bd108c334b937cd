//! The journal as a log of consensus: hard states, truncation, terms, and what a recovery takes for
//! committed. Random scripts on a simulated disk are in `tests/log`.

use super::*;
use crate::{
    format::hard_state::HardState,
    journal::{SegmentStep, SegmentVerifier},
};

fn state(term: u64, vote: u64) -> HardState {
    HardState { term: Term(term), vote }
}

impl Log {
    /// A replicated journal, with records of no term in front of its first hard state.
    fn replicated(segment_size_max: u64, records: usize) -> Log {
        let mut log = Log::new(segment_size_max);
        for _ in 0..records {
            log.commit(&[100]);
        }
        log.journal.make_replicated(state(1, 0)).expect("it becomes replicated");
        log
    }

    /// Appends records of a term, with a hard state in front, in one write.
    fn append_in(&mut self, term: u64, hard_state: Option<HardState>, lens: &[usize]) {
        let known = Lsn(0);
        let records: Vec<SealedRecord> =
            lens.iter().map(|&len| self.seal_in(len, Term(term), known)).collect();
        let records: Vec<&SealedRecord> = records.iter().collect();
        self.journal.append_group(hard_state.as_ref(), &records, known).expect("the append works");
    }

    fn commit_in(&mut self, term: u64, hard_state: Option<HardState>, lens: &[usize]) {
        self.append_in(term, hard_state, lens);
        assert_eq!(self.journal.sync().expect("the sync works"), self.last.lsn);
    }

    fn truncate(&mut self, after: u64) {
        let position = if after == 0 { genesis() } else { self.position(after) };
        self.journal.truncate(position).expect("it truncates");
        self.history.truncate(usize::try_from(after).expect("small"));
        self.last = position;
    }

    /// Opens a copy as a power cut leaves it that keeps nothing unsynced; the journal and what was found.
    fn after_cut(&self, size_max: u64) -> (Arc<MemoryDisk>, Journal, Recovered, History) {
        let disk = self.disk.power_cut(&mut || false);
        let (journal, recovered, applied) =
            recover(config(&disk, size_max), genesis()).expect("it opens");
        (disk, journal, recovered, applied)
    }

    /// All records above `from` that the journal shows to a reader.
    fn read(&self) -> History {
        let reader = JournalReader::open(self.disk.clone(), Path::new(DIR)).expect("it opens");
        let records = reader.map(|stored| stored.expect("valid").header);
        records.map(|header| (header.lsn().0, header.chain())).collect()
    }

    fn firsts(&self) -> Vec<u64> {
        self.journal.report().segments.iter().map(|segment| segment.first_lsn.0).collect()
    }
}

#[test]
fn newest_hard_state_is_found_and_only_committed_records_are_applied() {
    let mut log = Log::replicated(64 << 10, 3);
    log.commit_in(2, Some(state(2, 7)), &[10, 20]);
    let records = [log.seal_in(30, Term(2), Lsn(4)), log.seal_in(40, Term(2), Lsn(4))];
    log.journal.append_group(None, &[&records[0], &records[1]], Lsn(4)).expect("it appends");
    log.append_in(2, Some(state(3, 0)), &[]);
    log.journal.sync().expect("the sync works");
    let (_, journal, recovered, applied) = log.after_cut(64 << 10);
    assert_eq!(recovered.hard_state, Some(state(3, 0)));
    assert_eq!((recovered.last, recovered.committed), (log.last, log.position(4)));
    assert_eq!(applied, log.history[..4]);
    assert_eq!(recovered.records, 7);
    let terms: Vec<_> = (0..=8).map(|lsn| journal.term_of(Lsn(lsn)).map(|t| t.0)).collect();
    assert_eq!(
        terms[1..],
        [0, 0, 0, 2, 2, 2, 2].map(Some).into_iter().chain([None]).collect::<Vec<_>>()
    );
    assert_eq!(journal.position_of(Lsn(5)).expect("it is there"), log.position(5));
    assert_eq!(log.read(), log.history, "readers see no local records");
}

#[test]
fn truncated_records_never_come_back_wherever_the_cut_is_made() {
    for after in 3..=14 {
        let mut log = Log::replicated(16 << 10, 3);
        for lens in [&[10][..], &[3000, 20], &[5000], &[4000, 4000], &[30], &[40], &[6000], &[50]] {
            log.commit_in(2, None, lens);
        }
        assert!(log.firsts().len() > 3, "{:?}", log.firsts());
        let before = log.last.lsn.0;
        assert!(before >= 13);
        let after = after.min(before - 1);
        log.truncate(after);
        assert_eq!(log.read(), log.history, "after {after}");
        let (_, _, recovered, _) = log.after_cut(16 << 10);
        assert_eq!(
            (recovered.last, recovered.hard_state),
            (log.last, Some(state(1, 0))),
            "{after}"
        );
        assert!(log.journal.term_of(Lsn(after + 1)).is_none());
        // Others take their numbers, once more, and stay.
        log.append_in(3, Some(state(3, 1)), &[70, 80]);
        log.truncate(after + 1);
        log.commit_in(4, Some(state(4, 2)), &[90, 3000, 3000, 3000]);
        let (disk, journal, recovered, _) = log.after_cut(16 << 10);
        assert_eq!(
            (recovered.last, recovered.hard_state),
            (log.last, Some(state(4, 2))),
            "{after}"
        );
        assert_eq!(journal.term_of(Lsn(after + 1)), Some(Term(3)));
        assert_eq!(journal.term_of(Lsn(after + 2)), Some(Term(4)));
        assert_eq!(log.read(), log.history, "after {after}");
        let again = recover(config(&disk, 16 << 10), genesis()).expect("it opens again").1;
        assert_eq!(again.last, recovered.last);
    }
}

#[test]
fn truncation_to_the_first_record_of_a_segment_and_to_none_takes_its_name() {
    let mut log = Log::replicated(16 << 10, 0);
    for _ in 0..12 {
        log.commit_in(2, None, &[2500]);
    }
    let firsts = log.firsts();
    log.truncate(firsts[2] - 1);
    assert_eq!(log.firsts(), firsts[..=2]);
    log.truncate(0);
    assert_eq!(log.firsts(), [1]);
    log.commit_in(3, Some(state(3, 0)), &[10]);
    let (_, _, recovered, _) = log.after_cut(16 << 10);
    assert_eq!((recovered.last, recovered.hard_state), (log.last, Some(state(3, 0))));
}

#[test]
fn group_that_does_not_fit_behind_a_truncation_keeps_hard_state_and_truncation() {
    let mut log = Log::replicated(16 << 10, 2);
    for _ in 0..6 {
        log.commit_in(2, None, &[2500]);
    }
    log.truncate(4);
    log.append_in(3, Some(state(3, 9)), &[]);
    log.journal.sync().expect("the sync works");
    // The new segment has the name of the one that supersedes.
    log.append_in(3, None, &[300_000]);
    let (_, _, recovered, _) = log.after_cut(16 << 10);
    assert_eq!(recovered.hard_state, Some(state(3, 9)));
    assert_eq!(recovered.last, log.position(4));
    log.journal.sync().expect("the sync works");
    let (_, _, recovered, _) = log.after_cut(16 << 10);
    assert_eq!((recovered.last, recovered.hard_state), (log.last, Some(state(3, 9))));
    assert_eq!(log.read(), log.history);
}

#[test]
fn trim_keeps_the_only_durable_hard_state_and_the_term_of_the_last_record_before() {
    let mut log = Log::replicated(16 << 10, 1);
    for lsn in 0..20 {
        log.commit_in(2, None, &[2500]);
        log.journal.note_committed(Lsn(lsn));
    }
    // A segment that has its name, and no header yet.
    log.journal.reserve(16 << 10, super::super::Room::Common).expect("it rolls");
    let last = log.last;
    log.journal.trim(last.lsn).expect("it trims");
    let disk = log.disk.power_cut(&mut || false);
    let (journal, recovered, applied) = recover(config(&disk, 16 << 10), last).expect("it opens");
    assert_eq!((recovered.hard_state, recovered.last), (Some(state(1, 0)), last));
    assert_eq!((recovered.committed, applied.len()), (last, 0));
    assert_eq!(journal.term_of(last.lsn), Some(Term(2)));
    assert!(journal.first_known() < last.lsn);
    // Once it is written there, the older one may go.
    log.commit_in(2, None, &[10]);
    log.journal.trim(log.last.lsn).expect("it trims");
    let first = log.firsts()[0];
    assert!(first > 1);
    assert_eq!(log.journal.first_known(), Lsn(first - 1));
    assert_eq!(log.journal.term_of(Lsn(first - 1)), Some(Term(2)));
    assert_eq!(log.journal.term_of(Lsn(first - 2)), None);
}

#[test]
fn terms_of_records_that_are_kept_below_the_checkpoint_are_known_after_opening() {
    let mut log = Log::replicated(16 << 10, 2);
    for term in 2..7 {
        for _ in 0..7 {
            log.commit_in(term, Some(state(term, 0)), &[2500]);
        }
    }
    assert!(log.firsts().len() > 10);
    let first = log.firsts()[1];
    let (journal, ..) = recover(config(&log.disk.copy(), 16 << 10), log.last).expect("it opens");
    // The first segment is of before it was replicated.
    assert_eq!(journal.first_known(), Lsn(first - 1));
    for lsn in first - 1..=log.last.lsn.0 {
        let term = if lsn < 3 { 0 } else { 2 + (lsn - 3) / 7 };
        assert_eq!(journal.term_of(Lsn(lsn)), Some(Term(term)), "{lsn}");
    }
}

#[test]
fn term_of_a_base_without_records_is_remembered() {
    let mut log = Log::replicated(16 << 10, 0);
    log.journal.set_base_term(Term(5)).expect("it is told");
    for _ in 0..2 {
        let disk = log.disk.power_cut(&mut || false);
        log = Log::open(disk, 16 << 10, genesis()).expect("it opens");
        assert_eq!(log.journal.term_of(Lsn(0)), Some(Term(5)));
    }
    log.commit_in(6, Some(state(6, 0)), &[10]);
    assert_eq!(log.journal.term_of(Lsn(0)), Some(Term(5)));
    assert_eq!(log.journal.term_of(Lsn(1)), Some(Term(6)));
}

/// A hard state alone, records behind it, and nothing after that: the rot of the hard state is found,
/// though no record vouches for it.
#[test]
fn every_flipped_bit_of_a_replicated_journal_is_found_but_for_those_of_the_last_write() {
    let mut log = Log::replicated(64 << 10, 1);
    log.commit_in(2, None, &[40]);
    log.append_in(2, Some(state(3, 4)), &[]);
    log.journal.sync().expect("the sync works");
    log.append_in(2, Some(state(4, 5)), &[]);
    log.journal.sync().expect("the sync works");
    log.commit_in(4, None, &[50]);
    let disk = log.disk.copy();
    let used = log.journal.report().segments[1].used as usize;
    assert_eq!(used, 6 * 4096, "header, hard state, and four groups");
    let opened = |disk| recover(config(disk, 64 << 10), genesis());
    let (mut errors, mut dropped) = (0, 0);
    for bit in (0..used * 8).step_by(3) {
        disk.edit(&path(2), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        match opened(&disk) {
            Ok((_, recovered, _)) if recovered.last == log.last => {
                assert_eq!(recovered.hard_state, Some(state(4, 5)), "bit {bit}");
            }
            Ok((_, recovered, _)) => {
                assert!(bit / 8 >= used - 4096, "bit {bit} lost records: {recovered:?}");
                assert_eq!(recovered.last, log.position(2), "bit {bit}");
                dropped += 1;
            }
            Err(error) => {
                assert!(is_loss(&error), "bit {bit}: {error}");
                errors += 1;
            }
        }
        disk.edit(&path(2), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
    assert!(errors > 4096 && dropped > 500, "{errors} {dropped}");
}

#[test]
fn gap_behind_a_segment_that_supersedes_is_corruption_and_remains_are_removed() {
    let mut log = Log::replicated(16 << 10, 2);
    for _ in 0..12 {
        log.commit_in(2, None, &[2500]);
    }
    let firsts = log.firsts();
    let old = log.disk.copy();
    assert!(!firsts.contains(&(firsts[2] + 1)));
    log.truncate(firsts[2]);
    let superseding = path(firsts[2] + 1);
    // What an interrupted removal leaves: the new segment beside the old ones.
    let bytes = log.disk.edit(&superseding, |bytes| bytes.clone());
    let both = old.copy();
    crate::disk::Disk::open(&*both, &superseding, crate::disk::OpenMode::CreateNew).expect("new");
    both.edit(&superseding, |there| there.clone_from(&bytes));
    let (_, recovered, _) = recover(config(&both, 16 << 10), genesis()).expect("it opens");
    assert_eq!(recovered.last, log.last);
    let last_old = segment_name(Lsn(*firsts.last().expect("segments")));
    assert!(old.names().contains(&last_old) && !both.names().contains(&last_old));
    // A segment that was begun later is none of that: what is missing before it is lost.
    for _ in 0..6 {
        log.commit_in(3, Some(state(3, 0)), &[5000]);
    }
    let newest = log.firsts();
    assert!(newest.len() > 4, "{newest:?}");
    log.disk.edit(&path(newest[3]), |bytes| bytes.clear());
    assert!(is_loss(&refusal_of(&log.disk, 16 << 10)));
}

fn refusal_of(disk: &Arc<MemoryDisk>, size_max: u64) -> Error {
    recover(config(disk, size_max), genesis()).map(|opened| opened.1).expect_err("it must not open")
}

#[test]
fn hard_state_whose_term_falls_is_corruption() {
    let mut log = Log::replicated(64 << 10, 1);
    log.commit_in(2, Some(state(5, 0)), &[40]);
    log.append_in(2, Some(state(6, 0)), &[]);
    log.journal.sync().expect("the sync works");
    let last = log.journal.report().segments[1].used as usize - 4096;
    log.disk.edit(&path(2), |bytes| {
        forge_record(bytes, last, |record| put_u64(record, 132, 4));
    });
    assert!(is_loss(&refusal_of(&log.disk, 64 << 10)));
}

#[test]
fn scrub_passes_over_hard_states_and_finds_one_that_rots() {
    let mut log = Log::replicated(64 << 10, 1);
    log.commit_in(2, None, &[40]);
    for vote in 1..4 {
        log.append_in(2, Some(state(3, vote)), &[]);
        log.journal.sync().expect("the sync works");
    }
    log.commit_in(3, None, &[50, 60]);
    let steps = || {
        let first = Lsn(2);
        let verifier = SegmentVerifier::open(&*log.disk, Path::new(DIR), first, log.last.lsn);
        let mut verifier = verifier.expect("it opens");
        let mut steps = Vec::new();
        loop {
            match verifier.step().expect("it reads") {
                SegmentStep::End => return steps,
                step => steps.push(step),
            }
        }
    };
    let is_whole = |step: &SegmentStep| matches!(step, SegmentStep::Verified(_));
    assert!(steps().len() == 3 && steps().iter().all(is_whole));
    // The header, the first hard state, a record: then the three.
    let second = 3 * 4096;
    log.disk.edit(&path(2), |bytes| bytes[second + 50] ^= 1);
    let found = steps();
    let SegmentStep::Damaged { lsn, until, .. } = &found[1] else { panic!("{found:?}") };
    assert_eq!((*lsn, *until), (Lsn(3), Lsn(3)), "{found:?}");
    assert_eq!(found.iter().filter(|step| is_whole(step)).count(), 3, "{found:?}");
}

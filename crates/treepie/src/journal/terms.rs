//! Which Raft term each record has, as ranges: as long as there were terms, whatever was written.

use std::collections::VecDeque;

use crate::ids::{Lsn, Term};

/// The list. Neighbours differ in their term.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// First LSN of each range, ascending.
    ranges: VecDeque<(Lsn, Term)>,
    /// The first LSN, where its term was told by what follows it and not by the record itself.
    told: Option<Lsn>,
}

impl Terms {
    /// The term of a record; nothing is known below the first one. Above the last one it is that of
    /// the last one.
    pub fn term(&self, lsn: Lsn) -> Option<Term> {
        let behind = self.ranges.partition_point(|range| range.0 <= lsn);
        behind.checked_sub(1).and_then(|index| self.ranges.get(index)).map(|range| range.1)
    }

    /// The first record whose term is known, and its term.
    pub fn first(&self) -> Option<(Lsn, Term)> {
        self.ranges.front().copied()
    }

    /// Notes the term of a record behind all that are known.
    pub fn begin(&mut self, lsn: Lsn, term: Term) {
        if self.ranges.back().is_none_or(|last| last.1 != term) {
            self.ranges.push_back((lsn, term));
        }
    }

    /// Notes what is told of the record in front of all that are known; returns false, and changes
    /// nothing, where others are known, or it is known of itself.
    pub fn tell(&mut self, lsn: Lsn, term: Term) -> bool {
        let is_replaced = self.ranges.len() == 1
            && self.told == Some(lsn)
            && self.first().map(|f| f.0) == Some(lsn);
        if !self.ranges.is_empty() && !is_replaced {
            return false;
        }
        self.ranges = VecDeque::from([(lsn, term)]);
        self.told = Some(lsn);
        true
    }

    /// Where nothing is known at all, takes this record for one that was never replicated.
    pub fn tell_if_unknown(&mut self, lsn: Lsn) {
        if self.ranges.is_empty() {
            self.tell(lsn, Term(0));
        }
    }

    /// Notes terms of records in front of the first one that is known: ascending, each with the first
    /// LSN that it holds for.
    pub fn extend_front(&mut self, ranges: &[(Lsn, Term)]) {
        for &(lsn, term) in ranges.iter().rev() {
            self.told = None;
            match self.ranges.front_mut() {
                Some(front) if front.1 == term => front.0 = lsn,
                _ => self.ranges.push_front((lsn, term)),
            }
        }
    }

    /// The ranges, each with the first LSN that it holds for, ascending.
    pub fn ranges(&self) -> Vec<(Lsn, Term)> {
        self.ranges.iter().copied().collect()
    }

    /// Forgets the records above `lsn`.
    pub fn truncate(&mut self, lsn: Lsn) {
        while self.ranges.len() > 1 && self.ranges.back().is_some_and(|range| range.0 > lsn) {
            self.ranges.pop_back();
        }
    }

    /// Forgets the records below `lsn`.
    pub fn trim(&mut self, lsn: Lsn) {
        while self.ranges.get(1).is_some_and(|second| second.0 <= lsn) {
            self.ranges.pop_front();
        }
        if let Some(front) = self.ranges.front_mut() {
            front.0 = front.0.max(lsn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_those_of_the_records_whatever_is_trimmed_and_truncated() {
        let mut terms = Terms::default();
        let of = |lsn: u64| Term(lsn / 10);
        for lsn in 5..=100 {
            terms.begin(Lsn(lsn), of(lsn));
        }
        assert_eq!(terms.ranges.len(), 11);
        let check = |terms: &Terms, first: u64, last: u64| {
            for lsn in 0..=last {
                let expected = (lsn >= first).then(|| of(lsn));
                assert_eq!(terms.term(Lsn(lsn)), expected, "{lsn}");
            }
        };
        check(&terms, 5, 100);
        terms.truncate(Lsn(95));
        terms.trim(Lsn(37));
        check(&terms, 37, 95);
        terms.truncate(Lsn(89));
        terms.trim(Lsn(40));
        check(&terms, 40, 89);
        terms.extend_front(&[(Lsn(38), Term(3)), (Lsn(40), Term(4))]);
        check(&terms, 38, 89);
        assert_eq!(terms.ranges.len(), 6);
    }

    #[test]
    fn what_is_told_of_the_base_is_replaced_until_a_record_follows() {
        let mut terms = Terms::default();
        assert!(terms.tell(Lsn(7), Term(0)) && terms.tell(Lsn(7), Term(4)));
        assert!(!terms.tell(Lsn(8), Term(5)));
        terms.begin(Lsn(8), Term(5));
        assert!(!terms.tell(Lsn(7), Term(3)));
        assert_eq!((terms.term(Lsn(7)), terms.term(Lsn(8))), (Some(Term(4)), Some(Term(5))));
    }
}

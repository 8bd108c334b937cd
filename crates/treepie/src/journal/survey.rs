//! Which of the segment files count, as their headers say.
//!
//! An interrupted removal of records that were given up (see `truncate`) may leave segments behind
//! the one that supersedes them: with a first LSN that is not below its own, and a lower sequence.
//! Nobody reads those, and the next opening removes them. A segment with a higher sequence was begun
//! later, so that what is missing before it is a loss.

use std::path::Path;

use crate::{
    disk::Disk,
    error::Result,
    format::segment::SegmentHeader,
    ids::Lsn,
    sync::{Planted, is_planted},
};

use super::segment::read_header;

/// The segments of a folder.
#[derive(Clone, Debug)]
pub struct Survey {
    listed: Vec<Lsn>,
    remains: Vec<Lsn>,
    next_sequence: u64,
}

impl Survey {
    /// Looks at the headers of all `listed` segments, which ascend.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn of(disk: &dyn Disk, dir: &Path, listed: Vec<Lsn>) -> Result<Survey> {
        let mut survey = Survey { listed: Vec::new(), remains: Vec::new(), next_sequence: 0 };
        let mut superseding: Option<SegmentHeader> = None;
        for &first in &listed {
            let Some(header) = read_header(disk, dir, first)? else { continue };
            survey.next_sequence = survey.next_sequence.max(header.sequence + 1);
            if superseding.is_some_and(|newer| newer.sequence > header.sequence) {
                survey.remains.push(first);
            } else if header.supersedes && !is_planted(Planted::RemainsBelieved) {
                superseding = Some(header);
            }
        }
        survey.listed = listed;
        Ok(survey)
    }

    /// Whether these are the segments that were listed.
    pub fn is_of(&self, listed: &[Lsn]) -> bool {
        self.listed == listed
    }

    /// First LSN of each segment that counts, ascending.
    pub fn segments(&self) -> Vec<Lsn> {
        let is_remains = |first: &Lsn| self.remains.binary_search(first).is_ok();
        self.listed.iter().copied().filter(|first| !is_remains(first)).collect()
    }

    /// First LSN of each segment that an interrupted removal has left, ascending.
    pub fn remains(&self) -> &[Lsn] {
        &self.remains
    }

    /// Sequence of the next segment that is begun.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }
}

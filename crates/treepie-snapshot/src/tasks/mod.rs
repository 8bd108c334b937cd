//! DATABASES <-> REPOSITORIES: what people do with backups that are kept.
//!
//! Long streams, those of backups and squashes, are written without the lock of the repository, which is
//! taken to enter them (`entering`). The archive takes it for as long as it writes a file, and says so
//! now and then: a lock that nobody renews is another's after a while.

mod archive;
mod drill;
mod entering;
mod keep;
mod rebuild;
mod renewal;
mod squash;
mod verify;

use crate::{
    format::header::{StreamCompression, StreamKind},
    repository::{Description, Kind},
    stream::StreamSummary,
};

pub use self::{
    archive::{ArchiveOptions, ArchiveReport, Archiver, archive},
    drill::{DrillReport, drill},
    keep::{Extent, Kept, keep},
    rebuild::rebuild_manifest,
    squash::{SquashReport, squash},
    verify::{RepositoryReport, StreamFault, verify_repository},
};

/// What a repository is told of a stream. That damage was left out of it does not stand in the stream: who
/// has made it knows.
#[must_use]
pub fn describe(summary: &StreamSummary) -> Description {
    let header = &summary.header;
    let is_records = header.kind == StreamKind::Records;
    let (first_time_us, last_time_us) = match summary.record_count {
        0 => (header.time_us, header.time_us),
        _ if is_records => (summary.first_time_us, summary.last_time_us),
        _ => (header.time_us, summary.last_time_us),
    };
    Description {
        kind: match header.kind {
            StreamKind::Full => Kind::Full,
            StreamKind::Increment => Kind::Increment,
            StreamKind::Records => Kind::Records,
        },
        lineage: header.lineage,
        base: header.base,
        last: summary.last,
        first_time_us,
        last_time_us,
        created_us: header.created_us,
        page_size: u32::try_from(header.page_size).unwrap_or(0),
        page_count: if is_records { 0 } else { header.page_count },
        digest: summary.digest.0,
        compression: match summary.coding.compression {
            StreamCompression::None => "none".to_owned(),
            StreamCompression::Zstd => "zstd".to_owned(),
        },
        key_id: summary.coding.encryption.map(|encryption| encryption.key_id.to_string()),
        damage_count: 0,
    }
}

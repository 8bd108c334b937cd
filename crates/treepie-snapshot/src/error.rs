//! Errors of streams: what happened, in which frame, at which byte, and what can be done.

use std::{fmt, io, path::PathBuf};

use treepie::ids::Lsn;

use crate::{repository::RepositoryError, seal::KeyId};

/// Result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What writing or reading a stream can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed below the stream.
    #[error("cannot {action} the stream at byte {offset}: {source}")]
    Io {
        /// The call, as a verb.
        action: &'static str,
        /// How many bytes went well before.
        offset: u64,
        /// What the reader or writer said.
        source: io::Error,
    },
    /// The bytes are something else.
    #[error(
        "this is no Treepie stream (its first bytes are {found:02x?}); check where it comes from"
    )]
    NotAStream {
        /// The bytes where the magic should be.
        found: [u8; 8],
    },
    /// A newer Treepie wrote it.
    #[error(
        "the {structure} has format version {found}, this build reads up to {supported}; upgrade Treepie"
    )]
    UnsupportedVersion {
        /// What is newer. Its checksum holds, so it is not damaged.
        structure: &'static str,
        /// Its version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// The stream needs a feature that this build does not have.
    #[error("the stream needs features {found:#x}, this build has {supported:#x}; upgrade Treepie")]
    UnsupportedFeatures {
        /// Feature bits that it requires.
        found: u64,
        /// Feature bits that this build has.
        supported: u64,
    },
    /// The stream ends before its trailer.
    #[error("the stream is cut off at byte {offset}, in {place}; fetch or make it again")]
    Cut {
        /// Where it ends.
        place: Place,
        /// How many bytes there are.
        offset: u64,
    },
    /// Stored bytes break their checksum or layout.
    #[error("the stream is damaged in {place} at byte {offset}: {what}; fetch or make it again")]
    Damaged {
        /// The part that is damaged.
        place: Place,
        /// Where it begins, in bytes from the start of the stream.
        offset: u64,
        /// What is wrong with it.
        what: StreamDamage,
    },
    /// The stream is whole, and bytes follow its trailer.
    #[error(
        "bytes follow the end of the stream at byte {offset}; it was joined with something else"
    )]
    TrailingBytes {
        /// Where the stream ends.
        offset: u64,
    },
    /// The stream is encrypted, and there is no key.
    #[error("the stream is encrypted with the key {key_id}; name the file that holds it")]
    KeyMissing {
        /// Id of the key that is needed.
        key_id: KeyId,
    },
    /// The key is another one than the stream was encrypted with.
    #[error(
        "the stream is encrypted with the key {wanted}, and the key {given} does not open it; use the right key"
    )]
    WrongKey {
        /// Id of the key that is needed.
        wanted: KeyId,
        /// Id of the key that was given.
        given: KeyId,
    },
    /// Encryption was asked for, or is needed, and this build has none.
    #[error("this build has no encryption; use one with the feature `encryption`")]
    NoEncryption,
    /// A key, its file or its id cannot be used.
    #[error("the key{} cannot be used: {what}", file_text(file))]
    Key {
        /// The file, where it is from one.
        file: Option<PathBuf>,
        /// What is wrong.
        what: String,
    },
    /// Pages or records were given to a writer in an order that a stream cannot have, or of another
    /// history than its header says.
    #[error("{what}: {found} came where {expected} was to come; begin the stream anew")]
    OutOfOrder {
        /// The rule.
        what: &'static str,
        /// The least number that could have come, or the one that had to.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The stream failed before; what is left of it cannot be used.
    #[error("the stream failed before; begin anew")]
    Broken,
    /// Options or descriptions that contradict each other or leave their range.
    #[error("`{option}`: {reason}")]
    Options {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The token said so.
    #[error("cancelled")]
    Cancelled,
    /// The database failed.
    #[error(transparent)]
    Engine(#[from] treepie::Error),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Streams that are to be restored together do not continue one another.
    #[error(
        "the stream continues or needs LSN {wanted}, and the restore is at LSN {found}: {reason}"
    )]
    #[non_exhaustive]
    Chain {
        /// The LSN that the stream is about.
        wanted: Lsn,
        /// Where the streams before it have led.
        found: Lsn,
        /// What does not fit, and what to do.
        reason: &'static str,
    },
    /// Records are missing between the archive and the journal.
    #[error("records {first} to {last} cannot be archived: {reason}")]
    #[non_exhaustive]
    Archive {
        /// The first of them.
        first: Lsn,
        /// The last of them.
        last: Lsn,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The repository has a later state of this database than the database itself.
    #[error(
        "the repository has backups up to LSN {kept} and the database is at LSN {newest}: it is an older copy; restore the backups, which begins a lineage of its own, or make a full backup"
    )]
    #[non_exhaustive]
    Behind {
        /// The newest state in the repository.
        kept: Lsn,
        /// The newest commit of the database.
        newest: Lsn,
    },
    /// A stream that was verified is another one than the manifest says.
    #[error(
        "{file} in the repository {what}; verify tells what is whole, `forget` it and make a new backup"
    )]
    #[non_exhaustive]
    Mismatch {
        /// The file.
        file: String,
        /// What differs.
        what: &'static str,
    },
    /// What was restored is not what the stream says. It was not published.
    #[error("what was restored in {} is not what the backup says: {what}; remove it, and verify the backup", path.display())]
    #[non_exhaustive]
    Restored {
        /// Where it is.
        path: PathBuf,
        /// What differs.
        what: String,
    },
}

impl Error {
    /// Gives a failed call its context. What a [`Paced`](crate::Paced) reader or writer says when it is
    /// cancelled becomes [`Error::Cancelled`].
    pub(crate) fn io(action: &'static str, offset: u64, source: io::Error) -> Error {
        match source.get_ref().is_some_and(|inner| inner.is::<CancelledMark>()) {
            true => Error::Cancelled,
            false => Error::Io { action, offset, source },
        }
    }

    pub(crate) fn options(option: &'static str, reason: impl Into<String>) -> Error {
        Error::Options { option, reason: reason.into() }
    }
}

/// What a cancelled reader or writer hands through code that knows [`io::Error`] alone.
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
pub(crate) struct CancelledMark;

/// A part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// Its first bytes.
    Header,
    /// A frame, by its place: the first one is 0. The trailer is the last frame.
    Frame(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header => f.write_str("its header"),
            Place::Frame(number) => write!(f, "frame {number}"),
        }
    }
}

/// What is wrong with stored bytes of a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamDamage {
    /// The checksum does not match the bytes.
    #[error("checksum {stored:08x} does not match its bytes ({computed:08x})")]
    Checksum {
        /// The checksum that is stored.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A value that cannot be.
    #[error("{0}")]
    Layout(&'static str),
    /// A frame of another stream.
    #[error("it belongs to another stream")]
    OtherStream,
    /// A frame that is whole, in another place than its own.
    #[error("frame {found} is in its place; frames are missing, repeated or in another order")]
    Sequence {
        /// The number of the frame that is there.
        found: u64,
    },
    /// The content does not decompress to what the frame says.
    #[error("its content does not decompress")]
    Compression,
    /// The authentication of an encrypted frame does not match: somebody changed it, or the header.
    #[error("it was not encrypted like that with this key: somebody changed it, or the header")]
    Authentication,
    /// Something that the trailer vouches for is not as it says.
    #[error("{what} of what was read is not the one in the trailer")]
    Trailer {
        /// What it is.
        what: &'static str,
    },
}

fn file_text(file: &Option<PathBuf>) -> String {
    file.as_ref().map_or_else(String::new, |file| format!(" in {}", file.display()))
}

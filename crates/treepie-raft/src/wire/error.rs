//! What can be wrong with bytes of a connection.

use std::io;

use super::frame::PROTOCOL_VERSION;

/// Why a frame could not be read or written. After it, nothing more can be read of the connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The connection failed, ended inside of a frame, or was silent for too long.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// What came is no frame: somebody else speaks here, or bytes were damaged.
    #[error("no frame begins here")]
    Magic,
    /// The other side speaks another version of the protocol.
    #[error("protocol version {found}, but {supported} is spoken here")]
    Version {
        /// What the other side speaks.
        found: u16,
        /// What this build speaks.
        supported: u16,
    },
    /// Bytes were damaged on their way.
    #[error("checksum of {part}: {stored:08x} was sent, {computed:08x} came")]
    Checksum {
        /// Of what.
        part: &'static str,
        /// As it was sent.
        stored: u32,
        /// Of what came.
        computed: u32,
    },
    /// A length passes what is allowed here.
    #[error("{what}: {len}, at most {max} are allowed here")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// The length.
        len: u64,
        /// The cap.
        max: u64,
    },
    /// A rule of the format is broken.
    #[error("{0}")]
    Layout(&'static str),
    /// A frame of this kind has no place here.
    #[error("a frame of kind {0} has no place here")]
    Unexpected(u8),
    /// The control part is none of its kind.
    #[error("the control part cannot be decoded")]
    Decode(#[source] Box<bincode::error::DecodeError>),
    /// A value cannot be encoded.
    #[error("the control part cannot be encoded")]
    Encode(#[source] Box<bincode::error::EncodeError>),
}

impl WireError {
    pub(crate) fn version(found: u16) -> WireError {
        WireError::Version { found, supported: PROTOCOL_VERSION }
    }

    /// Whether nothing is wrong but that nothing came, or went, for as long as was waited.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, WireError::Io(error) if is_timeout(error))
    }
}

/// Both are told for a socket with a timeout, depending on the system.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

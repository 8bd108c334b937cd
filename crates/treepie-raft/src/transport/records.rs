//! Bytes of records on their way out, without a copy.

use std::{error::Error, fmt, sync::Arc};

use crate::message::EntryRef;

/// A record's bytes, shared with whoever else has them: the journal, other peers' queues.
#[derive(Clone)]
pub struct RecordBytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl RecordBytes {
    /// Shares what holds the bytes; it must always give the same.
    pub fn new(holder: impl AsRef<[u8]> + Send + Sync + 'static) -> RecordBytes {
        RecordBytes(Arc::new(holder))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for RecordBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordBytes({})", self.bytes().len())
    }
}

/// Where the record of an entry is, when its message is handed over.
#[derive(Clone, Debug)]
pub enum RecordToSend {
    /// In memory.
    Here(RecordBytes),
    /// In the journal, from which the sending thread reads it.
    Stored,
}

/// Reads records that are not in memory.
pub trait RecordSource: Send + Sync {
    /// The record of an entry. Called from threads that send records, and may take its time.
    ///
    /// # Errors
    /// It is not there any more, or cannot be read.
    fn record(&self, entry: &EntryRef) -> Result<RecordBytes, Box<dyn Error + Send + Sync>>;
}

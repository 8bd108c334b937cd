//! Reading an object: one request is ahead of the reader.

use std::{
    io::{self, Read},
    sync::Arc,
};

use object_store::{GetOptions, GetRange, path::Path};

use super::{ObjectFolder, Pending, io_error};

/// Bytes of one read.
const READ_LEN: u64 = 8 << 20;

/// Reads one object forwards, one request ahead.
pub(super) struct ObjectReader {
    store: ObjectFolder,
    path: Path,
    /// Up to where it was asked for.
    asked: u64,
    len: u64,
    ahead: Option<(u64, Pending<Vec<u8>>)>,
    chunk: Vec<u8>,
    taken: usize,
}

impl ObjectReader {
    /// Of an object of `len` bytes, from `offset` on.
    pub(super) fn begin(store: ObjectFolder, path: Path, offset: u64, len: u64) -> ObjectReader {
        let (chunk, taken) = (Vec::new(), 0);
        let mut reader =
            ObjectReader { store, path, asked: offset, len, ahead: None, chunk, taken };
        reader.ask();
        reader
    }

    fn ask(&mut self) {
        let end = self.asked.saturating_add(READ_LEN).min(self.len);
        if self.asked >= end {
            return;
        }
        let range = self.asked..end;
        let (objects, path) = (Arc::clone(&self.store.inner.objects), self.path.clone());
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let get = async move {
            let result = objects.get_opts(&path, options).await?;
            Ok(result.bytes().await?.to_vec())
        };
        self.ahead = Some((end - self.asked, self.store.start(get)));
        self.asked = end;
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.taken == self.chunk.len() {
            let Some((asked, pending)) = self.ahead.take() else { return Ok(0) };
            let chunk = pending.wait().map_err(io_error)?;
            // A service that gives less than it was asked for has lost the rest.
            if chunk.len() as u64 != asked {
                let what = format!("asked for {asked} bytes, got {}", chunk.len());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
            (self.chunk, self.taken) = (chunk, 0);
            self.ask();
        }
        let count = buf.len().min(self.chunk.len() - self.taken);
        buf[..count].copy_from_slice(&self.chunk[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

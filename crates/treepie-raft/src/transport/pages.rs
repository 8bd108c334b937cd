//! A page stream: bytes in both directions, in chunks with checksums, on a connection of its own.
//!
//! Its flow control is that of its connection: who reads slowly holds back who writes, and nobody else.
//! At most one chunk is in memory at either end.

use std::{
    io::{self, ErrorKind, Read, Write},
    time::Duration,
};

use super::{
    Socket,
    connections::Connection,
    handshake::{Met, refuse},
};
use crate::{
    ids::NodeId,
    wire::{
        FrameHead, FrameKind, FrameReader, Refusal, WireError,
        stream::{CHUNK_LEN_MAX, Chunk, End, Ping, STREAM_CAPS},
        write_frame,
    },
};

/// Bytes of the chunks that are written, at most.
const CHUNK_LEN: usize = 256 << 10;
const _: () = assert!(CHUNK_LEN <= CHUNK_LEN_MAX);

/// A byte stream to a node and one back, each of them ended by its writer. Reads end at the end that the
/// other side has written; one that was cut is an error, and so is a chunk that was damaged.
#[derive(Debug)]
pub struct PageStream {
    node: NodeId,
    purpose: Vec<u8>,
    reader: FrameReader<Socket>,
    /// Bytes that came and are not read yet: those of `chunk` from here on.
    next: usize,
    chunk: Vec<u8>,
    read: u64,
    is_read: bool,
    out: Vec<u8>,
    written: u64,
    is_written: bool,
    connection: Connection,
}

impl PageStream {
    pub(super) fn new(node: NodeId, met: Met) -> PageStream {
        let Met { mut reader, hello, connection } = met;
        reader.set_caps(STREAM_CAPS);
        PageStream {
            node,
            purpose: hello.purpose,
            reader,
            next: 0,
            chunk: Vec::new(),
            read: 0,
            is_read: false,
            out: Vec::new(),
            written: 0,
            is_written: false,
            connection,
        }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What it was opened for.
    #[must_use]
    pub fn purpose(&self) -> &[u8] {
        &self.purpose
    }

    /// Bytes that were read and bytes that were written, without what is held back.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.read, self.written)
    }

    /// How long the other side may be silent from now on: where it is known to have a lot to do.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        self.reader.get_mut().set_timeouts(patience, patience)
    }

    /// Ends what is written to the other side. Reading goes on.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        if !self.is_written {
            self.is_written = true;
            let len = self.written;
            write_frame(self.reader.get_mut(), FrameKind::End, &End { len }, &[])
                .map_err(io_error)?;
        }
        Ok(())
    }

    /// Says that this side is there, though it has nothing to send: otherwise the other one gives up.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn keep_alive(&mut self) -> io::Result<()> {
        let ping = Ping { number: self.written };
        write_frame(self.reader.get_mut(), FrameKind::Ping, &ping, &[]).map_err(io_error)
    }

    /// Ends the connection with a reason that the other side gets to see.
    pub fn refuse(mut self, refusal: Refusal) {
        self.say_no(refusal);
    }

    /// As `refuse`, for who has only lent it.
    pub(crate) fn say_no(&mut self, refusal: Refusal) {
        refuse(self.reader.get_mut(), refusal);
    }

    /// Cuts the connection.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        self.connection.shut_down();
        Ok(())
    }

    fn write_chunk(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let chunk = Chunk { offset: self.written, checksum: crc32fast::hash(&self.out) };
        write_frame(self.reader.get_mut(), FrameKind::Chunk, &chunk, &[&self.out])
            .map_err(io_error)?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// The next chunk, or the end.
    fn read_chunk(&mut self) -> Result<(), WireError> {
        self.chunk.clear();
        self.next = 0;
        let cut = || io::Error::new(ErrorKind::UnexpectedEof, "the stream was cut");
        let head = self.reader.head()?.ok_or_else(cut)?;
        match head.kind {
            FrameKind::Chunk => self.take_chunk(&head),
            FrameKind::End => {
                self.skip(&head)?;
                if head.control::<End>()?.len != self.read {
                    return Err(WireError::Layout("a stream has another length than its end says"));
                }
                self.is_read = true;
                Ok(())
            }
            FrameKind::Ping => self.skip(&head),
            FrameKind::Refusal => {
                let refusal: Refusal = head.control()?;
                let text = format!("the other side has ended the stream: {refusal}");
                Err(io::Error::new(ErrorKind::ConnectionAborted, text).into())
            }
            kind => Err(WireError::Unexpected(kind as u8)),
        }
    }

    fn take_chunk(&mut self, head: &FrameHead) -> Result<(), WireError> {
        let &[len] = head.attachment_lens() else {
            return Err(WireError::Layout("a chunk has one attachment"));
        };
        let chunk: Chunk = head.control()?;
        self.reader.attachment_into(len, &mut self.chunk)?;
        let (stored, computed) = (chunk.checksum, crc32fast::hash(&self.chunk));
        if stored != computed {
            self.chunk.clear();
            return Err(WireError::Checksum { part: "a chunk", stored, computed });
        }
        if chunk.offset != self.read {
            self.chunk.clear();
            return Err(WireError::Layout("a chunk is not the next one"));
        }
        self.read += u64::from(len);
        Ok(())
    }

    fn skip(&mut self, head: &FrameHead) -> Result<(), WireError> {
        if head.attachment_lens().is_empty() {
            Ok(())
        } else {
            Err(WireError::Layout("attachments where there must be none"))
        }
    }
}

impl Read for PageStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.next == self.chunk.len() && !self.is_read && !buffer.is_empty() {
            self.read_chunk().map_err(io_error)?;
        }
        let came = self.chunk.get(self.next..).unwrap_or_default();
        let len = came.len().min(buffer.len());
        buffer[..len].copy_from_slice(&came[..len]);
        self.next += len;
        Ok(len)
    }
}

impl Write for PageStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_written {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "the stream was ended"));
        }
        let len = bytes.len().min(CHUNK_LEN - self.out.len());
        self.out.extend_from_slice(&bytes[..len]);
        if self.out.len() == CHUNK_LEN {
            self.write_chunk()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_chunk()
    }
}

fn io_error(error: WireError) -> io::Error {
    match error {
        WireError::Io(error) => error,
        error => io::Error::new(ErrorKind::InvalidData, error),
    }
}

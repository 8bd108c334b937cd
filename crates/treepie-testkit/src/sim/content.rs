//! The bytes of a file in chunks that copies share: a copy costs one pointer, and a write to one
//! of them copies what it touches. Chunks that were never written take no memory.

use std::sync::Arc;

use crate::rng::{hash_bytes, mix};

/// Bytes of a chunk; also the page of the simulated page cache.
pub(crate) const CHUNK_SIZE: usize = 4096;

pub(crate) type Chunk = [u8; CHUNK_SIZE];

/// A file's length and bytes. What lies past the length is zero or not there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    len: u64,
    chunks: Arc<Vec<Option<Arc<Chunk>>>>,
}

impl Content {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.write(0, bytes);
        content
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn chunk(&self, index: usize) -> Option<&Arc<Chunk>> {
        self.chunks.get(index)?.as_ref()
    }

    /// Chunks that the length needs.
    pub(crate) fn chunk_count(&self) -> usize {
        index_of(self.len.next_multiple_of(CHUNK_SIZE as u64))
    }

    /// Replaces a chunk inside the length; what it holds past the length is cut.
    pub(crate) fn put_chunk(&mut self, index: usize, chunk: Option<Arc<Chunk>>) {
        let count = self.chunk_count();
        if index < count {
            let chunks = Arc::make_mut(&mut self.chunks);
            if chunks.len() < count {
                chunks.resize(count, None);
            }
            chunks[index] = chunk;
            self.clear_tail();
        }
    }

    /// Fills `bytes` from `offset` on; past the end it reads zeros.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) {
        for piece in pieces(offset, bytes.len()) {
            let target = &mut bytes[piece.from..piece.from + piece.len];
            match self.chunk(piece.chunk) {
                Some(chunk) => target.copy_from_slice(&chunk[piece.at..piece.at + piece.len]),
                None => target.fill(0),
            }
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; index_of_byte(self.len)];
        self.read(0, &mut bytes);
        bytes
    }

    /// Writes bytes; the length grows over them.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.len = self.len.max(offset + bytes.len() as u64);
        let count = self.chunk_count();
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.len() < count {
            chunks.resize(count, None);
        }
        for piece in pieces(offset, bytes.len()) {
            let source = &bytes[piece.from..piece.from + piece.len];
            let slot = &mut chunks[piece.chunk];
            if let Ok(whole) = <&Chunk>::try_from(source) {
                *slot = Some(Arc::new(*whole));
            } else {
                let chunk = slot.get_or_insert_with(|| Arc::new([0; CHUNK_SIZE]));
                Arc::make_mut(chunk)[piece.at..piece.at + piece.len].copy_from_slice(source);
            }
        }
    }

    /// Cuts the file, or grows it with zeros.
    pub(crate) fn set_len(&mut self, len: u64) {
        let shrinks = len < self.len;
        self.len = len;
        if shrinks {
            let count = self.chunk_count();
            if self.chunks.len() > count {
                Arc::make_mut(&mut self.chunks).truncate(count);
            }
            self.clear_tail();
        }
    }

    /// A hash of length and bytes; chunks that were never written hash as zeros.
    pub(crate) fn hash(&self) -> u64 {
        let mut hash = self.len;
        for index in 0..self.chunk_count() {
            if let Some(chunk) = self.chunk(index)
                && chunk.iter().any(|&byte| byte != 0)
            {
                hash = mix(hash, mix(index as u64, hash_bytes(&chunk[..])));
            }
        }
        hash
    }

    fn clear_tail(&mut self) {
        let used = index_of_byte(self.len % CHUNK_SIZE as u64);
        let last = self.chunk_count().wrapping_sub(1);
        if used > 0
            && let Some(chunk) = self.chunk(last)
            && chunk[used..].iter().any(|&byte| byte != 0)
            && let Some(slot) = &mut Arc::make_mut(&mut self.chunks)[last]
        {
            Arc::make_mut(slot)[used..].fill(0);
        }
    }
}

/// A part of a range of bytes that lies in one chunk.
struct Piece {
    chunk: usize,
    /// Where it begins in the chunk.
    at: usize,
    /// Where it begins in the range.
    from: usize,
    len: usize,
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut from = 0;
    std::iter::from_fn(move || {
        if from == len {
            return None;
        }
        let position = offset + from as u64;
        let at = index_of_byte(position % CHUNK_SIZE as u64);
        let piece =
            Piece { chunk: index_of(position), at, from, len: (CHUNK_SIZE - at).min(len - from) };
        from += piece.len;
        Some(piece)
    })
}

/// The chunk that holds a byte.
pub(crate) fn index_of(offset: u64) -> usize {
    index_of_byte(offset / CHUNK_SIZE as u64)
}

pub(crate) fn index_of_byte(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated files fit in the address space")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_reads_and_lengths_are_those_of_a_plain_vector() {
        let mut rng = crate::Rng::new(11);
        let mut content = Content::default();
        let mut plain: Vec<u8> = Vec::new();
        for _ in 0..2000 {
            let offset = rng.index(30_000);
            if rng.chance(1, 5) {
                content.set_len(offset as u64);
                plain.resize(offset, 0);
            } else {
                let len = rng.range(1..9000);
                let bytes = rng.bytes(len);
                content.write(offset as u64, &bytes);
                plain.resize(plain.len().max(offset + bytes.len()), 0);
                plain[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            assert_eq!(content.len(), plain.len() as u64);
        }
        assert_eq!(content.to_vec(), plain);
        assert_eq!(content.hash(), Content::from_bytes(&plain).hash());
    }

    #[test]
    fn a_copy_does_not_see_later_writes() {
        let mut content = Content::from_bytes(b"first");
        let copy = content.clone();
        content.write(0, b"other");
        assert_eq!(copy.to_vec(), b"first");
    }

    #[test]
    fn a_file_beyond_four_gib_takes_only_what_was_written() {
        let mut content = Content::default();
        content.write((1 << 32) + 5, b"far");
        let mut bytes = [1; 5];
        content.read((1 << 32) + 4, &mut bytes);
        assert_eq!(&bytes, b"\0far\0");
    }
}

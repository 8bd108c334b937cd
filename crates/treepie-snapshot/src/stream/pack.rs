//! What is done with a frame before it is written: hashed, compressed, encrypted, given its checksum.

use std::io;

use zstd::{bulk::Compressor, zstd_safe::compress_bound};

use super::pool::Work;
use crate::{
    format::{
        frame::{FrameHeader, FrameKind},
        pages::{PageRules, PageTable},
    },
    hash::{Digest, GroupHash, GroupHasher, hash_bytes, hash_pages},
    seal::Cipher,
};

/// A frame on its way out. Its buffers are used again.
#[derive(Debug)]
pub struct PackJob {
    pub kind: FrameKind,
    pub sequence: u64,
    /// The content; encrypted in place, where it is not compressed.
    pub raw: Vec<u8>,
    /// The compressed content.
    pub packed: Vec<u8>,
    /// Bytes of the content.
    pub raw_len: usize,
    /// Header of the frame, when it is done.
    pub head: Option<FrameHeader>,
    pub content_hash: Digest,
    pub groups: Vec<GroupHash>,
}

impl PackJob {
    /// A job with empty buffers.
    pub fn new() -> PackJob {
        PackJob {
            kind: FrameKind::Trailer,
            sequence: 0,
            raw: Vec::new(),
            packed: Vec::new(),
            raw_len: 0,
            head: None,
            content_hash: Digest::default(),
            groups: Vec::new(),
        }
    }

    /// The bytes behind the header.
    pub fn stored(&self) -> &[u8] {
        match self.head {
            Some(FrameHeader { is_compressed: true, .. }) => &self.packed,
            _ => &self.raw,
        }
    }
}

/// One thread's tools.
pub struct Packer {
    stream: [u8; 8],
    rules: PageRules,
    groups: GroupHasher,
    compressor: Option<Compressor<'static>>,
    cipher: Option<Cipher>,
}

impl Packer {
    /// # Errors
    /// If there is no memory for a context of zstd.
    pub fn new(
        stream: [u8; 8],
        rules: PageRules,
        level: i32,
        cipher: Option<Cipher>,
    ) -> io::Result<Packer> {
        let compressor = if level == 0 { None } else { Some(Compressor::new(level)?) };
        let groups = GroupHasher::new(rules.page_size);
        Ok(Packer { stream, rules, groups, compressor, cipher })
    }

    fn hash(&mut self, job: &mut PackJob) {
        job.groups.clear();
        job.content_hash = match job.kind {
            FrameKind::Pages => {
                let table = PageTable::parse(&job.raw, &self.rules);
                let table = table.expect("the writer made the table by the same rules");
                hash_pages(&table, &mut self.groups, &mut job.groups)
            }
            FrameKind::Records => hash_bytes(&job.raw),
            FrameKind::Trailer => Digest::default(),
        };
    }

    /// Whether the content is shorter when compressed. zstd fails only where there is no room, and
    /// then the content stays as it is.
    fn compress(&mut self, job: &mut PackJob) -> bool {
        let Some(compressor) = self.compressor.as_mut().filter(|_| job.kind != FrameKind::Trailer)
        else {
            return false;
        };
        job.packed.clear();
        job.packed.reserve_exact(compress_bound(job.raw.len()));
        let packed = compressor.compress_to_buffer(&job.raw[..], &mut job.packed);
        packed.is_ok_and(|len| len < job.raw.len())
    }
}

impl Work for Packer {
    type Job = PackJob;

    fn run(&mut self, job: &mut PackJob) {
        self.hash(job);
        job.raw_len = job.raw.len();
        let is_compressed = self.compress(job);
        let content = if is_compressed { &mut job.packed } else { &mut job.raw };
        let len = |len: usize| u32::try_from(len).expect("a frame has a few MiB");
        let mut head = FrameHeader {
            stream: self.stream,
            sequence: job.sequence,
            kind: job.kind,
            is_compressed,
            raw_len: len(job.raw_len),
            stored_len: len(content.len()),
            content_checksum: 0,
            tag: [0; 16],
        };
        if let Some(cipher) = &self.cipher {
            head.tag = cipher.seal(&head, content);
        }
        head.content_checksum = crc32fast::hash(content);
        job.head = Some(head);
    }
}

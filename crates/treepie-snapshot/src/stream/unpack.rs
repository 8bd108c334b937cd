//! What is done with a frame after it was read: checksum, decryption, decompression, hashes.

use std::{io, mem};

use zstd::bulk::Decompressor;

use super::pool::Work;
use crate::{
    error::StreamDamage,
    format::{
        frame::{FrameHeader, FrameKind},
        pages::{PageRules, PageTable},
    },
    hash::{Digest, GroupHash, GroupHasher, hash_bytes, hash_pages},
    seal::Cipher,
};

/// A frame on its way in. Its buffers are used again.
#[derive(Debug)]
pub struct UnpackJob {
    /// Header of the frame, checked.
    pub head: FrameHeader,
    /// Where the frame begins in the stream.
    pub offset: u64,
    /// The bytes behind the header.
    pub stored: Vec<u8>,
    /// The content, when it is done.
    pub raw: Vec<u8>,
    pub outcome: Result<(), StreamDamage>,
    pub content_hash: Digest,
    pub groups: Vec<GroupHash>,
}

/// One thread's tools.
pub struct Unpacker {
    rules: PageRules,
    groups: GroupHasher,
    decompressor: Decompressor<'static>,
    cipher: Option<Cipher>,
}

impl Unpacker {
    /// # Errors
    /// If there is no memory for a context of zstd.
    pub fn new(rules: PageRules, cipher: Option<Cipher>) -> io::Result<Unpacker> {
        let groups = GroupHasher::new(rules.page_size);
        Ok(Unpacker { rules, groups, decompressor: Decompressor::new()?, cipher })
    }

    fn unpack(&mut self, job: &mut UnpackJob) -> Result<(), StreamDamage> {
        let (stored, computed) = (job.head.content_checksum, crc32fast::hash(&job.stored));
        if stored != computed {
            return Err(StreamDamage::Checksum { stored, computed });
        }
        if let Some(cipher) = &self.cipher
            && !cipher.open(&job.head, &mut job.stored)
        {
            return Err(StreamDamage::Authentication);
        }
        if job.head.is_compressed {
            self.decompress(job)?;
        } else {
            mem::swap(&mut job.stored, &mut job.raw);
        }
        job.groups.clear();
        job.content_hash = match job.head.kind {
            FrameKind::Pages => {
                let table = PageTable::parse(&job.raw, &self.rules);
                let table = table.map_err(StreamDamage::Layout)?;
                hash_pages(&table, &mut self.groups, &mut job.groups)
            }
            FrameKind::Records => hash_bytes(&job.raw),
            FrameKind::Trailer => Digest::default(),
        };
        Ok(())
    }

    /// `raw_len` was held against its bound when the header was read; a frame that would become longer
    /// does not fit the buffer, and one that is shorter is damaged too.
    fn decompress(&mut self, job: &mut UnpackJob) -> Result<(), StreamDamage> {
        let raw_len = job.head.raw_len as usize;
        job.raw.clear();
        job.raw.reserve_exact(raw_len);
        let unpacked = self.decompressor.decompress_to_buffer(&job.stored[..], &mut job.raw);
        match unpacked {
            Ok(len) if len == raw_len => Ok(()),
            _ => Err(StreamDamage::Compression),
        }
    }
}

impl Work for Unpacker {
    type Job = UnpackJob;

    fn run(&mut self, job: &mut UnpackJob) {
        job.outcome = self.unpack(job);
    }
}

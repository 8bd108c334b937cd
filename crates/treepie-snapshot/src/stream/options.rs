//! What a caller may choose.

use std::thread;

use crate::{
    error::{Error, Result},
    limits::{
        FRAME_LEN_DEFAULT, FRAME_LEN_MAX, GROUP_PAGES, LEVEL_DEFAULT, LEVEL_MAX, THREADS_MAX,
    },
    seal::{Key, Keys},
};

/// How a stream is written.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    pub(super) level: i32,
    pub(super) threads: usize,
    pub(super) frame_len: usize,
    pub(super) is_background: bool,
    pub(super) key: Option<Key>,
}

impl Default for StreamOptions {
    fn default() -> StreamOptions {
        StreamOptions {
            level: LEVEL_DEFAULT,
            threads: threads_default(),
            frame_len: FRAME_LEN_DEFAULT,
            is_background: true,
            key: None,
        }
    }
}

impl StreamOptions {
    /// Level 1, a thread for each processor up to 8, frames of 1 MiB, not encrypted.
    #[must_use]
    pub fn new() -> StreamOptions {
        StreamOptions::default()
    }

    /// Level of zstd, from 1 to 9; 0 does not compress.
    #[must_use]
    pub fn level(mut self, level: i32) -> StreamOptions {
        self.level = level;
        self
    }

    /// Threads that compress, at most 8, fewer where long frames or high levels would take too much
    /// memory. With 0 or 1
    /// the calling thread does all the work.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> StreamOptions {
        self.threads = threads;
        self
    }

    /// Bytes of pages or records in a frame, from 128 pages to 8 MiB.
    #[must_use]
    pub fn frame_len(mut self, frame_len: usize) -> StreamOptions {
        self.frame_len = frame_len;
        self
    }

    /// Whether the threads that compress have a lower priority than other threads, so that a busy database
    /// loses less to a backup, which takes longer: very long where no processor is ever idle. Default: yes.
    /// On Linux only, and not for the calling thread.
    #[must_use]
    pub fn background(mut self, background: bool) -> StreamOptions {
        self.is_background = background;
        self
    }

    /// Encrypts with a key.
    #[must_use]
    pub fn key(mut self, key: Key) -> StreamOptions {
        self.key = Some(key);
        self
    }

    /// Whether it encrypts.
    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// How that is read again which is written so.
    pub(crate) fn to_read_again(&self) -> ReadOptions {
        let read = ReadOptions::new().threads(1);
        self.key.clone().map_or_else(|| read.clone(), |key| read.clone().keys(key))
    }

    pub(super) fn check(&self, page_size: usize) -> Result<()> {
        if !(0..=LEVEL_MAX).contains(&self.level) {
            let reason = format!("{} is not a level from 0 to {LEVEL_MAX}", self.level);
            return Err(Error::options("level", reason));
        }
        let least = GROUP_PAGES * page_size;
        if !(least..=FRAME_LEN_MAX).contains(&self.frame_len) {
            let reason = format!("{} is not between {least} and {FRAME_LEN_MAX}", self.frame_len);
            return Err(Error::options("frame_len", reason));
        }
        Ok(())
    }
}

/// How a stream is read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    pub(super) keys: Keys,
    pub(super) threads: usize,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions { keys: Keys::default(), threads: threads_default() }
    }
}

impl ReadOptions {
    /// A thread for each processor up to 8, and no key.
    #[must_use]
    pub fn new() -> ReadOptions {
        ReadOptions::default()
    }

    /// The key, or whoever finds it by its id.
    #[must_use]
    pub fn keys(mut self, keys: impl Into<Keys>) -> ReadOptions {
        self.keys = keys.into();
        self
    }

    /// Threads that decompress, at most 8. With 0 or 1 the calling thread does all the work.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> ReadOptions {
        self.threads = threads;
        self
    }
}

fn threads_default() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX))
}

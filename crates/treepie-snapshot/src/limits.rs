//! Every maximum of streams, with its reason.

/// Pages of a group: a page hash is made of the hashes of groups, so that threads can share the work.
pub const GROUP_PAGES: usize = 128;
/// Content of a frame in bytes, as much as is gathered before a frame is written: a megabyte is long
/// enough to compress well, and short enough to have many of them in work at a time.
pub const FRAME_LEN_DEFAULT: usize = 1 << 20;
/// Longest content of a frame that may be asked for, in bytes. A reader takes that much for each
/// frame that it has in work.
pub const FRAME_LEN_MAX: usize = 8 << 20;
/// Highest level of zstd. Those above take 20 MiB and more for each thread.
pub const LEVEL_MAX: i32 = 9;
/// Level of zstd if nothing is said: the fastest of its own scale.
pub const LEVEL_DEFAULT: i32 = 1;
/// Threads that compress or decompress, at most: what one caller can feed.
pub const THREADS_MAX: usize = 8;
/// Bytes of buffers of the frames in work. The rest of the 64 MiB is for the contexts of zstd.
pub const BUFFERS_LEN_MAX: usize = 40 << 20;
/// Bytes of the contexts of zstd of all threads.
pub const CONTEXTS_LEN_MAX: usize = 22 << 20;
/// Bytes of a key.
pub const KEY_SIZE: usize = 32;
/// Bytes of the id of a key, as text.
pub const KEY_ID_LEN_MAX: usize = 32;
/// Bytes of a file with a key, as much of it as is looked at: 64 digits and white space.
pub const KEY_FILE_LEN_MAX: u64 = 256;

/// Longest content that a frame may have, its tables included: each page could be an extent of its
/// own, with 8 bytes, and no page has less than 4 KiB.
#[must_use]
pub const fn content_len_max(frame_len: usize) -> usize {
    frame_len + frame_len / 512 + 16
}

/// Bytes of a context of zstd for one thread, at most; measured with frames of 8 MiB.
#[must_use]
pub const fn context_len_max(level: i32) -> usize {
    match level {
        ..=3 => 3 << 19,
        4..=6 => 3 << 20,
        7..=8 => 11 << 19,
        _ => 11 << 20,
    }
}

/// Frames in work at a time and threads that work on them, for a level and frames of `frame_len`: each
/// frame has its content and its stored bytes in memory, each thread a context.
#[must_use]
pub fn work(threads: usize, level: i32, frame_len: usize) -> (usize, usize) {
    let room = BUFFERS_LEN_MAX / (2 * content_len_max(frame_len)) - 1;
    let threads = threads.min(THREADS_MAX).min(CONTEXTS_LEN_MAX / context_len_max(level));
    let frames = (threads + 2).min(room.max(1));
    (frames, threads.min(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_work_stay_within_their_memory_and_there_is_always_one() {
        for threads in [0, 1, 2, 8, 1000] {
            for (frame_len, level) in [FRAME_LEN_DEFAULT, FRAME_LEN_MAX]
                .into_iter()
                .flat_map(|frame_len| (0..=LEVEL_MAX).map(move |level| (frame_len, level)))
            {
                let (frames, workers) = work(threads, level, frame_len);
                assert!(frames >= 1 && workers <= frames, "{threads} {level} {frame_len}");
                assert!((frames + 1) * 2 * content_len_max(frame_len) <= BUFFERS_LEN_MAX);
                assert!(workers * context_len_max(level) <= CONTEXTS_LEN_MAX);
            }
        }
        assert_eq!(work(2, LEVEL_DEFAULT, FRAME_LEN_DEFAULT), (4, 2));
    }
}

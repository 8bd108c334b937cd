//! Every maximum of streams, with its reason.

/// Pages of a group: a page hash is made of the hashes of groups, so that threads can share the work.
pub const GROUP_PAGES: usize = 128;
/// Content of a frame in bytes, as much as is gathered before a frame is written: a megabyte is long
/// enough to compress well, and short enough to have many of them in work at a time.
pub const FRAME_LEN_DEFAULT: usize = 1 << 20;
/// Longest content of a frame that may be asked for, in bytes. A reader takes that much for each
/// frame that it has in work.
pub const FRAME_LEN_MAX: usize = 8 << 20;
/// Highest level of zstd. Those above take more memory than a stream may.
pub const LEVEL_MAX: i32 = 12;
/// Level of zstd if nothing is said: the fastest of its own scale.
pub const LEVEL_DEFAULT: i32 = 1;
/// Threads that compress or decompress, at most: what one caller can feed.
pub const THREADS_MAX: usize = 8;
/// Bytes of buffers of the frames in work. The rest of the 64 MiB is for the contexts of zstd.
pub const BUFFERS_LEN_MAX: usize = 40 << 20;
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

/// Frames in work at a time and threads that work on them, for frames of `frame_len`: each frame has
/// its content and its stored bytes in memory.
#[must_use]
pub fn work(threads: usize, frame_len: usize) -> (usize, usize) {
    let room = BUFFERS_LEN_MAX / (2 * content_len_max(frame_len)) - 1;
    let frames = (threads.min(THREADS_MAX) + 2).min(room.max(1));
    (frames, threads.min(THREADS_MAX).min(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_work_stay_within_their_memory_and_there_is_always_one() {
        for threads in [0, 1, 2, 8, 1000] {
            for frame_len in [FRAME_LEN_DEFAULT, FRAME_LEN_MAX] {
                let (frames, workers) = work(threads, frame_len);
                assert!(frames >= 1 && workers <= frames, "{threads} {frame_len}");
                assert!((frames + 1) * 2 * content_len_max(frame_len) <= BUFFERS_LEN_MAX);
            }
        }
        assert_eq!(work(2, FRAME_LEN_DEFAULT), (4, 2));
    }
}

//! Streams: written to any `Write`, read from any `Read`, in bounded memory.
//!
//! Frames are compressed, encrypted and hashed by a pool of threads that keeps their order; the calling
//! thread reads or writes.
//!
//! Memory: at most 64 MiB, whatever the options and the length of the stream. Each frame in work has its
//! content and its stored bytes, 40 MiB together; each thread that compresses has a context of zstd, 22
//! MiB together. `limits::work` says how many frames and threads that makes: 10 frames of 1 MiB and 8
//! threads at level 1, two threads at level 9, one frame of 8 MiB at a time.

mod gather;
mod options;
mod pack;
mod pool;
mod reader;
mod records;
mod summary;
mod unpack;
mod verify;
mod writer;

pub use options::{ReadOptions, StreamOptions};
pub use reader::{Content, RecordPiece, StreamReader};
pub use records::RecordBuffer;
pub use summary::StreamSummary;
pub use verify::verify;
pub use writer::StreamWriter;

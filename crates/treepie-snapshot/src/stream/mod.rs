//! Streams: written to any `Write`, read from any `Read`, in bounded memory.
//!
//! Frames are compressed, encrypted and hashed by a pool of threads that keeps their order; the calling
//! thread reads or writes.
//!
//! Memory: each frame in work has its content and its stored bytes, together at most 40 MiB whatever the
//! options (`limits::work`). A thread that compresses has a context of zstd, 1 to 2 MiB at the levels
//! that are allowed with frames of a megabyte.

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

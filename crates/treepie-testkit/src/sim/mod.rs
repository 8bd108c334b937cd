//! The simulated disk: files in memory, a log of what happened to them, and what a power cut
//! after any entry of that log may leave.
//!
//! `disk` and `file` are the seam's traits; `content` holds a file's bytes, `buffer` the memory
//! that maps point into, `names` the folders; `fault` makes calls fail; `log` is what was done,
//! `player` follows it, `image` draws what a cut leaves.

pub(crate) mod buffer;
pub(crate) mod content;
pub(crate) mod disk;
pub(crate) mod fault;
pub(crate) mod file;
pub(crate) mod image;
pub(crate) mod log;
pub(crate) mod names;
pub(crate) mod player;
mod rot;

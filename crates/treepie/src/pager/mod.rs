//! Page numbers and pages: which bytes page `n` has at LSN `s`, who may read them, which pages are
//! free, and what a transaction has changed.

pub mod access;
pub mod directory;
mod map;
#[cfg(any(test, feature = "shuttle"))]
pub mod model;
pub mod pool;
pub mod readers;
pub mod space;
pub mod store;
mod version;
mod zeroed;
mod zone;

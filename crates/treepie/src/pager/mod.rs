//! Page numbers and pages: which bytes page `n` has at LSN `s`, who may read them, which pages are
//! free, and what a transaction has changed.

pub mod access;
pub mod bitmaps;
mod chains;
pub mod changed;
pub mod copies;
pub mod damaged;
pub mod directory;
pub mod in_place;
mod map;
#[cfg(any(test, feature = "shuttle"))]
pub mod model;
pub mod pool;
pub mod readers;
pub mod saved;
pub mod space;
mod speculation;
pub mod store;
mod superseded;
pub mod taken;
mod version;
mod zeroed;
mod zone;

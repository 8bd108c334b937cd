//! Keys and pages: ordered maps as B+trees over the pages of a snapshot or a write transaction.
//!
//! A tree is its [`TreeState`]; its pages come from a [`PageRead`](crate::pager::access::PageRead),
//! and are changed through a [`PageWrite`](crate::pager::access::PageWrite). The root keeps its
//! page number for life. Levels fall by exactly one a step, so no walk can run in a circle.
//!
//! An operation that fails may leave the tree half changed: the caller undoes its transaction.

mod bound;
pub mod check;
pub mod cursor;
pub mod insert;
pub mod key;
mod pack;
pub mod range;
pub mod remove;
mod remove_range;
pub mod search;
mod slots;
mod split;
pub mod state;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tests;
mod walk;

pub use check::check;
pub use cursor::Cursor;
pub use insert::{Edit, Hint};
pub use key::Key;
pub use range::Range;
pub use remove::drop_pages;
pub use search::{contains_key, first, get, last};
pub use state::{TreeState, create};

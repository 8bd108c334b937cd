//! Streaming backup and restore of Treepie databases.

#[doc(no_inline)]
pub use treepie::{Lineage, ids};

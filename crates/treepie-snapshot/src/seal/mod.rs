//! Encryption of streams: keys, and what is done with them frame by frame.
//!
//! A key has 32 bytes. Each stream gets a key of its own, derived from it and from 32 random bytes in
//! the stream's header, so that the numbers of frames can be nonces. The header and the place of each
//! frame are authenticated with its content: frames cannot be changed, left out, exchanged or mixed, and
//! a stream without its last frame is cut.

mod cipher;
mod key;

pub(crate) use cipher::{Cipher, describe};
pub use key::{Key, KeyId, Keys};

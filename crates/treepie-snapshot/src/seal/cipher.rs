//! The cipher of one stream. Without the feature `encryption` there is none, and that is an error.

use crate::{
    error::{Error, Result},
    format::{
        frame::FrameHeader,
        header::{Encryption, STREAM_HEADER_SIZE},
    },
};

use super::Key;

pub(crate) use imp::Cipher;

/// What the header of a new stream says of its encryption.
///
/// # Errors
/// [`Error::NoEncryption`].
pub(crate) fn describe(key: &Key, salt: [u8; 32]) -> Result<Encryption> {
    let key_check = imp::key_check(key, &salt)?;
    Ok(Encryption { salt, key_id: key.id(), key_check })
}

/// Refuses a key that the stream was not encrypted with.
fn check_key(key: &Key, encryption: &Encryption) -> Result<()> {
    match imp::key_check(key, &encryption.salt)? == encryption.key_check {
        true => Ok(()),
        false => Err(Error::WrongKey { wanted: encryption.key_id, given: key.id() }),
    }
}

#[cfg(feature = "encryption")]
mod imp {
    use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
    use zeroize::Zeroizing;

    use super::{Encryption, FrameHeader, Key, Result, STREAM_HEADER_SIZE, check_key};
    use crate::format::frame::FrameKind;

    const STREAM_KEY_CONTEXT: &str = "treepie-snapshot version 1: key of a stream";
    const KEY_CHECK_CONTEXT: &str = "treepie-snapshot version 1: check of a key";

    /// Encrypts and decrypts frames of one stream.
    #[derive(Clone)]
    pub(crate) struct Cipher {
        aead: XChaCha20Poly1305,
        header: [u8; STREAM_HEADER_SIZE],
    }

    impl Cipher {
        /// # Errors
        /// [`Error::WrongKey`](crate::Error::WrongKey).
        pub(crate) fn new(
            key: &Key,
            encryption: &Encryption,
            header: &[u8; STREAM_HEADER_SIZE],
        ) -> Result<Cipher> {
            check_key(key, encryption)?;
            let aead = XChaCha20Poly1305::new((&*stream_key(key, &encryption.salt)).into());
            Ok(Cipher { aead, header: *header })
        }

        /// Encrypts a content, and returns what authenticates it.
        pub(crate) fn seal(&self, frame: &FrameHeader, content: &mut [u8]) -> [u8; 16] {
            let (nonce, data) = self.place(frame);
            let tag = self.aead.encrypt_inout_detached((&nonce).into(), &data, content.into());
            // XChaCha20 refuses contents of more than 256 GiB; a frame has a few MiB.
            tag.expect("the content of a frame is short").into()
        }

        /// Decrypts a content; false if it was not sealed like that.
        pub(crate) fn open(&self, frame: &FrameHeader, content: &mut [u8]) -> bool {
            let (nonce, data) = self.place(frame);
            let nonce = (&nonce).into();
            let tag = (&frame.tag).into();
            self.aead.decrypt_inout_detached(nonce, &data, content.into(), tag).is_ok()
        }

        fn place(&self, frame: &FrameHeader) -> ([u8; 24], Vec<u8>) {
            let mut nonce = [0; 24];
            let (number, rest) = nonce.split_at_mut(8);
            number.copy_from_slice(&frame.sequence.to_le_bytes());
            rest[0] = u8::from(frame.kind == FrameKind::Trailer);
            (nonce, [&self.header[..], &frame.place()].concat())
        }
    }

    fn stream_key(key: &Key, salt: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(STREAM_KEY_CONTEXT);
        hasher.update(key.bytes());
        hasher.update(salt);
        Zeroizing::new(*hasher.finalize().as_bytes())
    }

    #[allow(clippy::unnecessary_wraps, reason = "without the feature it fails")]
    pub(super) fn key_check(key: &Key, salt: &[u8; 32]) -> Result<[u8; 16]> {
        let hash = blake3::derive_key(KEY_CHECK_CONTEXT, &*stream_key(key, salt));
        Ok(*hash.first_chunk().expect("16 of 32 bytes"))
    }
}

#[cfg(not(feature = "encryption"))]
mod imp {
    use std::convert::Infallible;

    use super::{Encryption, Error, FrameHeader, Key, Result, STREAM_HEADER_SIZE, check_key};

    /// There is none.
    #[derive(Clone)]
    pub(crate) struct Cipher(Infallible);

    impl Cipher {
        pub(crate) fn new(
            key: &Key,
            encryption: &Encryption,
            _header: &[u8; STREAM_HEADER_SIZE],
        ) -> Result<Cipher> {
            check_key(key, encryption).and(Err(Error::NoEncryption))
        }

        pub(crate) fn seal(&self, _frame: &FrameHeader, _content: &mut [u8]) -> [u8; 16] {
            match self.0 {}
        }

        pub(crate) fn open(&self, _frame: &FrameHeader, _content: &mut [u8]) -> bool {
            match self.0 {}
        }
    }

    pub(super) fn key_check(_key: &Key, _salt: &[u8; 32]) -> Result<[u8; 16]> {
        Err(Error::NoEncryption)
    }
}

//! Pages one by one: who has one that is damaged asks another node for it, on a connection for pages whose
//! purpose is
//!
//! | Offset | Size | Field      | Meaning                                              |
//! |-------:|-----:|------------|------------------------------------------------------|
//! |      0 |    4 | `purpose`  | `page`                                               |
//! |      4 |    4 | `page`     | Its number; of a run, that of the first page         |
//! |      8 |    8 | `at_least` | LSN that the other node must have reached            |
//!
//! The answer is a byte stream that begins with
//!
//! | Offset | Size | Field      | Meaning                                              |
//! |-------:|-----:|------------|------------------------------------------------------|
//! |      0 |    8 | `as_of`    | LSN of the state that the page is of                 |
//! |      8 |    8 | `len`      | Bytes of the page that follow; 0 where none is in use |
//!
//! A node that has not come to `at_least` refuses, reason 7: it may be asked again.

use bincode::{Decode, Encode};

use super::{WireError, codec};

/// What a request begins with.
pub const PURPOSE: [u8; 4] = *b"page";
/// Bytes of an answer before the page.
pub const PAGE_ANSWER_SIZE: usize = 16;
/// Bytes of a page, or of a run, at most: longer ones are not had one by one.
pub const PAGE_LEN_MAX: usize = 64 << 20;

/// One page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PageRequest {
    purpose: [u8; 4],
    /// Its number.
    pub page: u32,
    /// The LSN that the other node must have reached.
    pub at_least: u64,
}

/// What comes before its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PageAnswer {
    /// The state that it is of.
    pub as_of: u64,
    /// How many bytes follow.
    pub len: u64,
}

impl PageRequest {
    /// Asks for a page as of an LSN or later.
    #[must_use]
    pub fn new(page: u32, at_least: u64) -> PageRequest {
        PageRequest { purpose: PURPOSE, page, at_least }
    }

    /// The purpose of a connection.
    ///
    /// # Errors
    /// None: it is short.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut bytes = Vec::new();
        codec::encode(self, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads the purpose of a connection, if it is a request for a page.
    ///
    /// # Errors
    /// [`WireError`] when it begins as one and is none.
    pub fn decode(purpose: &[u8]) -> Result<Option<PageRequest>, WireError> {
        if !purpose.starts_with(&PURPOSE) {
            return Ok(None);
        }
        codec::decode(purpose).map(Some)
    }
}

impl PageAnswer {
    /// Its bytes.
    ///
    /// # Errors
    /// [`WireError::Layout`] when the page is too long.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        self.check()?;
        let mut bytes = Vec::new();
        codec::encode(self, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`WireError`] when it is none, or the page is too long.
    pub fn decode(bytes: &[u8]) -> Result<PageAnswer, WireError> {
        let answer: PageAnswer = codec::decode(bytes)?;
        answer.check()?;
        Ok(answer)
    }

    fn check(&self) -> Result<(), WireError> {
        if usize::try_from(self.len).is_ok_and(|len| len <= PAGE_LEN_MAX) {
            Ok(())
        } else {
            Err(WireError::Layout("a page is longer than pages that are had one by one"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_and_answer_have_these_bytes() {
        let request = PageRequest::new(0x0102_0304, 5);
        let bytes = request.encode().expect("short");
        assert_eq!(bytes, *b"page\x04\x03\x02\x01\x05\0\0\0\0\0\0\0");
        assert_eq!(PageRequest::decode(&bytes).expect("whole"), Some(request));
        let answer = PageAnswer { as_of: 6, len: 8192 };
        let bytes = answer.encode().expect("short");
        assert_eq!(bytes, *b"\x06\0\0\0\0\0\0\0\x00\x20\0\0\0\0\0\0");
        assert_eq!(bytes.len(), PAGE_ANSWER_SIZE);
        assert_eq!(PageAnswer::decode(&bytes).expect("whole"), answer);
    }

    #[test]
    fn what_is_no_request_is_told_from_one_that_is_damaged() {
        assert_eq!(PageRequest::decode(b"push").expect("another"), None);
        assert!(PageRequest::decode(b"page").is_err());
        assert!(PageRequest::decode(b"page\0\0\0\0\0\0\0\0\0\0\0\0\0").is_err());
    }

    #[test]
    fn page_that_claims_to_be_too_long_is_refused() {
        let mut bytes = vec![0; 8];
        bytes.extend((PAGE_LEN_MAX as u64 + 1).to_le_bytes());
        assert!(PageAnswer::decode(&bytes).is_err());
        assert!(PageAnswer { as_of: 1, len: u64::MAX }.encode().is_err());
    }
}

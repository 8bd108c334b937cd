//! Requests that run once, however often they are sent: the outcome of each is kept beside what it has
//! changed, in the system tree `$requests`, and given again to who asks again.
//!
//! | Key                          | Value                                               |
//! |------------------------------|-----------------------------------------------------|
//! | `o`, LSN, client, number     | Nothing: requests in the order in which they ran    |
//! | `r`, client, number          | LSN, then the bytes that the request returned       |
//!
//! Numbers are big-endian: LSN and `number` take 8 bytes, `client` 16. The tree is a part of the record
//! of the request, so that every replica, and every backup, remembers the same.

use crate::{
    error::{Error, Result},
    ids::Lsn,
    limits::REQUEST_OUTCOME_LEN_MAX,
    sync::{Planted, is_planted},
};

use super::write::WriteTxn;

/// The tree in which requests are kept.
const REQUESTS: &[u8] = b"$requests";
const ORDER: u8 = b'o';
const REQUEST: u8 = b'r';
const LSN_SIZE: usize = 8;

/// Tells a request from all others, for ever: whoever sends it again sends the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// Who sends it: a number that the client has drawn at random.
    pub client: u128,
    /// Which of its requests it is.
    pub number: u64,
}

/// How a request ended, the first time and every time after.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Once {
    /// What it returned when it ran.
    pub bytes: Vec<u8>,
    /// LSN of the record in which it ran.
    pub lsn: Lsn,
    /// Whether it had run before, so that nothing was done.
    pub is_repeated: bool,
}

impl RequestId {
    fn key(&self) -> Vec<u8> {
        [&[REQUEST][..], &self.client.to_be_bytes(), &self.number.to_be_bytes()].concat()
    }

    fn order_key(&self, lsn: Lsn) -> Vec<u8> {
        [&[ORDER][..], &lsn.0.to_be_bytes(), &self.key()[1..]].concat()
    }
}

impl WriteTxn<'_> {
    /// Runs `change` if the request has not run before, and remembers what it returned, at most 1,024
    /// bytes; otherwise returns that again and does nothing. What `change` fails with is not remembered:
    /// its changes are undone, and the request may come again.
    ///
    /// [`Options::requests_max`](crate::Options::requests_max) says how many are remembered.
    ///
    /// # Errors
    /// What `change` returns, [`Error::ValueTooLong`], and those of [`insert`](crate::TreeMut::insert).
    pub fn once<B: Into<Vec<u8>>>(
        &mut self,
        request: RequestId,
        change: impl FnOnce(&mut Self) -> Result<B>,
    ) -> Result<Once> {
        self.savepoint(|txn| txn.run_once(request, change))
    }

    /// As `once`, for who undoes everything after an error.
    pub(crate) fn run_once<B: Into<Vec<u8>>>(
        &mut self,
        request: RequestId,
        change: impl FnOnce(&mut Self) -> Result<B>,
    ) -> Result<Once> {
        if let Some(known) = self.find_request(request)? {
            return Ok(known);
        }
        let bytes: Vec<u8> = change(self)?.into();
        if bytes.len() > REQUEST_OUTCOME_LEN_MAX {
            let (len, max) = (bytes.len() as u64, REQUEST_OUTCOME_LEN_MAX as u64);
            return Err(Error::ValueTooLong { len, max });
        }
        let lsn = self.base().next();
        self.forget_requests()?;
        let mut requests = self.system_tree(REQUESTS)?;
        requests.insert(request.order_key(lsn), b"")?;
        requests.insert(request.key(), [&lsn.0.to_be_bytes()[..], &bytes].concat())?;
        Ok(Once { bytes, lsn, is_repeated: false })
    }

    fn find_request(&mut self, request: RequestId) -> Result<Option<Once>> {
        let requests = self.system_tree(REQUESTS)?;
        let Some(value) = requests.get(request.key())? else { return Ok(None) };
        let Some((lsn, bytes)) = value.split_first_chunk::<LSN_SIZE>() else { return Ok(None) };
        let lsn = Lsn(u64::from_be_bytes(*lsn));
        let known = Once { bytes: bytes.to_vec(), lsn, is_repeated: true };
        Ok(Some(known).filter(|_| !is_planted(Planted::RequestForgotten)))
    }

    /// Makes room for one more.
    fn forget_requests(&mut self) -> Result<()> {
        let entries_max = self.core.bounds.requests_max.saturating_mul(2);
        let mut requests = self.system_tree(REQUESTS)?;
        while requests.len() >= entries_max {
            let Some(oldest) = requests.first()?.map(|(key, _)| key.to_vec()) else { break };
            requests.remove(&oldest)?;
            if let Some(request) = oldest.get(1 + LSN_SIZE..).filter(|_| oldest[0] == ORDER) {
                requests.remove([&[REQUEST][..], request].concat())?;
            }
        }
        Ok(())
    }
}

//! Requests that were done: what makes a repetition return what the first one did.
//!
//! They are in a tree of the database, changed by the same transaction as the data:
//!
//! | Key | Value |
//! |-----|-------|
//! | client (16), number (8, big-endian) | `settled` (8), milliseconds since 1970 (8), outcome |
//!
//! A client numbers its requests upwards and says with each which of them it is done with; those go
//! when the next one comes, and one that comes after that is refused. So a request is done once, or it
//! is known that it was given up. What a client leaves behind that never comes back goes after
//! [`KEPT_MS`], a little with each request; until then no more than [`KEPT_MAX`] are taken.

use parking_lot::Mutex;
use treepie::{Result, WriteTxn};

use super::{message::RequestId, refusal::Refusal};

/// The tree. Clients have no access to it.
pub const TREE: &[u8] = b"treepie/requests";
/// How long an outcome is kept, at least, that its client has not settled.
pub const KEPT_MS: u64 = 10 * 60_000;
/// Outcomes that are kept, at most.
pub const KEPT_MAX: u64 = 1 << 20;
/// Nothing is looked for that is too old while there are no more than these.
const SWEPT_MIN: u64 = 4096;
/// Entries that each request looks at for that.
const SWEPT_AT_ONCE: usize = 4;
const KEY_SIZE: usize = 24;
const HEAD_SIZE: usize = 16;

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Once {
    /// It was done, now, with this outcome.
    Done(Vec<u8>),
    /// It was done before, with this one.
    Repeated(Vec<u8>),
}

/// Where the search for what is too old goes on.
#[derive(Debug, Default)]
pub struct Sweep {
    position: Mutex<Vec<u8>>,
}

/// Runs `change` unless the request was done before, and keeps its outcome.
///
/// # Errors
/// Those of `change`. [`Refusal::GivenUp`] and [`Refusal::Busy`], wrapped. Those of trees.
pub fn once(
    txn: &mut WriteTxn<'_>,
    request: &RequestId,
    (sweep, now_ms): (&Sweep, u64),
    change: impl FnOnce(&mut WriteTxn<'_>) -> Result<Vec<u8>>,
) -> Result<Once> {
    let key = key(request, request.number);
    let tree = txn.tree(TREE)?;
    let mut settled = 0;
    if let Some(last) = tree.prefix(request.client).next_back() {
        let (last_key, value) = last?;
        settled = u64_at(value, 0);
        let is_newer = last_key.to_vec()[..] < key[..];
        if !is_newer && let Some(value) = tree.get(key)? {
            return Ok(Once::Repeated(value.get(HEAD_SIZE..).unwrap_or_default().to_vec()));
        }
    }
    if request.number < settled {
        return Err(Refusal::GivenUp.into());
    }
    if tree.len() >= KEPT_MAX {
        return Err(Refusal::Busy("too many requests are remembered".to_owned()).into());
    }
    let outcome = change(txn)?;
    let mut value = Vec::with_capacity(HEAD_SIZE + outcome.len());
    let settles = request.settled.min(request.number).max(settled);
    value.extend(settles.to_le_bytes());
    value.extend(now_ms.to_le_bytes());
    value.extend(&outcome);
    let mut tree = txn.tree(TREE)?;
    tree.insert(key, value)?;
    if settles > settled {
        tree.remove_range(self::key(request, 0)..self::key(request, settles))?;
    }
    if tree.len() > SWEPT_MIN {
        sweep.step(txn, now_ms)?;
    }
    Ok(Once::Done(outcome))
}

impl Sweep {
    /// Looks at the next few entries, and removes those that are too old.
    fn step(&self, txn: &mut WriteTxn<'_>, now_ms: u64) -> Result<()> {
        let mut position = self.position.lock();
        let mut tree = txn.tree(TREE)?;
        let mut old = Vec::new();
        let mut seen = 0;
        for entry in tree.range(position.clone()..).take(SWEPT_AT_ONCE) {
            let (key, value) = entry?;
            *position = key.to_vec();
            seen += 1;
            if now_ms.saturating_sub(u64_at(value, 8)) > KEPT_MS {
                old.push(position.clone());
            }
        }
        match seen == SWEPT_AT_ONCE {
            true => position.push(0),
            false => position.clear(),
        }
        for key in old {
            tree.remove(key)?;
        }
        Ok(())
    }
}

fn key(request: &RequestId, number: u64) -> [u8; KEY_SIZE] {
    let mut key = [0; KEY_SIZE];
    key[..16].copy_from_slice(&request.client);
    key[16..].copy_from_slice(&number.to_be_bytes());
    key
}

/// An integer of a value; 0 where the value is shorter, which nobody has written.
fn u64_at(value: &[u8], at: usize) -> u64 {
    let bytes = value.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use treepie::{Database, Durability, Error, Options};

    use super::*;

    struct Requests {
        db: Database,
        sweep: Sweep,
        _folder: tempfile::TempDir,
    }

    impl Requests {
        fn new() -> Requests {
            let folder = tempfile::tempdir().expect("a folder");
            // Thousands of requests, and none of them is to outlive the test.
            let options = Options::new().create(true).durability(Durability::Memory);
            let db = options.open(folder.path().join("db")).expect("a new database");
            Requests { db, sweep: Sweep::default(), _folder: folder }
        }

        /// Counts, once per request.
        fn count(&self, client: u8, number: u64, settled: u64, now_ms: u64) -> Result<Once> {
            let request = RequestId { client: [client; 16], number, settled };
            let receipt = self.db.write(|tx| {
                once(tx, &request, (&self.sweep, now_ms), |tx| {
                    let mut tree = tx.tree("count")?;
                    let before = tree.get("n")?.and_then(|value| value.try_into().ok());
                    let count = before.map_or(0, u64::from_le_bytes) + 1;
                    tree.insert("n", count.to_le_bytes())?;
                    Ok(count.to_le_bytes().to_vec())
                })
            })?;
            Ok(receipt.value)
        }

        fn kept(&self) -> u64 {
            self.db.read().and_then(|snapshot| Ok(snapshot.tree(TREE)?.len())).expect("it is there")
        }
    }

    fn done(count: u64) -> Once {
        Once::Done(count.to_le_bytes().to_vec())
    }

    fn repeated(count: u64) -> Once {
        Once::Repeated(count.to_le_bytes().to_vec())
    }

    fn refusal(result: Result<Once>) -> Refusal {
        match result {
            Err(Error::Rejected(source)) => *source.downcast().expect("a refusal"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn request_is_done_once_and_its_repetitions_return_the_first_outcome() {
        let requests = Requests::new();
        assert_eq!(requests.count(1, 5, 5, 0).expect("new"), done(1));
        assert_eq!(requests.count(1, 5, 5, 0).expect("known"), repeated(1));
        assert_eq!(requests.count(2, 5, 5, 0).expect("another client's"), done(2));
        assert_eq!(requests.count(1, 7, 5, 0).expect("new"), done(3));
        assert_eq!(requests.count(1, 6, 5, 0).expect("late, but new"), done(4));
        assert_eq!(requests.count(1, 5, 5, 0).expect("known"), repeated(1));
        assert_eq!(requests.count(1, 6, 5, 0).expect("known"), repeated(4));
    }

    #[test]
    fn what_a_client_has_settled_is_forgotten_and_refused_if_it_comes_late() {
        let requests = Requests::new();
        for number in 0..100 {
            assert_eq!(requests.count(1, number, number, 0).expect("new"), done(number + 1));
            assert_eq!(requests.kept(), 1);
        }
        assert_eq!(refusal(requests.count(1, 98, 98, 0)), Refusal::GivenUp);
        assert_eq!(requests.count(1, 99, 99, 0).expect("known"), repeated(100));
        // A number that was skipped is refused as well: it was given up before it came.
        assert_eq!(requests.count(1, 110, 105, 0).expect("new"), done(101));
        assert_eq!(refusal(requests.count(1, 104, 99, 0)), Refusal::GivenUp);
        assert_eq!(requests.count(1, 107, 105, 0).expect("new"), done(102));
    }

    #[test]
    fn refused_change_leaves_nothing_and_may_be_tried_again() {
        let requests = Requests::new();
        let request = RequestId { client: [1; 16], number: 1, settled: 1 };
        let failed = requests.db.write(|tx| {
            once(tx, &request, (&requests.sweep, 0), |_| Err(Refusal::Stopping.into()))
        });
        assert_eq!(refusal(failed.map(|receipt| receipt.value)), Refusal::Stopping);
        assert_eq!(requests.count(1, 1, 1, 0).expect("new"), done(1));
    }

    #[test]
    fn what_clients_leave_behind_goes_when_it_is_old_and_not_before() {
        let requests = Requests::new();
        let left = SWEPT_MIN + 100;
        for client in 0..left {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&client.to_be_bytes());
            let request = RequestId { client: id, number: 0, settled: 0 };
            let once = requests
                .db
                .submit(move |tx| once(tx, &request, (&Sweep::default(), 0), |_| Ok(Vec::new())));
            drop(once.expect("the database takes writes"));
        }
        for number in 0..left {
            requests.count(255, number, number, KEPT_MS).expect("new");
        }
        assert_eq!(requests.kept(), left + 1, "nothing is old");
        for number in left..2 * left {
            requests.count(255, number, number, KEPT_MS + 1).expect("new");
        }
        assert!(requests.kept() <= SWEPT_MIN, "{} are kept", requests.kept());
    }
}

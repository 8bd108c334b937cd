//! A lock for stores that have none: a lease that expires.
//!
//! It is a numbered file in the folder `lease`. Its newest version names an owner
//! and a time up to which it holds. Who wants it writes the next version, if the newest has expired or
//! was given back. The owner does the same to renew it; when somebody else has written that version,
//! the lease is lost.
//!
//! Times are those of the writers' clocks, so a clock that is wrong by more than the lease's length may
//! let a second writer in. That costs work, not data: the manifest too is a numbered file, so a writer
//! whose lease was taken cannot change it (`repository/manifest.rs`).

use std::{process, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, StoreLock, numbered, shortened};

/// The folder of leases.
pub const FOLDER: &str = "lease";
/// How long a lease holds: 5 minutes. Longer than a pause of a machine, shorter than patience.
pub const LEASE_US: u64 = 5 * 60 * 1_000_000;
/// Longest lease, in bytes.
const LEN_MAX: u64 = 4096;
/// Versions that are kept.
const KEEP: usize = 4;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    owner: String,
    token: String,
    expires_us: u64,
}

/// A lease that is held. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    store: Arc<dyn Store>,
    number: u64,
    stored: Stored,
    lost: bool,
}

impl Lease {
    /// Takes the lease.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if somebody has it; what the medium says.
    pub fn take(store: Arc<dyn Store>, purpose: &str) -> Result<Lease, StoreError> {
        let (number, newest) = newest(&*store)?;
        let now = store.now_us();
        if let Some(held) = newest.filter(|lease| lease.expires_us > now) {
            return Err(StoreError::Locked { place: store.place(), owner: owner_of(&held, now) });
        }
        let random = u128::from_le_bytes(store.random()?);
        let stored = Stored {
            owner: format!("process {} ({purpose})", process::id()),
            token: format!("{random:032x}"),
            expires_us: now.saturating_add(LEASE_US),
        };
        let mut lease = Lease { store, number, stored, lost: true };
        let Some(next) = number.checked_add(1) else {
            return Err(lease.lost_to("whoever wrote the last number"));
        };
        if !lease.write(next)? {
            let place = lease.store.place();
            return Err(StoreError::Locked { place, owner: "another writer".to_owned() });
        }
        lease.lost = false;
        numbered::trim(&*lease.store, FOLDER, KEEP);
        Ok(lease)
    }

    fn write(&mut self, number: u64) -> Result<bool, StoreError> {
        let bytes = serde_json::to_vec(&self.stored).expect("strings and a number are JSON");
        let won = numbered::append(&*self.store, FOLDER, number, &bytes)?;
        if won {
            self.number = number;
        }
        Ok(won)
    }

    fn lost_to(&mut self, owner: &str) -> StoreError {
        self.lost = true;
        StoreError::LockLost { place: self.store.place(), owner: owner.to_owned() }
    }
}

impl StoreLock for Lease {
    fn renew(&mut self) -> Result<(), StoreError> {
        let now = self.store.now_us();
        let fresh_until = self.stored.expires_us.saturating_sub(LEASE_US / 2);
        if !self.lost && now < fresh_until {
            return Ok(());
        }
        let (number, newest) = newest(&*self.store)?;
        let is_ours = newest.as_ref().is_some_and(|lease| lease.token == self.stored.token);
        if self.lost || !is_ours || number == u64::MAX {
            let owner = newest.map_or("another writer".to_owned(), |lease| owner_of(&lease, now));
            return Err(self.lost_to(&owner));
        }
        self.stored.expires_us = now.saturating_add(LEASE_US);
        if !self.write(number + 1)? {
            return Err(self.lost_to("another writer"));
        }
        numbered::trim(&*self.store, FOLDER, KEEP);
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.lost {
            return;
        }
        self.stored.expires_us = 0;
        let given_back = self.number.checked_add(1).map(|next| self.write(next));
        if let Some(Err(error)) = given_back {
            tracing::debug!(%error, "a lease was not given back; it will expire");
        }
    }
}

/// The newest version's number, 0 if there is none, and what it says. One that cannot be read is as
/// one that has expired: its successor settles who has the lease.
fn newest(store: &dyn Store) -> Result<(u64, Option<Stored>), StoreError> {
    let newest = numbered::newest(store, FOLDER, LEN_MAX, |version| {
        Some((version.number, serde_json::from_slice(&version.bytes).ok()))
    })?;
    Ok(newest.unwrap_or((0, None)))
}

fn owner_of(lease: &Stored, now_us: u64) -> String {
    let seconds = lease.expires_us.saturating_sub(now_us) / 1_000_000;
    format!("{}, for {seconds} s more unless it is renewed", shortened(&lease.owner))
}

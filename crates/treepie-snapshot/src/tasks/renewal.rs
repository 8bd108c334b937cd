//! Renewing the lock of a repository while a long stream is written.

use std::time::{Duration, Instant};

use crate::{error::Result, repository::RepositoryWriter};

/// Time between two renewals: a quarter of what a lock without one lives at least.
const INTERVAL: Duration = Duration::from_secs(30);

/// When the lock is to be renewed.
#[derive(Debug)]
pub(super) struct Renewal {
    last: Instant,
}

impl Renewal {
    pub(super) fn new() -> Renewal {
        Renewal { last: Instant::now() }
    }

    /// Renews the lock if it is time.
    pub(super) fn tick(&mut self, writer: &mut RepositoryWriter) -> Result<()> {
        if self.last.elapsed() >= INTERVAL {
            writer.renew()?;
            self.last = Instant::now();
        }
        Ok(())
    }
}

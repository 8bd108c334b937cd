//! What a replicated database keeps for others, and of requests.

use super::Options;
use crate::ids::DatabaseId;

impl Options {
    /// The identity of a database that is created: for a cluster whose certificates, which name it, are
    /// made before. One that exists keeps its own. Default: a random one.
    #[must_use]
    pub fn database_id(mut self, id: DatabaseId) -> Options {
        self.database_id = Some(id);
        self
    }

    /// Memory in bytes for recent records of a replicated database: nodes that keep up are sent them from
    /// there, others from the journal. Records that the journal has not got yet stay in any case.
    /// Default: 64 MiB.
    #[must_use]
    pub fn recent_records_memory(mut self, bytes: usize) -> Options {
        self.recent_records_memory = bytes;
        self
    }

    /// Most requests whose outcomes [`Database::write_once`](crate::Database::write_once) remembers, of
    /// all clients together; the oldest one is forgotten for a new one. A client that tries again must do
    /// so before that many others have come. Default: 65,536.
    #[must_use]
    pub fn requests_max(mut self, count: u64) -> Options {
        self.requests_max = count;
        self
    }
}

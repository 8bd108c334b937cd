//! How a restore is made.

use treepie::Options;

use crate::{repository::Until, stream::ReadOptions};

/// How a restore is made.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    pub(super) engine: Options,
    pub(super) read: ReadOptions,
    pub(super) until: Until,
    pub(super) is_checked: bool,
    pub(super) is_replica: bool,
}

impl Default for RestoreOptions {
    fn default() -> RestoreOptions {
        RestoreOptions::new()
    }
}

impl RestoreOptions {
    /// Everything that the streams hold, checked, in a lineage of its own.
    #[must_use]
    pub fn new() -> RestoreOptions {
        RestoreOptions {
            engine: Options::new(),
            read: ReadOptions::new(),
            until: Until::End,
            is_checked: true,
            is_replica: false,
        }
    }

    /// The options to make and to check the database with; for instance its disk.
    #[must_use]
    pub fn engine(mut self, options: Options) -> RestoreOptions {
        self.engine = options;
        self
    }

    /// How streams are read: keys, threads.
    #[must_use]
    pub fn read(mut self, options: ReadOptions) -> RestoreOptions {
        self.read = options;
        self
    }

    /// Where to stop, for streams that hold records. A restore from a repository is told its target
    /// instead. Default: at the end.
    #[must_use]
    pub fn until(mut self, until: Until) -> RestoreOptions {
        self.until = until;
        self
    }

    /// Whether the database is checked, and its pages are compared with the stream's, before it gets its
    /// name. Default: yes; it reads everything once more.
    #[must_use]
    pub fn check(mut self, check: bool) -> RestoreOptions {
        self.is_checked = check;
        self
    }

    /// Whether it stays a copy in the lineage of its source, which only a replica may be: two databases
    /// that go on in one lineage are taken for each other. Default: no.
    #[must_use]
    pub fn replica(mut self, replica: bool) -> RestoreOptions {
        self.is_replica = replica;
        self
    }
}

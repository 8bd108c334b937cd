//! The client: any number of threads that ask, over one connection to the node that leads.
//!
//! Requests are pipelined: the frames of threads that ask at the same time leave with one write. Where
//! a node is not the leader, its answer says who is, and the request goes there. Where a connection is
//! lost, requests are sent again with the same request id, so that each is done once.

mod error;
mod link;
mod numbers;
mod pending;
mod routes;
mod scan;
mod stream;
mod transaction;

use std::{fmt, sync::Arc, time::Duration};

use treepie::{Receipt, ids::Lsn};

pub use error::ClientError;
pub use pending::Pending;
pub use scan::{ScanOptions, Scanned};
pub use transaction::Transaction;

use super::message::{
    Admin, Answer, Call, Consistency, Effect, Found, Member, Outcome, Page, Query, Read, Scan,
    Status, Unmet, Write,
};
use crate::{ids::ClusterId, transport::Security};
use numbers::Numbers;
use routes::{Attempts, Routes};

/// What a client may be told.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    timeout: Duration,
    connect_timeout: Duration,
    in_flight_max: usize,
    cluster: Option<ClusterId>,
    consistency: Consistency,
    exactly_once: bool,
    security: Security,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            in_flight_max: 1024,
            cluster: None,
            consistency: Consistency::Linearizable,
            exactly_once: true,
            security: Security::Loopback,
        }
    }
}

impl ClientOptions {
    /// The default ones.
    #[must_use]
    pub fn new() -> ClientOptions {
        ClientOptions::default()
    }

    /// How long a request may take, with all that it takes to find somebody who does it; 10 seconds by
    /// default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> ClientOptions {
        self.timeout = timeout;
        self
    }

    /// How long connecting to one node may take; 2 seconds by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientOptions {
        // The system takes no timeout of zero.
        self.connect_timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Requests of one connection that may be on their way, at most; 1,024 by default. The server has
    /// a bound as well.
    #[must_use]
    pub fn in_flight_max(mut self, count: usize) -> ClientOptions {
        self.in_flight_max = count.max(1);
        self
    }

    /// How connections are protected; not at all by default, and so only within this machine. With TLS,
    /// nodes of the cluster that the client's certificate names are believed.
    #[must_use]
    pub fn security(mut self, security: Security) -> ClientOptions {
        self.security = security;
        self
    }

    /// Refuses nodes of other clusters.
    #[must_use]
    pub fn cluster(mut self, cluster: ClusterId) -> ClientOptions {
        self.cluster = Some(cluster);
        self
    }

    /// How new the state must be that is read; linearizable by default.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> ClientOptions {
        self.consistency = consistency;
        self
    }

    /// Whether transactions have request ids, so that one that is sent again is done once; they do by
    /// default. Without, [`ClientError::OutcomeUnknown`] is told whenever a connection is lost.
    #[must_use]
    pub fn exactly_once(mut self, exactly_once: bool) -> ClientOptions {
        self.exactly_once = exactly_once;
        self
    }
}

/// What the clones of a client share.
#[derive(Debug)]
struct Shared {
    options: ClientOptions,
    routes: Routes,
    numbers: Numbers,
}

/// A client of a node or a cluster. Cheap to clone, and for any number of threads.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    consistency: Consistency,
}

impl Client {
    /// Connects to the first of the nodes that answers.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Address`].
    pub fn connect(
        addresses: impl IntoIterator<Item = impl ToString>,
        options: ClientOptions,
    ) -> Result<Client, ClientError> {
        let addresses: Vec<String> =
            addresses.into_iter().map(|address| address.to_string()).collect();
        if addresses.is_empty() {
            let what = "no address was given".to_owned();
            return Err(ClientError::Address { address: String::new(), what });
        }
        let client = options.exactly_once.then(|| {
            let mut id = [0; 16];
            getrandom::fill(&mut id).map(|()| id)
        });
        let client = client.transpose().map_err(|error| ClientError::Unreachable {
            waited: Duration::ZERO,
            last: format!("the system has no random numbers: {error}"),
        })?;
        let consistency = options.consistency;
        let until = std::time::Instant::now() + options.timeout;
        let routes = Routes::new(addresses);
        routes.link(&options, &mut Attempts::default(), until)?;
        let shared = Arc::new(Shared { options, routes, numbers: Numbers::new(client) });
        Ok(Client { shared, consistency })
    }

    /// The same client, which reads states that are as new as this.
    #[must_use]
    pub fn reading(&self, consistency: Consistency) -> Client {
        Client { shared: Arc::clone(&self.shared), consistency }
    }

    /// The value of a key, and the LSN of the state that it was read from.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(
        &self,
        tree: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Receipt<Option<Vec<u8>>>, ClientError> {
        self.start_get(tree, key)?.wait()
    }

    /// As [`get`](Client::get), and goes on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn start_get(
        &self,
        tree: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Pending<Receipt<Option<Vec<u8>>>>, ClientError> {
        let (tree, key) = (tree.as_ref().to_vec(), key.as_ref().to_vec());
        let read = Read { consistency: self.consistency, query: Query::Get { tree, key } };
        Pending::new(&self.shared, Call::Read(read), |answer| match answer {
            Answer::Found { lsn, found: Found::Value(value) } => {
                Some(Receipt { value, lsn: Lsn(lsn) })
            }
            _ => None,
        })
    }

    /// Sets the value of a key; makes the tree when it is missing. Returns whether there was one before.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn put(
        &self,
        tree: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Receipt<bool>, ClientError> {
        self.single(Transaction::new().put(tree, key, value))
    }

    /// Removes a key. Returns whether it was there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete(
        &self,
        tree: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Receipt<bool>, ClientError> {
        self.single(Transaction::new().delete(tree, key))
    }

    fn single(&self, transaction: Transaction) -> Result<Receipt<bool>, ClientError> {
        let Receipt { value, lsn } = self.run(transaction)?;
        match value {
            Outcome::Done(effects) => match effects[..] {
                [Effect::Put(value) | Effect::Deleted(value)] => Ok(Receipt { value, lsn }),
                _ => Err(ClientError::Answer),
            },
            Outcome::Unmet(_) => Err(ClientError::Answer),
        }
    }

    /// Sets the value of a key if it has the one that is expected, or none where none is expected.
    /// Otherwise returns what was found, and changes nothing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn compare_and_put(
        &self,
        tree: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Receipt<Result<(), Unmet>>, ClientError> {
        let (tree, key) = (tree.as_ref(), key.as_ref());
        let transaction = Transaction::new().expect(tree, key, expected).put(tree, key, value);
        let Receipt { value, lsn } = self.run(transaction)?;
        let value = match value {
            Outcome::Done(_) => Ok(()),
            Outcome::Unmet(unmet) => Err(unmet),
        };
        Ok(Receipt { value, lsn })
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn run(&self, transaction: Transaction) -> Result<Receipt<Outcome>, ClientError> {
        self.start(transaction)?.wait()
    }

    /// As [`run`](Client::run), and goes on. Transactions that one thread starts one after the other
    /// are run in this order, unless they have to be sent again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn start(
        &self,
        transaction: Transaction,
    ) -> Result<Pending<Receipt<Outcome>>, ClientError> {
        let Transaction { conditions, operations } = transaction;
        let write = Write { request: None, conditions, operations };
        Pending::new(&self.shared, Call::Write(write), |answer| match answer {
            Answer::Written { lsn, outcome, .. } => Some(Receipt { value: outcome, lsn: Lsn(lsn) }),
            _ => None,
        })
    }

    /// The entries of a tree, or of a part of it, page by page. All pages are as new as the first one,
    /// but later ones may be newer.
    #[must_use]
    pub fn scan(&self, tree: impl AsRef<[u8]>, options: ScanOptions) -> Scanned {
        Scanned::new(self.clone(), tree.as_ref().to_vec(), options)
    }

    /// One page of entries, and the LSN of the state that it was read from.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn page(&self, scan: Scan) -> Result<Receipt<Page>, ClientError> {
        let read = Read { consistency: self.consistency, query: Query::Scan(scan) };
        let page = Pending::new(&self.shared, Call::Read(read), |answer| match answer {
            Answer::Found { lsn, found: Found::Page(page) } => {
                Some(Receipt { value: page, lsn: Lsn(lsn) })
            }
            _ => None,
        });
        page?.wait()
    }

    /// What the node is doing that is asked now: the leader, or the first that was reached.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn status(&self) -> Result<Status, ClientError> {
        let status = Pending::new(&self.shared, Call::Status, |answer| match answer {
            Answer::Status(status) => Some(*status),
            _ => None,
        });
        status?.wait()
    }

    /// Who belongs to the cluster.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn members(&self) -> Result<Vec<Member>, ClientError> {
        let members = Pending::new(&self.shared, Call::Members, |answer| match answer {
            Answer::Members(members) => Some(members),
            _ => None,
        });
        members?.wait()
    }

    /// Changes the cluster. Returns the LSN of the change.
    ///
    /// # Errors
    /// [`ClientError`]. A change is not sent again where a connection is lost: look at the members.
    pub fn admin(&self, admin: Admin) -> Result<Lsn, ClientError> {
        let changed = Pending::new(&self.shared, Call::Admin(admin), |answer| match answer {
            Answer::Changed { lsn } => Some(Lsn(lsn)),
            _ => None,
        });
        changed?.wait()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("consistency", &self.consistency).finish_non_exhaustive()
    }
}

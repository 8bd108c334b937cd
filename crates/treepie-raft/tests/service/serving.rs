//! Servers for tests, and stores that do what a test says.

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use treepie::{Database, Durability, Options, Snapshot};
use treepie_raft::{
    ids::NodeId,
    service::{
        Client, ClientOptions, Done, Refusal, Server, ServerOptions, Standalone, Store, Written,
        message::{Admin, Consistency, Member, Status, Welcome, Write},
    },
};

/// A database in a folder of its own, and a server on a port of its own.
pub struct Served {
    pub server: Server,
    pub db: Database,
    _folder: TempDir,
}

/// A new database. What it acknowledges is in memory: these tests are not about disks.
pub fn database() -> (Database, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new().create(true).durability(Durability::Memory);
    (options.open(folder.path().join("db")).unwrap(), folder)
}

pub fn serve(store: Arc<dyn Store>, options: ServerOptions) -> Server {
    Server::start(TcpListener::bind("127.0.0.1:0").unwrap(), store, options).unwrap()
}

impl Served {
    pub fn new() -> Served {
        Served::with(ServerOptions::new(), |store| store)
    }

    /// Serves what is made of a database.
    pub fn with(
        options: ServerOptions,
        wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Served {
        let (db, folder) = database();
        let store = Arc::new(Standalone::new(db.clone(), NodeId(1), "here"));
        Served { server: serve(wrap(store), options), db, _folder: folder }
    }

    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    pub fn client(&self) -> Client {
        connect(&[self.address()])
    }
}

pub fn connect(addresses: &[String]) -> Client {
    Client::connect(addresses, patient()).unwrap()
}

/// Options of a client that waits for as long as a busy machine may need.
pub fn patient() -> ClientOptions {
    ClientOptions::new().timeout(Duration::from_secs(60)).connect_timeout(Duration::from_secs(20))
}

/// Waits until something holds. It does within a moment, or never.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

type OnWrite = Box<dyn Fn(&dyn Store, Write, Done<Written>) + Send + Sync>;

/// A store whose writes go another way.
pub struct Rerouted {
    pub inner: Arc<dyn Store>,
    pub on_write: OnWrite,
}

impl Store for Rerouted {
    fn welcome(&self) -> Welcome {
        self.inner.welcome()
    }

    fn write(&self, write: Write, done: Done<Written>) {
        (self.on_write)(&*self.inner, write, done);
    }

    fn read(&self, consistency: Consistency, done: Done<Snapshot>) {
        self.inner.read(consistency, done);
    }

    fn status(&self) -> Result<Status, Refusal> {
        self.inner.status()
    }

    fn members(&self) -> Result<Vec<Member>, Refusal> {
        self.inner.members()
    }

    fn admin(&self, admin: Admin, done: Done<u64>) {
        self.inner.admin(admin, done);
    }
}

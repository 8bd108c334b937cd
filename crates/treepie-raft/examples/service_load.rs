//! Requests per second over loopback, with a database by itself: 1, 8, 64 and 256 threads, each with a
//! connection of its own, and all of them with one.
//!
//! ```sh
//! cargo run --release -p treepie-raft --example service_load -- [SECONDS [FOLDER]]
//! ```

use std::{
    error::Error,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::{Duration, Instant},
};

use treepie::Database;
use treepie_raft::{
    ids::NodeId,
    service::{Client, ClientError, ClientOptions, Server, ServerOptions, Standalone},
};

const VALUE_LEN: usize = 150;
const KEYS: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let scratch = match arguments.next() {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let db = Database::open(scratch.path().join("db"))?;
    let store = Arc::new(Standalone::new(db, NodeId(1), ""));
    let server = Server::start(TcpListener::bind("127.0.0.1:0")?, store, ServerOptions::new())?;
    let address = server.address().to_string();
    println!("{:<28} {:>8} {:>12} {:>12}", "what", "threads", "own/s", "shared/s");
    for (what, request, exactly_once) in REQUESTS {
        for threads in [1, 8, 64, 256] {
            let mut rates = [0.0; 2];
            for (rate, is_shared) in rates.iter_mut().zip([false, true]) {
                let options = ClientOptions::new().exactly_once(*exactly_once);
                let run = Run { address: &address, threads, is_shared, seconds, options };
                *rate = run.rate(*request)?;
            }
            println!("{what:<28} {threads:>8} {:>12.0} {:>12.0}", rates[0], rates[1]);
        }
    }
    Ok(())
}

type Request = fn(&Client, u64) -> Result<(), ClientError>;

const REQUESTS: &[(&str, Request, bool)] = &[
    ("durable put, 150 B", put, true),
    ("durable put without ids", put, false),
    ("linearizable get, 150 B", get, true),
];

fn put(client: &Client, key: u64) -> Result<(), ClientError> {
    client.put("load", key.to_be_bytes(), [7; VALUE_LEN]).map(drop)
}

fn get(client: &Client, key: u64) -> Result<(), ClientError> {
    client.get("load", key.to_be_bytes()).map(drop)
}

struct Run<'r> {
    address: &'r str,
    threads: u64,
    is_shared: bool,
    seconds: f64,
    options: ClientOptions,
}

impl Run<'_> {
    /// Requests that were answered, per second.
    fn rate(&self, request: Request) -> Result<f64, Box<dyn Error>> {
        let shared = Client::connect([self.address], self.options.clone())?;
        let clients: Vec<Client> = (0..self.threads)
            .map(|_| match self.is_shared {
                true => Ok(shared.clone()),
                false => Client::connect([self.address], self.options.clone()),
            })
            .collect::<Result<_, _>>()?;
        let (count, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let started = Instant::now();
        thread::scope(|scope| {
            for (client, first) in clients.iter().zip(0..) {
                let (count, is_over) = (&count, &is_over);
                scope.spawn(move || {
                    let mut key = first * 7919;
                    while !is_over.load(Relaxed) {
                        key = (key + 104_729) % KEYS;
                        request(client, key).expect("the server is there");
                        count.fetch_add(1, Relaxed);
                    }
                });
            }
            thread::sleep(Duration::from_secs_f64(self.seconds));
            is_over.store(true, SeqCst);
        });
        Ok(count.load(SeqCst) as f64 / started.elapsed().as_secs_f64())
    }
}

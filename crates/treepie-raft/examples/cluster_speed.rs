//! Durable puts on a cluster of three nodes on loopback, each with a journal and syncs of its own, by
//! 1 to 256 threads; then linearizable reads. All nodes are in this process.
//!
//! ```sh
//! cargo run --release -p treepie-raft --example cluster_speed -- [seconds] [value bytes]
//! ```

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use treepie::Database;
use treepie_raft::{
    Node, NodeOptions,
    ids::NodeId,
    members::{Change, Place},
    transport::Security,
};

const THREADS: [u64; 4] = [1, 8, 64, 256];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let len: usize = arguments.next().map_or(Ok(150), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let options =
        |id| NodeOptions::new(NodeId(id), "127.0.0.1:0", Security::Loopback).found(id == 1);
    let leader = Node::start(Database::open(folder.path().join("1"))?, options(1))?;
    while !leader.is_leading() {
        thread::yield_now();
    }
    let mut others = Vec::new();
    for id in [2, 3] {
        let address = leader.address()?.to_string();
        let member = (NodeId(1), &*address);
        let path = folder.path().join(id.to_string());
        let node = Node::join(path, options(id), leader.cluster(), member)?;
        let place = Place { address: node.address()?.to_string(), label: String::new() };
        leader.add_learner(NodeId(id), place)?;
        while leader.change(Change::Promote(NodeId(id))).is_err() {
            thread::yield_now();
        }
        others.push(node);
    }
    let value = vec![7; len];
    for threads in THREADS {
        let counter = AtomicU64::new(0);
        let puts = measure(threads, seconds, &|| {
            let number = counter.fetch_add(1, Relaxed);
            let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            leader.write(|tx| tx.tree("t")?.insert(key, &value)).expect("it leads");
        });
        print(&format!("puts, {threads} threads"), puts, len);
    }
    for threads in THREADS {
        let gets = measure(threads, seconds, &|| {
            let snapshot = leader.read_linearizable(Duration::from_secs(5)).expect("a quorum");
            let tree = snapshot.tree("t").expect("the tree");
            assert!(tree.get(0_u64.to_be_bytes()).expect("whole").is_some());
        });
        print(&format!("linearizable gets, {threads} threads"), gets, len);
    }
    Ok(())
}

/// Calls a second, and their median and 99th percentile in microseconds.
fn measure(threads: u64, seconds: f64, call: &(dyn Fn() + Sync)) -> (f64, u64, u64) {
    let (stop, times) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Vec::new();
                while !stop.load(Relaxed) {
                    let begin = Instant::now();
                    call();
                    own.push(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX));
                }
                times.lock().expect("nobody panicked").extend(own);
            });
        }
        thread::sleep(Duration::from_secs_f64(seconds));
        stop.store(true, Relaxed);
    });
    let elapsed = begin.elapsed().as_secs_f64();
    let mut times = times.into_inner().expect("nobody panicked");
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    (times.len() as f64 / elapsed, at(50), at(99))
}

fn print(what: &str, (rate, median, slow): (f64, u64, u64), len: usize) {
    let megabytes = rate * len as f64 / 1e6;
    println!("{what}: {rate:.0}/s, {megabytes:.1} MB/s, median {median} us, p99 {slow} us");
}

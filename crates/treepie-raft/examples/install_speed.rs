//! How fast a follower catches up: all pages over loopback, and records that it applies.
//!
//! `cargo run --release -p treepie-raft --example install_speed [MB of pages] [MB of records]`

use std::{
    error::Error,
    path::Path,
    time::{Duration, Instant},
};

use treepie::{Database, Options, ids::Lsn};
use treepie_raft::{Node, NodeOptions, ids::NodeId, members::Place, transport::Security};

const MB: usize = 1_000_000;
/// Bytes of a value: many of them are in a page.
const VALUE_LEN: usize = 1000;
/// Values that are written at once.
const BATCH: usize = 4000;
const PATIENCE: Duration = Duration::from_secs(600);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let pages = arguments.next().transpose()?.unwrap_or(1000);
    let records = arguments.next().transpose()?.unwrap_or(500);
    let dir = tempfile::tempdir()?;
    let first = start(&dir.path().join("1"))?;
    fill(&first, 0, pages * MB)?;
    first.database()?.checkpoint()?;

    let begin = Instant::now();
    let second = join(&dir.path().join("2"), &first)?;
    tell("installed over loopback", &dir.path().join("2").join("data"), begin.elapsed())?;

    // It is away while records are written, and gets and applies all of them then.
    let reached = fill(&first, pages * MB / VALUE_LEN, MB)?;
    second.read_at_least(reached, PATIENCE)?;
    let address = second.address()?.to_string();
    second.stop()?;
    drop(second);
    let last = fill(&first, 2 * pages * MB / VALUE_LEN, records * MB)?;
    let before = first.database()?.stats();
    let begin = Instant::now();
    let second = Node::open(dir.path().join("2"), options(2).advertised(address))?;
    second.read_at_least(last, PATIENCE)?;
    let took = begin.elapsed().as_secs_f64();
    println!("{records} MB of values as records received, synced and applied in {took:.2} s");
    let bytes = second.database()?.stats().record_bytes;
    println!("{:.0} MB/s of records ({} MB)", bytes as f64 / 1e6 / took, bytes / MB as u64);
    let after = first.database()?.stats();
    println!("the leader is at LSN {}, and was at {}", after.committed, before.committed);
    second.stop()?;
    Ok(first.stop()?)
}

fn options(id: u64) -> NodeOptions {
    let engine = Options::new().journal_retention(4 << 30).create(true);
    NodeOptions::new(NodeId(id), "127.0.0.1:0", Security::Loopback).engine(engine)
}

fn start(path: &Path) -> Outcome<Node> {
    let database = Options::new().journal_retention(4 << 30).create(true).open(path)?;
    let node = Node::start(database, options(1).found(true))?;
    while !node.is_leading() {
        std::thread::yield_now();
    }
    Ok(node)
}

fn join(path: &Path, first: &Node) -> Outcome<Node> {
    let address = first.address()?.to_string();
    let node = Node::join(path, options(2), first.cluster(), (NodeId(1), address.as_str()))?;
    let place = Place { address: node.address()?.to_string(), label: String::new() };
    first.add_learner(NodeId(2), place)?;
    Ok(node)
}

/// Writes values that cannot be compressed, in order; the last LSN.
fn fill(node: &Node, from: usize, bytes: usize) -> Outcome<Lsn> {
    let database: Database = node.database()?;
    let mut last = Lsn(0);
    let (mut next, mut state) = (from, from as u64 + 1);
    let end = from + bytes / VALUE_LEN;
    while next < end {
        let until = end.min(next + BATCH);
        let receipt = database.write(|tx| {
            let mut tree = tx.tree("t")?;
            for n in next..until {
                let mut value = [0; VALUE_LEN];
                for word in value.chunks_exact_mut(8) {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    word.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
                }
                tree.insert(u64::try_from(n).expect("small").to_be_bytes(), value)?;
            }
            Ok(())
        })?;
        (next, last) = (until, receipt.lsn);
    }
    Ok(last)
}

fn tell(what: &str, file: &Path, took: Duration) -> Outcome<()> {
    let len = std::fs::metadata(file)?.len() as f64 / 1e6;
    let seconds = took.as_secs_f64();
    println!("{len:.0} MB {what} in {seconds:.2} s: {:.0} MB/s", len / seconds);
    Ok(())
}

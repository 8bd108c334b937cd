//! Step 8: three nodes on this machine. The leader is killed while clients write, a new node gets all
//! pages, and in the end all that are left have the same ones.

use std::{
    env,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use treepie::Database;
use treepie_raft::{
    ids::NodeId,
    service::{
        Client, ClientOptions,
        message::{Admin, Consistency},
    },
};
use treepie_snapshot::{BackupOptions, Control, backup};

use super::{promise, story::Story};
use crate::{
    failure::{Failure, Result},
    output::grouped,
};

const TREE: &str = "rows";
/// Clients that write at the same time.
const CLIENTS: u64 = 4;
/// How long they write before the leader is killed, and rows that must be acknowledged by then and
/// after that.
const WRITING: Duration = Duration::from_secs(1);
const ROWS_MIN: u64 = 100;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Step 8.
pub fn show(folder: &Path, story: &mut Story<'_>) -> Result<()> {
    story.step("Run three nodes, kill the one that leads, and let a new one join")?;
    std::fs::create_dir(folder).map_err(Failure::io("create", folder))?;
    let mut nodes = vec![Node::start(folder, 1, &[])?];
    let first = [nodes[0].address.clone()];
    for id in [2, 3] {
        nodes.push(Node::start(folder, id, &first)?);
    }
    let all: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let client = Client::connect(&all, ClientOptions::new().timeout(PATIENCE))?;
    for id in [2, 3] {
        promote(&client, id)?;
    }
    story.say("Nodes 1, 2 and 3 are processes of their own, and vote.")?;
    let written = kill_the_leader(&client, &mut nodes, story)?;
    let left: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    nodes.push(Node::start(folder, 4, &left)?);
    let newest = Client::connect([&nodes[2].address], ClientOptions::new().timeout(PATIENCE))?;
    let last = client.put(TREE, "last", "of all")?.lsn;
    promote(&client, 4)?;
    newest.reading(Consistency::AtLeast(last.0)).get(TREE, "last")?;
    verify(&newest, written)?;
    story.say("Node 4 got all pages in a stream, has every acknowledged row, and votes.")?;
    compare(nodes, &client, story)
}

/// A node in a process, which is killed at the latest when this goes.
struct Node {
    id: u64,
    child: Child,
    address: String,
    dir: PathBuf,
}

impl Node {
    fn start(folder: &Path, id: u64, peers: &[String]) -> Result<Node> {
        let program = env::current_exe().map_err(Failure::io("find", "this program"))?;
        let dir = folder.join(format!("node-{id}"));
        let mut command = Command::new(&program);
        command.args(["node", "--listen", "127.0.0.1:0", "--insecure-loopback", "--json"]);
        command.arg("--id").arg(id.to_string()).arg("--dir").arg(&dir);
        if peers.is_empty() {
            command.arg("--found");
        } else {
            command.arg("--peers").arg(peers.join(","));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(Failure::io("start", program))?;
        let mut out = BufReader::new(child.stdout.take().expect("it was asked to be a pipe"));
        let mut line = String::new();
        out.read_line(&mut line).map_err(Failure::io("read", "the pipe from a node"))?;
        let mut node = Node { id, child, address: String::new(), dir };
        let said: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let address = said.as_ref().and_then(|said| said["clients"].as_str());
        promise(address.is_some(), || format!("node {id} did not start: {line}"))?;
        node.address = address.unwrap_or_default().to_owned();
        Ok(node)
    }

    /// Asks it to end, and waits until it has.
    fn stop(mut self) -> Result<PathBuf> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let failed = Failure::io("end", format!("node {}", self.id));
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.ok_or_else(gone).and_then(|pid| Ok(kill_process(pid, Signal::TERM)?));
        let ended = asked.and_then(|()| self.child.wait()).map_err(failed)?;
        promise(ended.success(), || format!("node {} ended with {ended}", self.id))?;
        Ok(self.dir.clone())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives a learner a vote, once it has caught up.
fn promote(client: &Client, id: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.admin(Admin::Promote { node: NodeId(id) }) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(LOOK_INTERVAL),
        }
    }
}

/// What clients have had acknowledged.
#[derive(Default)]
struct Written {
    is_over: AtomicBool,
    rows: [AtomicU64; CLIENTS as usize],
}

impl Written {
    fn sum(&self) -> u64 {
        self.rows.iter().map(|rows| rows.load(Ordering::Acquire)).sum()
    }
}

fn row_key(client: u64, row: u64) -> String {
    format!("{client}-{row:08}")
}

/// Clients write while the leader is killed; returns how many rows each had acknowledged.
fn kill_the_leader(
    client: &Client,
    nodes: &mut Vec<Node>,
    story: &mut Story<'_>,
) -> Result<Vec<u64>> {
    let written = Written::default();
    let (before, gap, leader) = thread::scope(|scope| {
        let writers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let written = &written;
                    move || write(client, written, number)
                })
            })
            .collect();
        let done = watch(client, nodes, &written);
        written.is_over.store(true, Ordering::Release);
        for writer in writers {
            writer.join().expect("a writer does not panic")?;
        }
        done
    })?;
    story.say(format!(
        "{CLIENTS} clients wrote {} rows, each acknowledged by a majority. Then node {leader}, which led, was \
         killed.",
        grouped(before),
    ))?;
    story.say(format!(
        "The next row was acknowledged {} ms later, by another leader.",
        grouped(gap.as_millis().try_into().unwrap_or(u64::MAX)),
    ))?;
    let rows: Vec<u64> = written.rows.iter().map(|rows| rows.load(Ordering::Acquire)).collect();
    verify(client, rows.clone())?;
    story.say(format!("All {} acknowledged rows are there.", grouped(rows.iter().sum())))?;
    Ok(rows)
}

fn write(client: &Client, written: &Written, number: u64) -> Result<()> {
    let mut row = 0;
    while !written.is_over.load(Ordering::Acquire) {
        let key = row_key(number, row + 1);
        match client.put(TREE, &key, &key) {
            Ok(_) => row += 1,
            // Whether it was done is not known; the same row is written again.
            Err(treepie_raft::service::ClientError::OutcomeUnknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        written.rows[number as usize].store(row, Ordering::Release);
    }
    Ok(())
}

/// Kills the leader after a while; returns rows acknowledged before, the time until the next one, and who
/// led.
fn watch(
    client: &Client,
    nodes: &mut Vec<Node>,
    written: &Written,
) -> Result<(u64, Duration, u64)> {
    let started = Instant::now();
    while started.elapsed() < WRITING || written.sum() < ROWS_MIN {
        promise(started.elapsed() < PATIENCE, || "clients write too slowly".to_owned())?;
        thread::sleep(LOOK_INTERVAL);
    }
    let leader = client.status()?.leader.map_or(1, |leader| leader.0);
    let place = nodes.iter().position(|node| node.id == leader).unwrap_or_default();
    drop(nodes.remove(place));
    let (before, killed) = (written.sum(), Instant::now());
    while written.sum() == before {
        promise(killed.elapsed() < PATIENCE, || "nobody leads".to_owned())?;
        thread::yield_now();
    }
    let gap = killed.elapsed();
    while written.sum() < before + ROWS_MIN {
        promise(killed.elapsed() < PATIENCE, || "clients write too slowly".to_owned())?;
        thread::sleep(LOOK_INTERVAL);
    }
    Ok((before, gap, leader))
}

/// Looks every acknowledged row up.
fn verify(client: &Client, rows: Vec<u64>) -> Result<()> {
    for (number, rows) in (0..).zip(rows) {
        for row in 1..=rows {
            let key = row_key(number, row);
            let value = client.get(TREE, &key)?.value;
            promise(value.as_deref() == Some(key.as_bytes()), || format!("row {key} is lost"))?;
        }
    }
    Ok(())
}

/// Ends all nodes when they have the same, and compares their pages.
fn compare(nodes: Vec<Node>, client: &Client, story: &mut Story<'_>) -> Result<()> {
    let last = client.status()?.committed;
    for node in &nodes {
        let one = Client::connect([&node.address], ClientOptions::new().timeout(PATIENCE))?;
        one.reading(Consistency::AtLeast(last)).get(TREE, "last")?;
    }
    let mut hashes = Vec::new();
    for node in nodes {
        let database = Database::open(node.stop()?)?;
        let (_, report) = backup(&database, io::sink(), &BackupOptions::new(), Control::new())?;
        hashes.push((report.summary.last.lsn, report.summary.page_hash));
        database.close()?;
    }
    promise(hashes.windows(2).all(|pair| pair[0] == pair[1]), || {
        format!("the nodes have different pages: {hashes:?}")
    })?;
    let (lsn, _) = hashes.first().ok_or_else(|| Failure::Demo("no node is left".to_owned()))?;
    story.say(format!("All {} that are left have the same pages at LSN {lsn}.", hashes.len()))
}

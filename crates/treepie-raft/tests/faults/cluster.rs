//! A cluster on loopback whose nodes have probes and disks of a test's own.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tempfile::TempDir;
use treepie::{Error, ids::Lsn};
use treepie_raft::{
    Node, NodeError, NodeOptions,
    ids::{ClusterId, NodeId},
    members::{Change, Place},
    node::Probe,
    transport::Security,
};
use treepie_snapshot::{BackupOptions, Control, backup};

use crate::{
    disk::{Faults, FaultyDisk},
    gate::{PATIENCE, wait},
};

/// Nodes in folders of one temporary folder.
pub struct Cluster {
    dir: TempDir,
    nodes: Vec<Option<Node>>,
    addresses: Vec<String>,
    cluster: ClusterId,
    /// What a node is started with.
    pub probes: Vec<Probe>,
    /// Each node's disk.
    pub faults: Vec<Faults>,
}

impl Cluster {
    /// Three nodes with a vote each, of which the first leads.
    pub fn of_three() -> Cluster {
        Cluster::with(vec![Probe::default(); 3])
    }

    pub fn with(probes: Vec<Probe>) -> Cluster {
        let dir = tempfile::tempdir().expect("a folder");
        let faults = probes.iter().map(|_| Faults::default()).collect();
        let (nodes, addresses) = (Vec::new(), Vec::new());
        let mut cluster =
            Cluster { dir, nodes, addresses, cluster: ClusterId::default(), probes, faults };
        let database = cluster.engine(1).create(true).open(cluster.path(1)).expect("a database");
        let node = Node::start(database, cluster.options(1).found(true)).expect("a node");
        cluster.cluster = node.cluster();
        cluster.note(node);
        wait("the first node leads", || cluster.node(1).is_leading()).expect("nothing is wrong");
        for id in 2..=cluster.probes.len() as u64 {
            cluster.join(id);
        }
        cluster
    }

    fn join(&mut self, id: u64) {
        let leader = self.leader();
        let address = self.addresses[index(leader)].clone();
        let member = (NodeId(leader), &*address);
        let node = Node::join(self.path(id), self.options(id), self.cluster, member);
        self.note(node.expect("it joins"));
        let place = Place { address: self.addresses[index(id)].clone(), label: String::new() };
        self.node(leader).add_learner(NodeId(id), place).expect("it is added");
        wait("a learner gets a vote", || {
            self.node(self.leader()).change(Change::Promote(NodeId(id))).is_ok()
        })
        .expect("nothing is wrong");
    }

    fn note(&mut self, node: Node) {
        self.addresses.push(node.address().expect("it listens").to_string());
        self.nodes.push(Some(node));
    }

    pub fn path(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    /// The folder of all of them.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn engine(&self, id: u64) -> treepie::Options {
        let disk = Arc::new(FaultyDisk(self.faults[index(id)].clone()));
        treepie::Options::new().journal_segment_size(1 << 20).disk(disk)
    }

    pub fn options(&self, id: u64) -> NodeOptions {
        let address = self.addresses.get(index(id)).cloned();
        let address = address.unwrap_or_else(|| "127.0.0.1:0".to_owned());
        NodeOptions::new(NodeId(id), address, Security::Loopback)
            .timing(Duration::from_millis(20), 10, 2)
            .engine(self.engine(id))
            .probe(self.probes[index(id)].clone())
    }

    pub fn node(&self, id: u64) -> &Node {
        self.nodes[index(id)].as_ref().expect("it runs")
    }

    /// Who leads; waits for it.
    pub fn leader(&self) -> u64 {
        self.find_leader(&[]).expect("somebody leads")
    }

    /// Who leads, but for some; waits for it.
    pub fn find_leader(&self, but: &[u64]) -> Result<u64, String> {
        let mut leader = 0;
        wait("somebody leads", || {
            let nodes = self.nodes.iter().flatten();
            let mut others = nodes.filter(|node| !but.contains(&node.id().0));
            leader = others.find(|node| node.is_leading()).map_or(0, |node| node.id().0);
            leader > 0
        })?;
        Ok(leader)
    }

    /// One that does not lead.
    pub fn follower(&self) -> u64 {
        let leader = self.leader();
        (1..=3).find(|id| *id != leader).expect("there are three")
    }

    pub fn stop(&mut self, id: u64) {
        drop(self.nodes[index(id)].take().expect("it runs"));
    }

    /// Ends all of them; the folders stay.
    pub fn stop_all(&mut self) {
        self.nodes.iter_mut().for_each(|node| drop(node.take()));
    }

    /// Takes a node out, to be stopped by a thread of the test.
    pub fn take(&mut self, id: u64) -> Node {
        self.nodes[index(id)].take().expect("it runs")
    }

    pub fn restart(&mut self, id: u64) {
        let node = Node::open(self.path(id), self.options(id)).expect("it starts again");
        self.nodes[index(id)] = Some(node);
    }

    /// Writes on whoever leads, until it is acknowledged.
    pub fn put(&self, key: &str, value: &str) -> Lsn {
        self.put_but(&[], key, value).expect("it is taken")
    }

    /// As `put`, on none of some nodes.
    pub fn put_but(&self, but: &[u64], key: &str, value: &str) -> Result<Lsn, String> {
        let mut lsn = Lsn(0);
        wait("a write is taken", || {
            let Ok(leader) = self.find_leader(but) else { return false };
            match self.node(leader).write(|tx| tx.tree("t")?.insert(key, value)) {
                Ok(receipt) => {
                    lsn = receipt.lsn;
                    true
                }
                // What may be done already does no harm when it is done again; a damaged page is repaired.
                Err(NodeError::Engine(
                    Error::NotLeader { .. } | Error::OutcomeUnknown { .. } | Error::Corrupt { .. },
                )) => false,
                Err(error) => panic!("{error}"),
            }
        })?;
        Ok(lsn)
    }

    /// A node sleeps, and meanwhile the journal that it needs goes; the last LSN.
    pub fn sleep_too_long(&mut self, sleeper: u64) -> Lsn {
        let leader = self.leader();
        self.stop(sleeper);
        let database = self.node(leader).database().expect("it runs");
        let slept_at = database.stats().committed;
        // More than one segment has, so that also the record before the first one that is kept is newer.
        let mut fillers = 0;
        wait("the journal is trimmed", || {
            self.put("filler", &"x".repeat(200_000));
            database.checkpoint().expect("it checkpoints");
            fillers += 1;
            fillers > 20 && matches!(database.records(slept_at), Err(Error::Trimmed { .. }))
        })
        .expect("nothing is wrong");
        self.put("state", "new")
    }

    /// What a node has of a key, with all that was acknowledged.
    pub fn get(&self, id: u64, key: &str) -> Option<String> {
        let snapshot = self.node(id).read_linearizable(PATIENCE).expect("a quorum");
        value(&snapshot, key).expect("whole")
    }

    /// The hash of all pages of a node.
    pub fn page_hash(&self, id: u64) -> (Lsn, String) {
        let database = self.node(id).database().expect("it runs");
        let copy = backup(&database, std::io::sink(), &BackupOptions::new(), Control::new());
        let (_, report) = copy.expect("whole");
        (report.summary.last.lsn, format!("{:?}", report.summary.page_hash))
    }
}

/// What a snapshot has of a key.
pub fn value(snapshot: &treepie::Snapshot, key: &str) -> treepie::Result<Option<String>> {
    let Some(tree) = snapshot.find_tree("t")? else { return Ok(None) };
    Ok(tree.get(key)?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

fn index(id: u64) -> usize {
    usize::try_from(id).expect("a small number") - 1
}

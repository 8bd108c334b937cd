//! A cluster on loopback, and waiting for what must come.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use treepie::{Database, ids::Lsn};
use treepie_raft::{
    Node, NodeOptions,
    ids::{ClusterId, NodeId},
    members::{Change, Place},
    transport::Security,
};

/// Longer than anything here takes; a failure is late, a success is not.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes in folders of one temporary folder.
pub struct Cluster {
    dir: TempDir,
    nodes: Vec<Option<Node>>,
    addresses: Vec<String>,
    cluster: Option<ClusterId>,
}

impl Cluster {
    /// Founds a cluster of one, lets others join, and gives all of them a vote.
    pub fn of(count: u64) -> Cluster {
        let dir = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster { dir, nodes: Vec::new(), addresses: Vec::new(), cluster: None };
        let database = Database::open(cluster.path(1)).expect("a database");
        cluster.start_on(database);
        for id in 2..=count {
            cluster.join(id);
            cluster.promote(id);
        }
        cluster
    }

    pub fn path(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    fn options(&self, id: u64) -> NodeOptions {
        let address = self.addresses.get(id as usize - 1).cloned();
        let address = address.unwrap_or_else(|| "127.0.0.1:0".to_owned());
        NodeOptions::new(NodeId(id), address, Security::Loopback)
            .timing(Duration::from_millis(20), 10, 2)
            .found(id == 1)
    }

    fn start_on(&mut self, database: Database) {
        let node = Node::start(database, self.options(1)).expect("a node");
        self.cluster = Some(node.cluster());
        self.note(node);
        let first = self.node(1);
        wait("the first node leads", || first.is_leading());
    }

    fn note(&mut self, node: Node) {
        self.addresses.push(node.address().expect("it listens").to_string());
        self.nodes.push(Some(node));
    }

    /// A node joins as a learner.
    pub fn join(&mut self, id: u64) {
        let leader = self.leader();
        let address = self.addresses[leader as usize - 1].clone();
        let cluster = self.cluster.expect("it was founded");
        let member = (NodeId(leader), &*address);
        let node = Node::join(self.path(id), self.options(id), cluster, member).expect("it joins");
        self.note(node);
        let place =
            Place { address: self.addresses[id as usize - 1].clone(), label: String::new() };
        self.node(leader).add_learner(NodeId(id), place).expect("it is added");
    }

    /// A learner gets a vote, once it has caught up.
    pub fn promote(&self, id: u64) {
        wait("a learner gets a vote", || {
            let leader = self.node(self.leader());
            leader.change(Change::Promote(NodeId(id))).is_ok()
        });
    }

    pub fn node(&self, id: u64) -> &Node {
        self.nodes[id as usize - 1].as_ref().expect("it runs")
    }

    /// Who leads; waits for it.
    pub fn leader(&self) -> u64 {
        let mut leader = 0;
        wait("somebody leads", || {
            let found = self.nodes.iter().flatten().find(|node| node.is_leading());
            leader = found.map_or(0, |node| node.id().0);
            leader > 0
        });
        leader
    }

    /// Ends a node, as if its process had gone.
    pub fn stop(&mut self, id: u64) {
        drop(self.nodes[id as usize - 1].take().expect("it runs"));
    }

    /// Starts it again, at the same address.
    pub fn restart(&mut self, id: u64) {
        let node = Node::open(self.path(id), self.options(id)).expect("it starts again");
        self.nodes[id as usize - 1] = Some(node);
    }

    /// Waits until all nodes that run show this LSN.
    pub fn wait_for(&self, lsn: Lsn) {
        for node in self.nodes.iter().flatten() {
            node.read_at_least(lsn, PATIENCE).expect("it gets there");
        }
    }
}

/// Waits for what must come.
pub fn wait(what: &str, mut has_come: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !has_come() {
        assert!(Instant::now() < deadline, "it did not come: {what}");
        std::thread::yield_now();
    }
}

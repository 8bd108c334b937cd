//! Clusters of real processes: nodes that come, move, are replaced and go; also with certificates.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    certificates::Files,
    run::{Ended, Place, objects},
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How nodes and commands prove who they are.
pub enum Safety {
    /// They do not.
    Loopback,
    /// By certificates.
    Certificates(Box<Files>),
}

/// Nodes in folders of one place.
pub struct Cluster {
    pub place: Place,
    pub nodes: Vec<Node>,
    pub safety: Safety,
}

/// A process, which is ended also when the test fails.
pub struct Node {
    pub id: u64,
    child: Child,
    _err: Option<ChildStderr>,
    pub clients: String,
    pub nodes: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail when it was ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// Nodes 1 to `count`, all of which vote.
    pub fn of(count: u64, safety: Safety) -> Cluster {
        let mut cluster = Cluster { place: Place::new(), nodes: Vec::new(), safety };
        if let Safety::Certificates(files) = &cluster.safety {
            files.write(&cluster.place, count);
        }
        cluster.start(1, &["--found"]).unwrap_or_else(|said| panic!("{said}"));
        for id in 2..=count {
            cluster.join(id);
            cluster.promote(id);
        }
        cluster
    }

    /// What proves who a node, or whoever asks one, is.
    fn proof(&self, who: &str) -> Vec<String> {
        match &self.safety {
            Safety::Loopback => vec!["--insecure-loopback".to_owned()],
            Safety::Certificates(_) => Files::arguments(who),
        }
    }

    /// Starts a node, and waits until it serves; or returns what it says when it does not.
    pub fn start(&mut self, id: u64, more: &[&str]) -> Result<(), String> {
        let proof = self.proof(&format!("node-{id}"));
        let node = self.process(id, more, &proof)?;
        self.nodes.retain(|node| node.id != id);
        self.nodes.push(node);
        Ok(())
    }

    /// Starts a process of its own, which is not kept.
    pub fn process(&self, id: u64, more: &[&str], proof: &[String]) -> Result<Node, String> {
        let (number, dir) = (id.to_string(), format!("d{id}"));
        let arguments = ["node", "--id", &number, "--json"];
        let mut command = self.place.command(&arguments);
        if !more.contains(&"--dir") {
            command.args(["--dir", &dir]);
        }
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(more).args(proof).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut err = child.stderr.take().unwrap();
        if line.is_empty() {
            let mut said = String::new();
            err.read_to_string(&mut said).unwrap();
            assert!(!child.wait().unwrap().success());
            return Err(said);
        }
        let serving = &objects(&line)[0];
        let text = |field: &str| serving[field].as_str().unwrap().to_owned();
        Ok(Node { id, child, _err: Some(err), clients: text("clients"), nodes: text("nodes") })
    }

    pub fn join(&mut self, id: u64) {
        let all = self.all();
        self.start(id, &["--peers", &all]).unwrap_or_else(|said| panic!("{said}"));
    }

    pub fn promote(&self, id: u64) {
        self.insist(&["member", "promote", "--id", &id.to_string()]);
    }

    pub fn kill(&mut self, id: u64) {
        let place = self.nodes.iter().position(|node| node.id == id).unwrap();
        drop(self.nodes.remove(place));
    }

    /// Asks a node to end, and waits until it has.
    pub fn stop(&mut self, id: u64) {
        let place = self.nodes.iter().position(|node| node.id == id).unwrap();
        let mut node = self.nodes.remove(place);
        self.place.shell(&format!("kill -TERM {}", node.child.id())).succeeded();
        assert!(node.child.wait().unwrap().success());
    }

    pub fn node(&self, id: u64) -> &Node {
        self.nodes.iter().find(|node| node.id == id).unwrap()
    }

    /// Addresses of all nodes that run.
    pub fn all(&self) -> String {
        let all: Vec<&str> = self.nodes.iter().map(|node| node.clients.as_str()).collect();
        all.join(",")
    }

    /// Asks nodes at these addresses.
    pub fn ask(&self, arguments: &[&str], at: &str) -> Ended {
        let proof = self.proof("client");
        let proof: Vec<&str> = proof.iter().map(String::as_str).collect();
        self.place.run(&[arguments, &["--at", at], &proof].concat())
    }

    /// Asks all that run, again and again, until it is done.
    #[track_caller]
    pub fn insist(&self, arguments: &[&str]) -> String {
        self.insist_at(arguments, &self.all())
    }

    #[track_caller]
    pub fn insist_at(&self, arguments: &[&str], at: &str) -> String {
        let mut done = String::new();
        wait(&format!("{arguments:?}"), || {
            let ended = self.ask(arguments, at);
            if ended.code == 0 {
                done = ended.succeeded();
            }
            ended.code == 0
        });
        done
    }

    pub fn put(&self, key: &str, value: &str) -> u64 {
        let put = objects(&self.insist(&["client", "put", "t", key, value, "--json"]));
        put[0]["lsn"].as_u64().unwrap()
    }

    /// The value as the node with this number says that it is, with all that was acknowledged.
    #[track_caller]
    pub fn get(&self, id: u64, key: &str) -> String {
        self.insist_at(&["client", "get", "t", key], &self.node(id).clients)
    }

    pub fn status(&self, id: u64) -> Value {
        let at = &self.node(id).clients;
        objects(&self.insist_at(&["status", "--json"], at)).remove(0)
    }

    pub fn members(&self) -> Vec<Value> {
        objects(&self.insist(&["member", "list", "--json"]))
    }

    fn member(&self, id: u64) -> Option<Value> {
        self.members().into_iter().find(|member| member["node"] == id)
    }

    /// Who leads, once one of the nodes that run does.
    pub fn leader(&self) -> u64 {
        let mut leader = 0;
        wait("somebody leads", || {
            let found = self.nodes.iter().find(|node| self.status(node.id)["role"] == "leader");
            leader = found.map_or(0, |node| node.id);
            leader > 0
        });
        leader
    }
}

#[track_caller]
pub fn wait(what: &str, mut has_come: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !has_come() {
        assert!(Instant::now() < deadline, "it did not come: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn cluster_is_founded_only_where_it_is_asked_for() {
    let mut cluster = Cluster { place: Place::new(), nodes: Vec::new(), safety: Safety::Loopback };
    let said = cluster.start(1, &[]).unwrap_err();
    assert!(said.contains("--found makes a cluster of it, --peers joins one"), "{said}");
    assert!(!cluster.place.path("d1").exists(), "nothing is made");
    cluster.place.out(&["put", "d1", "t", "k", "v"]);
    let said = cluster.start(1, &[]).unwrap_err();
    assert!(said.contains("it is in no cluster"), "{said}");
    assert_eq!(cluster.place.out(&["get", "d1", "t", "k"]), "v\n");
    cluster.place.out(&["put", "d1", "t", "k", "w"]);
    cluster.start(1, &["--found"]).unwrap();
    assert_eq!(cluster.get(1, "k"), "w\n", "what was there stays");
    cluster.kill(1);
    // From then on it knows by itself.
    cluster.start(1, &[]).unwrap();
    assert_eq!(cluster.get(1, "k"), "w\n");
}

#[test]
fn node_joins_catches_up_votes_and_leaves_and_a_removed_one_does_not_disturb() {
    let mut cluster = Cluster::of(1, Safety::Loopback);
    for n in 0..20 {
        cluster.put(&format!("k{n}"), "v");
    }
    cluster.join(2);
    assert_eq!(cluster.member(2).unwrap()["voter"], false);
    // By records from here on, after all pages.
    let lsn = cluster.put("later", "v").to_string();
    let at = &cluster.node(2).clients;
    cluster.insist_at(&["client", "get", "t", "later", "--at-least", &lsn], at);
    assert_eq!(cluster.status(2)["role"], "learner");
    cluster.promote(2);
    cluster.join(3);
    cluster.promote(3);
    let peers = cluster.status(cluster.leader())["peers"].clone();
    assert_eq!(peers.as_array().unwrap().len(), 2);
    wait("a follower is up to date", || {
        let peer = &cluster.status(cluster.leader())["peers"][0];
        peer["lag_records"] == 0 && peer["lag_bytes"] == 0 && peer["silent_ms"].is_u64()
    });
    // A number that was used is refused, also by a node that was away.
    cluster.insist(&["member", "remove", "--id", "3"]);
    assert!(cluster.member(3).is_none());
    let term = cluster.status(1)["term"].clone();
    // It goes on, and stands for election where it can. Writes go on, in the same term.
    cluster.kill(3);
    cluster.place.shell("test -d d3").succeeded();
    let at = format!("{},{}", cluster.node(1).clients, cluster.node(2).clients);
    let removed = cluster.start(3, &[]);
    removed.unwrap();
    let lonely = cluster.node(3).clients.clone();
    wait("the removed node has missed its leader", || {
        let status = objects(cluster.ask(&["status", "--json"], &lonely).text());
        status[0]["leader"].is_null() && status[0]["uptime_ms"].as_u64().unwrap() > 2_500
    });
    cluster.insist_at(&["client", "put", "t", "after", "v"], &at);
    assert_eq!(cluster.status(1)["term"], term);
    assert_eq!(cluster.status(2)["term"], term);
    cluster.kill(3);
    let said = cluster.start(3, &["--dir", "d3-new", "--peers", &at]).unwrap_err();
    assert!(said.contains("removed"), "{said}");
}

#[test]
fn learner_takes_the_vote_of_a_dead_voter_and_a_lost_member_needs_a_new_number() {
    let mut cluster = Cluster::of(3, Safety::Loopback);
    cluster.put("k", "v");
    let dead = if cluster.leader() == 3 { 2 } else { 3 };
    cluster.kill(dead);
    std::fs::remove_dir_all(cluster.place.path(&format!("d{dead}"))).unwrap();
    let all = cluster.all();
    let said = cluster.start(dead, &["--peers", &all]).unwrap_err();
    assert!(said.contains("give this one a new number"), "{said}");
    cluster.join(4);
    let (dead, all) = (dead.to_string(), cluster.all());
    cluster.insist_at(&["member", "replace", "--id", &dead, "--with", "4"], &all);
    let voters: Vec<u64> = cluster.members().iter().map(|m| m["node"].as_u64().unwrap()).collect();
    assert!(voters.len() == 3 && voters.contains(&4), "{voters:?}");
    assert!(cluster.members().iter().all(|member| member["voter"] == true));
    assert_eq!(cluster.get(4, "k"), "v\n");
}

#[test]
fn node_that_is_started_elsewhere_is_found_there_by_nodes_and_clients() {
    let mut cluster = Cluster::of(3, Safety::Loopback);
    for id in 1..=3 {
        let before = cluster.node(id).clients.clone();
        cluster.kill(id);
        let all = cluster.all();
        cluster.start(id, &["--peers", &all]).unwrap();
        let now = cluster.node(id);
        assert_ne!(before, now.clients);
        wait("the members say where it is", || {
            let member = cluster.member(id).unwrap();
            member["client_address"] == now.clients.as_str()
                && member["address"] == now.nodes.as_str()
        });
    }
    // Who asks a follower is sent to where the leader is now.
    let leader = cluster.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    let at = cluster.node(follower).clients.clone();
    cluster.insist_at(&["client", "put", "t", "k", "v"], &at);
    assert_eq!(cluster.get(3, "k"), "v\n");
}

#[test]
fn member_move_says_where_a_node_is_and_others_are_told_what_is_advertised() {
    let mut cluster = Cluster::of(1, Safety::Loopback);
    let all = cluster.all();
    cluster
        .start(
            2,
            &["--peers", &all, "--advertise", "localhost:1", "--advertise-nodes", "localhost:2"],
        )
        .unwrap();
    let said = |id| {
        let member = cluster.member(id).unwrap();
        let text = |field: &str| member[field].as_str().unwrap().to_owned();
        (text("client_address"), text("address"))
    };
    assert_eq!(said(2), ("localhost:1".to_owned(), "localhost:2".to_owned()));
    // One that is not running has somebody say it.
    let second = cluster.node(2).id;
    let pid = cluster.node(second).child.id();
    cluster.place.shell(&format!("kill -KILL {pid}")).succeeded();
    cluster.insist_at(&["member", "move", "--id", "2", "--listen", "localhost:3"], &all);
    assert_eq!(said(2), ("localhost:3".to_owned(), "localhost:2".to_owned()));
    cluster.ask(&["member", "move", "--id", "9", "--nodes", "localhost:3"], &all).failed(1);
}

#[test]
fn leadership_is_handed_over_under_load_and_nothing_acknowledged_is_lost() {
    let cluster = Cluster::of(3, Safety::Loopback);
    let (all, leader) = (cluster.all(), cluster.leader());
    let to = if leader == 1 { 2 } else { 1 };
    let written = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut written = 0;
            // Some before, some meanwhile, some after.
            while written < 10 || cluster.status(to)["role"] != "leader" {
                cluster.insist_at(&["client", "put", "t", &format!("k{written}"), "v"], &all);
                written += 1;
            }
            written
        });
        cluster.insist_at(&["transfer", "--to", &to.to_string()], &all);
        writing.join().unwrap()
    });
    assert_eq!(cluster.leader(), to);
    let rows = cluster.insist(&["client", "scan", "t"]);
    assert_eq!(rows.lines().count(), written);
}

#[test]
fn cluster_of_a_backup_and_the_one_that_it_is_of_refuse_each_other() {
    let mut cluster = Cluster::of(3, Safety::Loopback);
    cluster.put("k", "old");
    let follower = if cluster.leader() == 3 { 2 } else { 3 };
    assert_eq!(cluster.get(follower, "k"), "old\n");
    cluster.stop(follower);
    cluster.place.out(&["backup", &format!("d{follower}"), "backup.tps"]);
    cluster.place.out(&["restore", "backup.tps", "copy"]);
    let mut other = Cluster { place: Place::new(), nodes: Vec::new(), safety: Safety::Loopback };
    let copy = cluster.place.path("copy").to_str().unwrap().to_owned();
    let said = other.start(1, &["--dir", &copy]).unwrap_err();
    assert!(said.contains("it is in no cluster"), "{said}");
    other.start(1, &["--dir", &copy, "--found"]).unwrap();
    assert_eq!(other.get(1, "k"), "old\n");
    other.put("k", "new");
    assert_eq!(other.members().len(), 1, "its members are its own");
    other.kill(1);
    // With the old cluster for its peers it is refused, and its pages are not touched.
    let all = cluster.all();
    let said = other.start(9, &["--dir", &copy, "--peers", &all]).unwrap_err();
    assert!(said.contains("of another cluster"), "{said}");
    // A stranger's database neither.
    other.place.out(&["put", "d5", "t", "k", "v"]);
    let said = other.start(5, &["--peers", &all]).unwrap_err();
    assert!(said.contains("in no cluster"), "{said}");
    other.start(1, &["--dir", &copy]).unwrap();
    assert_eq!(other.get(1, "k"), "new\n");
    assert_eq!(cluster.get(1, "k"), "old\n");
}

#[test]
fn reads_are_as_new_as_is_asked_for_and_stale_ones_are_refused_when_too_old() {
    let mut cluster = Cluster::of(3, Safety::Loopback);
    let leader = cluster.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    let at = cluster.node(follower).clients.clone();
    for n in 0..10 {
        let lsn = cluster.put("k", &n.to_string()).to_string();
        assert_eq!(cluster.get(follower, "k"), format!("{n}\n"), "on a follower");
        let own = ["client", "get", "t", "k", "--at-least", &lsn];
        assert_eq!(cluster.insist_at(&own, &at), format!("{n}\n"));
    }
    assert_eq!(cluster.insist_at(&["client", "get", "t", "k", "--stale", "10000"], &at), "9\n");
    let third = 6 - leader - follower;
    cluster.kill(third);
    cluster.kill(leader);
    // Without the others it answers what it may.
    wait("its state is older than half a second", || {
        cluster.ask(&["client", "get", "t", "k", "--stale", "500", "--timeout", "300"], &at).code
            != 0
    });
    let stale = ["client", "get", "t", "k", "--stale", "600000"];
    assert_eq!(cluster.insist_at(&stale, &at), "9\n");
    cluster.ask(&["client", "get", "t", "k", "--timeout", "300"], &at).failed(1);
}

#[test]
fn cluster_with_certificates_serves_and_refuses_wrong_ones() {
    let files = Files::new();
    let mut cluster = Cluster::of(3, Safety::Certificates(Box::new(files)));
    let lsn = cluster.put("k", "v");
    assert!(lsn > 0);
    for id in 1..=3 {
        assert_eq!(cluster.get(id, "k"), "v\n");
    }
    let all = cluster.all();
    let refused = |who: &str, id: u64| {
        let proof = Files::arguments(who);
        cluster.process(id, &["--peers", &all, "--dir", "none"], &proof).err().unwrap()
    };
    // Another node's, another cluster's, another authority's.
    for who in ["node-2", "stranger", "forged"] {
        refused(who, 4);
        assert!(!cluster.place.path("none").exists(), "{who}");
    }
    let proof = Files::arguments("stranger");
    let proof: Vec<&str> = proof.iter().map(String::as_str).collect();
    let get = ["client", "get", "t", "k", "--timeout", "500", "--at", &all];
    cluster.place.run(&[&get[..], &proof].concat()).failed(1);
    cluster.place.run(&[&get[..], &["--insecure-loopback"]].concat()).failed(1);
    let said = cluster.process(4, &["--found"], &Files::arguments("node-2")).err().unwrap();
    assert!(said.contains("not that of node 4"), "{said}");
    assert!(!cluster.place.path("d4").exists());
    // One that listens everywhere says where it is; the new certificate is of the cluster's own id.
    let dead = if cluster.leader() == 3 { 2 } else { 3 };
    cluster.kill(dead);
    let listen = ["--listen", "0.0.0.0:0", "--nodes", "0.0.0.0:0"];
    let said = cluster.start(dead, &listen).unwrap_err();
    assert!(said.contains("--advertise"), "{said}");
    let told = ["--advertise", "localhost:4", "--advertise-nodes", "localhost:5"];
    cluster.start(dead, &[listen, told].concat()).unwrap();
    let all = cluster.all();
    wait("the members say what it advertises", || {
        let members = objects(&cluster.insist_at(&["member", "list", "--json"], &all));
        members.iter().any(|member| member["client_address"] == "localhost:4")
    });
}

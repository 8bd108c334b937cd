//! `node`, `client`, `status`, `member` and `transfer`: a node in a process of its own, and who asks it.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
};

use serde_json::json;

use crate::run::{Ended, Place, objects};

/// A node, which is ended also when the test fails.
struct Node {
    child: Child,
    address: String,
}

impl Node {
    /// Starts one on a port that the system chooses, and waits until it serves.
    fn start(place: &Place, more: &[&str]) -> Node {
        Node::numbered(place, "1", "db", &[&["--found"], more].concat())
    }

    /// As `start`, with a number and a folder.
    fn numbered(place: &Place, id: &str, dir: &str, more: &[&str]) -> Node {
        let arguments =
            ["node", "--id", id, "--dir", dir, "--listen", "127.0.0.1:0", "--insecure-loopback"];
        let mut command = place.command(&[&arguments[..], more].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said = format!("node {id} serves clients on ");
        let address = match line.trim_end().strip_prefix(&said) {
            Some(addresses) => addresses.split(',').next().unwrap().to_owned(),
            None => {
                let serving = &objects(&line)[0];
                assert_eq!(serving["node"].to_string(), id);
                serving["clients"].as_str().unwrap().to_owned()
            }
        };
        Node { child, address }
    }

    /// Runs a command with the address of this node.
    fn run(&self, place: &Place, arguments: &[&str]) -> Ended {
        place.run(&self.with_address(arguments))
    }

    fn with_address<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [arguments, &["--at", &self.address, "--insecure-loopback"]].concat()
    }

    fn out(&self, place: &Place, arguments: &[&str]) -> String {
        self.run(place, arguments).succeeded()
    }

    fn json(&self, place: &Place, arguments: &[&str]) -> Vec<serde_json::Value> {
        objects(&self.out(place, &[arguments, &["--json"]].concat()))
    }

    /// Asks it to stop, and waits until it has.
    fn stop(mut self, place: &Place) {
        let pid = self.child.id();
        place.shell(&format!("kill -TERM {pid}")).succeeded();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((self.child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail when it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn node_serves_entries_until_a_signal_comes_and_they_are_there_afterwards() {
    let place = Place::new();
    let node = Node::start(&place, &[]);
    let ask = |arguments: &[&str]| node.out(&place, arguments);
    assert!(ask(&["client", "put", "birds", "pica", "magpie"]).starts_with("added, LSN "));
    assert!(ask(&["client", "put", "birds", "pica", "crow"]).starts_with("replaced, LSN "));
    assert_eq!(ask(&["client", "get", "birds", "pica"]), "crow\n");
    assert!(ask(&["client", "put", "birds", "corvus", "raven"]).starts_with("added, LSN "));
    assert_eq!(ask(&["client", "scan", "birds"]), "corvus\traven\npica\tcrow\n");
    assert!(ask(&["client", "delete", "birds", "pica"]).starts_with("deleted, LSN "));
    node.run(&place, &["client", "get", "birds", "pica"]).failed(4);
    node.run(&place, &["client", "delete", "birds", "pica"]).failed(4);
    let said = node.run(&place, &["client", "get", "fish", "k"]);
    assert_eq!(said.failed(4), "there is no tree named \"fish\"");
    assert_eq!(place.run(&["get", "db", "birds", "corvus"]).code, 5, "the node has it open");
    node.stop(&place);
    assert_eq!(place.out(&["get", "db", "birds", "corvus"]), "raven\n");
}

#[test]
fn json_and_hex_are_as_in_the_other_commands() {
    let place = Place::new();
    let node = Node::start(&place, &["--json"]);
    let put = node.json(&place, &["client", "put", "t", "a\\tb", "\\xff"]);
    assert_eq!(put[0]["done"], "added");
    let get = node.json(&place, &["client", "get", "t", "610962", "--hex"]);
    assert_eq!(get, [json!({"key": {"hex": "610962"}, "value": {"hex": "ff"}})]);
    let raw = node.run(&place, &["client", "get", "t", "a\\tb", "--raw"]);
    assert_eq!((raw.code, &raw.out[..]), (0, &b"\xff"[..]));
    node.out(&place, &["client", "put", "t", "b", "-value"]);
    let scan = node.json(&place, &["client", "scan", "t", "--from", "b"]);
    assert_eq!(scan, [json!({"key": "b", "value": "-value"})]);
    let reverse = node.out(&place, &["client", "scan", "t", "--reverse", "--limit", "1"]);
    assert_eq!(reverse, "b\t-value\n");
    assert_eq!(node.out(&place, &["client", "scan", "t", "--prefix", "a"]), "a\\tb\t\\xff\n");
    let lsn = put[0]["lsn"].to_string();
    node.out(&place, &["client", "get", "t", "b", "--at-least", &lsn]);
    node.out(&place, &["client", "get", "t", "b", "--stale", "100"]);
    node.run(&place, &["client", "get", "t", "b", "--at-least", "1000000"]).failed(1);
}

#[test]
fn conditional_put_changes_nothing_where_the_condition_does_not_hold() {
    let place = Place::new();
    let node = Node::start(&place, &[]);
    let cas =
        |options: &[&str]| node.run(&place, &[&["client", "cas", "t", "k"], options].concat());
    let refused = cas(&["b", "--expect", "a"]);
    let said = "the key \"k\" of the tree \"t\" has no value; nothing was changed";
    assert_eq!((refused.failed(6), refused.text()), (said, ""));
    assert!(cas(&["a", "--absent"]).succeeded().starts_with("added, LSN "));
    let refused = cas(&["b", "--absent"]);
    let said = "the key \"k\" of the tree \"t\" has another value; nothing was changed";
    assert_eq!((refused.failed(6), refused.text()), (said, "a\n"));
    assert!(cas(&["b", "--expect", "a"]).succeeded().starts_with("replaced, LSN "));
    let refused = cas(&["c", "--expect", "a", "--json"]);
    assert_eq!(refused.code, 6);
    assert_eq!(objects(refused.text()), [json!({"done": "nothing", "exists": true, "value": "b"})]);
    assert_eq!(objects(&refused.err)[0]["code"], 6);
    assert_eq!(node.out(&place, &["client", "get", "t", "k"]), "b\n");
}

#[test]
fn status_and_members_tell_of_the_one_node() {
    let place = Place::new();
    let node = Node::start(&place, &[]);
    let put = node.json(&place, &["client", "put", "t", "k", "v"]);
    let status = &node.json(&place, &["status"])[0];
    assert_eq!((&status["node"], &status["role"]), (&json!(1), &json!("leader")));
    assert!(status["committed"].as_u64() >= put[0]["lsn"].as_u64());
    assert_eq!(status["leader"], json!(1));
    assert!(node.out(&place, &["status"]).starts_with("node 1 at 127.0.0.1:"));
    let members = node.json(&place, &["member", "list"]);
    assert_eq!((members.len(), &members[0]["voter"]), (1, &json!(true)));
    assert_eq!(members[0]["client_address"], json!(node.address));
    for arguments in [
        &["member", "promote", "--id", "2"][..],
        &["member", "remove", "--id", "2"],
        &["transfer", "--to", "2"],
    ] {
        let said = node.run(&place, arguments);
        assert!(said.failed(1).contains("node 2 is not a member"), "{arguments:?}");
    }
}

#[test]
fn node_that_is_not_there_is_told_and_the_one_that_is_answers() {
    let place = Place::new();
    let gone = Node::start(&place, &[]);
    let address = gone.address.clone();
    gone.stop(&place);
    let reach = ["--at", &address, "--insecure-loopback", "--timeout", "50"];
    let said = place.run(&[&["client", "put", "t", "k", "v"], &reach[..]].concat());
    assert!(said.failed(1).starts_with("no node has answered within 0.05 s: "), "{}", said.err);
    let node = Node::start(&place, &[]);
    let both = format!("{address},{}", node.address);
    let reach = ["--at", &both, "--insecure-loopback", "--timeout", "2000"];
    place.out(&[&["client", "put", "t", "k", "v"], &reach[..]].concat());
    let status = place.run(&[&["status", "--json"], &reach[..]].concat());
    assert_eq!(status.code, 1);
    let lines = objects(status.text());
    assert_eq!((&lines[0]["at"], &lines[1]["node"]), (&json!(address), &json!(1)));
}

#[test]
fn plaintext_has_to_be_asked_for_and_stays_within_the_machine() {
    let place = Place::new();
    let get = ["client", "get", "t", "k", "--at"];
    for more in [&["127.0.0.1:1"][..], &["127.0.0.1:1", "--ca", "ca.pem"]] {
        assert_eq!(place.run(&[&get, more].concat()).code, 2, "{more:?}");
    }
    let said = place.run(&[&get[..], &["192.0.2.1:1", "--insecure-loopback"]].concat());
    said.failed(2);
    let node = ["node", "--id", "1", "--dir", "db", "--found", "--insecure-loopback", "--listen"];
    place.run(&[&node[..], &["0.0.0.0:0"]].concat()).failed(2);
    assert!(!place.path("db").exists());
    let files = ["--ca", "ca.pem", "--cert", "cert.pem", "--key", "key.pem"];
    let said = place.run(&[&get[..], &["127.0.0.1:1"], &files].concat());
    assert!(said.failed(2).contains("ca.pem"), "{}", said.err);
}

/// Asks again and again, until it is done.
fn insist(place: &Place, arguments: &[&str]) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let ended = place.run(arguments);
        if ended.code == 0 {
            return ended.succeeded();
        }
        assert!(std::time::Instant::now() < deadline, "{arguments:?}");
    }
}

#[test]
fn cluster_of_three_processes_goes_on_when_its_leader_is_killed() {
    let place = Place::new();
    let mut first = Node::numbered(&place, "1", "d1", &["--found"]);
    let at = |nodes: &[&Node]| -> String {
        nodes.iter().map(|node| node.address.as_str()).collect::<Vec<_>>().join(",")
    };
    let only = first.address.clone();
    insist(&place, &["client", "put", "t", "a", "1", "--at", &only, "--insecure-loopback"]);
    let second = Node::numbered(&place, "2", "d2", &["--peers", &only]);
    let third = Node::numbered(&place, "3", "d3", &["--peers", &only]);
    let all = at(&[&first, &second, &third]);
    for id in ["2", "3"] {
        insist(&place, &["member", "promote", "--id", id, "--at", &all, "--insecure-loopback"]);
    }
    insist(&place, &["client", "put", "t", "b", "2", "--at", &all, "--insecure-loopback"]);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let left = at(&[&second, &third]);
    insist(&place, &["client", "put", "t", "c", "3", "--at", &left, "--insecure-loopback"]);
    for (key, value) in [("a", "1\n"), ("b", "2\n"), ("c", "3\n")] {
        let get = ["client", "get", "t", key, "--at", &left, "--insecure-loopback"];
        assert_eq!(insist(&place, &get), value);
    }
    // Back again, it has what was written without it.
    let back = Node::numbered(&place, "1", "d1", &["--peers", &left]);
    let status = insist(&place, &["status", "--at", &back.address, "--insecure-loopback"]);
    assert!(status.contains("node 1"), "{status}");
    let there = ["client", "get", "t", "c", "--at", &back.address, "--insecure-loopback"];
    assert_eq!(insist(&place, &there), "3\n");
}

#[test]
fn node_whose_database_is_of_no_use_is_rebuilt_by_one_command_that_may_be_repeated() {
    let place = Place::new();
    let first = Node::numbered(&place, "1", "d1", &[]);
    let only = first.address.clone();
    insist(&place, &["client", "put", "t", "a", "1", "--at", &only, "--insecure-loopback"]);
    let second = Node::numbered(&place, "2", "d2", &["--peers", &only]);
    let mut third = Node::numbered(&place, "3", "d3", &["--peers", &only]);
    for id in ["2", "3"] {
        insist(&place, &["member", "promote", "--id", id, "--at", &only, "--insecure-loopback"]);
    }
    let rebuild = |id: &str| {
        let node = ["node", "--id", id, "--dir", "d3", "--listen", "127.0.0.1:0"];
        place.run(
            &[&node[..], &["--peers", &only, "--rebuild", "3", "--insecure-loopback"]].concat(),
        )
    };
    // Nothing is done under the old number, or while the old node runs.
    rebuild("3").failed(2);
    let said = rebuild("4");
    assert!(said.failed(2).contains("somebody has the database open"), "{}", said.err);
    third.child.kill().unwrap();
    third.child.wait().unwrap();
    std::fs::write(place.path("d3").join("data"), b"rot").unwrap();
    let rebuilt = Node::numbered(&place, "4", "d3", &["--peers", &only, "--rebuild", "3"]);
    assert!(place.path("d3.node-3").join("journal").exists(), "the old folder was put aside");
    let all = format!("{only},{}", second.address);
    let members = ["member", "list", "--at", &all, "--insecure-loopback", "--json"];
    let members = objects(&insist(&place, &members));
    let voters: Vec<_> = members.iter().filter(|member| member["voter"] == json!(true)).collect();
    assert_eq!((members.len(), voters.len()), (3, 3), "{members:?}");
    assert!(members.iter().all(|member| member["node"] != json!(3)), "{members:?}");
    insist(&place, &["client", "put", "t", "b", "2", "--at", &all, "--insecure-loopback"]);
    rebuilt.stop(&place);
    // Given again as it was, it starts what it has made.
    let again = Node::numbered(&place, "4", "d3", &["--peers", &only, "--rebuild", "3"]);
    let get = ["client", "get", "t", "b", "--at", &again.address, "--insecure-loopback"];
    assert_eq!(insist(&place, &get), "2\n");
    again.stop(&place);
}

//! One process at a time.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use serde_json::json;

use crate::run::{Place, objects};

/// Ends the process also when the test fails.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn database_that_another_process_has_open_is_refused_until_it_ends() {
    let place = Place::new();
    let child = place.command(&["demo-writer", "db"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut holder = Holder(child);
    let pid = holder.0.id();
    let mut rows = BufReader::new(holder.0.stdout.take().unwrap());
    let mut first = String::new();
    rows.read_line(&mut first).unwrap();
    assert_eq!(first, "1\n");
    for arguments in
        [&["get", "db", "rows", "k"][..], &["put", "db", "t", "k", "v"], &["check", "db"]]
    {
        let said = place.run(arguments);
        let expected = format!("db is already open in process {pid}; close it there first");
        assert_eq!(said.failed(5), expected);
    }
    let said = place.run(&["trees", "db", "--json"]);
    assert_eq!((said.code, &objects(&said.err)[0]["code"]), (5, &json!(5)));
    drop(holder);
    assert!(place.out(&["get", "db", "rows", "0000000001"]).starts_with("row 1 was acknowledged"));
}

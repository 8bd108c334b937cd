//! `scan`.

use std::{io::Read, process::Stdio};

use serde_json::json;

use crate::run::Place;

fn keys(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.split('\t').next().unwrap()).collect()
}

#[test]
fn entries_come_in_the_order_of_their_keys() {
    let place = Place::new();
    place.fill("t", 3);
    assert_eq!(
        place.out(&["scan", "db", "t"]),
        "key 0000\tvalue 0\nkey 0001\tvalue 1\nkey 0002\tvalue 2\n"
    );
    assert_eq!(keys(&place.out(&["scan", "db", "t", "--reverse"]))[0], "key 0002");
}

#[test]
fn prefix_and_bounds_choose_entries_from_both_ends() {
    let place = Place::new();
    place.fill("t", 2500);
    let scan = |options: &[&str]| place.out(&[&["scan", "db", "t"], options].concat());
    let text = scan(&["--prefix", "key 12"]);
    assert_eq!((keys(&text).len(), keys(&text)[0]), (100, "key 1200"));
    let text = scan(&["--prefix", "key 12", "--reverse", "--limit", "2"]);
    assert_eq!(keys(&text), ["key 1299", "key 1298"]);
    let text = scan(&["--from", "key 0998", "--to", "key 1001"]);
    assert_eq!(keys(&text), ["key 0998", "key 0999", "key 1000"]);
    let text = scan(&["--from", "key 0998", "--to", "key 1001", "--reverse", "--limit", "1"]);
    assert_eq!(keys(&text), ["key 1000"]);
    assert_eq!(keys(&scan(&["--to", "key 0001"])), ["key 0000"]);
    assert_eq!(keys(&scan(&["--from", "key 2499"])), ["key 2499"]);
    assert_eq!(scan(&["--limit", "0"]), "");
    assert_eq!(scan(&["--prefix", "nothing"]), "");
    assert_eq!(scan(&["--from", "b", "--to", "a"]), "");
    assert_eq!(keys(&scan(&[])).len(), 2500);
}

#[test]
fn json_lines_show_bytes_that_are_no_text_as_digits() {
    let place = Place::new();
    place.out(&["put", "db", "t", "a", "snow ☃"]);
    place.out(&["put", "db", "t", "b\\n", "\\xff"]);
    let rows = place.json(&["scan", "db", "t"]);
    assert_eq!(rows[0], json!({"key": "a", "value": "snow ☃"}));
    assert_eq!(rows[1], json!({"key": {"hex": "620a"}, "value": {"hex": "ff"}}));
    assert_eq!(place.out(&["scan", "db", "t", "--hex", "--limit", "1"]), "61\t736e6f7720e29883\n");
    let rows = place.json(&["scan", "db", "t", "--hex", "--prefix", "62"]);
    assert_eq!(rows, [json!({"key": {"hex": "620a"}, "value": {"hex": "ff"}})]);
}

#[test]
fn unknown_tree_is_not_found() {
    let place = Place::new();
    place.fill("t", 1);
    for arguments in
        [&["scan", "db", "u"][..], &["get", "db", "u", "k"], &["delete", "db", "u", "k"]]
    {
        let said = place.run(arguments);
        assert_eq!(said.failed(4), "there is no tree named \"u\"; list the names with `trees`");
    }
}

#[test]
fn reader_that_goes_away_ends_the_command_quietly() {
    let place = Place::new();
    place.fill("t", 20_000);
    let mut command = place.command(&["scan", "db", "t"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

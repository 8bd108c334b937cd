//! `get`, `put`, `delete`.

use serde_json::json;

use crate::run::Place;

#[test]
fn put_makes_the_database_and_get_prints_the_value() {
    let place = Place::new();
    assert!(place.out(&["put", "db", "birds", "pica", "magpie"]).starts_with("added, LSN "));
    assert_eq!(place.out(&["get", "db", "birds", "pica"]), "magpie\n");
    assert!(place.out(&["put", "db", "birds", "pica", "crow"]).starts_with("replaced, LSN "));
    assert_eq!(place.out(&["get", "db", "birds", "pica"]), "crow\n");
}

#[test]
fn delete_removes_the_key() {
    let place = Place::new();
    place.out(&["put", "db", "birds", "pica", "magpie"]);
    assert!(place.out(&["delete", "db", "birds", "pica"]).starts_with("deleted, LSN "));
    place.run(&["get", "db", "birds", "pica"]).failed(4);
    let said = place.run(&["delete", "db", "birds", "pica"]);
    assert_eq!(said.failed(4), "the tree \"birds\" has no key \"pica\"; `scan` lists its keys");
}

#[test]
fn json_tells_what_was_done() {
    let place = Place::new();
    let put = place.json(&["put", "db", "birds", "pica", "magpie"]);
    assert_eq!(put[0]["done"], "added");
    let get = place.json(&["get", "db", "birds", "pica"]);
    assert_eq!(get, [json!({"key": "pica", "value": "magpie"})]);
    let delete = place.json(&["delete", "db", "birds", "pica"]);
    assert_eq!(delete[0]["done"], "deleted");
    assert!(delete[0]["lsn"].as_u64() > put[0]["lsn"].as_u64());
}

#[test]
fn bytes_are_escaped_as_text_and_digits_with_hex() {
    let place = Place::new();
    place.out(&["put", "db", "t", "a\\tb\\x00", "\\xff\\\\"]);
    assert_eq!(place.out(&["get", "db", "t", "a\\tb\\x00"]), "\\xff\\\\\n");
    assert_eq!(place.out(&["get", "db", "t", "61096200", "--hex"]), "ff5c\n");
    let get = place.json(&["get", "db", "t", "61096200", "--hex"]);
    assert_eq!(get, [json!({"key": {"hex": "61096200"}, "value": {"hex": "ff5c"}})]);
    place.out(&["put", "db", "t", "--hex", "6b", "76"]);
    assert_eq!(place.json(&["get", "db", "t", "k"]), [json!({"key": "k", "value": "v"})]);
    place.run(&["put", "db", "t", "--hex", "6b", "7"]).failed(2);
    let said = place.run(&["get", "db", "t", "C:\\quite"]);
    assert!(said.failed(2).starts_with("the key: `\\qui` is not an escape"), "{}", said.err);
}

#[test]
fn value_from_standard_input_comes_back_byte_by_byte() {
    let place = Place::new();
    let value: Vec<u8> =
        (0..3_000_000u32).map(|i| u8::try_from(i.wrapping_mul(i) % 251).unwrap()).collect();
    place.run_with_input(&["put", "db", "large", "k", "-"], &value).succeeded();
    let got = place.run(&["get", "db", "large", "k", "--raw"]);
    assert_eq!((got.code, got.err.as_str()), (0, ""));
    assert!(got.out == value);
    place.out(&["put", "db", "large", "k", "\\x2d"]);
    assert_eq!(place.out(&["get", "db", "large", "k"]), "-\n");
}

#[test]
fn keys_and_values_may_begin_with_a_hyphen() {
    let place = Place::new();
    place.out(&["put", "db", "t", "-key", "-value"]);
    assert_eq!(place.out(&["get", "db", "t", "-key"]), "-value\n");
}

#[test]
fn empty_keys_and_values_are_bytes_like_others() {
    let place = Place::new();
    place.out(&["put", "db", "t", "", ""]);
    assert_eq!(place.out(&["get", "db", "t", ""]), "\n");
    assert_eq!(place.out(&["scan", "db", "t"]), "\t\n");
}

#[test]
fn commands_that_read_or_delete_make_no_database() {
    let place = Place::new();
    for arguments in [
        &["get", "db", "t", "k"][..],
        &["delete", "db", "t", "k"],
        &["scan", "db", "t"],
        &["trees", "db"],
        &["report", "db"],
        &["check", "db"],
        &["journal", "db"],
        &["page", "db", "2"],
    ] {
        let said = place.run(arguments);
        assert_eq!(said.failed(4), "there is no database in db; check the path, or create one");
        assert!(!place.path("db").exists());
    }
}

#[test]
fn key_that_is_too_long_is_refused() {
    let place = Place::new();
    let said = place.run(&["put", "db", "t", &"k".repeat(2001), "v"]);
    assert!(said.failed(1).starts_with("the key has 2001 bytes"), "{}", said.err);
}

#[test]
fn names_of_the_engines_trees_are_refused_for_writing() {
    let place = Place::new();
    let said = place.run(&["put", "db", "$metadata", "k", "v"]);
    assert!(said.failed(1).contains("cannot name a tree"), "{}", said.err);
}

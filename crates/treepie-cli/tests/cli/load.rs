//! `load`.

use serde_json::json;

use crate::run::{Place, objects};

#[test]
fn tsv_file_fills_a_tree_in_batches() {
    let place = Place::new();
    let rows: String = (0..2500).map(|i| format!("k{i:05}\tv{i}\n")).collect();
    place.file("rows.tsv", rows);
    let text = place.out(&["load", "db", "t", "rows.tsv"]);
    assert!(text.starts_with("2,500 rows (2,500 new, 0 replaced) in 3 batches"), "{text}");
    assert_eq!(place.out(&["get", "db", "t", "k02499"]), "v2499\n");
    assert_eq!(place.out(&["scan", "db", "t"]).lines().count(), 2500);
}

#[test]
fn json_tells_rows_and_batches() {
    let place = Place::new();
    place.file("rows.tsv", "a\t1\nb\t2\na\t3\nc\t4\n");
    let loaded = place.json(&["load", "db", "t", "rows.tsv", "--batch", "2"]);
    let part = ["rows", "new", "replaced", "batches"].map(|name| loaded[0][name].clone());
    assert_eq!(part, [json!(4), json!(3), json!(1), json!(2)]);
    assert!(loaded[0]["lsn"].as_u64() >= Some(2));
    assert_eq!(place.out(&["get", "db", "t", "a"]), "3\n");
}

#[test]
fn jsonl_is_known_by_its_extension_or_by_the_option() {
    let place = Place::new();
    let line = "{\"key\":\"a\",\"value\":{\"hex\":\"00ff\"}}\n";
    place.file("rows.jsonl", line);
    place.file("rows.txt", line);
    place.out(&["load", "db", "one", "rows.jsonl"]);
    place.out(&["load", "db", "two", "rows.txt", "--format", "jsonl"]);
    for tree in ["one", "two"] {
        assert_eq!(place.out(&["get", "db", tree, "a"]), "\\x00\\xff\n");
    }
    assert!(place.run(&["load", "db", "three", "rows.txt"]).failed(1).contains("no tab"));
}

#[test]
fn standard_input_is_read_for_a_hyphen() {
    let place = Place::new();
    let ended = place.run_with_input(&["load", "db", "t", "-"], b"a\t1\nb\t2");
    assert!(ended.succeeded().starts_with("2 rows"));
    let line = b"{\"key\":\"c\",\"value\":\"3\"}";
    place.run_with_input(&["load", "db", "t", "-", "--format", "jsonl"], line).succeeded();
    assert_eq!(place.out(&["scan", "db", "t"]), "a\t1\nb\t2\nc\t3\n");
}

#[test]
fn what_scan_prints_can_be_loaded() {
    let place = Place::new();
    for byte in 0..=255 {
        let (key, value) = (format!("6b{byte:02x}"), format!("{byte:02x}{byte:02x}"));
        place.run_with_input(
            &["load", "db", "t", "-", "--hex"],
            format!("{key}\t{value}").as_bytes(),
        );
    }
    for (options, load) in
        [(&[][..], &[][..]), (&["--json"], &["--format", "jsonl"]), (&["--hex"], &["--hex"])]
    {
        let printed = place.out(&[&["scan", "db", "t"], options].concat());
        assert_eq!(printed.lines().count(), 256);
        let name = format!("copy{}", options.join(""));
        let arguments = [&["load", "db", &name, "-"], load].concat();
        place.run_with_input(&arguments, printed.as_bytes()).succeeded();
        assert_eq!(place.out(&["scan", "db", &name]), place.out(&["scan", "db", "t"]));
    }
}

#[test]
fn damaged_line_is_told_and_nothing_of_its_batch_is_stored() {
    let place = Place::new();
    let mut rows: String = (0..25).map(|i| format!("k{i:02}\tv\n")).collect();
    rows.push_str("no tab here\nk99\tv\n");
    place.file("rows.tsv", rows);
    let said = place.run(&["load", "db", "t", "rows.tsv", "--batch", "10"]);
    assert_eq!(
        said.failed(1),
        "line 26 of rows.tsv: no tab between key and value; \
         the 20 rows before its batch are stored"
    );
    assert_eq!(place.out(&["scan", "db", "t"]).lines().count(), 20);
    let said = place.run(&["load", "db", "t", "rows.tsv", "--batch", "10", "--json"]);
    assert_eq!(said.code, 1);
    let error = &objects(&said.err)[0];
    assert_eq!(
        (&error["line"], &error["stored"], &error["code"]),
        (&json!(26), &json!(20), &json!(1))
    );
}

#[test]
fn row_that_the_engine_refuses_is_told_with_its_line() {
    let place = Place::new();
    place.file("rows.tsv", format!("a\t1\n\n{}\t1\n", "k".repeat(3000)));
    let said = place.run(&["load", "db", "t", "rows.tsv"]);
    assert!(said.failed(1).starts_with("line 3 of rows.tsv: the key has 3000 bytes"));
    place.run(&["scan", "db", "t"]).failed(4);
}

#[test]
fn file_that_is_missing_makes_no_database() {
    let place = Place::new();
    let said = place.run(&["load", "db", "t", "rows.tsv"]);
    assert!(said.failed(1).starts_with("cannot open rows.tsv: "), "{}", said.err);
    assert!(!place.path("db").exists());
}

#[test]
fn empty_file_makes_an_empty_tree() {
    let place = Place::new();
    place.file("rows.tsv", "");
    assert!(place.out(&["load", "db", "t", "rows.tsv"]).starts_with("0 rows"));
    assert_eq!(place.out(&["scan", "db", "t"]), "");
}

//! `trees`, `report`, `check`, `journal` and `page` on a database in order.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::json;

use crate::run::{Place, files};

#[test]
fn trees_are_listed_with_their_entries() {
    let place = Place::new();
    place.fill("birds", 2000);
    place.fill("eggs", 1);
    let text = place.out(&["trees", "db"]);
    let birds = text.lines().find(|line| line.starts_with("birds ")).unwrap();
    assert!(birds.contains(" 2,000 entries "), "{text}");
    let trees = place.json(&["trees", "db"]);
    let eggs = trees.iter().find(|tree| tree["name"] == "eggs").unwrap();
    assert_eq!((&eggs["entries"], &eggs["depth"]), (&json!(1), &json!(1)));
    assert!(trees.iter().any(|tree| tree["name"] == "$metadata"));
}

#[test]
fn report_tells_what_is_where() {
    let place = Place::new();
    place.fill("birds", 2000);
    let text = place.out(&["report", "db"]);
    for word in ["database ", "data file: ", "birds", "journal: ", "watermarks: committed "] {
        assert!(text.contains(word), "{word}\n{text}");
    }
    let report = &place.json(&["report", "db"])[0];
    assert_eq!(report["page_size"], 8192);
    let trees = report["trees"].as_array().unwrap();
    let birds = trees.iter().find(|tree| tree["name"] == "birds").unwrap();
    assert_eq!(birds["entries"], 2000);
    let fill = birds["leaf_fill"].as_f64().unwrap();
    assert!(fill > 0.3 && fill <= 1.0, "{fill}");
    assert_eq!(report["stats"]["committed"], report["lsn"]);
    assert_eq!(report["database_id"].as_str().unwrap().len(), 36);
}

#[test]
fn check_of_a_database_in_order_is_clean() {
    let place = Place::new();
    place.fill("birds", 5000);
    assert!(place.out(&["check", "db"]).starts_with("no damage: 5,"));
    let check = &place.json(&["check", "db"])[0];
    assert_eq!((&check["clean"], &check["problems"]), (&json!(true), &json!([])));
}

#[test]
fn journal_lists_the_records_of_a_killed_process() {
    let place = Place::new();
    let mut command = place.command(&["demo-writer", "db"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut rows = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line != "20\n" {
        line.clear();
        assert!(rows.read_line(&mut line).unwrap() > 0);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = files(&place.path("db"));
    place.out(&["check", "db"]);
    let records = place.json(&["journal", "db"]);
    assert!(files(&place.path("db")) == before, "what was killed is left as it is");
    assert!(records.len() > 20, "{}", records.len());
    let lsns: Vec<u64> = records.iter().map(|record| record["lsn"].as_u64().unwrap()).collect();
    assert!(lsns.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{lsns:?}");
    assert!(records.iter().all(|record| record["stored_bytes"].as_u64() > Some(0)));
    assert!(records.iter().all(|record| record["time"].as_str().unwrap().starts_with("20")));
    let some = place.json(&["journal", "db", "--from", "5", "--limit", "3"]);
    let some: Vec<u64> = some.iter().map(|record| record["lsn"].as_u64().unwrap()).collect();
    assert_eq!(some, [5, 6, 7]);
    let text = place.out(&["journal", "db", "--limit", "3"]);
    assert_eq!(text.lines().count(), 4);
    assert!(text.starts_with("       LSN  time (UTC)"), "{text}");
}

#[test]
fn page_shows_header_and_bytes() {
    let place = Place::new();
    place.fill("birds", 1);
    let trees = place.json(&["trees", "db"]);
    let birds = trees.iter().find(|tree| tree["name"] == "birds").unwrap();
    let root = birds["root_page"].to_string();
    let text = place.out(&["page", "db", &root]);
    assert!(text.starts_with(&format!("page {root}: leaf, tree {}", birds["id"])), "{text}");
    assert!(text.contains("value 0"), "{text}");
    assert!(!text.contains("DAMAGED"));
    let page = &place.json(&["page", "db", &root])[0];
    assert_eq!(
        (&page["kind"], &page["count"], &page["damage"]),
        (&json!("leaf"), &json!(1), &json!(null))
    );
    assert_eq!(page["bytes"]["hex"].as_str().unwrap().len(), 2 * 8192);
    assert_eq!(place.json(&["page", "db", "0"])[0]["kind"], "meta");
    let said = place.run(&["page", "db", "4000000000"]);
    assert!(said.failed(4).starts_with("there is no page 4000000000; the data file has "));
}

#[test]
fn commands_that_look_leave_the_files_as_they_are() {
    let place = Place::new();
    place.fill("birds", 100);
    let before = files(&place.path("db"));
    for arguments in [
        &["get", "db", "birds", "key 0001"][..],
        &["scan", "db", "birds"],
        &["trees", "db"],
        &["report", "db"],
        &["check", "db"],
        &["journal", "db"],
        &["page", "db", "18"],
    ] {
        place.out(arguments);
        assert!(files(&place.path("db")) == before, "{arguments:?}");
    }
}

//! Databases with damage.

use std::fs;

use serde_json::json;

use crate::run::{Place, files};

const PAGE_SIZE: usize = 8192;

/// Flips one byte inside the page of a tree's root; returns the page's number.
fn damage_root(place: &Place, tree: &str) -> u64 {
    let trees = place.json(&["trees", "db"]);
    let found = trees.iter().find(|found| found["name"] == tree).unwrap();
    let page = found["root_page"].as_u64().unwrap();
    let file = place.path("db").join("data");
    let mut bytes = fs::read(&file).unwrap();
    bytes[usize::try_from(page).unwrap() * PAGE_SIZE + PAGE_SIZE - 10] ^= 0x40;
    fs::write(&file, bytes).unwrap();
    page
}

#[test]
fn check_names_page_and_offset_of_a_flipped_byte() {
    let place = Place::new();
    place.fill("birds", 100);
    place.fill("eggs", 100);
    place.out(&["check", "db"]);
    let page = damage_root(&place, "birds");
    let offset = page * PAGE_SIZE as u64;
    let ended = place.run(&["check", "db"]);
    assert!(ended.failed(3).contains("problems found"), "{}", ended.err);
    let expected = format!("page {page} (byte {offset} of the data file)");
    assert!(ended.text().contains(&expected), "{}", ended.text());
    let ended = place.run(&["check", "db", "--json"]);
    assert_eq!(ended.code, 3);
    let check: serde_json::Value = serde_json::from_slice(&ended.out).unwrap();
    assert_eq!(check["clean"], json!(false));
    let problems = check["problems"].as_array().unwrap();
    let found = problems.iter().find(|problem| problem["page"] == page).unwrap();
    assert_eq!((&found["offset"], &found["tree"]), (&json!(offset), &json!("birds")));
}

#[test]
fn report_names_the_damage_that_it_meets_and_fails_with_3() {
    let place = Place::new();
    place.fill("birds", 100);
    place.fill("eggs", 100);
    place.out(&["check", "db"]);
    assert_eq!(place.json(&["report", "db"])[0]["damage_count"], 0);
    let page = damage_root(&place, "birds");
    let offset = page * PAGE_SIZE as u64;
    let ended = place.run(&["report", "db"]);
    assert!(ended.failed(3).contains("problems found"), "{}", ended.err);
    let expected = format!("DAMAGED: tree \"birds\": page {page} (byte {offset} of the data file)");
    assert!(ended.text().contains(&expected), "{}", ended.text());
    assert!(ended.text().contains("watermarks: "), "the rest is there too: {}", ended.text());
    let ended = place.run(&["report", "db", "--json"]);
    assert_eq!(ended.code, 3);
    let report: serde_json::Value = serde_json::from_slice(&ended.out).unwrap();
    assert_eq!(report["damage_count"], report["damage"].as_array().unwrap().len());
    let found = &report["damage"][0];
    assert_eq!((&found["page"], &found["tree"]), (&json!(page), &json!("birds")));
}

#[test]
fn reading_a_damaged_tree_fails_with_3_and_others_go_on() {
    let place = Place::new();
    place.fill("birds", 100);
    place.fill("eggs", 100);
    let page = damage_root(&place, "birds");
    let said = place.run(&["get", "db", "birds", "key 0001"]);
    assert!(said.failed(3).contains("damaged at byte"), "{}", said.err);
    place.run(&["scan", "db", "birds"]).failed(3);
    assert_eq!(place.out(&["get", "db", "eggs", "key 0001"]), "value 1\n");
    let text = place.out(&["page", "db", &page.to_string()]);
    assert!(text.contains("DAMAGED: "), "{text}");
}

#[test]
fn folder_that_is_no_database_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path("db")).unwrap();
    fs::write(place.path("db").join("data"), vec![b'x'; 3 * PAGE_SIZE]).unwrap();
    let said = place.run(&["trees", "db"]);
    assert!(said.failed(1).contains("is not a Treepie data file"), "{}", said.err);
}

#[test]
fn journal_without_its_segments_is_damage() {
    let place = Place::new();
    place.fill("birds", 100);
    for (segment, _) in files(&place.path("db").join("journal")) {
        fs::remove_file(segment).unwrap();
    }
    let said = place.run(&["trees", "db"]);
    assert!(said.failed(3).starts_with("the journal in db/journal has no valid record"));
    place.run(&["check", "db"]).failed(3);
}

#[test]
fn repair_saves_what_is_whole_into_a_new_database_and_lists_the_rest() {
    let place = Place::new();
    place.fill("birds", 500);
    place.fill("eggs", 100);
    place.out(&["check", "db"]);
    let saved = place.out(&["check", "db", "--repair", "whole"]);
    assert!(
        saved.ends_with("nothing is lost: 600 entries of 2 trees saved, the state at LSN 3\n"),
        "{saved}"
    );
    assert_eq!(place.out(&["scan", "whole", "birds"]), place.out(&["scan", "db", "birds"]));

    let page = damage_root(&place, "birds");
    let before = files(&place.path("db"));
    let ended = place.run(&["check", "db", "--repair", "new"]);
    assert!(ended.failed(3).contains("what could be read is in new"), "{}", ended.err);
    let text = ended.text();
    assert!(text.starts_with(&format!("tree \"birds\": page {page} of tree ")), "{text}");
    assert!(text.contains("tree \"eggs\": 100 of 100 entries saved"), "{text}");
    assert!(files(&place.path("db")) == before, "the damaged one is as it was");
    place.out(&["check", "new"]);
    assert_eq!(place.out(&["scan", "new", "eggs"]), place.out(&["scan", "whole", "eggs"]));

    let ended = place.run(&["check", "db", "--repair", "other", "--json"]);
    assert_eq!(ended.code, 3);
    let report: serde_json::Value = serde_json::from_slice(&ended.out).unwrap();
    assert_eq!((&report["whole"], &report["losses"][0]["page"]), (&json!(false), &json!(page)));
    let birds = &report["trees"][0];
    assert_eq!((&birds["name"], &birds["expected"]), (&json!("birds"), &json!(500)));
}

#[test]
fn repair_never_writes_over_anything() {
    let place = Place::new();
    place.fill("birds", 10);
    place.file("there", "something");
    let said = place.run(&["check", "db", "--repair", "there"]);
    assert!(said.failed(1).contains("cannot create there"), "{}", said.err);
    let said = place.run(&["check", "db", "--repair", "db"]);
    assert!(said.failed(1).contains("cannot create db"), "{}", said.err);
    place.run(&["check", "none", "--repair", "new"]).failed(4);
}

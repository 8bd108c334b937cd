//! The demonstration from its first line to its last.

use std::fs;

use crate::run::{Place, objects};

#[test]
fn demonstration_shows_everything_and_can_be_repeated() {
    let place = Place::new();
    let text = place.out(&["demo"]);
    for word in [
        "1. Store the table",
        "2. Look characters up",
        "☃;SNOWMAN;So;",
        "3. Scan the names",
        "forwards: GREEK SMALL LETTER ALPHA -> 0003B1",
        "backwards: GREEK SMALL LETTER ZETA -> 0003B6",
        "4. Keep a snapshot",
        "A new one, at LSN ",
        "5. Write from 64 threads at once",
        "15,680 durable transactions in ",
        "They were merged into ",
        "A counter that all of them raised is at 15680.",
        "6. Kill a process",
        "acknowledged rows are there",
        "7. Back the database up while a thread writes",
        "Full backup at LSN ",
        "by mistake, removes names SNOWMAN.",
        "Increment to LSN ",
        "names SNOWMAN there -> 002603",
        "names SNOWMAN here  -> nothing",
        "Drill: 2 streams restored to LSN ",
        "8. Run three nodes, kill the one that leads",
        "The next row was acknowledged ",
        "acknowledged rows are there.",
        "Node 4 got all pages in a stream",
        "All 3 that are left have the same pages at LSN ",
        "9. Check and report",
        "10. Everything was as promised",
    ] {
        assert!(text.contains(word), "{word}\n{text}");
    }
    for db in ["demo-data/unicode", "demo-data/restored"] {
        assert_eq!(place.out(&["get", db, "names", "SNOWMAN"]), "002603\n");
    }
    assert!(place.out(&["verify", "demo-data/backups"]).starts_with("no damage: 3 streams"));
    assert!(place.out(&["check", "demo-data/killed"]).starts_with("no damage"));
    fs::write(place.path("demo-data").join("own"), "kept").unwrap();
    let again = place.out(&["demo", "--dir", "demo-data", "--json"]);
    assert_eq!(objects(&again)[0]["step"], 1);
    assert!(place.path("demo-data").join("own").exists());
}

#[test]
fn folder_that_no_demonstration_made_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.path("unicode")).unwrap();
    fs::write(place.path("unicode").join("thesis"), "ten years").unwrap();
    let said = place.run(&["demo", "--dir", "."]);
    assert!(said.failed(1).contains("choose another folder with --dir"), "{}", said.err);
    assert_eq!(fs::read_to_string(place.path("unicode").join("thesis")).unwrap(), "ten years");
    let said = place.run(&["demo", "--dir", "unicode"]);
    assert!(said.failed(1).contains("choose another folder with --dir"));
}

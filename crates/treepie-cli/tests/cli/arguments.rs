//! Help, versions, and arguments that make no sense.

use serde_json::json;

use crate::run::{Place, objects};

#[test]
fn help_lists_commands_and_exit_codes() {
    let place = Place::new();
    let help = place.out(&["--help"]);
    for word in [
        "demo",
        "load",
        "get",
        "put",
        "delete",
        "scan",
        "trees",
        "report",
        "check",
        "journal",
        "page",
        "backup",
        "restore",
        "verify",
        "drill",
        "snapshots",
        "archive",
        "prune",
        "squash",
        "rebuild",
        "forget",
        "node",
        "client",
        "status",
        "member",
        "transfer",
        "Exit codes:",
        "the database is open elsewhere",
    ] {
        assert!(help.contains(word), "{word}\n{help}");
    }
    assert!(!help.contains("demo-writer"));
    assert!(place.out(&["load", "--help"]).contains("key<TAB>value"));
    assert!(place.out(&["--version"]).starts_with("treepie "));
}

#[test]
fn bad_arguments_end_with_2() {
    let place = Place::new();
    for arguments in [
        &[][..],
        &["fly"],
        &["get", "db", "t"],
        &["page", "db", "first"],
        &["load", "db", "t", "f", "--batch", "0"],
        &["scan", "db", "t", "--prefix", "a", "--from", "b"],
        &["get", "db", "t", "k", "--raw", "--json"],
        &["backup", "db"],
        &["backup", "db", "to", "--full", "--since", "5"],
        &["backup", "db", "to", "--level", "13"],
        &["backup", "db", "to", "--rate", "fast"],
        &["restore", "from"],
        &["restore", "from", "to", "--time", "yesterday"],
        &["restore", "from", "to", "--time", "1700000000", "--lsn", "5"],
        &["prune", "repo", "--keep-within", "5"],
        &["forget", "repo"],
        &["client", "get", "t", "k"],
        &["client", "cas", "t", "k", "v", "--at", "127.0.0.1:1", "--insecure-loopback"],
        &["node", "--id", "0", "--dir", "d", "--listen", "127.0.0.1:0", "--insecure-loopback"],
    ] {
        assert_eq!(place.run(arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn errors_are_json_with_json() {
    let place = Place::new();
    let said = place.run(&["trees", "db", "--json"]);
    let error = "there is no database in db; check the path, or create one";
    assert_eq!(said.code, 4);
    assert_eq!(objects(&said.err), [json!({"error": error, "code": 4})]);
    let said = place.run(&["page", "db", "first", "--json"]);
    assert_eq!(objects(&said.err)[0]["code"], 2);
}

#[test]
fn verbose_tells_events_on_standard_error() {
    let place = Place::new();
    place.fill("t", 1);
    let said = place.run(&["get", "-v", "db", "t", "key 0000"]);
    assert_eq!((said.code, said.text()), (0, "value 0\n"));
    assert!(said.err.contains(" s info: opened path="), "{}", said.err);
}

//! Repositories: increments, archives, points in time, retention, damage.

use std::{fs, path::PathBuf, process::Stdio};

use serde_json::{Value, json};
use treepie_snapshot::store::{LocalStore, Store};

use crate::run::{Place, objects, wait_until};

/// The files of streams, in the order of their names: full ones, increments, records.
fn streams(place: &Place) -> Vec<PathBuf> {
    let items = fs::read_dir(place.path("repo/streams")).unwrap();
    let mut paths: Vec<_> = items.map(|item| item.unwrap().path()).collect();
    paths.sort();
    paths
}

fn lsn_of(object: &Value) -> u64 {
    object["lsn"].as_u64().unwrap()
}

/// A repository with a full backup, five commits in an archive, an increment, and one commit more in the
/// archive. Returns LSN and moment of each of the six commits.
fn repository(place: &Place) -> Vec<(u64, u64)> {
    place.fill("t", 300);
    place.out(&["backup", "db", "repo/"]);
    let mut commits: Vec<_> = (0..5).map(|i| place.commit(&format!("c{i}"), "there")).collect();
    place.out(&["archive", "db", "repo"]);
    place.out(&["backup", "db", "repo"]);
    commits.push(place.commit("c5", "there"));
    place.out(&["archive", "db", "repo"]);
    commits
}

#[test]
fn repository_gets_a_full_backup_first_and_increments_afterwards() {
    let place = Place::new();
    place.fill("t", 300);
    let said = place.run(&["backup", "db", "repo/", "--incremental"]);
    assert!(said.failed(1).contains("write a full backup"), "{}", said.err);
    let full = place.json(&["backup", "db", "repo/"]);
    assert_eq!(full[0]["kind"], "full");
    assert_eq!(place.json(&["backup", "db", "repo"])[0]["written"], false);
    let (lsn, _) = place.commit("k", "v");
    let one = place.json(&["backup", "db", "repo"]);
    assert_eq!((&one[0]["kind"], lsn_of(&one[0])), (&json!("increment"), lsn));
    place.commit("k", "w");
    assert_eq!(place.json(&["backup", "db", "repo", "--full"])[0]["kind"], "full");
    let said = place.run(&["backup", "db", "repo", "--since", "1"]);
    assert!(said.failed(2).contains("--incremental"), "{}", said.err);
    let said = place.run(&["backup", "db", "file", "--incremental"]);
    assert!(said.failed(2).contains("--since"), "{}", said.err);
    let listed = &place.json(&["snapshots", "repo"])[0];
    let kinds: Vec<_> =
        listed["snapshots"].as_array().unwrap().iter().map(|s| &s["kind"]).collect();
    assert_eq!(kinds, ["full", "increment", "full"]);
    // An empty folder will do as well.
    fs::create_dir(place.path("empty")).unwrap();
    place.out(&["backup", "db", "empty"]);
    place.out(&["restore", "empty", "copy"]);
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn every_commit_of_the_archive_can_be_restored_by_lsn_and_by_moment() {
    let place = Place::new();
    let commits = repository(&place);
    for (index, (lsn, time_us)) in commits.iter().enumerate() {
        let (by_lsn, by_time) = (format!("lsn{index}"), format!("time{index}"));
        let told = place.json(&["restore", "repo", &by_lsn, "--lsn", &lsn.to_string()]);
        assert_eq!((lsn_of(&told[0]), told[0]["time_us"].as_u64()), (*lsn, Some(*time_us)));
        let moment = told[0]["time"].as_str().unwrap();
        place.out(&["restore", "repo", &by_time, "--time", moment]);
        let entries = place.entries(&by_lsn);
        assert_eq!(entries, place.entries(&by_time));
        for other in 0..commits.len() {
            assert_eq!(entries.contains(&format!("c{other}\tthere")), other <= index, "{index}");
        }
    }
    place.out(&["restore", "repo", "newest"]);
    assert_eq!(place.entries("newest"), place.entries("db"));
    let said = place.run(&["restore", "repo", "x", "--lsn", "999"]);
    assert!(said.failed(4).starts_with("LSN 999 cannot be restored"), "{}", said.err);
    let said = place.run(&["restore", "repo", "x", "--time", "1999-01-01T00:00:00Z"]);
    assert_eq!(said.code, 4, "{}", said.err);
    let late = place.json(&["restore", "repo", "late", "--time", "2099-01-01T00:00:00Z"]);
    assert_eq!(late[0]["ends_before_time"], true);
    let said = place.run(&["restore", "repo", "x", "--branch", "7"]);
    assert!(said.failed(4).contains("no streams of epoch 7"), "{}", said.err);
}

#[test]
fn restored_database_goes_on_as_a_branch_of_its_own() {
    let place = Place::new();
    let commits = repository(&place);
    let (lsn, _) = commits[1];
    place.out(&["restore", "repo", "fork", "--lsn", &lsn.to_string()]);
    place.out(&["put", "fork", "t", "fork", "there"]);
    let told = place.json(&["backup", "fork", "repo"]);
    assert_eq!(told[0]["kind"], "full");
    let listed = &place.json(&["snapshots", "repo"])[0];
    let epoch = listed["snapshots"].as_array().unwrap().last().unwrap()["epoch"].as_u64().unwrap();
    place.out(&["restore", "repo", "by-name", "--branch", &format!("{epoch}@{lsn}")]);
    assert_eq!(place.entries("by-name"), place.entries("fork"));
    place.out(&["restore", "repo", "old", "--branch", "0"]);
    assert_eq!(place.entries("old"), place.entries("db"));
    let table = place.out(&["snapshots", "repo"]);
    assert!(table.contains(&format!("{epoch}@{lsn}")), "{table}");
}

#[test]
fn drill_restores_and_leaves_nothing() {
    let place = Place::new();
    let commits = repository(&place);
    fs::create_dir(place.path("scratch")).unwrap();
    let told = place.json(&["drill", "repo", "--scratch", "scratch"]);
    assert_eq!((lsn_of(&told[0]), &told[0]["checked"]), (commits[5].0, &json!(true)));
    let text =
        place.out(&["drill", "repo", "--scratch", "scratch", "--lsn", &commits[2].0.to_string()]);
    assert!(text.contains(&format!(" streams were restored to LSN {} ", commits[2].0)), "{text}");
    assert_eq!(fs::read_dir(place.path("scratch")).unwrap().count(), 0);
    place.run(&["drill", "none"]).failed(4);
}

#[test]
fn list_shows_what_can_be_restored_and_where_the_hole_is() {
    let place = Place::new();
    let commits = repository(&place);
    let table = place.out(&["snapshots", "repo"]);
    let (first, last) = (commits[0].0, commits[5].0);
    let reach = format!("every LSN from {} to {last} can be restored", first - 1);
    assert!(table.contains(&reach), "{table}");
    assert!(!table.contains("HOLE"), "{table}");
    // The journal forgets: a file of the archive that is lost is a hole.
    let listed = &place.json(&["snapshots", "repo"])[0];
    assert_eq!(listed["records"][0]["last_lsn"], last);
    let records =
        streams(&place).into_iter().find(|path| path.to_str().unwrap().contains("records"));
    fs::remove_file(records.unwrap()).unwrap();
    let ended = place.run(&["snapshots", "repo"]);
    assert!(ended.failed(3).contains("cannot be relied on"), "{}", ended.err);
    assert!(ended.text().contains("MISSING, or of another length: streams/records"));
    let said = place.run(&["restore", "repo", "x", "--lsn", &commits[2].0.to_string()]);
    assert!(said.failed(4).contains("are not in the repository"), "{}", said.err);
    place.out(&["restore", "repo", "newest"]);
    assert_eq!(place.entries("newest"), place.entries("db"));
}

#[test]
fn verify_reads_what_is_new_and_finds_what_is_damaged() {
    let place = Place::new();
    repository(&place);
    assert_eq!(place.json(&["verify", "repo"])[0]["verified"], 4);
    let again = place.json(&["verify", "repo"]);
    assert_eq!((&again[0]["verified"], &again[0]["known"]), (&json!(0), &json!(4)));
    let increment = streams(&place).remove(1);
    let mut bytes = fs::read(&increment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&increment, bytes).unwrap();
    let ended = place.run(&["verify", "repo", "--all", "--json"]);
    assert_eq!(ended.code, 3, "{}", ended.err);
    let found = &objects(ended.text())[0];
    let fault = &found["faults"][0];
    assert_eq!((found["faults"].as_array().unwrap().len(), &fault["damaged"]), (1, &json!(true)));
    let name = increment.file_name().unwrap().to_str().unwrap();
    assert_eq!(fault["file"], format!("streams/{name}"));
    // What is damaged is forgotten, by its id, and the rest goes on without it.
    let said = place.run(&["forget", "repo", "0123456789abcdef"]);
    assert!(said.failed(4).contains("no stream 0123456789abcdef"), "{}", said.err);
    place.out(&["forget", "repo", fault["id"].as_str().unwrap()]);
    assert!(!increment.exists());
    place.out(&["verify", "repo"]);
    place.out(&["restore", "repo", "copy"]);
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn prune_says_what_it_would_do_and_keeps_what_is_needed() {
    let place = Place::new();
    let commits = repository(&place);
    place.out(&["backup", "db", "repo", "--full"]);
    let said = place.run(&["prune", "repo"]);
    assert!(said.failed(1).contains("say what to keep"), "{}", said.err);
    let plan = &place.json(&["prune", "repo", "--keep-last", "1", "--dry-run"])[0];
    assert_eq!(plan["kept"].as_array().unwrap().len(), 1);
    assert_eq!(streams(&place).len(), 5);
    // Every moment of the day stays, without the increment, which none of them needs.
    place.out(&["prune", "repo", "--keep-points", "1d"]);
    for (index, (lsn, _)) in commits.iter().enumerate() {
        let (target, lsn) = (format!("point{index}"), lsn.to_string());
        place.out(&["restore", "repo", &target, "--lsn", &lsn, "--no-check"]);
    }
    let text = place.out(&["prune", "repo", "--keep-last", "1"]);
    assert!(text.contains("remove  ") && text.contains("keep    "), "{text}");
    assert_eq!(streams(&place).len(), 1);
    place.out(&["restore", "repo", "copy"]);
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn squashed_backup_stands_alone() {
    let place = Place::new();
    repository(&place);
    let told = &place.json(&["squash", "repo"])[0];
    assert_eq!((&told["written"], told["parts"].as_array().unwrap().len()), (&json!(true), 2));
    assert_eq!(place.json(&["squash", "repo"])[0]["written"], false);
    place.out(&["prune", "repo", "--keep-last", "1"]);
    let listed = &place.json(&["snapshots", "repo"])[0];
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1, "{listed}");
    place.out(&["restore", "repo", "copy"]);
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn list_of_a_repository_is_made_anew_of_its_streams() {
    let place = Place::new();
    repository(&place);
    let before = place.json(&["snapshots", "repo"]);
    for item in fs::read_dir(place.path("repo/manifest")).unwrap() {
        fs::write(item.unwrap().path(), "no list at all").unwrap();
    }
    let said = place.run(&["snapshots", "repo"]);
    assert_eq!(said.code, 3, "{}", said.err);
    place.out(&["rebuild", "repo"]);
    assert_eq!(place.json(&["snapshots", "repo"]), before);
    // Without any list, a backup does not begin a new one beside streams that nobody would know of.
    fs::remove_dir_all(place.path("repo/manifest")).unwrap();
    let said = place.run(&["backup", "db", "repo"]);
    assert!(said.failed(1).contains("`rebuild` makes one"), "{}", said.err);
    place.out(&["rebuild", "repo"]);
    place.run(&["rebuild", "none"]).failed(4);
    assert!(!place.path("none").exists());
    place.out(&["restore", "repo", "copy"]);
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn keys_of_a_repository_are_asked_for_and_their_want_is_no_damage() {
    let place = Place::new();
    place.fill("t", 100);
    place.file("a.key", "a".repeat(64));
    place.file("b.key", "b".repeat(64));
    place.out(&["backup", "db", "repo/", "--key", "a.key"]);
    place.commit("k", "v");
    place.out(&["backup", "db", "repo/", "--key", "b.key"]);
    let ended = place.run(&["verify", "repo", "--key", "a.key", "--json"]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert_eq!(objects(ended.text())[0]["faults"][0]["damaged"], false);
    place.run(&["restore", "repo", "copy"]).failed(1);
    let keys = ["--key", "a.key", "--key", "b.key"];
    place.out(&[&["verify", "repo"][..], &keys].concat());
    place.out(&[&["squash", "repo"][..], &keys].concat());
    place.out(&["drill", "repo", "--key", "a.key", "--scratch", "."]);
    place.out(&[&["restore", "repo", "copy"][..], &keys].concat());
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn archive_that_follows_ends_in_order_on_a_signal() {
    let place = Place::new();
    place.fill("t", 100);
    place.out(&["backup", "db", "repo/"]);
    place.commit("k", "v");
    for signal in ["TERM", "INT"] {
        let mut command = place.command(&["archive", "db", "repo", "--follow", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        wait_until("it waits for signals", || {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
            let mask = u64::from_str_radix(caught, 16).unwrap();
            // SIGINT is 2 and SIGTERM 15; the lowest bit is signal 1.
            mask & (1 << 1) != 0 && mask & (1 << 14) != 0
        });
        place.shell(&format!("kill -{signal} {}", child.id())).succeeded();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
        let told = &objects(std::str::from_utf8(&output.stdout).unwrap())[0];
        assert_eq!(told["records"], if signal == "TERM" { 1 } else { 0 });
    }
    place.out(&["restore", "repo", "copy"]);
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn repository_that_somebody_writes_to_is_refused_with_5() {
    let place = Place::new();
    place.fill("t", 2000);
    place.out(&["backup", "db", "repo/"]);
    let store = LocalStore::new(place.path("repo"));
    let lock = store.lock("test").unwrap();
    let said = place.run(&["backup", "db", "repo", "--full"]);
    assert!(said.failed(5).contains("is locked by"), "{}", said.err);
    drop(lock);
    place.out(&["backup", "db", "repo", "--full"]);
}

#[test]
fn backup_that_takes_long_keeps_no_other_one_waiting() {
    let place = Place::new();
    place.fill("t", 2000);
    place.out(&["backup", "db", "repo/"]);
    place.shell("cp -r db other").succeeded();
    let slow = ["backup", "db", "repo/", "--full", "--rate", "1K"];
    let mut child = place.command(&slow).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the other backup begins", || streams(&place).len() == 2);
    let said = place.run(&["backup", "other", "repo", "--full"]);
    let is_still_writing = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    said.succeeded();
    assert!(is_still_writing);
}

#[test]
fn backups_of_another_database_are_refused() {
    let place = Place::new();
    place.fill("t", 10);
    place.out(&["backup", "db", "repo/"]);
    place.out(&["put", "stranger", "t", "k", "v"]);
    let said = place.run(&["backup", "stranger", "repo"]);
    assert!(said.failed(1).contains("this repository holds backups of database"), "{}", said.err);
    let said = place.run(&["restore", "repo", "-", "copy"]);
    assert!(said.failed(2).contains("comes alone"), "{}", said.err);
}

#[cfg(not(feature = "object-store"))]
#[test]
fn object_stores_are_refused_by_a_build_without_them() {
    let place = Place::new();
    place.fill("t", 10);
    let said = place.run(&["backup", "db", "s3://bucket/folder"]);
    assert!(said.failed(1).contains("build it with the feature `object-store`"), "{}", said.err);
}

#[test]
fn moment_between_a_commit_and_its_backup_has_that_commit() {
    let place = Place::new();
    place.fill("t", 10);
    place.out(&["backup", "db", "repo/"]);
    let (lsn, time_us) = place.commit("k", "v");
    // The backup is later than the commit, and its state is that of the commit.
    let told = place.json(&["backup", "db", "repo"]);
    assert_eq!((lsn_of(&told[0]), told[0]["time_us"].as_u64()), (lsn, Some(time_us)));
    let after = format!("{}.{:06}", (time_us + 1) / 1_000_000, (time_us + 1) % 1_000_000);
    let told = place.json(&["restore", "repo", "after", "--time", &after]);
    assert_eq!((lsn_of(&told[0]), told[0]["time_us"].as_u64()), (lsn, Some(time_us)));
    let before = format!("{}.{:06}", (time_us - 1) / 1_000_000, (time_us - 1) % 1_000_000);
    let told = place.json(&["restore", "repo", "before", "--time", &before]);
    assert_eq!(lsn_of(&told[0]), lsn - 1);
}

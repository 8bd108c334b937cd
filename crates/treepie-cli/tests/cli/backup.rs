//! Backups to files and pipes, and restores of them.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Stdio},
};

use serde_json::json;

use crate::run::{Place, files, objects, wait_until};

/// Ends the process also when the test fails.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fills the tree `t` with values that do not compress: about 8 MiB.
fn fill_large(place: &Place) {
    let mut state = 1_u64;
    let mut rows = String::new();
    for row in 0..2000 {
        rows.push_str(&format!("{row:05}\t"));
        for _ in 0..256 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            rows.push_str(&format!("{:016x}", state ^ (state >> 29)));
        }
        rows.push('\n');
    }
    place.run_with_input(&["load", "db", "t", "-"], rows.as_bytes()).succeeded();
}

#[test]
fn file_and_its_increments_are_restored_as_they_were() {
    let place = Place::new();
    place.fill("t", 500);
    let full = place.json(&["backup", "db", "full.tps"]);
    assert_eq!((&full[0]["kind"], &full[0]["file"]), (&json!("full"), &json!("full.tps")));
    place.commit("one", "1");
    let text = place.out(&["backup", "db", "one.tps", "--since", "full.tps"]);
    assert!(text.starts_with("increment since LSN "), "{text}");
    let (lsn, _) = place.commit("two", "2");
    let two = place.json(&["backup", "db", "two.tps", "--since", &(lsn - 1).to_string()]);
    assert_eq!((&two[0]["kind"], &two[0]["base_lsn"]), (&json!("increment"), &json!(lsn - 1)));
    assert!(two[0]["pages"].as_u64() < full[0]["pages"].as_u64(), "{two:?} {full:?}");

    let restored = place.json(&["restore", "full.tps", "one.tps", "two.tps", "copy"]);
    assert_eq!((&restored[0]["lsn"], &restored[0]["checked"]), (&json!(lsn), &json!(true)));
    assert_ne!(restored[0]["epoch"], 0, "it is a branch of its own");
    assert_eq!(place.entries("copy"), place.entries("db"));
    place.out(&["restore", "full.tps", "one.tps", "older"]);
    assert!(!place.entries("older").contains("two\t2"));
    assert!(place.entries("older").contains("one\t1"));
    // Out of its order, an increment is refused, and nothing is published.
    let said = place.run(&["restore", "full.tps", "two.tps", "wrong"]);
    assert!(said.failed(1).starts_with("two.tps: "), "{}", said.err);
    assert!(!place.path("wrong").exists());
    let said = place.run(&["restore", "one.tps", "wrong"]);
    assert!(said.failed(1).contains("a restore begins with a full backup"), "{}", said.err);
}

#[test]
fn increment_of_nothing_is_a_stream_too() {
    let place = Place::new();
    place.fill("t", 10);
    place.out(&["backup", "db", "full.tps"]);
    place.out(&["backup", "db", "nothing.tps", "--since", "full.tps"]);
    place.out(&["verify", "full.tps", "nothing.tps"]);
    place.out(&["restore", "full.tps", "nothing.tps", "copy"]);
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn pipe_from_backup_to_restore_makes_the_same_database() {
    let place = Place::new();
    place.fill("t", 5000);
    let said = place.shell("treepie backup db - | treepie restore - copy");
    assert!(said.succeeded().starts_with("copy is restored to LSN "));
    assert_eq!(place.entries("copy"), place.entries("db"));
    let said = place.shell("treepie backup db - --json 2> told | treepie verify - --json");
    let verified = &objects(&said.succeeded())[0];
    let told = fs::read_to_string(place.path("told")).unwrap();
    assert_eq!(objects(&told)[0]["digest"], verified["digest"]);
    // Where the reader goes away, the backup has failed: it is more than a pipe holds.
    let said = place.shell("treepie backup db - --level 0 | true");
    assert!(said.failed(1).starts_with("cannot write the stream"), "{}", said.err);
}

#[test]
fn files_are_never_written_over() {
    let place = Place::new();
    place.fill("t", 10);
    place.file("there", "something");
    let said = place.run(&["backup", "db", "there"]);
    assert!(said.failed(1).starts_with("cannot create there: "), "{}", said.err);
    assert_eq!(fs::read_to_string(place.path("there")).unwrap(), "something");
    // A folder with something else in it is no repository.
    let said = place.run(&["backup", "db", "db"]);
    assert!(said.failed(1).contains("neither empty nor a repository"), "{}", said.err);
    place.out(&["backup", "db", "full.tps"]);
    let before = files(&place.path("db"));
    let said = place.run(&["restore", "full.tps", "db"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(files(&place.path("db")) == before);
    // What a killed process left is taken over, and what failed leaves nothing.
    place.file("next.tps.partial", "the beginning of a stream");
    place.out(&["backup", "db", "next.tps"]);
    place.out(&["verify", "next.tps"]);
    place.run(&["backup", "none", "none.tps"]).failed(4);
    for name in ["next.tps.partial", "there.partial", "none.tps", "none.tps.partial"] {
        assert!(!place.path(name).exists(), "{name}");
    }
}

#[test]
fn cut_and_changed_and_foreign_streams_are_told_from_one_another() {
    let place = Place::new();
    place.fill("t", 1000);
    place.out(&["backup", "db", "full.tps"]);
    let whole = fs::read(place.path("full.tps")).unwrap();
    let middle = whole.len() / 2;
    place.file("cut.tps", &whole[..middle]);
    let mut changed = whole.clone();
    changed[middle] ^= 1;
    place.file("changed.tps", &changed);
    place.file("foreign", "key\tvalue\n".repeat(1000));
    for (name, code, word) in [
        ("cut.tps", 3, "cut off at byte"),
        ("changed.tps", 3, "damaged in frame"),
        ("foreign", 1, "no Treepie stream"),
        ("none.tps", 4, "there is no backup in none.tps"),
    ] {
        for arguments in [&["verify", name][..], &["restore", name, "copy"]] {
            let said = place.run(arguments);
            assert!(said.failed(code).contains(word), "{}", said.err);
            assert!(said.err.contains(name));
            assert!(!place.path("copy").exists());
        }
    }
    let ended = place.run(&["verify", "full.tps", "cut.tps", "foreign", "--json"]);
    assert_eq!(ended.code, 3);
    let told = objects(ended.text());
    let whole: Vec<_> = told.iter().map(|stream| stream["whole"].as_bool().unwrap()).collect();
    assert_eq!(whole, [true, false, false]);
    assert_eq!(objects(&ended.err)[0]["code"], 3);
    // What an attempt with a cut stream left does not hinder the whole one.
    place.out(&["restore", "full.tps", "copy"]);
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn encrypted_streams_need_their_key() {
    let place = Place::new();
    place.fill("t", 100);
    let (right, wrong) = ("0123456789abcdef".repeat(4), "f".repeat(64));
    place.file("right.key", format!("{right}\n"));
    place.file("wrong.key", &wrong);
    place.file("no.key", "password");
    let told = place.json(&["backup", "db", "full.tps", "--key", "right.key"]);
    assert!(told[0]["key_id"].is_string());
    let bytes = fs::read(place.path("full.tps")).unwrap();
    assert!(!bytes.windows(5).any(|window| window == b"value"));
    let fails = |arguments: &[&str], word: &str| {
        let said = place.run(arguments);
        assert!(said.failed(1).contains(word), "{}", said.err);
        assert!(!place.path("copy").exists());
    };
    fails(&["restore", "full.tps", "copy"], "is encrypted with the key");
    fails(&["restore", "full.tps", "copy", "--key", "wrong.key"], "use the right key");
    fails(&["verify", "full.tps", "--key", "wrong.key"], "use the right key");
    fails(&["verify", "full.tps", "--key", "no.key"], "64 hexadecimal digits");
    fails(&["backup", "db", "more.tps", "--key", "none.key"], "none.key");
    assert!(!place.path("more.tps").exists());
    place.commit("k", "v");
    let increment = ["backup", "db", "one.tps", "--since", "full.tps", "--key", "right.key"];
    place.out(&increment);
    // Of several keys, each stream finds its own.
    let keys = ["--key", "wrong.key", "--key", "right.key"];
    place.out(&[&["restore", "full.tps", "one.tps", "copy"][..], &keys].concat());
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn database_that_is_open_elsewhere_is_not_backed_up_and_who_can_is_said() {
    let place = Place::new();
    let child = place.command(&["demo-writer", "db"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut holder = Running(child);
    // It ends when nobody listens any more.
    let mut rows = BufReader::new(holder.0.stdout.take().unwrap());
    rows.read_line(&mut String::new()).unwrap();
    for arguments in [&["backup", "db", "repo/"][..], &["archive", "db", "repo"]] {
        let said = place.run(arguments);
        assert!(said.failed(5).contains("with the crate treepie-snapshot"), "{}", said.err);
    }
    assert!(!place.path("repo").exists());
    holder.kill();
    place.out(&["backup", "db", "repo/"]);
}

#[test]
fn stop_at_an_lsn_or_a_moment_needs_records_and_says_when_they_end_before() {
    let place = Place::new();
    place.fill("t", 10);
    place.out(&["backup", "db", "repo/"]);
    let (first, first_us) = place.commit("a", "1");
    place.commit("b", "2");
    place.out(&["archive", "db", "repo"]);
    let listed = fs::read_dir(place.path("repo/streams")).unwrap();
    let mut names: Vec<_> = listed.map(|item| item.unwrap().path()).collect();
    names.sort();
    let [full, records] = names.as_slice() else { panic!("{names:?}") };
    let (full, records) = (full.to_str().unwrap(), records.to_str().unwrap());
    place.out(&["restore", full, records, "lsn", "--lsn", &first.to_string()]);
    assert!(place.entries("lsn").contains("a\t1") && !place.entries("lsn").contains("b\t2"));
    let seconds = format!("{}.{:06}", first_us / 1_000_000, first_us % 1_000_000);
    place.out(&["restore", full, records, "moment", "--time", &seconds]);
    assert_eq!(place.entries("moment"), place.entries("lsn"));
    let said = place.run(&["restore", full, records, "later", "--lsn", "999"]);
    assert!(said.failed(4).contains("before LSN 999"), "{}", said.err);
    assert!(!place.path("later").exists());
    let late = place.json(&["restore", full, records, "late", "--time", "2099-01-01T00:00:00Z"]);
    assert_eq!(late[0]["ends_before_time"], true);
}

#[test]
fn killed_restore_is_gone_on_with_from_where_it_was() {
    let place = Place::new();
    fill_large(&place);
    place.out(&["backup", "db", "full.tps", "--level", "0"]);
    let stream = fs::read(place.path("full.tps")).unwrap();
    assert!(stream.len() > 6 << 20, "{}", stream.len());
    let mut command = place.command(&["restore", "-", "copy", "--json"]);
    let mut child = Running(command.stdin(Stdio::piped()).spawn().unwrap());
    let mut pipe = child.0.stdin.take().unwrap();
    // All but what a pipe holds has been taken when this returns.
    pipe.write_all(&stream[..stream.len() / 2]).unwrap();
    assert!(place.path("copy.partial").exists());
    child.kill();
    assert!(!place.path("copy").exists());
    let told =
        objects(&place.run_with_input(&["restore", "-", "copy", "--json"], &stream).succeeded());
    assert_eq!((&told[0]["resumed"], &told[0]["checked"]), (&json!(true), &json!(true)));
    assert!(place.path("copy").exists() && !place.path("copy.partial").exists());
    assert_eq!(place.entries("copy"), place.entries("db"));
}

#[test]
fn killed_backup_leaves_nothing_half_in_its_repository() {
    let place = Place::new();
    fill_large(&place);
    place.shell("cp -r db other").succeeded();
    let slow = ["backup", "db", "repo/", "--level", "0", "--rate", "256K"];
    let mut child = Running(place.command(&slow).stdout(Stdio::null()).spawn().unwrap());
    let is_writing = || {
        let items = fs::read_dir(place.path("repo/streams"));
        items.is_ok_and(|mut items| items.next().is_some())
    };
    wait_until("the backup begins", is_writing);
    child.kill();
    assert_eq!(place.json(&["snapshots", "repo"])[0]["snapshots"], json!([]));
    place.run(&["restore", "repo", "copy"]).failed(4);
    place.out(&["verify", "repo"]);
    // The lock is gone with the process.
    place.out(&["backup", "db", "repo/"]);
    place.out(&["restore", "repo", "copy"]);
    assert_eq!(place.entries("copy"), place.entries("db"));
    // A file gets its name when it is complete.
    let slow = ["backup", "db", "file.tps", "--level", "0", "--rate", "256K"];
    let mut child = Running(place.command(&slow).stdout(Stdio::null()).spawn().unwrap());
    wait_until("the backup begins", || place.path("file.tps.partial").exists());
    let said = place.run(&["backup", "other", "file.tps"]);
    assert!(said.failed(1).contains("another process is writing it"), "{}", said.err);
    child.kill();
    assert!(!place.path("file.tps").exists());
    place.out(&["backup", "db", "file.tps"]);
    place.out(&["verify", "file.tps"]);
}

#[test]
fn interrupted_backup_says_so_and_clears_up() {
    let place = Place::new();
    fill_large(&place);
    let slow = ["backup", "db", "file.tps", "--level", "0", "--rate", "256K"];
    let mut command = place.command(&slow);
    let mut child = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    wait_until("the backup begins", || place.path("file.tps.partial").exists());
    place.shell(&format!("kill -INT {}", child.0.id())).succeeded();
    let status = child.0.wait().unwrap();
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(1), "treepie: cancelled\n"));
    assert!(!place.path("file.tps").exists() && !place.path("file.tps.partial").exists());
}

#[test]
fn damaged_page_ends_a_backup_and_is_left_out_when_that_is_asked_for() {
    let place = Place::new();
    place.fill("t", 1000);
    place.fill("other", 100);
    place.out(&["check", "db"]);
    let page = place.json(&["trees", "db"]);
    let page = page.iter().find(|tree| tree["name"] == "t").unwrap()["root_page"].as_u64().unwrap();
    let data = place.path("db/data");
    let mut bytes = fs::read(&data).unwrap();
    bytes[usize::try_from(page).unwrap() * 8192 + 8000] ^= 1;
    fs::write(&data, bytes).unwrap();
    let said = place.run(&["backup", "db", "full.tps"]);
    assert!(said.failed(3).contains(&format!("page {page}")), "{}", said.err);
    assert!(!place.path("full.tps").exists());
    let ended = place.run(&["backup", "db", "full.tps", "--skip-damage", "--json"]);
    assert_eq!(ended.code, 3, "{}", ended.err);
    let told = &objects(ended.text())[0];
    assert_eq!(told["damage_count"], 1);
    assert!(told["damage"][0].as_str().unwrap().contains(&format!("page {page}")), "{told}");
    // It is as damaged as it was; unchecked it is there, and what is whole can be read.
    assert_eq!(place.run(&["restore", "full.tps", "copy"]).code, 3);
    place.out(&["restore", "full.tps", "copy", "--no-check"]);
    assert_eq!(place.out(&["get", "copy", "other", "key 0001"]), "value 1\n");
    place.run(&["check", "copy"]).failed(3);
}

#[test]
fn stream_is_never_written_to_a_terminal() {
    // `script` gives the command a terminal; where there is none of it, there is nothing to see.
    let place = Place::new();
    if place.shell("command -v script || true").succeeded().is_empty() {
        return;
    }
    place.fill("t", 10);
    let told = place.shell("script -qec 'treepie backup db -' /dev/null < /dev/null || echo $?");
    assert!(told.text().contains("standard output is a terminal"), "{}", told.text());
    assert!(told.text().trim_end().ends_with('2'), "{}", told.text());
}

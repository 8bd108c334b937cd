//! A whole run at a small size: every workload checks what it reads, so it is a test of the
//! engines' files as well.

use std::{fs, process::Command};

#[test]
fn every_workload_runs_on_every_engine_and_cleans_up() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("databases");
    let json = home.path().join("figures.jsonl");
    fs::create_dir(&dir).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_versus"))
        .args("--entries 3000 --rounds 2 --seconds 0.05 --count 3000 --load-batch 1000".split(' '))
        .args("--churn-entries 2000 --churn-batch 500 --kill-entries 1000 --large-mib 8".split(' '))
        .args("--cache-mib 64".split(' '))
        .arg("--dir")
        .arg(&dir)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let table = String::from_utf8(output.stdout).unwrap();
    let lines = fs::read_to_string(&json).unwrap();
    let mut engines = vec!["lmdb", "redb"];
    if cfg!(feature = "treepie") {
        engines.push("treepie");
    }
    for row in [
        "load-sorted",
        "load-random",
        "get-2",
        "scan-full",
        "scan-10",
        "scan-prefix",
        "put-1-p99",
        "batch-10000",
        "get-beside-put-1000",
        "large-4m",
        "churn-reinsert",
        "open-after-kill",
    ] {
        assert!(table.contains(&format!("| {row} ")), "{row} is not in\n{table}");
        for engine in &engines {
            let start = format!(r#"{{"workload":"{row}","engine":"{engine}","value":"#);
            assert!(lines.lines().any(|line| line.starts_with(&start)), "{row} of {engine}");
        }
    }
    assert!(lines.contains(r#""workload":"put-1","engine":"bare""#), "{lines}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "the databases were not removed");
}

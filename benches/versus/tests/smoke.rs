//! A whole run at a small size: every workload checks what it reads, so it is a test of the
//! engines' files as well.

use std::{fs, process::Command};

#[test]
fn every_workload_runs_on_every_engine_and_cleans_up() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("databases");
    let json = home.path().join("figures.jsonl");
    let plot = home.path().join("threads.svg");
    fs::create_dir(&dir).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_versus"))
        .args("--entries 3000 --write-entries 2000 --rounds 2 --load-batch 1000".split(' '))
        .args("--seconds 0.05 --batch-seconds 0.05 --warm-seconds 0.02 --count 2000".split(' '))
        .args("--churn-entries 2000 --churn-rounds 2 --churn-batch 500".split(' '))
        .args("--kill-entries 1000 --large-mib 4 --checkpoint-puts 2000".split(' '))
        .args("--cache-mib 64".split(' '))
        .arg("--plot")
        .arg(&plot)
        .arg("--dir")
        .arg(&dir)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let table = String::from_utf8(output.stdout).unwrap();
    let lines = fs::read_to_string(&json).unwrap();
    let optional = [
        ("treepie", cfg!(feature = "treepie")),
        ("fjall", cfg!(feature = "fjall")),
        ("canopydb", cfg!(feature = "canopydb")),
        ("sqlite", cfg!(feature = "sqlite")),
        ("rocksdb", cfg!(feature = "rocksdb")),
    ];
    let mut engines = vec!["lmdb", "redb"];
    engines.extend(optional.iter().filter_map(|&(engine, built)| built.then_some(engine)));
    for row in [
        "load-sorted",
        "load-random",
        "get-2",
        "scan-full",
        "scan-10",
        "scan-prefix",
        "puts-1-p99",
        "puts-256",
        "combined-64-p50",
        "batch-10000",
        "batch-1000-settled",
        "get-beside-put-1000-share",
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
    for row in ["puts-1", "large-1m"] {
        let bare = format!(r#""workload":"{row}","engine":"bare""#);
        assert!(lines.contains(&bare), "{row} of the bare file is not in\n{lines}");
    }
    let lines_drawn = fs::read_to_string(&plot).unwrap().matches("<polyline").count();
    assert_eq!(lines_drawn, 2 * engines.len() + 1, "two per engine, and the bare file's");
    let backups = ["backup-plain", "backup-cat", "backup-file-packed-size", "backup-memory"];
    for row in backups.into_iter().chain(["backup-beside-put-64-share"]) {
        for engine in ["lmdb", "treepie", "sqlite"].iter().filter(|name| engines.contains(name)) {
            let start = format!(r#"{{"workload":"{row}","engine":"{engine}","value":"#);
            assert!(lines.lines().any(|line| line.starts_with(&start)), "{row} of {engine}");
        }
    }
    if cfg!(feature = "treepie") {
        for row in ["increment-bytes", "restore-checked", "restore-memory"] {
            assert!(table.contains(&format!("| {row} ")), "{row} is not in\n{table}");
        }
        assert!(table.contains("| checkpoint-batch-1000-stall "), "{table}");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "the databases were not removed");
}

//! Opening after a kill, and what it costs: real processes, real files, large values.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use treepie::{Compression, Database, Options};
use treepie_testkit::{Rng, SimDisk};

use crate::harness::{self, file_options, folder};

/// Name of the variable that makes this binary a process which commits until it is killed.
const WRITER: &str = "TREEPIE_TEST_WRITER";

fn small() -> Options {
    file_options()
        .journal_segment_size(128 << 10)
        .checkpoint_distance(512 << 10)
        .checkpoint_interval(Duration::from_millis(20))
}

fn folder_len(path: &Path) -> u64 {
    let entries = fs::read_dir(path).expect("a folder");
    entries.map(|entry| entry.expect("an entry").metadata().expect("metadata").len()).sum()
}

/// The rows of commit `number`: some small, some large, some replaced, some removed.
fn commit(db: &Database, number: u64) -> treepie::Result<u64> {
    let receipt = db.write(|tx| {
        let mut rng = Rng::new(number);
        let mut rows = tx.tree("rows")?;
        rows.insert(number.to_be_bytes(), number.to_le_bytes())?;
        let mut large = tx.tree("large")?;
        let len = rng.range(1..12_000);
        large.insert((number % 40).to_be_bytes(), rng.bytes(len))?;
        if number.is_multiple_of(7) {
            large.remove(((number / 7) % 40).to_be_bytes())?;
        }
        Ok(())
    })?;
    Ok(receipt.lsn.0)
}

/// Commits until it is killed, and says each number when it is durable. Does nothing unless it is
/// the child of the test below.
#[test]
fn writer_process() {
    let Some(path) = std::env::var_os(WRITER) else { return };
    let db = small().open(path).expect("it opens");
    let mut number = {
        let snapshot = db.read().expect("a snapshot");
        snapshot.find_tree("rows").expect("a read").map_or(0, |rows| rows.len())
    };
    let mut out = std::io::stdout().lock();
    loop {
        commit(&db, number).expect("a commit");
        writeln!(out, "acknowledged {number}").expect("the parent listens");
        out.flush().expect("the parent listens");
        number += 1;
    }
}

#[test]
fn acknowledged_commits_survive_kills_of_their_process() {
    const KILLS: u64 = 20;
    let dir = folder();
    let path = dir.path().join("db");
    let mut rng = Rng::new(1);
    let mut floor = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "recovery::writer_process", "--nocapture"])
            .env(WRITER, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child process");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let wanted = rng.range(1..60);
        let mut acknowledged = 0;
        while acknowledged < wanted {
            let line = lines.next().expect("the child goes on").expect("a line");
            if let Some(number) = line.strip_prefix("acknowledged ") {
                floor = number.parse::<u64>().expect("a number") + 1;
                acknowledged += 1;
            }
        }
        // SIGKILL, in the middle of whatever it is doing.
        child.kill().expect("a kill");
        child.wait().expect("an end");
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("acknowledged ") {
                floor = number.parse::<u64>().map_or(floor, |number| number + 1);
            }
        }
        let db = small().open(&path).expect("it opens after a kill");
        let snapshot = db.read().expect("a snapshot");
        let rows = snapshot.tree("rows").expect("a tree");
        assert!(rows.len() >= floor, "kill {kill}: {floor} were acknowledged, {}", rows.len());
        assert_eq!(snapshot.lsn().0, rows.len() + 1, "kill {kill}: one commit is one LSN");
        for (number, entry) in (0_u64..).zip(rows.iter()) {
            let (key, value) = entry.expect("an entry");
            assert_eq!(key.to_vec(), number.to_be_bytes(), "kill {kill}");
            assert_eq!(value, number.to_le_bytes(), "kill {kill}");
        }
        let report = db.check().expect("a check");
        assert!(report.is_clean(), "kill {kill}: {:?}", report.problems);
        floor = rows.len();
    }
    println!("{KILLS} kills, {floor} commits");
}

#[test]
fn what_is_to_be_replayed_stays_below_the_checkpoint_distance() {
    for background in [true, false] {
        let dir = folder();
        let path = dir.path().join("db");
        let options = small().background_threads(background).checkpoint_on_close(false);
        let options = options.checkpoint_interval(Duration::from_secs(3600));
        let db = options.open(&path).expect("it opens");
        for number in 0..600 {
            commit(&db, number).expect("a commit");
        }
        let stats = db.stats();
        assert!(stats.checkpoints > 3, "{stats:?}");
        // The next one begins at the distance; what comes in while it runs is on top.
        assert!(stats.journal_bytes < 4 * (512 << 10), "{stats:?}");
        db.close().expect("closing");
        let db = options.open(&path).expect("it opens");
        let replayed = db.stats().journal_bytes;
        assert!(replayed < 4 * (512 << 10), "{replayed} bytes were replayed");
        assert_eq!(db.read().expect("a snapshot").lsn().0, 601);
    }
}

#[test]
fn the_interval_ends_in_a_checkpoint_although_nobody_writes() {
    let dir = folder();
    let db = small().open(dir.path().join("db")).expect("it opens");
    let lsn = commit(&db, 0).expect("a commit");
    let begin = Instant::now();
    while db.stats().checkpointed.0 < lsn {
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", db.stats());
        std::thread::yield_now();
    }
}

#[test]
fn a_small_set_of_hot_pages_grows_neither_the_journal_nor_the_data_file() {
    for background in [true, false] {
        let dir = folder();
        let path = dir.path().join("db");
        let db = small().background_threads(background).open(&path).expect("it opens");
        let mut sizes = Vec::new();
        for round in 0..8_u64 {
            for number in 0..400_u64 {
                db.write(|tx| {
                    let mut hot = tx.tree("hot")?;
                    let mut value = vec![round as u8; 700];
                    value[..8].copy_from_slice(&number.to_le_bytes());
                    hot.insert((number % 10).to_be_bytes(), value)
                })
                .expect("a commit");
            }
            let data = fs::metadata(path.join("data")).expect("the data file").len();
            sizes.push((folder_len(&path.join("journal")), data));
        }
        let (journal, data) = sizes[1];
        let (journal_last, data_last) = *sizes.last().expect("rounds");
        assert_eq!(data_last, data, "background {background}: {sizes:?}");
        assert!(journal_last <= journal.max(3 << 20), "background {background}: {sizes:?}");
        db.close().expect("closing");
        let len = fs::metadata(path.join("data")).expect("the data file").len();
        assert!(len < 64 * 4096, "{len} bytes for ten entries");
    }
}

fn large_value(len: usize) -> Duration {
    let dir = folder();
    let path = dir.path().join("db");
    let options = Options::new().create(true).compression(Compression::Off);
    let db = options.open(&path).expect("it opens");
    let mut value = vec![0xc3; len];
    Rng::new(9).fill(&mut value[..1 << 20]);
    let begin = Instant::now();
    db.write(|tx| {
        tx.tree("t")?.insert("before", "1")?;
        tx.tree("t")?.insert("large", &value)?;
        tx.tree("t")?.insert("with", "2")
    })
    .expect("a commit");
    let time = begin.elapsed();
    let same = |db: &Database| {
        let snapshot = db.read().expect("a snapshot");
        let tree = snapshot.tree("t").expect("a tree");
        assert!(tree.get("large").expect("a read") == Some(&value[..]), "{len} bytes");
        assert_eq!(tree.len(), 3);
    };
    same(&db);
    // From the journal …
    drop(db);
    let db = options.clone().open(&path).expect("it opens");
    same(&db);
    db.checkpoint().expect("a checkpoint");
    // … from the data file, and after a replacement by something short.
    same(&db);
    assert!(db.check().expect("a check").is_clean());
    db.write(|tx| tx.tree("t")?.insert("large", "short")).expect("a commit");
    assert!(db.check().expect("a check").is_clean());
    db.close().expect("closing");
    let left = fs::metadata(path.join("data")).expect("the data file").len();
    assert!(left < 1 << 20, "{left} bytes are left of {len}");
    time
}

#[test]
fn a_value_of_64_mib_is_one_entry() {
    println!("64 MiB in {:?}", large_value(64 << 20));
}

#[test]
#[ignore = "takes about 5 GiB of disk and 4 GiB of memory"]
fn a_value_of_1_gib_is_one_entry() {
    println!("1 GiB in {:?}", large_value(1 << 30));
}

/// Beyond 2^31 and 2^32 bytes, where other engines went wrong.
#[test]
#[ignore = "takes about 6 GiB of disk"]
fn a_data_file_grows_across_4_gib_and_keeps_every_entry() {
    let dir = folder();
    let path = dir.path().join("db");
    let options = Options::new().create(true).checkpoint_distance(64 << 20).journal_max(512 << 20);
    let db = options.open(&path).expect("it opens");
    let value = |number: u64| {
        let mut value = vec![number as u8; 32 << 20];
        value[..8].copy_from_slice(&number.to_le_bytes());
        value
    };
    let begin = Instant::now();
    for number in 0..140_u64 {
        db.write(|tx| {
            let mut tree = tx.tree("t")?;
            tree.insert(number.to_be_bytes(), value(number))?;
            tree.insert([&b"small"[..], &number.to_be_bytes()].concat(), number.to_le_bytes())
        })
        .expect("a commit");
    }
    db.close().expect("closing");
    assert!(fs::metadata(path.join("data")).expect("the data file").len() > 1 << 32);
    let db = options.open(&path).expect("it opens");
    let snapshot = db.read().expect("a snapshot");
    let tree = snapshot.tree("t").expect("a tree");
    for number in 0..140_u64 {
        let found = tree.get(number.to_be_bytes()).expect("a read").expect("it is there");
        assert!(found == value(number), "value {number}");
    }
    assert!(db.check().expect("a check").is_clean());
    println!("4.4 GiB in {:?}", begin.elapsed());
}

#[test]
fn recovery_of_more_pages_than_memory_and_scratch_hold_keeps_to_its_bounds() {
    let disk = SimDisk::new(5);
    let tight = || {
        harness::options(&disk)
            .map_size(64 << 20)
            .versions_memory(512 << 10)
            .scratch_memory(0)
            .checkpoint_distance(1 << 30)
            .journal_max(1 << 30)
            .checkpoint_on_close(false)
    };
    let db = tight().open(harness::DIR).expect("a new database opens");
    for batch in 0..100_u32 {
        db.write(|tx| {
            let mut tree = tx.tree("t")?;
            for n in 0..20_u32 {
                tree.insert((n * 100 + batch).to_be_bytes(), [batch as u8; 900])?;
            }
            Ok(())
        })
        .expect("a commit");
    }
    let lsn = db.stats().committed;
    drop(db);
    let db = tight().open(harness::DIR).expect("it opens within its bounds");
    assert_eq!(db.stats().committed, lsn);
    assert!(db.stats().versions_memory <= 512 << 10, "{:?}", db.stats());
    assert!(db.check().expect("a check").is_clean());
    let snapshot = db.read().expect("a snapshot");
    let tree = snapshot.tree("t").expect("the tree is there");
    assert_eq!(tree.len(), 2_000);
    for n in 0..2_000_u32 {
        let value = tree.get(n.to_be_bytes()).expect("no damage").expect("it is there");
        assert_eq!(value, [(n % 100) as u8; 900]);
    }
}

//! How much memory a backup and a restore take besides the database that is open, in a process of their
//! own: this program, started once more. In one that has done other work, memory that was given back
//! would be used again, and not be seen.
//!
//! What is counted is the process's anonymous memory, which holds whatever the engine or a library in C
//! allocates, but not the map of the database, which the kernel takes back when it likes.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    Result,
    contest::Context,
    engine::{BackupRequest, Engine, KEY_MIN, Tally, View},
    measure::Figure,
};

/// How often the memory is looked at: a backup keeps its buffers, so that no peak is shorter.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Most memory of both, where the engine can do it.
pub fn turn(engine: &'static str, dir: &Path, context: &Context) -> Result<Vec<Figure>> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--measure-backup", engine]).arg("--dir").arg(dir);
    command.args(["--page-size", &context.options.page_size.to_string()]);
    command.args(["--cache-mib", &context.options.cache_mib.to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("the process whose memory is measured has failed".into());
    }
    let text = String::from_utf8(output.stdout)?;
    let figure = |line: &str| -> Result<Figure> {
        let (row, bytes) = line.split_once(' ').ok_or("a line without a figure")?;
        Ok(Figure::megabytes(row, bytes.parse()?))
    };
    text.lines().map(figure).collect()
}

/// What the process does that is measured.
pub fn measure<E: Engine>(dir: &Path, context: &Context) -> Result<()> {
    let home = tempfile::tempdir_in(dir.parent().ok_or("the folder has no parent")?)?;
    let (file, restored) = (home.path().join("backup"), home.path().join("restored"));
    let engine = E::open(dir, context.setup)?;
    engine.read(|view| view.scan(KEY_MIN, 1000, &mut Tally::default()))?;
    let request = BackupRequest { is_packed: true, file: Some(&file) };
    let (backup, peak) = with_peak(|| engine.back_up(request))?;
    if backup.is_none() {
        return Ok(());
    }
    println!("backup-memory {peak}");
    engine.close()?;
    let (is_restored, peak) = with_peak(|| E::restore(&file, &restored, true))?;
    if is_restored {
        println!("restore-memory {peak}");
        fs::remove_dir_all(&restored)?;
    }
    Ok(())
}

/// What a call returns, and by how much it raised the memory of the process at most.
fn with_peak<T>(call: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let before = anonymous_bytes()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| -> Result<u64> {
            let mut peak = before;
            while !stop.load(Ordering::Relaxed) {
                peak = peak.max(anonymous_bytes()?);
                thread::sleep(LOOK_INTERVAL);
            }
            Ok(peak)
        });
        let value = call();
        stop.store(true, Ordering::Relaxed);
        let peak = watcher.join().map_err(|_| "the watcher panicked")??;
        Ok((value?, peak - before))
    })
}

fn anonymous_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(field_bytes(&status, "RssAnon:").ok_or("the kernel does not say RssAnon")?)
}

fn field_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_holds_what_was_allocated_meanwhile_and_given_back() {
        let (len, peak) = with_peak(|| {
            let bytes = vec![1_u8; 64 << 20];
            // Adding up takes many times the interval in which the watcher looks.
            let bytes = std::hint::black_box(&bytes);
            let seen = bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
            Ok(seen)
        })
        .unwrap();
        assert_eq!(len, 64 << 20);
        assert!(peak >= 60 << 20, "{peak}");
    }

    #[test]
    fn field_of_the_status_is_in_bytes() {
        let status = "VmRSS:\t    2048 kB\nRssAnon:\t     104 kB\nRssFile:\t 4 kB\n";
        assert_eq!(field_bytes(status, "RssAnon:"), Some(104 << 10));
        assert_eq!(field_bytes(status, "RssOdd:"), None);
    }
}

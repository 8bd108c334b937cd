//! Runs the command in a folder of its own.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// A temporary folder, in which the database is called `db`.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file beside the database.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_treepie"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::new(arguments, self.command(arguments).output().unwrap())
    }

    /// Runs the command with bytes on its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A command that refuses its input does not read all of it.
        let writing = std::thread::spawn(move || drop(pipe.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        Ended::new(arguments, output)
    }

    /// What the command prints when it succeeds, and says nothing else.
    pub fn out(&self, arguments: &[&str]) -> String {
        self.run(arguments).succeeded()
    }

    /// The JSON objects that the command prints when it succeeds.
    pub fn json(&self, arguments: &[&str]) -> Vec<Value> {
        objects(&self.out(&[arguments, &["--json"]].concat()))
    }

    /// Runs a line of the shell, in which `treepie` is the command.
    pub fn shell(&self, line: &str) -> Ended {
        let mut command = Command::new("bash");
        command.args(["-e", "-u", "-o", "pipefail", "-c", line]);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        let folder = Path::new(env!("CARGO_BIN_EXE_treepie")).parent().unwrap();
        let mut path = folder.as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command.env("PATH", path);
        Ended::new(&[line], command.output().unwrap())
    }

    /// Puts one entry into the tree `t`; returns the LSN and the moment of that commit.
    pub fn commit(&self, key: &str, value: &str) -> (u64, u64) {
        self.out(&["put", "db", "t", key, value]);
        let records = self.json(&["journal", "db"]);
        let last = records.last().unwrap();
        (last["lsn"].as_u64().unwrap(), last["time_us"].as_u64().unwrap())
    }

    /// All entries of the tree `t` of a database.
    pub fn entries(&self, db: &str) -> String {
        self.out(&["scan", db, "t"])
    }

    /// Puts `count` entries `key 0000` -> `value 0` and so on into a tree.
    pub fn fill(&self, tree: &str, count: usize) {
        let rows: String = (0..count).map(|i| format!("key {i:04}\tvalue {i}\n")).collect();
        self.run_with_input(&["load", "db", tree, "-"], rows.as_bytes()).succeeded();
    }
}

/// A command that has ended.
pub struct Ended {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
    arguments: String,
}

impl Ended {
    fn new(arguments: &[&str], output: Output) -> Ended {
        Ended {
            code: output.status.code().unwrap(),
            out: output.stdout,
            err: String::from_utf8(output.stderr).unwrap(),
            arguments: arguments.join(" "),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    #[track_caller]
    pub fn succeeded(&self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.arguments);
        self.text().to_owned()
    }

    /// The one line on standard error of a command that failed with `code`, without its beginning.
    #[track_caller]
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{}: {}", self.arguments, self.err);
        let line = self.err.strip_prefix("treepie: ").and_then(|rest| rest.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("{}: {}", self.arguments, self.err));
        assert!(!line.contains('\n'), "{}: {line}", self.arguments);
        line
    }
}

/// Waits until something holds. It does within a moment, or never.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

/// The objects of JSON lines.
pub fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All files below a folder with their content, but the lock, which names the process.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") {
                let content = fs::read(&path).unwrap();
                all.push((path, content));
            }
        }
    }
    all.sort();
    all
}

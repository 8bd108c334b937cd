//! The rules that no compiler knows. Each check is a file; each is itself tested on small trees
//! of files that break it.
//!
//! - `layers`: arrows between the engine's modules point downwards.
//! - `unsafety`: unsafe code is in named files, and there is no more of it than is listed, here and in
//!   `docs/testing.md`.
//! - `length`: files and documents stay short.
//! - `words`: words that mean something else here, and marks of unfinished work.
//! - `sleeps`: tests do not sleep.
//! - `documents`: decisions are numbered, the changelog always speaks of the format.
//! - `links`: links between the repository's documents lead somewhere.
//!
//! That `docs/format.md` is what its sources say is checked here too, by `format_doc`.

mod documents;
mod layers;
mod length;
mod links;
mod sleeps;
pub mod unsafety;
mod words;

use std::{collections::BTreeMap, fmt, fs, io, path::Path};

/// Folders that are not the project's own text.
const SKIPPED_FOLDERS: &[&str] = &[".git", "target", "demo-data", "corpus", "artifacts"];

/// The text files of the repository by their path, with `/` between folders. A file that is not
/// UTF-8 is there too, without its content.
#[derive(Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads all files below a folder.
    pub fn load(root: &Path) -> io::Result<Tree> {
        let mut tree = Tree::default();
        tree.load_folder(root, "")?;
        Ok(tree)
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    fn load_folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for item in fs::read_dir(folder)? {
            let item = item?;
            let Ok(name) = item.file_name().into_string() else { continue };
            let path = format!("{prefix}{name}");
            if item.file_type()?.is_dir() {
                if !SKIPPED_FOLDERS.contains(&name.as_str()) {
                    self.load_folder(&item.path(), &format!("{path}/"))?;
                }
            } else {
                let text = String::from_utf8(fs::read(item.path())?).unwrap_or_default();
                self.files.insert(path, text);
            }
        }
        Ok(())
    }

    /// A tree of these files, for tests.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let owned = files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned()));
        Tree { files: owned.collect() }
    }

    /// The text of a file.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    fn has_folder(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        self.files.range(prefix.clone()..).next().is_some_and(|(file, _)| file.starts_with(&prefix))
    }

    fn with_ending<'a>(&'a self, ending: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        all.filter(move |(path, _)| path.ends_with(ending))
    }

    /// Rust sources by their path.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.with_ending(".rs")
    }

    fn markdown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.with_ending(".md")
    }
}

/// A broken rule, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl Violation {
    /// In the file at `path`, in this line, counted from 1.
    pub fn new(path: &str, line: usize, what: impl Into<String>) -> Violation {
        Violation { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// All broken rules, ordered by file.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = layers::check(tree);
    found.extend(unsafety::check(tree, unsafety::ALLOWED));
    found.extend(unsafety::check_document(tree));
    found.extend(length::check(tree));
    found.extend(words::check(tree, words::EXEMPT));
    found.extend(sleeps::check(tree));
    found.extend(documents::check(tree));
    found.extend(links::check(tree));
    found.extend(crate::format_doc::check(tree));
    found.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    found
}

/// The number of the line that holds byte `at` of a text.
fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// What is said about a tree of files, one line each.
#[cfg(test)]
fn said(violations: &[Violation]) -> Vec<String> {
    violations.iter().map(ToString::to_string).collect()
}

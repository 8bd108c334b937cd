//! `scan`: the entries of a tree, in lines that `load` reads.

use std::ops::Bound;

use treepie::{Range, Tree};

use super::{bytes, entry::Entry, look, tree_name};
use crate::{arguments::Scan, failure::Result, notation::Notation, output::Output};

/// Which entries.
enum Extent {
    Prefix(Vec<u8>),
    Bounds(Bound<Vec<u8>>, Bound<Vec<u8>>),
}

impl Extent {
    fn new(arguments: &Scan, notation: Notation) -> Result<Extent> {
        if let Some(prefix) = &arguments.prefix {
            return Ok(Extent::Prefix(bytes("the prefix", prefix, notation)?));
        }
        let from = arguments.from.as_ref().map(|from| bytes("--from", from, notation));
        let to = arguments.to.as_ref().map(|to| bytes("--to", to, notation));
        let from = from.transpose()?.map_or(Bound::Unbounded, Bound::Included);
        let to = to.transpose()?.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(Extent::Bounds(from, to))
    }

    fn of<'s>(&self, tree: &Tree<'s>) -> Range<'s> {
        match self {
            Extent::Prefix(prefix) => tree.prefix(prefix),
            Extent::Bounds(from, to) => tree.range((from.clone(), to.clone())),
        }
    }
}

/// Prints entries.
pub fn run(arguments: &Scan, output: &mut Output) -> Result<()> {
    let notation = arguments.notation.into();
    let name = tree_name(&arguments.tree)?;
    let extent = Extent::new(arguments, notation)?;
    look(&arguments.db, |db| {
        let snapshot = db.read()?;
        let mut entries = extent.of(&snapshot.tree(&name)?);
        let mut printer = Printer::new(notation, output);
        let mut key_bytes = Vec::new();
        let mut left = arguments.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let next = if arguments.reverse { entries.next_back() } else { entries.next() };
            let Some(entry) = next else { break };
            let (key, value) = entry?;
            key_bytes.clear();
            key.copy_to(&mut key_bytes);
            printer.print(&key_bytes, value)?;
            left -= 1;
        }
        Ok(())
    })
}

/// Prints entries, and keeps the memory for the next.
pub struct Printer<'o> {
    notation: Notation,
    output: &'o mut Output,
    line: String,
}

impl Printer<'_> {
    /// Prints in a notation.
    pub fn new(notation: Notation, output: &mut Output) -> Printer<'_> {
        Printer { notation, output, line: String::new() }
    }

    /// Prints one entry.
    pub fn print(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let notation = self.notation;
        if self.output.is_json() {
            let entry = Entry { key: notation.json(key), value: notation.json(value) };
            return self.output.object(&entry);
        }
        self.line.clear();
        notation.write(key, &mut self.line);
        self.line.push('\t');
        notation.write(value, &mut self.line);
        self.output.line(&self.line)
    }
}

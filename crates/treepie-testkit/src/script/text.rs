//! Scripts as text: one line for each step and operation, blocks end with `end`.
//!
//! ```text
//! setup seed=7 segment=16384 distance=65536 compression=auto close=checkpoint
//! write sync
//!   insert tree0 "k7" 300:5
//!   savepoint fails
//!     remove-range tree0 ["a" "b")
//!   end
//! end
//! batch
//!   write memory panics
//!     drop tree0
//!   end
//! end
//! kill
//! ```
//!
//! A value is its length and its filling. Keys are escaped as in Rust. Lines that begin with `#`
//! say something to people alone.

use std::{fmt, ops::Bound, str::FromStr};

use treepie::{Compression, Durability};

use super::{Act, Closure, End, GROUP, Script, Setup, Step, Value};

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { seed, segment_size, checkpoint_distance, .. } = self.setup;
        let compression = if self.setup.compression == Compression::Off { "off" } else { "auto" };
        let close = if self.setup.checkpoint_on_close { "checkpoint" } else { "plain" };
        writeln!(
            f,
            "setup seed={seed} segment={segment_size} distance={checkpoint_distance} \
             compression={compression} close={close}"
        )?;
        self.steps.iter().try_for_each(|step| write_step(f, step))
    }
}

fn write_step(f: &mut fmt::Formatter<'_>, step: &Step) -> fmt::Result {
    match step {
        Step::Write(closure) => write_closure(f, closure, 0),
        Step::Batch(closures) => {
            writeln!(f, "batch")?;
            closures.iter().try_for_each(|closure| write_closure(f, closure, 2))?;
            writeln!(f, "end")
        }
        Step::Sync => writeln!(f, "sync"),
        Step::Checkpoint => writeln!(f, "checkpoint"),
        Step::Hold => writeln!(f, "hold"),
        Step::Release => writeln!(f, "release"),
        Step::Reopen => writeln!(f, "reopen"),
        Step::Kill => writeln!(f, "kill"),
    }
}

fn write_closure(f: &mut fmt::Formatter<'_>, closure: &Closure, indent: usize) -> fmt::Result {
    let durability = match closure.durability {
        Durability::Buffered => "buffered",
        Durability::Memory => "memory",
        Durability::Group { .. } => "group",
        _ => "sync",
    };
    writeln!(f, "{:indent$}write {durability}{}", "", end_text(closure.end))?;
    write_acts(f, &closure.acts, indent + 2)?;
    writeln!(f, "{:indent$}end", "")
}

fn end_text(end: End) -> &'static str {
    match end {
        End::Stays => "",
        End::Fails => " fails",
        End::Panics => " panics",
    }
}

fn write_acts(f: &mut fmt::Formatter<'_>, acts: &[Act], indent: usize) -> fmt::Result {
    for act in acts {
        write!(f, "{:indent$}", "")?;
        match act {
            Act::Create(tree) => writeln!(f, "create {tree}")?,
            Act::Drop(tree) => writeln!(f, "drop {tree}")?,
            Act::Clear(tree) => writeln!(f, "clear {tree}")?,
            Act::Insert(tree, key, Value { len, fill }) => {
                writeln!(f, "insert {tree} \"{}\" {len}:{fill}", key.escape_ascii())?;
            }
            Act::Remove(tree, key) => writeln!(f, "remove {tree} \"{}\"", key.escape_ascii())?,
            Act::RemoveRange(tree, lower, upper) => {
                write!(f, "remove-range {tree} ")?;
                match lower {
                    Bound::Unbounded => write!(f, "(.. ")?,
                    Bound::Included(key) => write!(f, "[\"{}\" ", key.escape_ascii())?,
                    Bound::Excluded(key) => write!(f, "(\"{}\" ", key.escape_ascii())?,
                }
                match upper {
                    Bound::Unbounded => writeln!(f, "..)")?,
                    Bound::Included(key) => writeln!(f, "\"{}\"]", key.escape_ascii())?,
                    Bound::Excluded(key) => writeln!(f, "\"{}\")", key.escape_ascii())?,
                }
            }
            Act::Annotate(len) => writeln!(f, "annotate {len}")?,
            Act::Savepoint(inner, end) => {
                writeln!(f, "savepoint{}", end_text(*end))?;
                write_acts(f, inner, indent + 2)?;
                writeln!(f, "{:indent$}end", "")?;
            }
        }
    }
    Ok(())
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Script, String> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect();
        let mut reader = Reader { lines, next: 0 };
        let setup = reader.setup().map_err(|what| reader.complaint(&what))?;
        let mut steps = Vec::new();
        while reader.next < reader.lines.len() {
            let step = reader.step();
            steps.push(step.map_err(|what| reader.complaint(&what))?);
        }
        Ok(Script { setup, steps })
    }
}

struct Reader<'a> {
    lines: Vec<(usize, &'a str)>,
    next: usize,
}

impl<'a> Reader<'a> {
    fn complaint(&self, what: &str) -> String {
        match self.next.checked_sub(1).and_then(|index| self.lines.get(index)) {
            Some((number, line)) => format!("line {number}, `{line}`: {what}"),
            None => what.to_owned(),
        }
    }

    fn line(&mut self) -> Result<Vec<String>, String> {
        let (_, line) = self.lines.get(self.next).ok_or("the script ends inside a block")?;
        self.next += 1;
        words(line)
    }

    fn is_at_end(&mut self) -> bool {
        let is_end = self.lines.get(self.next).is_some_and(|(_, line)| *line == "end");
        self.next += usize::from(is_end);
        is_end
    }

    fn setup(&mut self) -> Result<Setup, String> {
        let line = self.line()?;
        if line.first().is_none_or(|word| word != "setup") {
            return Err("a script begins with its setup".to_owned());
        }
        let field = |name: &str| {
            let of_name = |word: &'_ String| word.strip_prefix(name).map(ToOwned::to_owned);
            line.iter().find_map(of_name).ok_or_else(|| format!("`{name}` is missing"))
        };
        Ok(Setup {
            seed: number(&field("seed=")?)?,
            segment_size: number(&field("segment=")?)?,
            checkpoint_distance: number(&field("distance=")?)?,
            compression: match field("compression=")?.as_str() {
                "off" => Compression::Off,
                _ => Compression::Auto,
            },
            checkpoint_on_close: field("close=")? == "checkpoint",
        })
    }

    fn step(&mut self) -> Result<Step, String> {
        let line = self.line()?;
        Ok(match line[0].as_str() {
            "write" => Step::Write(self.closure(&line)?),
            "batch" => {
                let mut closures = Vec::new();
                while !self.is_at_end() {
                    let line = self.line()?;
                    closures.push(self.closure(&line)?);
                }
                Step::Batch(closures)
            }
            "sync" => Step::Sync,
            "checkpoint" => Step::Checkpoint,
            "hold" => Step::Hold,
            "release" => Step::Release,
            "reopen" => Step::Reopen,
            "kill" => Step::Kill,
            _ => return Err("no step is called so".to_owned()),
        })
    }

    fn closure(&mut self, line: &[String]) -> Result<Closure, String> {
        let durability = match line.get(1).map(String::as_str) {
            Some("sync") => Durability::Sync,
            Some("group") => GROUP,
            Some("buffered") => Durability::Buffered,
            Some("memory") => Durability::Memory,
            _ => return Err("a write says its durability".to_owned()),
        };
        Ok(Closure { durability, acts: self.acts()?, end: end_of(line.get(2))? })
    }

    fn acts(&mut self) -> Result<Vec<Act>, String> {
        let mut acts = Vec::new();
        while !self.is_at_end() {
            acts.push(self.act()?);
        }
        Ok(acts)
    }

    fn act(&mut self) -> Result<Act, String> {
        let line = self.line()?;
        let word = |index: usize| line.get(index).cloned().ok_or("the line is too short");
        Ok(match line[0].as_str() {
            "create" => Act::Create(word(1)?),
            "drop" => Act::Drop(word(1)?),
            "clear" => Act::Clear(word(1)?),
            "insert" => {
                let value = word(3)?;
                let (len, fill) = value.split_once(':').ok_or("a value is `length:filling`")?;
                let value = Value { len: number(len)?, fill: number(fill)? };
                Act::Insert(word(1)?, key(&word(2)?)?, value)
            }
            "remove" => Act::Remove(word(1)?, key(&word(2)?)?),
            "remove-range" => Act::RemoveRange(word(1)?, bound(&word(2)?)?, bound(&word(3)?)?),
            "annotate" => Act::Annotate(number(&word(1)?)?),
            "savepoint" => Act::Savepoint(self.acts()?, end_of(line.get(1))?),
            _ => return Err("no operation is called so".to_owned()),
        })
    }
}

fn end_of(word: Option<&String>) -> Result<End, String> {
    match word.map(String::as_str) {
        None => Ok(End::Stays),
        Some("fails") => Ok(End::Fails),
        Some("panics") => Ok(End::Panics),
        Some(_) => Err("it `fails`, or `panics`, or nothing is said".to_owned()),
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

/// Words between spaces; what is in quotes stays together, with its quotes.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut is_quoted, mut is_escaped) =
        (Vec::new(), String::new(), false, false);
    for letter in line.chars() {
        if letter == ' ' && !is_quoted {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            continue;
        }
        is_quoted ^= letter == '"' && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
        word.push(letter);
    }
    words.extend((!word.is_empty()).then_some(word));
    if is_quoted { Err("a quote is not closed".to_owned()) } else { Ok(words) }
}

fn bound(word: &str) -> Result<Bound<Vec<u8>>, String> {
    let inner = word.trim_matches(['[', ']', '(', ')']);
    if inner == ".." {
        return Ok(Bound::Unbounded);
    }
    let key = key(inner)?;
    let is_included = word.starts_with('[') || word.ends_with(']');
    Ok(if is_included { Bound::Included(key) } else { Bound::Excluded(key) })
}

/// What `escape_ascii` made of bytes, in quotes.
fn key(word: &str) -> Result<Vec<u8>, String> {
    let inner = word.strip_prefix('"').and_then(|word| word.strip_suffix('"'));
    let mut rest = inner.ok_or("a key is in quotes")?.bytes();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b'x') => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.unwrap_or(b'?'));
                let digits = String::from_utf8_lossy(&digits);
                u8::from_str_radix(&digits, 16).map_err(|_| format!("`\\x{digits}` in a key"))?
            }
            Some(other) => other,
            None => return Err("a key ends with a backslash".to_owned()),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Manner;

    #[test]
    fn a_script_is_read_back_as_it_was_written() {
        for seed in 0..60 {
            let script = Script::of_seed(seed, &Manner::of_seed(seed));
            let text = script.to_string();
            let again: Script = text.parse().unwrap_or_else(|what| panic!("seed {seed}: {what}"));
            assert_eq!(again, script, "seed {seed}");
        }
    }

    #[test]
    fn keys_of_all_bytes_are_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [all.as_slice(), b"", b"a \"b\" \\", b")]([ .."] {
            let word = format!("\"{}\"", bytes.escape_ascii());
            assert_eq!(key(&word).as_deref(), Ok(bytes));
            let line = format!("remove t {word}");
            assert_eq!(words(&line), Ok(vec!["remove".into(), "t".into(), word]));
        }
    }

    #[test]
    fn a_fault_in_a_script_is_told_with_its_line() {
        let head = "setup seed=1 segment=16384 distance=65536 compression=off close=plain\n";
        for (body, told) in [
            ("write\nend\n", "line 2"),
            ("write sync\n  insert t \"k\" 5\nend\n", "length:filling"),
            ("write sync\n  insert t k 5:1\nend\n", "line 3"),
            ("write sync\n", "ends inside a block"),
            ("dance\n", "dance"),
            ("write sync\n  remove t \"k\nend\n", "not closed"),
        ] {
            let complaint = format!("{head}{body}").parse::<Script>().expect_err(body);
            assert!(complaint.contains(told), "{complaint}");
        }
        assert!("kill\n".parse::<Script>().is_err(), "it has no setup");
    }
}

//! Words that mean something else here, and marks of unfinished work.
//!
//! Words are compared whole, after names are taken apart: `WalFile` and `wal_file` hold `wal`,
//! `walk` does not.

use super::{Tree, Violation};
use crate::source::{code_only, identifiers};

/// Words of other engines, and what they are called here.
const FOREIGN: &[(&str, &str)] = &[
    ("wal", "journal"),
    ("seqno", "lsn"),
    ("txid", "lsn"),
    ("keyspace", "tree"),
    ("memtable", "versions"),
];

/// Names that say nothing, in code.
const EMPTY: &[&str] = &["manager", "helper", "helpers", "util", "utils"];

/// Marks of unfinished work, as they are written.
const UNFINISHED: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// A file that may use a word, and why.
pub struct Exempt {
    path: &'static str,
    word: &'static str,
    reason: &'static str,
}

/// The exemptions.
pub const EXEMPT: &[Exempt] = &[
    Exempt {
        path: "benches/versus/src/engines/fjall.rs",
        word: "keyspace",
        reason: "fjall's type is called so",
    },
    Exempt {
        path: "benches/versus/src/engines/fjall.rs",
        word: "memtable",
        reason: "fjall's function is called so",
    },
    Exempt {
        path: "benches/versus/src/engines/sqlite.rs",
        word: "wal",
        reason: "SQLite's journal mode is called so",
    },
];

/// The files with the list itself, and with its tests.
const OWN: &str = "xtask/src/tidy/words.rs";

pub fn check(tree: &Tree, exempt: &[Exempt]) -> Vec<Violation> {
    let mut found = Vec::new();
    let texts = tree.rust().map(|file| (file, true)).chain(tree.markdown().map(|f| (f, false)));
    for ((path, text), is_rust) in texts.filter(|((path, _), _)| *path != OWN) {
        let mut faults = foreign(text);
        faults.extend(unfinished(text));
        if is_rust {
            faults.extend(empty(text));
        }
        faults.retain(|fault| !exempt.iter().any(|e| e.path == path && e.word == fault.word));
        found.extend(faults.into_iter().map(|fault| Violation::new(path, fault.line, fault.what)));
    }
    for exemption in exempt {
        let used = tree.get(exemption.path).is_some_and(|text| {
            let words = foreign(text).into_iter().chain(unfinished(text)).chain(empty(text));
            words.into_iter().any(|fault| fault.word == exemption.word)
        });
        if !used {
            let Exempt { word, reason, .. } = exemption;
            let what = format!("exempt for `{word}` ({reason}), but does not use it");
            found.push(Violation::new(exemption.path, 1, what));
        }
    }
    found
}

struct Fault {
    line: usize,
    word: &'static str,
    what: String,
}

fn foreign(text: &str) -> Vec<Fault> {
    let parts = identifiers(text).flat_map(|(line, word)| parts(word).map(move |p| (line, p)));
    let faults = parts.filter_map(|(line, part)| {
        let (word, ours) = FOREIGN.iter().find(|(word, _)| part == *word)?;
        Some(Fault { line, word, what: format!("`{word}` is called {ours} here") })
    });
    faults.collect()
}

fn empty(text: &str) -> Vec<Fault> {
    let code = code_only(text);
    let parts = identifiers(&code).flat_map(|(line, word)| parts(word).map(move |p| (line, p)));
    let faults = parts.filter_map(|(line, part)| {
        let word = EMPTY.iter().find(|word| part == **word)?;
        Some(Fault { line, word, what: format!("`{word}` says nothing; name the thing") })
    });
    faults.collect()
}

fn unfinished(text: &str) -> Vec<Fault> {
    let marks = identifiers(text).filter_map(|(line, word)| {
        let word = UNFINISHED.iter().find(|mark| **mark == word)?;
        Some(Fault { line, word, what: format!("`{word}`: finish it, or leave it out") })
    });
    let mut faults: Vec<Fault> = marks.collect();
    // The two words may stand on two lines.
    let words: Vec<(usize, &str)> = identifiers(text).collect();
    for pair in words.windows(2) {
        let ((line, first), (_, second)) = (pair[0], pair[1]);
        if first.eq_ignore_ascii_case("for") && second == "now" {
            let what = "`for now`: say what holds, or finish it".to_owned();
            faults.push(Fault { line, word: "for now", what });
        }
    }
    faults
}

/// Parts of a name, in lower case: `WalFile` and `WAL_FILE` are `wal` and `file`.
fn parts(name: &str) -> impl Iterator<Item = String> {
    let mut parts = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            parts.push(String::new());
        }
        if c != '_' {
            let last = parts.len() - 1;
            parts[last].extend(c.to_lowercase());
        }
        before = c;
    }
    parts.into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::said;
    use super::*;

    fn said_of(path: &str, text: &str) -> Vec<String> {
        said(&check(&Tree::of(&[(path, text)]), &[]))
    }

    #[test]
    fn foreign_words_are_found_in_names_comments_and_documents() {
        for text in ["struct WalFile;", "fn open_wal() {}", "// the WAL", "const WAL_LEN: u8 = 1;"]
        {
            assert_eq!(said_of("a.rs", text), ["a.rs:1: `wal` is called journal here"], "{text}");
        }
        assert_eq!(
            said_of("docs/a.md", "\nthe seqno"),
            ["docs/a.md:2: `seqno` is called lsn here"]
        );
        for word in ["txid", "keyspace", "memtable"] {
            assert_eq!(said_of("a.rs", &format!("let {word} = 1;")).len(), 1, "{word}");
        }
    }

    #[test]
    fn longer_words_are_fine() {
        let text = "fn walk() { wallet(); crystal(); } // for nowhere, therefore now";
        assert_eq!(said_of("a.rs", text), Vec::<String>::new());
    }

    #[test]
    fn unfinished_work_is_found() {
        for text in ["// TODO: x", "/* FIXME */", "// good enough for now", "// for\n// now"] {
            assert_eq!(said_of("a.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn empty_names_are_found_in_code_but_not_in_prose() {
        assert_eq!(said_of("a.rs", "struct PageManager;").len(), 1);
        assert_eq!(said_of("a.rs", "mod util;").len(), 1);
        assert_eq!(said_of("a.rs", "// a helper of the package manager").len(), 0);
    }

    #[test]
    fn exemption_holds_for_its_word_in_its_file_and_must_be_used() {
        let exempt = [Exempt { path: "docs/a.md", word: "wal", reason: "names SQLite's mode" }];
        let said_of = |text: &str| said(&check(&Tree::of(&[("docs/a.md", text)]), &exempt));
        assert_eq!(said_of("SQLite WAL"), Vec::<String>::new());
        assert_eq!(said_of("SQLite WAL, seqno").len(), 1);
        assert!(said_of("SQLite")[0].contains("does not use it"));
    }
}

//! Unsafe code is in named files, and there is no more of it than is listed.
//!
//! What is counted is the word `unsafe` in code: blocks, functions, traits and implementations.
//! A file that needs more raises its number here, in a change that a reader sees. There is a ceiling for
//! all files together too, and `docs/testing.md` has the list as it is: `cargo run -p xtask -- unsafe`
//! writes it there.

use super::{Tree, Violation};
use crate::source::{code_only, identifiers};

/// A file that may hold unsafe code.
pub struct Allowed {
    path: &'static str,
    count_max: usize,
    reason: &'static str,
}

/// The most that all files together may hold.
const TOTAL_MAX: usize = 74;

/// The document that has the list, between these two lines.
pub const DOCUMENT: &str = "docs/testing.md";
const BEGIN: &str = "<!-- unsafe:begin -->";
const END: &str = "<!-- unsafe:end -->";

/// The files, with the most that each may hold, and why it needs any.
pub const ALLOWED: &[Allowed] = &[
    Allowed {
        path: "benches/versus/src/engines/lmdb.rs",
        count_max: 1,
        reason: "LMDB trusts the file that it maps",
    },
    Allowed {
        path: "crates/treepie/src/disk/map.rs",
        count_max: 1,
        reason: "its tests read maps by address",
    },
    Allowed {
        path: "crates/treepie/src/disk/scratch.rs",
        count_max: 3,
        reason: "its tests write scratch memory by address",
    },
    Allowed {
        path: "crates/treepie/src/disk/syscalls.rs",
        count_max: 5,
        reason: "system calls that the standard library lacks",
    },
    Allowed {
        path: "crates/treepie/src/pager/chains.rs",
        count_max: 5,
        reason: "owns what versions saved, by pointer",
    },
    Allowed {
        path: "crates/treepie/src/pager/directory.rs",
        count_max: 4,
        reason: "chunks that readers reach without a lock",
    },
    Allowed {
        path: "crates/treepie/src/pager/in_place.rs",
        count_max: 2,
        reason: "reads a page that is changed in place, in its turn",
    },
    Allowed {
        path: "crates/treepie/src/pager/map.rs",
        count_max: 6,
        reason: "slices of the map; one prefetch instruction",
    },
    Allowed {
        path: "crates/treepie/src/pager/pool.rs",
        count_max: 8,
        reason: "frames are raw memory",
    },
    Allowed {
        path: "crates/treepie/src/pager/taken.rs",
        count_max: 6,
        reason: "bytes of a version that its owner alone can reach",
    },
    Allowed {
        path: "crates/treepie/src/pager/version.rs",
        count_max: 5,
        reason: "versions that readers reach without a lock",
    },
    Allowed {
        path: "crates/treepie/src/pager/zeroed.rs",
        count_max: 1,
        reason: "a slice of an anonymous map",
    },
    Allowed {
        path: "crates/treepie/src/txn/job.rs",
        count_max: 6,
        reason: "closures that borrow from the caller's stack are run elsewhere",
    },
    Allowed {
        path: "crates/treepie-testkit/src/hostile/allocations.rs",
        count_max: 9,
        reason: "an allocator is unsafe by its trait",
    },
    Allowed {
        path: "crates/treepie-testkit/src/sim/buffer.rs",
        count_max: 9,
        reason: "maps of simulated files have stable addresses",
    },
    Allowed {
        path: "crates/treepie-testkit/tests/simulator.rs",
        count_max: 3,
        reason: "reads maps by address",
    },
];

fn count(text: &str) -> usize {
    identifiers(&code_only(text)).filter(|(_, word)| *word == "unsafe").count()
}

/// How often `unsafe` stands in all files, and in how many.
pub fn total(tree: &Tree) -> (usize, usize) {
    let counts = tree.rust().map(|(_, text)| count(text)).filter(|count| *count > 0);
    counts.fold((0, 0), |(total, files), count| (total + count, files + 1))
}

/// The list of files as the document has it.
fn table(tree: &Tree, allowed: &[Allowed]) -> String {
    let mut table = "| File | `unsafe` | Why |\n|---|---:|---|\n".to_owned();
    for file in allowed {
        let count = tree.get(file.path).map_or(0, count);
        table.push_str(&format!("| `{}` | {count} | {} |\n", file.path, file.reason));
    }
    let (total, files) = total(tree);
    table.push_str(&format!("| {files} files | {total} | at most {TOTAL_MAX} |\n"));
    table
}

/// The document with the list as it is now.
///
/// # Errors
/// That the document has no place for it.
pub fn document(tree: &Tree) -> Result<String, Violation> {
    let text = tree.get(DOCUMENT).unwrap_or_default();
    let place = text
        .split_once(BEGIN)
        .and_then(|(before, rest)| rest.split_once(END).map(|(_, after)| (before, after)));
    let Some((before, after)) = place else {
        let what = format!("has no lines `{BEGIN}` and `{END}` around the list of unsafe code");
        return Err(Violation::new(DOCUMENT, 1, what));
    };
    Ok(format!("{before}{BEGIN}\n\n{}\n{END}{after}", table(tree, ALLOWED)))
}

/// Whether the document has the list as it is, and all files together stay below the ceiling.
pub fn check_document(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    match document(tree) {
        Ok(document) if tree.get(DOCUMENT) != Some(&document) => {
            let what = "its list of unsafe code is out of date: `cargo run -p xtask -- unsafe`";
            found.push(Violation::new(DOCUMENT, 1, what));
        }
        Ok(_) => {}
        Err(violation) => found.push(violation),
    }
    let (total, _) = total(tree);
    if total > TOTAL_MAX {
        let what = format!("`unsafe` stands in all files {total} times, at most {TOTAL_MAX}");
        found.push(Violation::new("xtask/src/tidy/unsafety.rs", 1, what));
    }
    found
}

pub fn check(tree: &Tree, allowed: &[Allowed]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let count = count(text);
        let listed = allowed.iter().find(|file| file.path == path);
        let count_max = listed.map_or(0, |file| file.count_max);
        if count > count_max {
            let what = format!(
                "`unsafe` stands here {count} times, at most {count_max} are listed in \
                 xtask/src/tidy/unsafety.rs"
            );
            found.push(Violation::new(path, 1, what));
        }
        if listed.is_some() && count == 0 {
            found.push(Violation::new(path, 1, "listed for unsafe code, but has none"));
        }
    }
    for file in allowed {
        if tree.get(file.path).is_none() {
            let what = format!("listed for unsafe code ({}), but is not there", file.reason);
            found.push(Violation::new(file.path, 1, what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::said;
    use super::*;

    const MAP: Allowed = Allowed { path: "map.rs", count_max: 1, reason: "it maps" };

    fn said_of(files: &[(&str, &str)]) -> Vec<String> {
        said(&check(&Tree::of(files), &[MAP]))
    }

    #[test]
    fn listed_file_may_hold_what_is_listed() {
        let text = "#![allow(unsafe_code)]\n// unsafe\nfn f() { unsafe { g() } }";
        assert_eq!(said_of(&[("map.rs", text)]), Vec::<String>::new());
    }

    #[test]
    fn more_than_listed_is_found() {
        let found = said_of(&[("map.rs", "unsafe impl Send for M {}\nfn f() { unsafe { g() } }")]);
        assert!(found[0].contains("2 times, at most 1"), "{found:?}");
    }

    #[test]
    fn unsafe_code_elsewhere_is_found() {
        let found = said_of(&[("map.rs", "unsafe {}"), ("other.rs", "unsafe {}")]);
        assert!(found.len() == 1 && found[0].starts_with("other.rs:1:"), "{found:?}");
    }

    #[test]
    fn stale_entry_is_found() {
        assert!(said_of(&[])[0].contains("is not there"));
        assert!(said_of(&[("map.rs", "fn f() {}")])[0].contains("has none"));
    }

    const PLACE: &str = "before\n<!-- unsafe:begin -->\n<!-- unsafe:end -->\nafter\n";

    #[test]
    fn list_in_the_document_is_the_one_of_the_code() {
        let path = ALLOWED[0].path;
        let code = [(path, "unsafe { f() }"), (DOCUMENT, PLACE)];
        let document = document(&Tree::of(&code)).expect("it has a place for the list");
        assert!(document.contains(&format!("| `{path}` | 1 | {} |", ALLOWED[0].reason)));
        assert!(document.contains("| 1 files | 1 | at most"), "{document}");
        let said_of = |code: &str, document: &str| {
            said(&check_document(&Tree::of(&[(path, code), (DOCUMENT, document)])))
        };
        assert_eq!(said_of("unsafe { f() }", &document), Vec::<String>::new());
        for stale in [said_of("unsafe { f(unsafe { g() }) }", &document), said_of("", PLACE)] {
            assert!(stale[0].contains("out of date"), "{stale:?}");
        }
        assert!(said_of("", "no place")[0].contains("has no lines"));
    }

    #[test]
    fn all_files_together_stay_below_the_ceiling() {
        let code = "unsafe {}\n".repeat(TOTAL_MAX + 1);
        let found = said(&check_document(&Tree::of(&[("a.rs", &code), (DOCUMENT, PLACE)])));
        assert!(found.iter().any(|line| line.contains("in all files")), "{found:?}");
    }
}

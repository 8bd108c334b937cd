//! Unsafe code is in named files, and there is no more of it than is listed.
//!
//! What is counted is the word `unsafe` in code: blocks, functions, traits and implementations.
//! A file that needs more raises its number here, in a change that a reader sees.

use super::{Tree, Violation};
use crate::source::{code_only, identifiers};

/// A file that may hold unsafe code.
pub struct Allowed {
    path: &'static str,
    count_max: usize,
    reason: &'static str,
}

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
        path: "crates/treepie/src/pager/directory.rs",
        count_max: 6,
        reason: "chunks that readers reach without a lock",
    },
    Allowed {
        path: "crates/treepie/src/pager/map.rs",
        count_max: 7,
        reason: "slices of the map; one prefetch instruction",
    },
    Allowed {
        path: "crates/treepie/src/pager/pool.rs",
        count_max: 7,
        reason: "frames are raw memory",
    },
    Allowed {
        path: "crates/treepie/src/pager/version.rs",
        count_max: 3,
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

pub fn check(tree: &Tree, allowed: &[Allowed]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let count = identifiers(&code_only(text)).filter(|(_, word)| *word == "unsafe").count();
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
}

//! Tests do not sleep: a test that waits for a time is slow on a good day and wrong on a bad one.

use super::{Tree, Violation};
use crate::source::{before_tests, code_only, identifiers};

const SLEEPING: &[&str] = &["sleep", "sleep_ms", "sleep_until", "park_timeout"];

pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let lines_before = if is_all_test(path) { 0 } else { before_tests(text).lines().count() };
        let code = code_only(text);
        for (line, word) in identifiers(&code) {
            if line > lines_before && SLEEPING.contains(&word) {
                let what = format!("`{word}` in a test; wait for what must happen");
                found.push(Violation::new(path, line, what));
            }
        }
    }
    found
}

fn is_all_test(path: &str) -> bool {
    path.contains("/tests/") || path.starts_with("crates/treepie-testkit/")
}

#[cfg(test)]
mod tests {
    use super::super::said;
    use super::*;

    #[test]
    fn sleep_in_a_test_is_found() {
        let text = "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { thread::sleep(x); } }";
        let found = said(&check(&Tree::of(&[("crates/a/src/lib.rs", text)])));
        assert_eq!(found, ["crates/a/src/lib.rs:3: `sleep` in a test; wait for what must happen"]);
    }

    #[test]
    fn sleep_in_test_files_and_the_testkit_is_found() {
        for path in ["crates/a/tests/all/main.rs", "crates/treepie-testkit/src/clock.rs"] {
            assert_eq!(check(&Tree::of(&[(path, "use std::thread::sleep;")])).len(), 1, "{path}");
        }
    }

    #[test]
    fn sleep_outside_tests_and_in_comments_is_fine() {
        let text = "fn f() { sleep(x) }\n#[cfg(test)]\nmod tests { /* sleep */ }";
        assert!(check(&Tree::of(&[("crates/a/src/lib.rs", text)])).is_empty());
    }
}

//! Files and documents stay short, so that each can be read in one go.

use super::{Tree, Violation};
use crate::source::before_tests;

/// Lines of a source file before its tests.
const SOURCE_LINES_MAX: usize = 499;
/// Lines of a file that is nothing but tests: a list of promises, read one at a time.
const TEST_LINES_MAX: usize = 799;

/// Lines of documents, by path or folder.
const DOCUMENTS: &[(&str, usize)] =
    &[("README.md", 150), ("docs/architecture.md", 300), ("docs/decisions/", 40)];

pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let lines = before_tests(text).lines().count();
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let max = if is_test { TEST_LINES_MAX } else { SOURCE_LINES_MAX };
        if lines > max {
            let what = format!(
                "{lines} lines before the tests; split it by noun ({} are too many)",
                max + 1
            );
            found.push(Violation::new(path, lines, what));
        }
    }
    for (path, text) in tree.markdown() {
        let rule = DOCUMENTS.iter().find(|(rule, _)| *rule == path || is_inside(path, rule));
        let lines = text.lines().count();
        if let Some((_, max)) = rule.filter(|(_, max)| lines > *max) {
            found.push(Violation::new(path, lines, format!("{lines} lines; at most {max}")));
        }
    }
    found
}

fn is_inside(path: &str, folder: &str) -> bool {
    folder.ends_with('/') && path.starts_with(folder)
}

#[cfg(test)]
mod tests {
    use super::super::said;
    use super::*;

    #[test]
    fn source_of_500_lines_is_found_and_its_tests_do_not_count() {
        let (short, long) = ("x\n".repeat(499), "x\n".repeat(500));
        let tested = format!("{short}#[cfg(test)]\n{long}");
        let tree = Tree::of(&[("a.rs", &short), ("b.rs", &long), ("c.rs", &tested)]);
        let found = said(&check(&tree));
        assert!(found.len() == 1 && found[0].starts_with("b.rs:500: 500 lines"), "{found:?}");
    }

    #[test]
    fn file_of_tests_may_be_longer_but_not_endless() {
        for path in ["a/tests.rs", "a/tests/b.rs"] {
            let found = |lines| check(&Tree::of(&[(path, &"x\n".repeat(lines))])).len();
            assert_eq!((found(799), found(800)), (0, 1), "{path}");
        }
    }

    #[test]
    fn long_documents_are_found() {
        for (path, max) in [
            ("README.md", 150),
            ("docs/architecture.md", 300),
            ("docs/decisions/0001-a-choice.md", 40),
        ] {
            let found = |lines| check(&Tree::of(&[(path, &"x\n".repeat(lines))])).len();
            assert_eq!((found(max), found(max + 1)), (0, 1), "{path}");
        }
        assert!(check(&Tree::of(&[("docs/format.md", &"x\n".repeat(900))])).is_empty());
    }
}

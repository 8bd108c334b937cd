//! Decisions are numbered, and each release of the changelog speaks of the format.

use std::collections::BTreeMap;

use super::{Tree, Violation};

const DECISIONS: &str = "docs/decisions/";
const CHANGELOG: &str = "CHANGELOG.md";
const SECTIONS: &[&str] = &["Added", "Changed", "Fixed", "Format"];

pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = decisions(tree);
    found.extend(tree.get(CHANGELOG).map(changelog).unwrap_or_default());
    found
}

fn decisions(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut numbers: BTreeMap<&str, &str> = BTreeMap::new();
    for (path, _) in tree.markdown() {
        let Some(name) = path.strip_prefix(DECISIONS) else { continue };
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 4 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            let what = "a decision is named by four digits, a dash and its subject";
            found.push(Violation::new(path, 1, what));
        } else if let Some(other) = numbers.insert(number, path) {
            found.push(Violation::new(path, 1, format!("has the number of {other}")));
        }
    }
    found
}

fn changelog(text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut line = 1;
    for (index, release) in text.split("\n## ").enumerate() {
        let name = release.lines().next().unwrap_or_default();
        for section in SECTIONS {
            let is_there = release.lines().any(|line| line.strip_prefix("### ") == Some(section));
            if index > 0 && !is_there {
                found.push(Violation::new(CHANGELOG, line, format!("{name} has no {section}")));
            }
        }
        line += release.matches('\n').count() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::said;
    use super::*;

    #[test]
    fn misnamed_and_doubled_decisions_are_found() {
        let tree = Tree::of(&[
            ("docs/decisions/0001-a.md", ""),
            ("docs/decisions/0001-b.md", ""),
            ("docs/decisions/2-c.md", ""),
        ]);
        let found = said(&check(&tree));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("has the number of docs/decisions/0001-a.md"));
        assert!(found[1].starts_with("docs/decisions/2-c.md:1: a decision is named"));
    }

    #[test]
    fn release_without_a_section_is_found() {
        let whole = "# Log\n\n## 2\n\n### Added\n### Changed\n### Fixed\n### Format\n";
        assert!(check(&Tree::of(&[(CHANGELOG, whole)])).is_empty());
        let text = format!("{whole}\n## 1\n\n### Added\n### Changed\n### Fixed\n");
        let found = said(&check(&Tree::of(&[(CHANGELOG, &text)])));
        assert_eq!(found, ["CHANGELOG.md:10: 1 has no Format"]);
    }
}

//! Links between the repository's documents lead somewhere: to a file or folder that exists, and
//! to a heading that the document has.

use super::{Tree, Violation};

pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.markdown() {
        for (line, target) in links(text) {
            if let Some(what) = broken(tree, path, target) {
                found.push(Violation::new(path, line, what));
            }
        }
    }
    found
}

/// What is wrong with a link of the document at `path`, if anything.
fn broken(tree: &Tree, path: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let Some(file) = (if file.is_empty() { Some(path.to_owned()) } else { resolve(path, file) })
    else {
        return Some(format!("the link to {target} leaves the repository"));
    };
    let Some(text) = tree.get(&file) else {
        let is_folder = file.is_empty() || tree.has_folder(&file);
        return (!is_folder).then(|| format!("the link to {target} leads nowhere"));
    };
    let has_heading =
        heading.is_empty() || !file.ends_with(".md") || anchors(text).any(|a| a == heading);
    (!has_heading).then(|| format!("the link to {target}: there is no such heading"))
}

/// The path that a link of the document at `path` means; `None` if it leaves the repository.
fn resolve(path: &str, link: &str) -> Option<String> {
    let mut folders: Vec<&str> = path.split('/').collect();
    folders.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(folders.pop()?),
            part => folders.push(part),
        }
    }
    Some(folders.join("/"))
}

/// Targets of `[text](target)` outside of code, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (line, content) in prose(text) {
        // Every other piece between backticks is code.
        for prose in spans_outside_code(content) {
            for (at, _) in prose.match_indices("](") {
                let target = prose[at + 2..].split([')', ' ']).next().unwrap_or_default();
                found.push((line, target));
            }
        }
    }
    found
}

/// Pieces of a line that end in a link or in the line; code before `](` belongs to a link's text.
fn spans_outside_code(line: &str) -> impl Iterator<Item = &str> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find('`') {
        let Some(len) = rest[start + 1..].find('`') else { break };
        pieces.push(&rest[..start]);
        rest = &rest[start + 1 + len + 1..];
    }
    pieces.push(rest);
    pieces.into_iter()
}

/// Lines outside of fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    let lines = text.lines().enumerate().filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    });
    lines.map(|(index, line)| (index + 1, line))
}

/// Anchors of a document's headings: lower case, punctuation dropped, dashes for spaces.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len() && title.starts_with(' ')).then(|| title.trim())
    });
    headings.map(|title| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::said;
    use super::*;

    fn said_of(text: &str) -> Vec<String> {
        let format = "# Format\n\n## Life of a page: `kind`\n";
        said(&check(&Tree::of(&[
            ("docs/a.md", text),
            ("docs/format.md", format),
            ("docs/decisions/0001-x.md", ""),
            ("LICENSE-MIT", ""),
        ])))
    }

    #[test]
    fn links_to_files_folders_and_headings_are_fine() {
        for target in [
            "format.md",
            "./format.md#life-of-a-page-kind",
            "../LICENSE-MIT",
            "decisions",
            "decisions/",
            "decisions/0001-x.md",
            "https://example.org/x",
            "..",
        ] {
            assert_eq!(said_of(&format!("see [x]({target})")), Vec::<String>::new(), "{target}");
        }
        assert_eq!(said_of("# Here\nsee [`x`](#here)"), Vec::<String>::new());
    }

    #[test]
    fn broken_links_are_found_with_their_line() {
        let found = said_of("a\nsee [x](formats.md) and [`y`](../LICENSE)");
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], "docs/a.md:2: the link to formats.md leads nowhere");
        assert!(said_of("[x](format.md#death)")[0].contains("no such heading"));
        assert!(said_of("[x](#nowhere)")[0].contains("no such heading"));
        assert!(said_of("[x](../../etc)")[0].contains("leaves the repository"));
    }

    #[test]
    fn code_is_not_a_link() {
        assert_eq!(said_of("```\n[x](nowhere)\n```\n`[x](nowhere)`"), Vec::<String>::new());
    }
}

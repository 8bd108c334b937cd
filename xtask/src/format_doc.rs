//! `docs/format.md`, `docs/snapshot-format.md` and `docs/protocol.md`: their frames are beside them,
//! `docs/format.in.md` for one, their byte tables are the module headers of one folder of a crate,
//! `format` or `wire`, so that there is one source of them.
//!
//! A line `{{format/page.rs}}` of the frame stands for the module header of that file below the `src`
//! folder of the crate. Everything else is taken over as it is.

use crate::tidy::{Tree, Violation};

/// A document that is generated.
pub struct Document {
    /// Its path.
    pub path: &'static str,
    /// What it is generated from.
    frame: &'static str,
    sources: &'static str,
    /// The folder of the sources in which every byte table belongs into the document.
    folder: &'static str,
}

/// All of them.
pub const DOCUMENTS: [Document; 3] = [
    Document {
        path: "docs/format.md",
        frame: "docs/format.in.md",
        sources: "crates/treepie/src/",
        folder: "format",
    },
    Document {
        path: "docs/snapshot-format.md",
        frame: "docs/snapshot-format.in.md",
        sources: "crates/treepie-snapshot/src/",
        folder: "format",
    },
    Document {
        path: "docs/protocol.md",
        frame: "docs/protocol.in.md",
        sources: "crates/treepie-raft/src/",
        folder: "wire",
    },
];

/// Complains when a document is not what would be generated, or leaves a stored structure out.
pub fn check(tree: &Tree) -> Vec<Violation> {
    DOCUMENTS.iter().flat_map(|document| document.check(tree)).collect()
}

impl Document {
    /// The document, as it should be.
    ///
    /// # Errors
    /// The line of the frame that cannot be filled, or that there is no frame.
    pub fn generate(&self, tree: &Tree) -> Result<String, Violation> {
        let Document { frame: path, sources, folder, .. } = *self;
        let frame = tree.get(path).ok_or_else(|| Violation::new(path, 1, "there is no frame"))?;
        let mut document = format!(
            "<!-- Made by `cargo run -p xtask -- format-doc` from {path} and the module headers of \
             {sources}{folder}. Change those. -->\n\n"
        );
        for (index, line) in frame.lines().enumerate() {
            let Some(name) = inserted(line) else {
                document.push_str(line);
                document.push('\n');
                continue;
            };
            let header = tree.get(&format!("{sources}{name}")).map(module_header);
            let header = header.unwrap_or_default();
            if header.is_empty() {
                let what = format!("{sources}{name} has no module header");
                return Err(Violation::new(path, index + 1, what));
            }
            document.push_str(&header);
        }
        Ok(document)
    }

    fn check(&self, tree: &Tree) -> Vec<Violation> {
        let Some(frame) = tree.get(self.frame) else { return Vec::new() };
        let wanted = match self.generate(tree) {
            Ok(wanted) => wanted,
            Err(violation) => return vec![violation],
        };
        let mut found = self.missing(tree, frame);
        let actual = tree.get(self.path).unwrap_or_default();
        if actual != wanted {
            let same = actual.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
            let what = "is not what its sources say; run `cargo run -p xtask -- format-doc`";
            found.push(Violation::new(self.path, same + 1, what));
        }
        found
    }

    /// Files with a byte table that the frame does not insert.
    fn missing(&self, tree: &Tree, frame: &str) -> Vec<Violation> {
        let folder = format!("{}{}/", self.sources, self.folder);
        let files = tree.rust().filter(|(path, _)| path.starts_with(&folder));
        let tables = files.filter(|(_, text)| module_header(text).contains("| Offset | Size |"));
        let left_out = tables.filter(|(path, _)| {
            let name = &path[self.sources.len()..];
            !frame.lines().any(|line| inserted(line) == Some(name))
        });
        let what = format!("its byte table is not in {}", self.frame);
        left_out.map(|(path, _)| Violation::new(path, 1, what.clone())).collect()
    }
}

/// The file whose header a line of the frame stands for.
fn inserted(line: &str) -> Option<&str> {
    line.strip_prefix("{{")?.strip_suffix("}}")
}

/// The `//!` lines at the top of a source, without the marks.
fn module_header(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &str = DOCUMENTS[0].frame;
    const NOTE: &str = "<!-- Made by `cargo run -p xtask -- format-doc` from docs/format.in.md and \
                        the module headers of crates/treepie/src/format. Change those. -->\n\n";
    const PAGE: (&str, &str) = (
        "crates/treepie/src/format/page.rs",
        "//! Page.\n//!\n//! | Offset | Size |\n\nuse x;\n//! not this\n",
    );

    #[test]
    fn frame_is_filled_with_module_headers() {
        let tree = Tree::of(&[(FRAME, "# Format\n\n{{format/page.rs}}\nend\n"), PAGE]);
        let document = DOCUMENTS[0].generate(&tree).expect("the frame is whole");
        assert_eq!(document, format!("{NOTE}# Format\n\nPage.\n\n| Offset | Size |\nend\n"));
    }

    #[test]
    fn insertion_that_leads_nowhere_is_found() {
        let tree = Tree::of(&[(FRAME, "\n{{format/absent.rs}}\n"), PAGE]);
        let said = DOCUMENTS[0].generate(&tree).expect_err("the file is missing").to_string();
        assert_eq!(
            said,
            "docs/format.in.md:2: crates/treepie/src/format/absent.rs has no module header"
        );
    }

    #[test]
    fn document_that_differs_from_its_sources_is_found() {
        let frame = (FRAME, "{{format/page.rs}}\n");
        let wanted = DOCUMENTS[0].generate(&Tree::of(&[frame, PAGE])).expect("the frame is whole");
        assert!(check(&Tree::of(&[frame, PAGE, (DOCUMENTS[0].path, &wanted)])).is_empty());
        let changed = wanted.replace("Page.", "Leaf.");
        let found = check(&Tree::of(&[frame, PAGE, (DOCUMENTS[0].path, &changed)]));
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("docs/format.md:3: is not what"), "{}", found[0]);
    }

    #[test]
    fn stored_structure_without_a_place_in_the_document_is_found() {
        let tree = Tree::of(&[(FRAME, "# Format\n"), PAGE]);
        let found: Vec<String> = check(&tree).iter().map(ToString::to_string).collect();
        assert!(found[0].ends_with("its byte table is not in docs/format.in.md"), "{found:?}");
    }
}

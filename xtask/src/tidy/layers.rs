//! Arrows between the engine's modules point downwards.
//!
//! A module is a folder or a file directly in `crates/treepie/src`. An arrow is a path that begins
//! with `crate::`, or with enough `super::` to leave the module. What `lib.rs` exports counts as
//! the module that it comes from. Tests may use everything.

use std::collections::BTreeMap;

use super::{Tree, Violation, line_of};
use crate::source::{before_tests, code_only};

const ROOT: &str = "crates/treepie/src/";

/// A layer, and whether its modules may use one another.
struct Layer {
    modules: &'static [&'static str],
    sideways: bool,
}

const fn apart(modules: &'static [&'static str]) -> Layer {
    Layer { modules, sideways: false }
}

/// The layers, lowest first. A module uses those of lower layers only. `options` is what an
/// embedder chooses, read by all above it: its `open` is implemented in `database`.
const LAYERS: &[Layer] = &[
    Layer { modules: &["ids", "error", "limits", "sync"], sideways: true },
    apart(&["format"]),
    apart(&["disk"]),
    apart(&["options"]),
    apart(&["journal", "pager"]),
    apart(&["tree"]),
    apart(&["txn"]),
    apart(&["checkpoint", "recovery", "replication", "inspect"]),
    apart(&["scrub"]),
    apart(&["copy"]),
    apart(&["database"]),
    apart(&["salvage", "install"]),
];

/// Arrows that point downwards and are still wrong, and why.
const NEVER: &[(&str, &str, &str)] = &[
    ("disk", "format", "a disk knows bytes, not what they mean"),
    ("tree", "journal", "a tree changes pages; who records the changes is no concern of it"),
];

pub fn check(tree: &Tree) -> Vec<Violation> {
    let exports = exports(tree.get(&format!("{ROOT}lib.rs")).unwrap_or_default());
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let Some(inner) = path.strip_prefix(ROOT).and_then(|path| path.strip_suffix(".rs")) else {
            continue;
        };
        if inner == "lib" || inner.ends_with("/tests") {
            continue;
        }
        let module = inner.split('/').next().unwrap_or(inner);
        let depth = inner.trim_end_matches("/mod").split('/').count();
        let code = code_only(before_tests(text));
        if layer_of(module).is_none() {
            let what =
                format!("module `{module}` has no layer; list it in xtask/src/tidy/layers.rs");
            found.push(Violation::new(path, 1, what));
            continue;
        }
        for (at, name) in arrows(&code, depth) {
            let target = exports.get(name).map_or(name, String::as_str);
            if let Some(why) = wrong(module, target) {
                let what = format!("{module} must not use {target}: {why}");
                found.push(Violation::new(path, line_of(&code, at), what));
            }
        }
    }
    found
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.modules.contains(&module))
}

/// Why an arrow is wrong, if it is. Names that are no modules (macros, say) are none.
fn wrong(from: &str, to: &str) -> Option<&'static str> {
    let (above, below) = (layer_of(from)?, layer_of(to)?);
    if from == to {
        return None;
    }
    if let Some((_, _, why)) = NEVER.iter().find(|(f, t, _)| (*f, *t) == (from, to)) {
        return Some(why);
    }
    if above == below && !LAYERS[above].sideways {
        return Some("they are of one layer and do not know each other");
    }
    (above < below).then_some("arrows point to lower layers only")
}

/// Which module each name that `lib.rs` exports comes from: `pub use error::{Damage, Error};`.
fn exports(lib: &str) -> BTreeMap<String, String> {
    let code = code_only(lib);
    let mut exports = BTreeMap::new();
    for statement in code.split("pub use ").skip(1) {
        let statement = statement.split(';').next().unwrap_or_default();
        let statement = statement.strip_prefix("crate::").unwrap_or(statement);
        let Some((module, names)) = statement.split_once("::") else { continue };
        for word in names.split(|c: char| !c.is_alphanumeric() && c != '_') {
            exports.insert(word.to_owned(), module.trim().to_owned());
        }
    }
    exports
}

/// The first names of all paths that begin at the crate's root, with their places. `depth` is
/// how many modules the file is inside of, its own included.
fn arrows(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let from_super = "super::".repeat(depth);
    let mut arrows = Vec::new();
    for root in ["crate::", from_super.as_str()] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || matches!(before, '_' | '$' | ':') {
                continue;
            }
            let names = first_names(&code[at + root.len()..]);
            arrows.extend(names.into_iter().map(|(offset, name)| (at + root.len() + offset, name)));
        }
    }
    arrows
}

/// First name of a path, or of each path of a group in braces.
fn first_names(rest: &str) -> Vec<(usize, &str)> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![(0, name_at(rest))];
    };
    let mut names = Vec::new();
    let (mut depth, mut at_start) = (1, true);
    for (offset, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => at_start = true,
            _ if depth == 1 && at_start && !c.is_whitespace() => {
                names.push((offset + 1, name_at(&group[offset..])));
                at_start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn name_at(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::said;
    use super::*;

    fn said_of(path: &str, text: &str) -> Vec<String> {
        let lib = "pub use database::Database;\npub use error::{Error, Result};";
        let path = format!("{ROOT}{path}");
        said(&check(&Tree::of(&[(&format!("{ROOT}lib.rs"), lib), (&path, text)])))
    }

    #[test]
    fn arrows_down_are_fine() {
        let text = "use crate::{error::Result, format::{page, meta::Meta}, ids::PageId};\n\
                    use crate::disk::Disk;\nfn f() -> crate::Result<()> { super::splits() }";
        assert_eq!(said_of("journal/append.rs", text), Vec::<String>::new());
        assert_eq!(said_of("error.rs", "use crate::ids::Lsn;"), Vec::<String>::new());
        assert_eq!(said_of("pager/mod.rs", "use crate::pager::space;"), Vec::<String>::new());
    }

    #[test]
    fn arrow_up_is_found_with_its_line() {
        let text = "use crate::{\n    error::Result,\n    txn::Core,\n};";
        let expected = "crates/treepie/src/pager/space.rs:3: \
                        pager must not use txn: arrows point to lower layers only";
        assert_eq!(said_of("pager/space.rs", text), [expected]);
    }

    #[test]
    fn neighbours_and_forbidden_pairs_are_found() {
        for (path, target) in [
            ("journal/a.rs", "pager"),
            ("pager/a.rs", "journal"),
            ("tree/a.rs", "journal"),
            ("format/a.rs", "disk"),
            ("disk/a.rs", "format"),
            ("recovery.rs", "database"),
            ("checkpoint.rs", "recovery"),
            ("ids.rs", "format"),
        ] {
            let text = format!("use crate::{target}::X;");
            assert_eq!(said_of(path, &text).len(), 1, "{path} -> {target}");
        }
    }

    #[test]
    fn path_without_use_and_exported_name_are_arrows() {
        assert_eq!(said_of("tree/a.rs", "fn f() { crate::journal::append() }").len(), 1);
        assert_eq!(said_of("txn/a.rs", "fn f(d: &crate::Database) {}").len(), 1);
    }

    #[test]
    fn super_that_leaves_the_module_is_an_arrow() {
        assert_eq!(said_of("tree/a.rs", "use super::super::txn::Core;").len(), 1);
        assert_eq!(said_of("tree/mod.rs", "use super::txn::Core;").len(), 1);
        assert_eq!(said_of("recovery.rs", "use super::{ids, database};").len(), 1);
        assert_eq!(said_of("tree/a.rs", "use super::txn;"), Vec::<String>::new());
    }

    #[test]
    fn comments_strings_and_tests_are_no_arrows() {
        let text = "//! [`Core`](crate::txn::Core)\nconst A: &str = \"crate::txn\";\n\
                    #[cfg(test)]\nmod tests { use crate::txn::Core; }";
        assert_eq!(said_of("pager/a.rs", text), Vec::<String>::new());
        assert_eq!(said_of("pager/tests.rs", "use crate::txn::Core;"), Vec::<String>::new());
    }

    #[test]
    fn unknown_module_is_found() {
        assert!(said_of("shiny.rs", "")[0].contains("`shiny` has no layer"));
    }
}

//! Repository chores: `cargo run -p xtask -- tidy` checks the rules that no compiler knows,
//! `format-doc` writes `docs/format.md` and `docs/snapshot-format.md`, `unsafe` the list of unsafe code
//! in `docs/testing.md`.

mod format_doc;
mod source;
mod tidy;

use std::{env, fs, path::Path, process::ExitCode};

const USAGE: &str = "usage: cargo run -p xtask -- tidy | format-doc | unsafe";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => with_tree(tidy_repository),
        ["format-doc"] => with_tree(write_format_doc),
        ["unsafe"] => with_tree(write_unsafe_list),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn with_tree(chore: impl FnOnce(&tidy::Tree) -> ExitCode) -> ExitCode {
    match tidy::Tree::load(&repository()) {
        Ok(tree) => chore(&tree),
        Err(error) => {
            eprintln!("xtask: cannot read the repository: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_format_doc(tree: &tidy::Tree) -> ExitCode {
    for document in &format_doc::DOCUMENTS {
        let written = write_document(document.path, document.generate(tree));
        if written != ExitCode::SUCCESS {
            return written;
        }
    }
    ExitCode::SUCCESS
}

fn write_unsafe_list(tree: &tidy::Tree) -> ExitCode {
    write_document(tidy::unsafety::DOCUMENT, tidy::unsafety::document(tree))
}

fn write_document(path: &str, document: Result<String, tidy::Violation>) -> ExitCode {
    let document = match document {
        Ok(document) => document,
        Err(violation) => {
            eprintln!("{violation}");
            return ExitCode::FAILURE;
        }
    };
    match fs::write(repository().join(path), document) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: cannot write {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tidy_repository(tree: &tidy::Tree) -> ExitCode {
    let violations = tidy::check(tree);
    for violation in &violations {
        println!("{violation}");
    }
    println!("tidy: {} files, {} violations", tree.len(), violations.len());
    let (total, files) = tidy::unsafety::total(tree);
    println!("tidy: `unsafe` stands {total} times in {files} files");
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The folder that holds the workspace: the parent of this crate's.
fn repository() -> std::path::PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("xtask is a folder of the repository").to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_keeps_its_rules() {
        let tree = tidy::Tree::load(&repository()).unwrap();
        let violations: Vec<String> = tidy::check(&tree).iter().map(ToString::to_string).collect();
        assert!(violations.is_empty(), "\n{}", violations.join("\n"));
    }
}

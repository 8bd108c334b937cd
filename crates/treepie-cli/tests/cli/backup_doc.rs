//! The commands of `docs/backup.md`.

use std::fs;

use crate::run::Place;

/// What is between lines of three backquotes, where the first one says `sh`; with the number of that line.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut is_inside = false;
    for (number, line) in text.lines().enumerate() {
        match line {
            "```sh" => {
                is_inside = true;
                blocks.push((number + 1, String::new()));
            }
            "```" => is_inside = false,
            line if is_inside => {
                let (_, block) = blocks.last_mut().expect("one was begun");
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn every_command_of_the_cookbook_works_in_its_order() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/backup.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks = blocks(&text);
    assert!(blocks.len() >= 8, "{} blocks", blocks.len());
    let place = Place::new();
    for (line, block) in blocks {
        let ended = place.shell(&block);
        let said = format!("docs/backup.md:{line}:\n{block}\n{}\n{}", ended.text(), ended.err);
        assert_eq!(ended.code, 0, "{said}");
    }
    // What the cookbook says comes out of it.
    assert_eq!(place.out(&["get", "undone.db", "birds", "pica pica"]), "magpie\n");
    place.run(&["get", "birds.db", "birds", "pica pica"]).failed(4);
}

#[test]
fn block_that_fails_is_noticed() {
    let text = "a\n```sh\ntrue\nfalse | cat\n```\n```rust\nx\n```\n```sh\ntrue\n```\n";
    let found = blocks(text);
    assert_eq!(found, [(2, "true\nfalse | cat\n".to_owned()), (9, "true\n".to_owned())]);
    let place = Place::new();
    assert_ne!(place.shell(&found[0].1).code, 0);
    assert_eq!(place.shell(&found[1].1).code, 0);
}

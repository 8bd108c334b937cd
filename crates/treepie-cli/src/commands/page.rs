//! `page`: one page, as it is stored.

use std::fmt::Write as _;

use serde::Serialize;
use treepie::{Damage, Error, PageDump, ids::PageId};

use super::look;
use crate::{
    arguments::Page,
    failure::{Failure, Result},
    notation::{JsonBytes, Notation},
    output::Output,
};

const ROW_LEN: usize = 16;

#[derive(Serialize)]
struct PageObject {
    page: u32,
    kind: &'static str,
    tree: u32,
    level: u8,
    count: usize,
    lsn: u64,
    damage: Option<String>,
    bytes: JsonBytes,
}

impl From<&PageDump> for PageObject {
    fn from(page: &PageDump) -> PageObject {
        PageObject {
            page: page.page.0,
            kind: page.kind,
            tree: page.tree.0,
            level: page.level,
            count: page.count,
            lsn: page.lsn.0,
            damage: page.damage.clone(),
            bytes: Notation::Hex.json(&page.bytes),
        }
    }
}

/// Prints a page. Damage is shown, and is no failure: looking at it is what was asked for.
pub fn run(arguments: &Page, output: &mut Output) -> Result<()> {
    look(&arguments.db, |db| {
        let page = db.page(PageId(arguments.page)).map_err(|error| match error {
            Error::Corrupt { what: Damage::Short { file_len, .. }, .. } => Failure::NoPage {
                page: arguments.page,
                page_count: file_len / db.page_size() as u64,
            },
            other => other.into(),
        })?;
        if output.is_json() {
            return output.object(&PageObject::from(&page));
        }
        output.line(format!(
            "page {}: {}, tree {}, level {}, {} entries, LSN {}",
            page.page, page.kind, page.tree, page.level, page.count, page.lsn,
        ))?;
        if let Some(damage) = &page.damage {
            output.line(format!("DAMAGED: {damage}"))?;
        }
        hex_dump(&page.bytes).try_for_each(|line| output.line(line))
    })
}

/// Rows of 16 bytes as hexadecimal digits and as ASCII; `*` stands for rows like the one before.
fn hex_dump(bytes: &[u8]) -> impl Iterator<Item = String> {
    let mut before: Option<&[u8]> = None;
    let mut starred = false;
    bytes.chunks(ROW_LEN).enumerate().filter_map(move |(row, bytes)| {
        let same = before == Some(bytes);
        before = Some(bytes);
        if same && starred {
            return None;
        }
        starred = same;
        Some(if same { "*".to_owned() } else { hex_row(row * ROW_LEN, bytes) })
    })
}

fn hex_row(offset: usize, bytes: &[u8]) -> String {
    let mut line = format!("{offset:04x} ");
    for (i, byte) in bytes.iter().enumerate() {
        let gap = if i == ROW_LEN / 2 { "  " } else { " " };
        write!(line, "{gap}{byte:02x}").expect("a string takes everything");
    }
    let shown = bytes.iter().map(|&byte| match byte {
        b' '..=b'~' => char::from(byte),
        _ => '.',
    });
    line.push_str("  |");
    line.extend(shown);
    line.push('|');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_are_one_star() {
        let mut bytes = vec![0; 80];
        bytes[64..].copy_from_slice(b"0123456789abcdef");
        let lines: Vec<String> = hex_dump(&bytes).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1], "*");
        assert_eq!(
            lines[2],
            "0040  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|"
        );
    }
}

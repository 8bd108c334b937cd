//! Rows: lines of a file become keys and values.
//!
//! A TSV line is `key<TAB>value`; tabs, line ends and backslashes inside them are escaped (see
//! `notation`). A JSON line is an object with exactly `key` and `value`. Empty lines are skipped.

use std::io::{self, BufRead, Read};

use serde::Deserialize;

use crate::{
    arguments::Format,
    notation::{JsonBytes, Notation, NotationError},
};

/// Longest line in bytes: what a reader of lines will allocate. Larger values have `put`.
pub const LINE_LEN_MAX: u64 = 64 << 20;

/// A key and its value, and the line that they were on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number of the line, from 1.
    pub line: u64,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum RowFault {
    /// No tab between key and value.
    #[error("no tab between key and value")]
    NoTab,
    /// More than one tab.
    #[error("a second tab; write tabs inside keys and values as \\t")]
    SecondTab,
    /// The key or the value is not in its notation.
    #[error("{0}")]
    Notation(#[from] NotationError),
    /// The line is not the JSON object that it should be.
    #[error("{0}")]
    Json(String),
    /// The line is too long.
    #[error("longer than {LINE_LEN_MAX} bytes; store its value with `put … -`")]
    TooLong,
    /// The file could not be read on.
    #[error("cannot read: {0}")]
    Read(#[from] io::Error),
    /// The engine refused the row.
    #[error("{0}")]
    Engine(#[from] treepie::Error),
}

/// Reads rows from lines.
pub struct Rows<R> {
    input: R,
    format: Format,
    notation: Notation,
    line: u64,
    offset: u64,
    buf: Vec<u8>,
}

impl<R: BufRead> Rows<R> {
    /// Reads rows of `format` from `input`; `notation` is that of keys and values in TSV.
    pub fn new(input: R, format: Format, notation: Notation) -> Rows<R> {
        Rows { input, format, notation, line: 0, offset: 0, buf: Vec::new() }
    }

    /// Number of the line that was read last, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Bytes that were read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next row; `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<Row>, RowFault> {
        while self.read_line()? {
            if self.buf.is_empty() {
                continue;
            }
            let (key, value) = match self.format {
                Format::Tsv => split_tsv(&self.buf, self.notation)?,
                Format::Jsonl => split_json(&self.buf)?,
            };
            return Ok(Some(Row { line: self.line, key, value }));
        }
        Ok(None)
    }

    /// Reads a line without its end; false at the end of the input.
    fn read_line(&mut self) -> Result<bool, RowFault> {
        self.buf.clear();
        self.line += 1;
        let mut limited = (&mut self.input).take(LINE_LEN_MAX + 1);
        let len = limited.read_until(b'\n', &mut self.buf)?;
        self.offset += len as u64;
        if self.buf.last() == Some(&b'\n') {
            self.buf.pop();
        } else if len as u64 > LINE_LEN_MAX {
            return Err(RowFault::TooLong);
        }
        if self.buf.last() == Some(&b'\r') {
            self.buf.pop();
        }
        Ok(len > 0)
    }
}

fn split_tsv(line: &[u8], notation: Notation) -> Result<(Vec<u8>, Vec<u8>), RowFault> {
    let mut fields = line.split(|&byte| byte == b'\t');
    let (Some(key), Some(value)) = (fields.next(), fields.next()) else {
        return Err(RowFault::NoTab);
    };
    if fields.next().is_some() {
        return Err(RowFault::SecondTab);
    }
    Ok((notation.read(key)?, notation.read(value)?))
}

/// What is on a JSON line. Anything more is refused: it would be lost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRow {
    key: JsonBytes,
    value: JsonBytes,
}

fn split_json(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), RowFault> {
    let row: JsonRow = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        // The position is that in this line alone, and says `line 1`.
        let position = format!(" at line {} column {}", error.line(), error.column());
        let what = text.strip_suffix(&position).unwrap_or(&text);
        RowFault::Json(format!("column {}: {what}", error.column()))
    })?;
    Ok((row.key.into_bytes()?, row.value.into_bytes()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entries = Vec<(u64, Vec<u8>, Vec<u8>)>;

    fn read(text: &str, format: Format) -> Result<Entries, (u64, String)> {
        let mut rows = Rows::new(text.as_bytes(), format, Notation::Text);
        let mut all = Vec::new();
        loop {
            match rows.next_row() {
                Ok(Some(row)) => all.push((row.line, row.key, row.value)),
                Ok(None) => return Ok(all),
                Err(fault) => return Err((rows.line(), fault.to_string())),
            }
        }
    }

    fn entry(line: u64, key: &[u8], value: &[u8]) -> (u64, Vec<u8>, Vec<u8>) {
        (line, key.to_vec(), value.to_vec())
    }

    #[test]
    fn tsv_line_is_a_key_a_tab_and_a_value() {
        let text = "a\t1\r\n\nb\\t\\x00\t\n\tempty key";
        let rows = [entry(1, b"a", b"1"), entry(3, b"b\t\0", b""), entry(4, b"", b"empty key")];
        assert_eq!(read(text, Format::Tsv), Ok(rows.to_vec()));
    }

    #[test]
    fn json_line_holds_strings_or_hexadecimal_digits() {
        let text = "{\"key\":\"a\\tb\",\"value\":{\"hex\":\"00ff\"}}\n";
        assert_eq!(read(text, Format::Jsonl), Ok(vec![entry(1, b"a\tb", &[0, 255])]));
    }

    #[test]
    fn damaged_tsv_line_is_told_with_its_number() {
        let fault = |text| read(text, Format::Tsv).unwrap_err();
        assert_eq!(fault("a\t1\n\nnothing"), (3, "no tab between key and value".to_owned()));
        assert_eq!(fault("a\t1\t2").0, 1);
        assert_eq!(fault("a\tb\na\t\\q").0, 2);
    }

    #[test]
    fn damaged_json_line_is_told_with_its_number_and_column() {
        let fault = |text: &str| read(&format!("\n{text}"), Format::Jsonl).unwrap_err();
        for text in [
            "[]",
            "{}",
            "{\"key\":\"a\"}",
            "{\"key\":\"a\",\"value\":1}",
            "{\"key\":\"a\",\"value\":{\"hex\":\"0\"}}",
            "{\"key\":\"a\",\"value\":\"\",\"more\":0}",
            "{\"key\":\"a\",\"value\":\"\"} x",
            "{\"key\":\"a",
        ] {
            let (line, what) = fault(text);
            assert_eq!(line, 2, "{text}");
            assert!(!what.contains("line 1"), "{what}");
        }
    }
}

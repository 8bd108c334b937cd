//! How bytes are written: as text with escapes, as hexadecimal digits, or in JSON.
//!
//! | Form | Printable UTF-8       | Anything else                        |
//! |------|-----------------------|--------------------------------------|
//! | text | as it is; `\` is `\\` | `\t`, `\n`, `\r`, or `\xNN` per byte |
//! | hex  | two digits per byte   | two digits per byte                  |
//! | JSON | a string              | `{"hex": "00ff"}`                    |
//!
//! Printable means: no control characters. What is written in a form is read back from it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Why a text is not bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotationError {
    /// A backslash that begins no escape.
    #[error("`{found}` is not an escape; write a backslash as \\\\, other bytes as \\xNN")]
    Escape {
        /// The backslash, and what follows.
        found: String,
    },
    /// A character that is not a hexadecimal digit.
    #[error("`{found}` is not a hexadecimal digit")]
    Digit {
        /// The character.
        found: char,
    },
    /// Half a byte is left over.
    #[error("{count} hexadecimal digits are not whole bytes")]
    OddDigits {
        /// Number of digits.
        count: usize,
    },
}

/// Which of the two forms of arguments and lines is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// Text with escapes.
    Text,
    /// Hexadecimal digits.
    Hex,
}

impl From<crate::arguments::Notation> for Notation {
    fn from(arguments: crate::arguments::Notation) -> Notation {
        if arguments.hex { Notation::Hex } else { Notation::Text }
    }
}

impl Notation {
    /// The bytes that `written` stands for.
    pub fn read(self, written: &[u8]) -> Result<Vec<u8>, NotationError> {
        match self {
            Notation::Text => read_text(written),
            Notation::Hex => read_hex(written),
        }
    }

    /// Appends `bytes` to `line`.
    pub fn write(self, bytes: &[u8], line: &mut String) {
        match self {
            Notation::Text => write_text(bytes, line),
            Notation::Hex => write_hex(bytes, line),
        }
    }

    /// `bytes` as a string of its own.
    pub fn show(self, bytes: &[u8]) -> String {
        let mut line = String::new();
        self.write(bytes, &mut line);
        line
    }

    /// `bytes` in JSON.
    pub fn json(self, bytes: &[u8]) -> JsonBytes {
        match std::str::from_utf8(bytes) {
            Ok(text) if self == Notation::Text && !text.chars().any(char::is_control) => {
                JsonBytes::Text(text.to_owned())
            }
            _ => {
                let mut hex = String::new();
                write_hex(bytes, &mut hex);
                JsonBytes::Hex { hex }
            }
        }
    }
}

/// Bytes in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "expected a string or {\"hex\": …}")]
pub enum JsonBytes {
    /// The bytes of a string.
    Text(String),
    /// Two hexadecimal digits per byte.
    Hex {
        /// The digits.
        hex: String,
    },
}

impl JsonBytes {
    /// The bytes that it stands for.
    pub fn into_bytes(self) -> Result<Vec<u8>, NotationError> {
        match self {
            JsonBytes::Text(text) => Ok(text.into_bytes()),
            JsonBytes::Hex { hex } => read_hex(hex.as_bytes()),
        }
    }
}

fn read_text(written: &[u8]) -> Result<Vec<u8>, NotationError> {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        bytes.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (byte, len) = read_escape(rest).ok_or_else(|| NotationError::Escape {
            found: String::from_utf8_lossy(&rest[..rest.len().min(4)]).into_owned(),
        })?;
        bytes.push(byte);
        rest = &rest[len..];
    }
    bytes.extend_from_slice(rest);
    Ok(bytes)
}

/// The byte of the escape that `rest` begins with, and the length of the escape.
fn read_escape(rest: &[u8]) -> Option<(u8, usize)> {
    match rest.get(1)? {
        b't' => Some((b'\t', 2)),
        b'n' => Some((b'\n', 2)),
        b'r' => Some((b'\r', 2)),
        b'\\' => Some((b'\\', 2)),
        b'x' => Some((digit(*rest.get(2)?)? << 4 | digit(*rest.get(3)?)?, 4)),
        _ => None,
    }
}

fn read_hex(written: &[u8]) -> Result<Vec<u8>, NotationError> {
    if let Some(&wrong) = written.iter().find(|&&byte| digit(byte).is_none()) {
        return Err(NotationError::Digit { found: char::from(wrong) });
    }
    if !written.len().is_multiple_of(2) {
        return Err(NotationError::OddDigits { count: written.len() });
    }
    let pairs = written.chunks_exact(2);
    Ok(pairs.filter_map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn write_text(bytes: &[u8], line: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\\' => line.push_str("\\\\"),
                other if other.is_control() => {
                    let mut encoded = [0; 4];
                    write_escapes(other.encode_utf8(&mut encoded).as_bytes(), line);
                }
                other => line.push(other),
            }
        }
        write_escapes(chunk.invalid(), line);
    }
}

fn write_escapes(bytes: &[u8], line: &mut String) {
    for byte in bytes {
        write!(line, "\\x{byte:02x}").expect("a string takes everything");
    }
}

fn write_hex(bytes: &[u8], line: &mut String) {
    for byte in bytes {
        write!(line, "{byte:02x}").expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_back_from_every_form() {
        let all: Vec<u8> = (0..=255).chain("ä€\u{85}\u{1f600}".bytes()).collect();
        for notation in [Notation::Text, Notation::Hex] {
            let written = notation.show(&all);
            assert_eq!(notation.read(written.as_bytes()), Ok(all.clone()), "{written}");
            assert!(!written.contains(['\t', '\n', '\r']));
            assert_eq!(notation.json(&all).into_bytes(), Ok(all.clone()));
        }
    }

    #[test]
    fn printable_text_stays_as_it_is() {
        assert_eq!(Notation::Text.show("snow ☃".as_bytes()), "snow ☃");
        assert_eq!(Notation::Text.show(b"a\\b\xff\x00\t"), "a\\\\b\\xff\\x00\\t");
        let json = Notation::Text.json("snow ☃".as_bytes());
        assert_eq!(json, JsonBytes::Text("snow ☃".to_owned()));
        assert_eq!(Notation::Text.json(b"a\n"), JsonBytes::Hex { hex: "610a".to_owned() });
        assert_eq!(Notation::Hex.json(b"a"), JsonBytes::Hex { hex: "61".to_owned() });
    }

    #[test]
    fn backslash_without_an_escape_is_refused() {
        for wrong in ["\\", "a\\q", "\\x", "\\x1", "\\xg0", "C:\\dir"] {
            let error = Notation::Text.read(wrong.as_bytes());
            assert!(matches!(error, Err(NotationError::Escape { .. })), "{wrong}");
        }
    }

    #[test]
    fn digits_must_be_hexadecimal_and_whole_bytes() {
        let read = |text: &str| Notation::Hex.read(text.as_bytes());
        assert_eq!(read("00fF"), Ok(vec![0, 255]));
        assert_eq!(read("0g"), Err(NotationError::Digit { found: 'g' }));
        assert_eq!(read("000"), Err(NotationError::OddDigits { count: 3 }));
    }
}

//! Standard output: text or JSON, written in large pieces.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Where a command prints what was asked for.
pub struct Output {
    json: bool,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// Standard output, held until the command ends.
    pub fn new(json: bool) -> Output {
        Output { json, out: BufWriter::with_capacity(64 << 10, io::stdout().lock()) }
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one line of text.
    pub fn line(&mut self, line: impl AsRef<str>) -> Result<()> {
        let mut write = || {
            self.out.write_all(line.as_ref().as_bytes())?;
            self.out.write_all(b"\n")
        };
        write().map_err(Failure::Output)
    }

    /// Prints bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Failure::Output)
    }

    /// Takes bytes as they are, for what writes a stream of them.
    pub fn raw(&mut self) -> &mut impl Write {
        &mut self.out
    }

    /// Prints one JSON object in one line.
    pub fn object(&mut self, object: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.out, object)
            .map_err(|error| Failure::Output(error.into()))?;
        self.out.write_all(b"\n").map_err(Failure::Output)
    }

    /// Prints `object` with --json, and what `text` makes of it without.
    pub fn either<T: Serialize>(&mut self, object: &T, text: impl Fn(&T) -> String) -> Result<()> {
        if self.json { self.object(object) } else { self.line(text(object)) }
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(Failure::Output)
    }
}

/// A number with commas between its thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the largest unit that leaves a digit before the point.
pub fn bytes(len: u64) -> String {
    let (shift, unit) = match len {
        0..1024 => return format!("{len} bytes"),
        1024..0x10_0000 => (10, "KiB"),
        0x10_0000..0x4000_0000 => (20, "MiB"),
        _ => (30, "GiB"),
    };
    let tenths = (u128::from(len) * 10) >> shift;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// `count` things in `seconds`, per second.
pub fn rate(count: u64, seconds: f64) -> u64 {
    // A rate is shown to people: the digits beyond 53 bits do not matter.
    (count as f64 / seconds.max(1e-6)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let all = [0, 999, 1000, 12_345_678].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "12,345,678"]);
    }

    #[test]
    fn bytes_have_a_fitting_unit() {
        let all = [0, 1023, 1024, 1536, 5 << 20, u64::MAX].map(bytes);
        let shown = ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "5.0 MiB", "17179869183.9 GiB"];
        assert_eq!(all, shown);
    }
}

//! Counts of what the tests looked at, one line for each row of `docs/testing.md`.
//!
//! A test prints its line, and appends it to the file that `TREEPIE_TALLY` names, where that is set:
//! `.ci/run` shows all of them at its end. Without the variable nothing is written.

use std::{env, fs::OpenOptions, io::Write};

/// Notes what a test of row `row` has done: `note(1, "power cuts", "203,412 images of 48 seeds")`.
///
/// # Panics
/// If the file that `TREEPIE_TALLY` names cannot be appended to.
pub fn note(row: u32, what: &str, counts: &str) {
    let line = line(row, what, counts);
    println!("{}", line.trim_end());
    if let Some(path) = env::var_os("TREEPIE_TALLY") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        // One write, so that lines of tests that run at the same time do not mix.
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the tally can be written");
    }
}

fn line(row: u32, what: &str, counts: &str) -> String {
    format!("row {row:>2} | {what:<28} | {counts}\n")
}

/// A number with its thousands apart, as people read it.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_align_and_numbers_are_grouped() {
        assert_eq!(
            line(1, "power cuts", "7 images"),
            "row  1 | power cuts                   | 7 images\n"
        );
        let grouped: Vec<String> = [0, 999, 1000, 203_412, 1_000_000].map(thousands).into();
        assert_eq!(grouped, ["0", "999", "1,000", "203,412", "1,000,000"]);
    }
}

//! The Unicode character table: one line of `UnicodeData.txt` becomes one [`Character`].
//!
//! A line has 15 fields, separated by semicolons. Those that are read here:
//!
//! | Field | Name              | Meaning                                                        |
//! |------:|-------------------|----------------------------------------------------------------|
//! |     0 | code point        | 4 to 6 hexadecimal digits, ascending through the file          |
//! |     1 | name              | `LATIN SMALL LETTER A`; `<control>` where there is none        |
//! |     2 | category          | Two letters: `Lu`, `Nd`, `So`, …                               |
//! |     8 | numeric value     | Empty, a whole number, or a fraction such as `1/4`             |
//! |    10 | earlier name      | That of Unicode 1, the only one that control characters have   |
//! | 12–14 | upper, lower, title | The code point of the other case, or empty                   |
//!
//! Large blocks take two lines, `<CJK Ideograph, First>` and `<CJK Ideograph, Last>`: they become
//! one `Character` with the name `CJK Ideograph` and the code points between them.

use std::{iter::Enumerate, str::Lines};

const FIELD_COUNT: usize = 15;
const CODE_POINT_MAX: u32 = 0x10_ffff;

/// The table that the command carries.
pub const UNICODE_DATA: &str = include_str!("../data/UnicodeData.txt");

/// A character, or a block of characters that share one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Character<'a> {
    /// Its number; the first of the block. Not a `char`: surrogates are listed too.
    pub code_point: u32,
    /// The same number; the last of the block.
    pub last: u32,
    /// Its name, or the block's.
    pub name: &'a str,
    /// General category, two letters.
    pub category: &'a str,
    /// Numeric value as it is written in the table, or empty.
    pub numeric: &'a str,
    /// Name in Unicode 1, or empty.
    pub earlier_name: &'a str,
    /// Its upper case, where that is one other character.
    pub upper: Option<u32>,
    /// Its lower case, where that is one other character.
    pub lower: Option<u32>,
    /// Its title case, where that is one other character.
    pub title: Option<u32>,
}

/// Why a line is not one of the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the character table: {fault}")]
pub struct ParseError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The line has too few or too many fields.
    #[error("{found} fields instead of {FIELD_COUNT}")]
    FieldCount {
        /// How many it has.
        found: usize,
    },
    /// A field should hold a code point.
    #[error("`{found}` is not a code point")]
    CodePoint {
        /// What it holds.
        found: String,
    },
    /// The name is empty.
    #[error("the name is empty")]
    Name,
    /// The category is not two letters.
    #[error("`{found}` is not a category")]
    Category {
        /// What the field holds.
        found: String,
    },
    /// The code point is not above that of the line before.
    #[error("{found:04X} does not ascend")]
    Order {
        /// The code point.
        found: u32,
    },
    /// A block's first line is not followed by its last one, or has none before it.
    #[error("the block `{block}` has only one of its two lines")]
    Block {
        /// Name of the block.
        block: String,
    },
}

/// Reads the table, a character or a block per step. Ends after the first error.
pub fn characters(text: &str) -> Characters<'_> {
    Characters { lines: text.lines().enumerate(), next_min: 0, failed: false }
}

/// Iterator of [`characters`].
#[derive(Clone, Debug)]
pub struct Characters<'a> {
    lines: Enumerate<Lines<'a>>,
    next_min: u32,
    failed: bool,
}

impl<'a> Iterator for Characters<'a> {
    type Item = Result<Character<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let (index, line) = self.lines.next()?;
        let result = self.character(index, line);
        self.failed = result.is_err();
        Some(result)
    }
}

impl<'a> Characters<'a> {
    fn character(&mut self, index: usize, line: &'a str) -> Result<Character<'a>, ParseError> {
        let mut character = self.ascending(index, line)?;
        let Some((block, edge)) = block_edge(character.name) else {
            return Ok(character);
        };
        let one_line =
            || ParseError { line: index + 1, fault: Fault::Block { block: block.to_owned() } };
        if edge == Edge::Last {
            return Err(one_line());
        }
        let (index, line) = self.lines.next().ok_or_else(one_line)?;
        let last = self.ascending(index, line)?;
        if block_edge(last.name) != Some((block, Edge::Last)) {
            return Err(one_line());
        }
        character.name = block;
        character.last = last.code_point;
        Ok(character)
    }

    fn ascending(&mut self, index: usize, line: &'a str) -> Result<Character<'a>, ParseError> {
        let character = parse(line).and_then(|character| {
            let found = character.code_point;
            if found < self.next_min { Err(Fault::Order { found }) } else { Ok(character) }
        });
        let character = character.map_err(|fault| ParseError { line: index + 1, fault })?;
        self.next_min = character.code_point + 1;
        Ok(character)
    }
}

fn parse(line: &str) -> Result<Character<'_>, Fault> {
    let mut fields = [""; FIELD_COUNT];
    let mut found = 0;
    for field in line.split(';') {
        if let Some(slot) = fields.get_mut(found) {
            *slot = field;
        }
        found += 1;
    }
    if found != FIELD_COUNT {
        return Err(Fault::FieldCount { found });
    }
    let [code, name, category, _, _, _, _, _, numeric, _, earlier_name, _, upper, lower, title] =
        fields;
    if name.is_empty() {
        return Err(Fault::Name);
    }
    if category.len() != 2 || !category.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(Fault::Category { found: category.to_owned() });
    }
    let code_point = code_point(code)?;
    Ok(Character {
        code_point,
        last: code_point,
        name,
        category,
        numeric,
        earlier_name,
        upper: other_case(upper)?,
        lower: other_case(lower)?,
        title: other_case(title)?,
    })
}

fn code_point(field: &str) -> Result<u32, Fault> {
    let digits = (4..=6).contains(&field.len()) && field.bytes().all(|b| b.is_ascii_hexdigit());
    let number = digits.then(|| u32::from_str_radix(field, 16).ok()).flatten();
    number
        .filter(|&number| number <= CODE_POINT_MAX)
        .ok_or_else(|| Fault::CodePoint { found: field.to_owned() })
}

fn other_case(field: &str) -> Result<Option<u32>, Fault> {
    if field.is_empty() { Ok(None) } else { code_point(field).map(Some) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    First,
    Last,
}

/// Name of the block and which end of it a name such as `<CJK Ideograph, First>` stands for.
fn block_edge(name: &str) -> Option<(&str, Edge)> {
    let inner = name.strip_prefix('<')?.strip_suffix('>')?;
    let first = inner.strip_suffix(", First").map(|block| (block, Edge::First));
    first.or_else(|| inner.strip_suffix(", Last").map(|block| (block, Edge::Last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0041;LATIN CAPITAL LETTER A;Lu;0;L;;;;;N;;;;0061;";

    fn fault_of(text: &str) -> (usize, Fault) {
        let error = characters(text).find_map(Result::err).unwrap();
        (error.line, error.fault)
    }

    #[test]
    fn letter_has_its_name_category_and_lower_case() {
        let letter = characters(A).next().unwrap().unwrap();
        assert_eq!((letter.code_point, letter.last), (0x41, 0x41));
        assert_eq!((letter.name, letter.category), ("LATIN CAPITAL LETTER A", "Lu"));
        assert_eq!((letter.upper, letter.lower, letter.title), (None, Some(0x61), None));
    }

    #[test]
    fn two_lines_of_a_block_become_one_character() {
        let text = "4E00;<CJK Ideograph, First>;Lo;0;L;;;;;N;;;;;\n\
                    9FFF;<CJK Ideograph, Last>;Lo;0;L;;;;;N;;;;;";
        let all: Result<Vec<_>, _> = characters(text).collect();
        let all = all.unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all[0].code_point, all[0].last, all[0].name),
            (0x4e00, 0x9fff, "CJK Ideograph")
        );
    }

    #[test]
    fn control_character_keeps_its_earlier_name() {
        let text = "0000;<control>;Cc;0;BN;;;;;N;NULL;;;;";
        let null = characters(text).next().unwrap().unwrap();
        assert_eq!((null.name, null.earlier_name), ("<control>", "NULL"));
    }

    #[test]
    fn every_line_of_the_table_is_read() {
        let all: Result<Vec<_>, _> = characters(UNICODE_DATA).collect();
        let all = all.unwrap();
        let blocks = all.iter().filter(|character| character.last > character.code_point).count();
        assert_eq!(all.len() + blocks, UNICODE_DATA.lines().count());
        assert_eq!(blocks, 18);
        assert!(all.iter().any(|c| c.name == "SNOWMAN" && c.code_point == 0x2603));
        let half = all.iter().find(|c| c.code_point == 0xbd).unwrap();
        assert_eq!(half.numeric, "1/2");
        let hangul = all.iter().find(|c| c.name == "Hangul Syllable").unwrap();
        assert_eq!(hangul.last - hangul.code_point + 1, 11_172);
        assert!(all.windows(2).all(|pair| pair[0].last < pair[1].code_point));
    }

    #[test]
    fn error_tells_the_line() {
        assert_eq!(fault_of(&format!("{A}\n0042;B")), (2, Fault::FieldCount { found: 2 }));
        let error = characters("0042;B").next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "line 1 of the character table: 2 fields instead of 15");
    }

    #[test]
    fn line_with_too_many_fields_is_refused() {
        assert_eq!(fault_of(&format!("{A};")), (1, Fault::FieldCount { found: 16 }));
    }

    #[test]
    fn code_point_that_is_none_is_refused() {
        for wrong in ["", "41", "110000", "0000041", "+041", "00G1"] {
            let fault = Fault::CodePoint { found: wrong.to_owned() };
            assert_eq!(fault_of(&A.replacen("0041", wrong, 1)), (1, fault));
            let fault = Fault::CodePoint { found: "xyz".to_owned() };
            assert_eq!(fault_of(&A.replacen("0061", "xyz", 1)), (1, fault));
        }
    }

    #[test]
    fn name_and_category_must_be_there() {
        assert_eq!(fault_of(&A.replacen("LATIN CAPITAL LETTER A", "", 1)), (1, Fault::Name));
        let fault = Fault::Category { found: "L".to_owned() };
        assert_eq!(fault_of(&A.replacen("Lu", "L", 1)), (1, fault));
    }

    #[test]
    fn descending_code_points_are_refused_and_end_the_table() {
        let text = format!("{A}\n{A}\n{A}");
        assert_eq!(fault_of(&text), (2, Fault::Order { found: 0x41 }));
        assert_eq!(characters(&text).count(), 2);
    }

    #[test]
    fn block_with_one_of_its_lines_is_refused() {
        let first = "3400;<Block, First>;Lo;0;L;;;;;N;;;;;";
        let last = "3500;<Block, Last>;Lo;0;L;;;;;N;;;;;";
        let fault = Fault::Block { block: "Block".to_owned() };
        assert_eq!(fault_of(first), (1, fault.clone()));
        assert_eq!(fault_of(last), (1, fault.clone()));
        let other = last.replacen("Block", "Other", 1);
        assert_eq!(fault_of(&format!("{first}\n{other}")), (1, fault));
    }
}

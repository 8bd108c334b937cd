//! Steps 1 to 3: the table of characters is stored in three trees, looked up and scanned.
//!
//! | Tree         | Key                       | Value                                   |
//! |--------------|---------------------------|-----------------------------------------|
//! | `characters` | `002603`                  | `☃;SNOWMAN;So;` and more of the table   |
//! | `names`      | `SNOWMAN`                 | `002603`                                |
//! | `categories` | `So 002603`               | `SNOWMAN`                               |

use std::time::Instant;

use treepie::{Database, Key};

use super::{promise, story::Story};
use crate::{
    failure::{Failure, Result},
    notation::Notation,
    output::{grouped, rate},
    unicode::{Character, UNICODE_DATA, characters},
};

/// Characters in a transaction: three times as many rows.
const BATCH: usize = 1000;
const ROWS_PER_CHARACTER: u64 = 3;
const PREFIX: &str = "GREEK SMALL LETTER";
/// Entries that are printed at each end of a scan.
const SHOWN: usize = 3;

/// Key of a character: its code point in six digits, so that their order is that of the numbers.
pub fn code_key(code_point: u32) -> String {
    format!("{code_point:06X}")
}

/// Key of a name. Control characters share theirs: the number tells them apart.
fn name_key(character: &Character<'_>) -> String {
    match character.name {
        "<control>" => format!("<control-{:04X}>", character.code_point),
        name => name.to_owned(),
    }
}

fn category_key(character: &Character<'_>) -> String {
    format!("{} {}", character.category, code_key(character.code_point))
}

fn describe(character: &Character<'_>) -> String {
    let shown = char::from_u32(character.code_point).filter(|shown| !shown.is_control());
    let code = |code: Option<u32>| code.map_or_else(String::new, code_key);
    format!(
        "{};{};{};{};{};{};{};{}",
        shown.map_or_else(String::new, String::from),
        character.name,
        character.category,
        character.numeric,
        character.earlier_name,
        code(character.upper),
        code(character.lower),
        code((character.last > character.code_point).then_some(character.last)),
    )
}

fn table() -> Result<Vec<Character<'static>>> {
    let all: std::result::Result<Vec<_>, _> = characters(UNICODE_DATA).collect();
    all.map_err(|error| Failure::Demo(error.to_string()))
}

/// Step 1.
pub fn load(db: &Database, story: &mut Story<'_>) -> Result<()> {
    story.step("Store the table of Unicode characters in three trees")?;
    story
        .say("A transaction holds 1,000 characters, in all three trees or in none. When `write`")?;
    story.say("returns, it is on the disk.")?;
    let table = table()?;
    let started = Instant::now();
    for batch in table.chunks(BATCH) {
        db.write(|tx| {
            let [characters, names, categories] =
                ["characters", "names", "categories"].map(|name| tx.tree_handle(name));
            let (characters, names, categories) = (characters?, names?, categories?);
            for character in batch {
                let (code, name) = (code_key(character.code_point), name_key(character));
                tx.by_handle(characters)?.insert(&code, describe(character))?;
                tx.by_handle(names)?.insert(&name, &code)?;
                tx.by_handle(categories)?.insert(category_key(character), &name)?;
            }
            Ok(())
        })?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let rows = table.len() as u64 * ROWS_PER_CHARACTER;
    let snapshot = db.read()?;
    for name in ["characters", "names", "categories"] {
        let entries = snapshot.tree(name)?.len();
        promise(entries == table.len() as u64, || format!("`{name}` has {entries} entries"))?;
    }
    story.say(format!(
        "{} rows in {} durable batches and {seconds:.2} s: {} rows/s.",
        grouped(rows),
        table.len().div_ceil(BATCH),
        grouped(rate(rows, seconds)),
    ))
}

/// Step 2.
pub fn look_up(db: &Database, story: &mut Story<'_>) -> Result<()> {
    story.step("Look characters up by code point and by name")?;
    let snapshot = db.read()?;
    let (characters, names) = (snapshot.tree("characters")?, snapshot.tree("names")?);
    for code in [0x2603, 0x1f99c, 0x3c0] {
        let key = code_key(code);
        let value = characters.get(&key)?.unwrap_or_default();
        story.say(format!("characters {key} -> {}", Notation::Text.show(value)))?;
    }
    for name in ["PARROT", "BIRD", "LATIN CAPITAL LETTER TURNED INSULAR G"] {
        let code = names.get(name)?.unwrap_or_default();
        let value = characters.get(code)?.unwrap_or_default();
        story.say(format!("names {name} -> {}", Notation::Text.show(value)))?;
        promise(!value.is_empty(), || format!("`{name}` is not there"))?;
    }
    let table = table()?;
    let started = Instant::now();
    for character in &table {
        let code = code_key(character.code_point);
        let value = characters.get(&code)?;
        let found = names.get(name_key(character))?;
        let holds = value == Some(describe(character).as_bytes()) && found == Some(code.as_bytes());
        promise(holds, || format!("{code} is not as it was stored"))?;
    }
    let (count, seconds) = (table.len() as u64 * 2, started.elapsed().as_secs_f64());
    story.say(format!(
        "All {} found both ways and compared, in {seconds:.2} s: {} look-ups/s.",
        grouped(table.len() as u64),
        grouped(rate(count, seconds)),
    ))
}

/// Step 3.
pub fn scan(db: &Database, story: &mut Story<'_>) -> Result<()> {
    story.step(&format!("Scan the names that begin with `{PREFIX}`, both ways"))?;
    let snapshot = db.read()?;
    let names = snapshot.tree("names")?;
    let owned = |entry: treepie::Result<(Key<'_>, &[u8])>| {
        entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
    };
    let forwards: treepie::Result<Vec<_>> = names.prefix(PREFIX).map(owned).collect();
    let backwards: treepie::Result<Vec<_>> = names.prefix(PREFIX).rev().map(owned).collect();
    let (forwards, mut backwards) = (forwards?, backwards?);
    for (way, entries) in [("forwards", &forwards), ("backwards", &backwards)] {
        for (key, value) in entries.iter().take(SHOWN) {
            let (key, value) = (Notation::Text.show(key), Notation::Text.show(value));
            story.say(format!("{way}: {key} -> {value}"))?;
        }
    }
    backwards.reverse();
    let expected = table()?.iter().filter(|c| c.name.starts_with(PREFIX)).count();
    promise(forwards == backwards, || "the two directions differ".to_owned())?;
    promise(forwards.len() == expected, || format!("{} of {expected}", forwards.len()))?;
    story.say(format!("{expected} names, the same in both directions."))
}

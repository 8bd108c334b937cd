//! `get`, `put` and `delete`: one entry.

use std::io::{self, Read};

use serde::Serialize;
use treepie::limits::VALUE_LEN_MAX;

use super::{bytes, change, change_existing, look, tree_name};
use crate::{
    arguments::{Delete, Get, Place, Put},
    failure::{Failure, Result},
    notation::{JsonBytes, Notation},
    output::Output,
};

/// Tree and key of an entry, as bytes.
struct Address {
    tree: Vec<u8>,
    key: Vec<u8>,
    notation: Notation,
}

impl Address {
    fn new(place: &Place) -> Result<Address> {
        let notation = place.notation.into();
        let key = bytes("the key", &place.key, notation)?;
        Ok(Address { tree: tree_name(&place.tree)?, key, notation })
    }

    fn no_key(&self) -> Failure {
        Failure::NoKey { tree: self.tree.clone(), key: self.key.clone() }
    }
}

/// An entry in JSON.
#[derive(Serialize)]
pub struct Entry {
    pub key: JsonBytes,
    pub value: JsonBytes,
}

/// Prints the value of a key.
pub fn get(arguments: &Get, output: &mut Output) -> Result<()> {
    let address = Address::new(&arguments.place)?;
    look(&arguments.place.db, |db| {
        let snapshot = db.read()?;
        let value = snapshot.tree(&address.tree)?.get(&address.key)?;
        let value = value.ok_or_else(|| address.no_key())?;
        let notation = address.notation;
        if arguments.raw {
            output.bytes(value)
        } else if output.is_json() {
            output.object(&Entry { key: notation.json(&address.key), value: notation.json(value) })
        } else {
            output.line(notation.show(value))
        }
    })
}

/// What a change of an entry did.
#[derive(Serialize)]
pub struct Changed {
    /// What was done: `added`, `replaced`, `deleted`.
    pub done: &'static str,
    pub lsn: u64,
}

impl Changed {
    pub fn print(&self, output: &mut Output) -> Result<()> {
        output.either(self, |changed| format!("{}, LSN {}", changed.done, changed.lsn))
    }
}

/// Sets the value of a key.
pub fn put(arguments: &Put, output: &mut Output) -> Result<()> {
    let address = Address::new(&arguments.place)?;
    let value = match arguments.value.as_str() {
        "-" => read_standard_input()?,
        text => bytes("the value", text, address.notation)?,
    };
    let receipt = change(&arguments.place.db, |db| {
        Ok(db.write(|tx| tx.tree(&address.tree)?.insert(&address.key, &value))?)
    })?;
    let done = if receipt.value { "replaced" } else { "added" };
    Changed { done, lsn: receipt.lsn.0 }.print(output)
}

/// Reads what may be a value; one byte more than that leaves the error to the engine.
pub fn read_standard_input() -> Result<Vec<u8>> {
    let mut value = Vec::new();
    let mut input = io::stdin().lock().take(VALUE_LEN_MAX + 1);
    input.read_to_end(&mut value).map_err(Failure::io("read", "standard input"))?;
    Ok(value)
}

/// Removes a key.
pub fn delete(arguments: &Delete, output: &mut Output) -> Result<()> {
    let address = Address::new(&arguments.place)?;
    let receipt = change_existing(&arguments.place.db, |db| {
        let receipt = db.write(|tx| tx.existing_tree(&address.tree)?.remove(&address.key))?;
        if receipt.value { Ok(receipt) } else { Err(address.no_key()) }
    })?;
    Changed { done: "deleted", lsn: receipt.lsn.0 }.print(output)
}

//! `client`: entries of a tree that a node serves.

use std::time::Duration;

use serde::Serialize;
use treepie::Receipt;
use treepie_raft::service::{
    Client, ClientOptions, ScanOptions,
    message::{Consistency, Unmet},
};

use super::{
    bytes,
    entry::{Changed, Entry, read_standard_input},
    node::security,
    scan::Printer,
    tree_name,
};
use crate::{
    arguments::client::{
        Client as Command, Freshness, Reach, RemoteCas, RemoteGet, RemotePlace, RemotePut,
        RemoteScan,
    },
    failure::{Failure, Result},
    notation::{JsonBytes, Notation},
    output::Output,
};

/// Does what a client asks for.
pub fn run(command: &Command, output: &mut Output) -> Result<()> {
    match command {
        Command::Get(arguments) => get(arguments, output),
        Command::Put(arguments) => put(arguments, output),
        Command::Delete(arguments) => delete(arguments, output),
        Command::Cas(arguments) => cas(arguments, output),
        Command::Scan(arguments) => scan(arguments, output),
    }
}

/// A client of the nodes that arguments name.
pub fn connect(reach: &Reach) -> Result<Client> {
    connect_to(&reach.at, reach)
}

/// A client of these nodes, as arguments say.
pub fn connect_to(at: &[String], reach: &Reach) -> Result<Client> {
    let timeout = Duration::from_millis(reach.timeout);
    let options = ClientOptions::new()
        .timeout(timeout)
        .connect_timeout(timeout.min(Duration::from_secs(2)))
        .security(security(&reach.security)?);
    Ok(Client::connect(at, options)?)
}

impl Freshness {
    fn consistency(self) -> Consistency {
        match (self.at_least, self.stale) {
            (Some(lsn), _) => Consistency::AtLeast(lsn),
            (None, Some(ms)) => Consistency::Stale(ms),
            (None, None) => Consistency::Linearizable,
        }
    }
}

/// Tree and key of an entry, as bytes.
struct Address {
    tree: Vec<u8>,
    key: Vec<u8>,
    notation: Notation,
}

impl Address {
    fn new(place: &RemotePlace) -> Result<Address> {
        let notation = place.notation.into();
        let key = bytes("the key", &place.key, notation)?;
        Ok(Address { tree: tree_name(&place.tree)?, key, notation })
    }

    fn no_key(self) -> Failure {
        Failure::NoKey { tree: self.tree, key: self.key }
    }

    fn value(&self, argument: &str) -> Result<Vec<u8>> {
        match argument {
            "-" => read_standard_input(),
            text => bytes("the value", text, self.notation),
        }
    }
}

fn get(arguments: &RemoteGet, output: &mut Output) -> Result<()> {
    let address = Address::new(&arguments.place)?;
    let client = connect(&arguments.place.reach)?.reading(arguments.freshness.consistency());
    let value = client.get(&address.tree, &address.key)?.value;
    let Some(value) = value else { return Err(address.no_key()) };
    let notation = address.notation;
    if arguments.raw {
        output.bytes(&value)
    } else if output.is_json() {
        let (key, value) = (notation.json(&address.key), notation.json(&value));
        output.object(&Entry { key, value })
    } else {
        output.line(notation.show(&value))
    }
}

fn put(arguments: &RemotePut, output: &mut Output) -> Result<()> {
    let address = Address::new(&arguments.place)?;
    let value = address.value(&arguments.value)?;
    let client = connect(&arguments.place.reach)?;
    let Receipt { value, lsn } = client.put(&address.tree, &address.key, value)?;
    Changed { done: if value { "replaced" } else { "added" }, lsn: lsn.0 }.print(output)
}

fn delete(place: &RemotePlace, output: &mut Output) -> Result<()> {
    let address = Address::new(place)?;
    let receipt = connect(&place.reach)?.delete(&address.tree, &address.key)?;
    match receipt.value {
        true => Changed { done: "deleted", lsn: receipt.lsn.0 }.print(output),
        false => Err(address.no_key()),
    }
}

/// What stood in the way of a conditional put.
#[derive(Serialize)]
struct Found {
    done: &'static str,
    exists: bool,
    value: Option<JsonBytes>,
}

fn cas(arguments: &RemoteCas, output: &mut Output) -> Result<()> {
    let address = Address::new(&arguments.place)?;
    let value = address.value(&arguments.value)?;
    let expected = arguments.expect.as_ref();
    let expected = expected.map(|text| bytes("--expect", text, address.notation)).transpose()?;
    let client = connect(&arguments.place.reach)?;
    let (tree, key) = (&address.tree, &address.key);
    let Receipt { value, lsn } = client.compare_and_put(tree, key, expected.as_deref(), value)?;
    let Err(Unmet { exists, found, .. }) = value else {
        let done = if expected.is_some() { "replaced" } else { "added" };
        return Changed { done, lsn: lsn.0 }.print(output);
    };
    let notation = address.notation;
    if output.is_json() {
        let value = found.as_ref().map(|found| notation.json(found));
        output.object(&Found { done: "nothing", exists, value })?;
    } else if let Some(found) = &found {
        output.line(notation.show(found))?;
    }
    Err(Failure::Unmet { tree: address.tree, key: address.key, exists })
}

fn scan(arguments: &RemoteScan, output: &mut Output) -> Result<()> {
    let notation: Notation = arguments.notation.into();
    let tree = tree_name(&arguments.tree)?;
    let read = |what, argument: &Option<String>| {
        argument.as_ref().map(|text| bytes(what, text, notation)).transpose()
    };
    let mut options = match (read("--from", &arguments.from)?, read("--to", &arguments.to)?) {
        (None, None) => ScanOptions::new(),
        (Some(from), None) => ScanOptions::new().range(from..),
        (None, Some(to)) => ScanOptions::new().range(..to),
        (Some(from), Some(to)) => ScanOptions::new().range(from..to),
    };
    if let Some(prefix) = read("the prefix", &arguments.prefix)? {
        options = options.prefix(prefix);
    }
    if arguments.reverse {
        options = options.reverse();
    }
    let options = options.limit(arguments.limit.unwrap_or(u64::MAX));
    let client = connect(&arguments.reach)?.reading(arguments.freshness.consistency());
    let mut printer = Printer::new(notation, output);
    for entry in client.scan(tree, options) {
        let (key, value) = entry?;
        printer.print(&key, &value)?;
    }
    Ok(())
}

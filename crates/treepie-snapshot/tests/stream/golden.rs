//! Streams of format version 1, kept for ever: each later build reads them.
//!
//! They were made by `cargo test -p treepie-snapshot --features encryption --test stream -- --ignored
//! golden`, which is not done again: it would draw new random numbers, and prove nothing.

use std::{fs, path::PathBuf};

use treepie_snapshot::{Control, StreamHeader, StreamKind, verify};

use crate::sample::{Inside, alone, header, key, read, record, small, write};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stream-1")
}

/// Name, header, content, and whether it is encrypted.
fn all() -> Vec<(&'static str, StreamHeader, Inside, bool)> {
    let (full, inside) = small();
    let mut increment = Inside::default();
    for number in [3_u32, 4, 130, 4_999] {
        increment.pages.insert(number, (0..8192_u32).map(|byte| (byte * number) as u8).collect());
    }
    let journal = header(StreamKind::Records, 4096);
    let mut at = journal.position;
    let payloads = [&b"magpie"[..], &[], &[9; 5_000]];
    let records = payloads.map(|payload| record(&mut at, 4096, payload)).to_vec();
    let records = Inside { records, ..Inside::default() };
    vec![
        ("full.tps", full, inside.clone(), false),
        ("increment.tps", header(StreamKind::Increment, 8192), increment, false),
        ("records.tps", journal, records, false),
        ("encrypted.tps", full, inside, true),
    ]
}

#[test]
fn streams_of_version_1_are_read_for_ever() {
    for (name, header, inside, is_encrypted) in all() {
        let path = folder().join(name);
        let stream = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if is_encrypted && !cfg!(feature = "encryption") {
            assert!(read(&stream, &alone(None).1).is_err());
            continue;
        }
        let (_, reading) = alone(is_encrypted.then(key));
        let (found, summary) = read(&stream, &reading).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(found == inside, "{name}: another content");
        assert_eq!(summary.header, header, "{name}");
        assert_eq!(summary.coding.encryption.is_some(), is_encrypted, "{name}");
        verify(&stream[..], &reading, Control::new()).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
#[ignore = "makes the fixtures anew, which is done once in a version of the format"]
fn golden_streams_are_made() {
    fs::create_dir_all(folder()).expect("a folder");
    for (name, header, inside, is_encrypted) in all() {
        let (writing, _) = alone(is_encrypted.then(key));
        let (stream, _) = write(header, &inside, &writing, || true).expect("a stream");
        fs::write(folder().join(name), stream).expect("a file");
    }
}

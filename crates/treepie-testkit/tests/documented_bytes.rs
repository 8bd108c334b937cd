//! The worked hex dump of `docs/format.md` is of a real database: one tree with one entry, made on
//! a simulated disk, whose random numbers and clock follow from a seed.

use std::{path::Path, sync::Arc};

use treepie::{Options, Result};
use treepie_testkit::SimDisk;

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.in.md"));
const PAGE_SIZE: usize = 4096;

/// Lines of 16 bytes, as `hexdump -C` prints them; lines of zeros are left out.
fn dump(bytes: &[u8], base: usize) -> Vec<String> {
    let lines = bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|b| *b != 0));
    lines
        .map(|(index, line)| {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String = line
                .iter()
                .map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' })
                .collect();
            format!("{:08x}  {:<47}  |{text}|", base + index * 16, hex.join(" "))
        })
        .collect()
}

#[test]
fn documented_bytes_are_those_of_a_real_database() -> Result<()> {
    let disk = SimDisk::new(1);
    let options = Options::new()
        .create(true)
        .page_size(PAGE_SIZE)
        .map_size(16 << 20)
        .background_threads(false)
        .disk(Arc::new(disk.clone()));
    let db = options.open("/birds.db")?;
    db.write(|tx| tx.tree("birds")?.insert("pica", "magpie"))?;
    let root = db.read()?.trees()?.pop().expect("a tree").root.0 as usize;
    db.close()?;

    let data = disk.file_bytes(Path::new("/birds.db/data")).expect("a data file");
    let generation = |number: usize| data[number * PAGE_SIZE + 24];
    let newest = if generation(1) > generation(0) { PAGE_SIZE } else { 0 };
    let segment = Path::new("/birds.db/journal/00000000000000000001.seg");
    let journal = disk.file_bytes(segment).expect("a segment");
    let second = journal.windows(4).rposition(|bytes| bytes == b"TPFR").expect("a frame");
    let frame_header_and_first_change = 32 + 128 + 48;

    let mut lines = dump(&data[newest..newest + 112], newest);
    lines.extend(dump(&data[root * PAGE_SIZE..(root + 1) * PAGE_SIZE], root * PAGE_SIZE));
    lines.extend(dump(&journal[..80], 0));
    lines.extend(dump(&journal[second..second + frame_header_and_first_change], second));
    let absent: Vec<&String> = lines.iter().filter(|line| !DOCUMENT.contains(*line)).collect();
    assert!(
        absent.is_empty(),
        "docs/format.in.md lacks {} lines; the whole dump is\n{}",
        absent.len(),
        lines.join("\n")
    );
    Ok(())
}

//! What the disk can do without an engine: overwrite a written 4 KiB block, and fdatasync.

use std::{fs::OpenOptions, os::unix::fs::FileExt, path::Path, time::Instant};

use crate::{
    Result,
    data::fill,
    measure::{Figure, Limit},
    workloads::write::latencies,
};

/// Its name in the report.
pub const NAME: &str = "bare";
const BLOCK_SIZE: u64 = 4096;
/// 64 MiB: enough that the device does not merge overwrites of one block.
const BLOCK_COUNT: u64 = 16 * 1024;

/// Overwrites one block after the other, each with a sync, until the turn ends.
pub fn overwrites(dir: &Path, limit: Limit) -> Result<Vec<Figure>> {
    let path = dir.join(NAME);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    let mut block = vec![0; BLOCK_SIZE as usize];
    for number in 0..BLOCK_COUNT {
        file.write_all_at(&block, number * BLOCK_SIZE)?;
    }
    file.sync_all()?;
    fill(1, &mut block);
    let mut times = Vec::new();
    let turn = limit.start();
    while turn.goes_on(times.len() as u64) {
        let start = Instant::now();
        let number = times.len() as u64 % BLOCK_COUNT;
        block[..8].copy_from_slice(&(times.len() as u64).to_le_bytes());
        file.write_all_at(&block, number * BLOCK_SIZE)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    let elapsed = turn.elapsed();
    std::fs::remove_file(&path)?;
    latencies(times, elapsed)
}

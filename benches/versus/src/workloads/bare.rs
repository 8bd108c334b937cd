//! What the disk can do without an engine: overwrite written blocks of a file, each with an
//! fdatasync.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    time::Instant,
};

use crate::{
    Result,
    contest::Context,
    data::fill,
    measure::{Figure, Limit, Unit, latencies},
    workloads::{
        Workload,
        values::{self, Size},
    },
};

/// Its name in the report.
pub const NAME: &str = "bare";
const BLOCK_SIZE: usize = 4096;
/// Enough that the device does not merge overwrites of one block.
const FILE_SIZE: u64 = 64 << 20;

/// The figures of a workload that can be done without an engine; of others, none.
pub fn turn(workload: Workload, context: &Context) -> Result<Vec<Figure>> {
    let path = context.home.join(NAME);
    let figures = match workload {
        Workload::Puts1 => overwrites(&path, context)?,
        Workload::Restore => copied(&path, context)?,
        Workload::Large64K => large(&path, context, values::KIB_64)?,
        Workload::Large1M => large(&path, context, values::MIB_1)?,
        Workload::Large4M => large(&path, context, values::MIB_4)?,
        _ => return Ok(Vec::new()),
    };
    std::fs::remove_file(&path)?;
    Ok(figures)
}

/// Overwrites one block after the other until the turn ends.
fn overwrites(path: &Path, context: &Context) -> Result<Vec<Figure>> {
    let file = written_file(path, FILE_SIZE)?;
    let mut block = vec![0; BLOCK_SIZE];
    fill(1, &mut block);
    let mut number = 0_u64;
    let mut turn = |limit: Limit| {
        let mut times = Vec::new();
        let turn = limit.start();
        while turn.goes_on(times.len() as u64) {
            let start = Instant::now();
            block[..8].copy_from_slice(&number.to_le_bytes());
            file.write_all_at(&block, number * BLOCK_SIZE as u64 % FILE_SIZE)?;
            file.sync_data()?;
            number += 1;
            times.push(start.elapsed());
        }
        latencies("puts-1", times, turn.elapsed())
    };
    turn(context.warm_limit)?;
    turn(context.limit)
}

/// Overwrites a file with large values.
fn large(path: &Path, context: &Context, size: Size) -> Result<Vec<Figure>> {
    let len = size.1 as u64;
    let count = (context.options.large_mib << 20).div_ceil(len).max(1);
    let file = written_file(path, count * len)?;
    values::turns(context, size, |number, value| {
        file.write_all_at(value, number % count * len)?;
        Ok(file.sync_data()?)
    })
}

/// Copies a file of the length of all entries, and syncs the copy.
fn copied(path: &Path, context: &Context) -> Result<Vec<Figure>> {
    let size = context.entries.count * (context.entries.key_len + context.entries.value_len) as u64;
    written_file(path, size)?;
    let copy = path.with_extension("copy");
    let (mut source, mut target) = (File::open(path)?, File::create(&copy)?);
    let mut buffer = vec![0; 1 << 20];
    let start = Instant::now();
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            len => target.write_all(&buffer[..len])?,
        }
    }
    target.sync_all()?;
    let elapsed = start.elapsed();
    std::fs::remove_file(copy)?;
    let rate = size as f64 / 1e6 / elapsed.as_secs_f64();
    Ok(vec![Figure::new("restore", rate, Unit::MegabytesPerSecond)])
}

/// A file of zeros that were written and synced, so that overwriting it allocates nothing.
fn written_file(path: &Path, size: u64) -> Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < size {
        let len = zeros.len().min(usize::try_from(size - offset)?);
        file.write_all_at(&zeros[..len], offset)?;
        offset += len as u64;
    }
    file.sync_all()?;
    Ok(file)
}

//! Where a fuzzer begins: inputs that reach deep, made from what real databases hold.

use super::{
    Target, snapshot_stream,
    stamp::{FRAME_SIZE, PAGE_SIZE, RECORD_HEADER_SIZE},
    template,
};
use crate::{Rng, mix};

/// Inputs for a target.
#[must_use]
pub fn seeds(target: Target) -> Vec<Vec<u8>> {
    match target {
        Target::OpenAndCheck => edits(),
        Target::JournalTail => records(),
        Target::Page => pages(),
        Target::Operations => operations(),
        Target::SnapshotStream => snapshot_stream::seeds(),
        #[cfg(feature = "raft")]
        Target::WireFrame => super::wire_frame::seeds(),
    }
}

/// One edit of each kind, of each file.
fn edits() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![1]];
    for kind in 0..=255_u8 {
        let mut rng = Rng::new(mix(1, kind.into()));
        let mut seed = vec![kind >> 2 & 1];
        for _ in 0..3 {
            seed.push(kind ^ (rng.next_u64() as u8 & 0x18));
            seed.extend(rng.bytes(12));
        }
        if kind.is_multiple_of(5) {
            seeds.push(seed);
        }
    }
    seeds
}

/// The payloads of the records of a real journal, alone and together.
fn records() -> Vec<Vec<u8>> {
    let template = &template::all()[1];
    let mut seeds = vec![Vec::new()];
    let mut all = Vec::new();
    for file in template.files.iter().filter(|file| file.path.extension().is_some()) {
        let places = (PAGE_SIZE..file.bytes.len()).step_by(8);
        for at in places.filter(|at| file.bytes[*at..].starts_with(b"TPFR")) {
            let record = &file.bytes[at + FRAME_SIZE..];
            let word = |offset: usize| [record[offset], record[offset + 1]];
            let len = usize::from(u16::from_le_bytes(word(40)));
            let payload = &record[RECORD_HEADER_SIZE..][..len];
            let mut seed = vec![0, record[10], 1];
            seed.extend(word(80));
            seed.extend([0; 6]);
            seed.extend(word(40));
            seed.extend(payload);
            all.extend(&seed);
            seeds.push(seed);
        }
    }
    all.truncate(16 << 10);
    seeds.push(all);
    // A run, a page that becomes free, a page from zeros.
    let mut run = vec![2, 0, 0, 0, 60, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0];
    run.extend([0; 64]);
    let free = [3, 0, 0, 0, 60, 0, 0, 0, 1, 0, 0, 0];
    let page = [1, 1, 0, 0, 61, 0, 0, 0];
    for (count, payload) in [(1, run), (1, free.to_vec()), (1, page.to_vec())] {
        let mut seed = vec![0, 1, 1, count, 0, 0, 0, 0, 0, 0, 0, payload.len() as u8, 0];
        seed.extend(payload);
        seeds.push(seed);
    }
    seeds
}

/// Each page as it is, and nodes that are built.
fn pages() -> Vec<Vec<u8>> {
    let data = template::all()[0].data();
    let mut seeds = vec![Vec::new()];
    for (number, page) in data.chunks_exact(PAGE_SIZE).enumerate() {
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        let number = (number as u16).to_le_bytes();
        let len = page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if len < 512 || number[0].is_multiple_of(8) {
            let mut seed = vec![0, number[0], number[1], 1];
            seed.extend((len as u16).to_le_bytes());
            seed.extend(&page[..len]);
            seeds.push(seed);
        }
        for kind in [2, 3] {
            let mut rng = Rng::new(mix(2, number[0].into()));
            let mut seed = vec![0, number[0], number[1], kind, 1, number[0] % 9, 3];
            seed.extend(b"num");
            seed.push(20);
            for entry in 0..20_u8 {
                seed.extend([6, b'a', b'b', entry * 9, 0, entry, 3, rng.next_u64() as u8, 0]);
            }
            seeds.push(seed);
        }
    }
    seeds
}

/// Mixtures of steps, some with failing calls, some with power cuts.
fn operations() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for seed in 0..48 {
        let mut rng = Rng::new(mix(3, seed));
        let mut steps = Vec::new();
        for _ in 0..rng.range(10..90) {
            let step = match rng.below(20) {
                0..12 => rng.below(8),
                12..15 => 8 + rng.below(2),
                15 => 10 + rng.below(2),
                16 => 12,
                17 => 13,
                18 if seed % 3 == 0 => 14,
                19 if seed % 2 == 0 => 15,
                _ => 9,
            };
            steps.push(step as u8 | (rng.next_u64() as u8 & 0xf0));
            let more = [2, 2, 2, 2, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 2][step as usize];
            steps.extend(rng.bytes(more));
        }
        seeds.push(steps);
    }
    seeds
}

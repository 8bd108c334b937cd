//! Draws what a power cut leaves.
//!
//! - Every sector that was written since the file's last sync holds, independently, any of its
//!   versions: the durable one, or the one after any of the writes to it. A sector has 512 or
//!   4,096 bytes; the seed says which. So writes are torn at sectors and reordered between syncs.
//! - The length is the durable one, or the one after any later change; data past it is lost, and
//!   data that was cut off by a shrinking that survived does not come back.
//! - Every change of a folder since its last sync is there or not, on its own.
//!
//! A small cut can also be looked at whole: `choose` takes every decision from the bits of a number.
//!
//! How much survives is drawn first, because uniform losses alone would hardly ever leave
//! everything but one sector: all, nothing, half, nearly all, nearly nothing, or each file its own.

use std::collections::BTreeMap;

use super::{
    content::{Content, index_of_byte},
    log::Base,
    names::{FileId, Node},
    player::{Change, FileState, Player},
};
use crate::rng::Rng;

/// Chances are counted in parts of this.
const WHOLE: u64 = 1024;

/// Chances of the newest version of a sector.
const SURVIVAL: [u64; 7] = [WHOLE, 0, 512, 960, 64, 1020, 4];

/// Chances of a change of a folder.
const NAME_SURVIVAL: [u64; 4] = [WHOLE, 0, 512, 896];

/// Draws by chance.
pub(crate) fn draw(player: &Player<'_>, seed: u64) -> Base {
    let mut rng = Rng::new(seed);
    let sector_size = *rng.pick(&[512, 4096]);
    let common = if rng.chance(1, 3) { None } else { Some(*rng.pick(&SURVIVAL)) };
    let names = *rng.pick(&NAME_SURVIVAL);
    let mut choice = Choice::Chance { rng, common, names, file: WHOLE };
    draw_with(player, sector_size, &mut choice)
}

/// Takes one bit of `bits`, the lowest first, for each pending name, each pending length and each
/// unsynced sector: 1 is its newest version, 0 the durable one. Also returns how many it took.
pub(crate) fn choose(player: &Player<'_>, sector_size: u64, bits: u64) -> (Base, u32) {
    let mut choice = Choice::Bits { bits, taken: 0 };
    let base = draw_with(player, sector_size, &mut choice);
    let Choice::Bits { taken, .. } = choice else { unreachable!("it was made of bits") };
    (base, taken)
}

/// Who decides.
enum Choice {
    Chance { rng: Rng, common: Option<u64>, names: u64, file: u64 },
    Bits { bits: u64, taken: u32 },
}

impl Choice {
    fn begin_file(&mut self) {
        if let Choice::Chance { rng, common, file, .. } = self {
            *file = common.unwrap_or_else(|| *rng.pick(&SURVIVAL));
        }
    }

    fn keeps_name(&mut self) -> bool {
        match self {
            Choice::Chance { rng, names, .. } => rng.chance(*names, WHOLE),
            Choice::Bits { .. } => self.bit(),
        }
    }

    /// How many of `count` changes of a length are seen.
    fn lengths_kept(&mut self, count: usize) -> usize {
        match self {
            Choice::Chance { rng, file, .. } => {
                if rng.chance(*file, WHOLE) {
                    count
                } else {
                    rng.index(count + 1)
                }
            }
            Choice::Bits { .. } => {
                if self.bit() {
                    count
                } else {
                    0
                }
            }
        }
    }

    /// How many of `count` writes to a sector are seen.
    fn writes_kept(&mut self, count: u64) -> u64 {
        match self {
            Choice::Chance { rng, file, .. } => {
                if rng.chance(*file, WHOLE) {
                    count
                } else {
                    rng.below(count)
                }
            }
            Choice::Bits { .. } => {
                if self.bit() {
                    count
                } else {
                    0
                }
            }
        }
    }

    fn bit(&mut self) -> bool {
        let Choice::Bits { bits, taken } = self else { unreachable!("asked of bits alone") };
        let bit = bits.checked_shr(*taken).is_some_and(|rest| rest & 1 == 1);
        *taken += 1;
        bit
    }
}

fn draw_with(player: &Player<'_>, sector_size: u64, choice: &mut Choice) -> Base {
    let mut base = Base { names: player.names.clone(), ..Base::default() };
    for change in &player.pending_names {
        if choice.keeps_name() {
            base.names.apply(change);
        }
    }
    base.names.drop_orphans();
    let mut files: BTreeMap<FileId, Content> = BTreeMap::new();
    for (&id, file) in &player.files {
        choice.begin_file();
        files.insert(id, draw_file(file, sector_size, choice));
    }
    for (_, node) in base.names.iter() {
        if let Node::File(id) = node {
            base.files.insert(id, files.remove(&id).unwrap_or_default());
        }
    }
    base
}

fn draw_file(file: &FileState, sector_size: u64, choice: &mut Choice) -> Content {
    if file.pending.is_empty() {
        return file.durable.clone();
    }
    let (len, lengths_kept) = draw_len(file, choice);
    let mut sectors = Sectors::draw(&file.pending, sector_size, choice);
    let mut content = file.durable.clone();
    let mut len_before = content.len();
    // A shrinking that was lost takes with it what was later written where it had cut.
    let mut limit = u64::MAX;
    for (index, change) in file.pending.iter().enumerate() {
        match change {
            Change::Write { offset, data } => {
                for piece in split(*offset, data, sector_size) {
                    if sectors.survives(piece.offset / sector_size) && piece.offset < limit {
                        let room = limit - piece.offset;
                        let fits = piece.bytes.len() as u64 <= room;
                        let len = if fits { piece.bytes.len() } else { index_of_byte(room) };
                        content.write(piece.offset, &piece.bytes[..len]);
                    }
                }
                len_before = len_before.max(offset + data.len() as u64);
            }
            Change::SetLen(len) => {
                if *len < len_before && index < lengths_kept && *len < content.len() {
                    content.set_len(*len);
                } else if *len < len_before && index >= lengths_kept {
                    limit = limit.min(*len);
                }
                len_before = *len;
            }
        }
    }
    content.set_len(len);
    content
}

/// The surviving length, and how many of the pending changes it has seen.
fn draw_len(file: &FileState, choice: &mut Choice) -> (u64, usize) {
    let lengths = file.lengths();
    let count = file.pending.len();
    let changes = lengths.iter().any(|&len| len != file.durable.len());
    let kept = if changes { choice.lengths_kept(count) } else { count };
    let len = kept.checked_sub(1).map_or(file.durable.len(), |last| lengths[last]);
    (len, kept)
}

/// For every sector that was written: which of its versions survives.
struct Sectors {
    /// By number.
    drawn: Vec<Drawn>,
}

struct Drawn {
    sector: u64,
    /// Writes to it, then those that survive.
    versions: u64,
    seen: u64,
}

impl Sectors {
    fn draw(pending: &[Change], sector_size: u64, choice: &mut Choice) -> Sectors {
        let mut touched = Vec::new();
        for change in pending {
            if let Change::Write { offset, data } = change {
                touched.extend(
                    split(*offset, data, sector_size).map(|piece| piece.offset / sector_size),
                );
            }
        }
        touched.sort_unstable();
        let mut drawn: Vec<Drawn> = Vec::new();
        for sector in touched {
            match drawn.last_mut() {
                Some(last) if last.sector == sector => last.versions += 1,
                _ => drawn.push(Drawn { sector, versions: 1, seen: 0 }),
            }
        }
        for one in &mut drawn {
            one.versions = choice.writes_kept(one.versions);
        }
        Sectors { drawn }
    }

    /// Counts a write to the sector, and tells whether the surviving version has seen it.
    fn survives(&mut self, sector: u64) -> bool {
        let at = self
            .drawn
            .binary_search_by_key(&sector, |one| one.sector)
            .expect("drawn from the same changes");
        let one = &mut self.drawn[at];
        one.seen += 1;
        one.seen <= one.versions
    }
}

struct Piece<'a> {
    offset: u64,
    bytes: &'a [u8],
}

/// The parts of a write, one for each sector.
fn split(offset: u64, data: &[u8], sector_size: u64) -> impl Iterator<Item = Piece<'_>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        if from == data.len() {
            return None;
        }
        let offset = offset + from as u64;
        let len = index_of_byte(sector_size - offset % sector_size).min(data.len() - from);
        let bytes = &data[from..from + len];
        from += len;
        Some(Piece { offset, bytes })
    })
}

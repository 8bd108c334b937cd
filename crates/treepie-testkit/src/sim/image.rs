//! Draws what a power cut leaves.
//!
//! - Every sector that was written since the file's last sync holds, independently, any of its
//!   versions: the durable one, or the one after any of the writes to it. A sector has 512 or
//!   4,096 bytes; the seed says which. So writes are torn at sectors and reordered between syncs.
//! - The length is the durable one, or the one after any later change; data past it is lost, and
//!   data that was cut off by a shrinking that survived does not come back.
//! - Every change of a folder since its last sync is there or not, on its own.
//!
//! How much survives is drawn first, because uniform losses alone would hardly ever leave
//! everything but one sector: all, nothing, half, nearly all, nearly nothing, or each file its own.

use super::{
    content::{Content, index_of_byte},
    log::Base,
    names::Node,
    player::{Change, FileState, Player},
};
use crate::rng::Rng;

/// Chances are counted in parts of this.
const WHOLE: u64 = 1024;

/// Chances of the newest version of a sector.
const SURVIVAL: [u64; 7] = [WHOLE, 0, 512, 960, 64, 1020, 4];

/// Chances of a change of a folder.
const NAME_SURVIVAL: [u64; 4] = [WHOLE, 0, 512, 896];

pub(crate) fn draw(player: &Player<'_>, seed: u64) -> Base {
    let mut rng = Rng::new(seed);
    let sector_size = *rng.pick(&[512, 4096]);
    let common = if rng.chance(1, 3) { None } else { Some(*rng.pick(&SURVIVAL)) };
    let mut base = Base { names: player.names.clone(), ..Base::default() };
    let name_survival = *rng.pick(&NAME_SURVIVAL);
    for change in &player.pending_names {
        if rng.chance(name_survival, WHOLE) {
            base.names.apply(change);
        }
    }
    base.names.drop_orphans();
    for (_, node) in base.names.iter() {
        if let Node::File(id) = node {
            let survival = common.unwrap_or_else(|| *rng.pick(&SURVIVAL));
            let content = match player.files.get(&id) {
                Some(file) => draw_file(file, sector_size, survival, &mut rng),
                None => Content::default(),
            };
            base.files.insert(id, content);
        }
    }
    base
}

fn draw_file(file: &FileState, sector_size: u64, survival: u64, rng: &mut Rng) -> Content {
    if file.pending.is_empty() {
        return file.durable.clone();
    }
    let (len, lengths_kept) = draw_len(file, survival, rng);
    let mut sectors = Sectors::draw(&file.pending, sector_size, survival, rng);
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
fn draw_len(file: &FileState, survival: u64, rng: &mut Rng) -> (u64, usize) {
    let count = file.pending.len();
    let kept = if rng.chance(survival, WHOLE) { count } else { rng.index(count + 1) };
    let mut len = file.durable.len();
    for change in &file.pending[..kept] {
        len = match change {
            Change::Write { offset, data } => len.max(offset + data.len() as u64),
            Change::SetLen(len) => *len,
        };
    }
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
    fn draw(pending: &[Change], sector_size: u64, survival: u64, rng: &mut Rng) -> Sectors {
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
            if !rng.chance(survival, WHOLE) {
                one.versions = rng.below(one.versions);
            }
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

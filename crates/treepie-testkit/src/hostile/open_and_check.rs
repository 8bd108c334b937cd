//! Any edits of any file of a database, checksums right again or not; then a user's visit.
//!
//! The bytes: which template, then edits. An edit is a kind, a file, an offset and what the kind
//! needs. The first byte's highest bit says that the checksums are left as the edits make them.

use super::{
    Visit,
    input::Input,
    stamp::{FileKind, stamp_file},
    template::{self, File, Template},
    visit::visit,
};
use crate::SimDisk;

/// Edits of one input at most.
const EDITS_MAX: usize = 64;
/// Longest file that edits make, in bytes.
const FILE_LEN_MAX: usize = 512 << 10;
/// What sectors are moved in, in bytes.
const SECTOR_SIZES: [usize; 3] = [16, 512, 4096];

/// Runs one input.
pub fn run(bytes: &[u8]) -> Visit {
    visit(&edited(bytes))
}

/// The disk that an input describes.
#[must_use]
pub fn edited(bytes: &[u8]) -> SimDisk {
    let mut input = Input::new(bytes);
    let choice = input.u8();
    let template = &template::all()[usize::from(choice & 1)];
    let mut files = template.files.clone();
    let mut count = 0;
    while !input.is_empty() && count < EDITS_MAX {
        edit(&mut input, &mut files);
        count += 1;
    }
    if choice & 0x80 == 0 {
        files.iter_mut().for_each(|file| stamp_file(file.kind, &mut file.bytes));
    }
    rotten(template, &files)
}

/// A copy of the template's disk with these files.
#[must_use]
pub fn rotten(template: &Template, files: &[File]) -> SimDisk {
    let disk = template.disk.settled(3);
    for (file, whole) in files.iter().zip(&template.files) {
        if file.bytes != whole.bytes {
            disk.rot(&file.path, &file.bytes);
        }
    }
    disk
}

fn edit(input: &mut Input<'_>, files: &mut [File]) {
    let kind = input.u8();
    let index = usize::from(kind >> 5) % files.len();
    let len = files[index].bytes.len();
    let sector = SECTOR_SIZES[usize::from(kind >> 3 & 3) % 3];
    match kind & 7 {
        // Bytes at a place in the first KiB of a sector of 4 KiB: where headers are.
        0 | 1 => {
            let at = input.below(len / 4096 + 1) * 4096 + usize::from(input.u8()) * 4;
            let count = usize::from(input.u8() % 64) + 1;
            write(&mut files[index].bytes, at, input.bytes(count));
        }
        2 => {
            let at = place(input, len);
            let count = usize::from(input.u8()) + 1;
            write(&mut files[index].bytes, at, input.bytes(count));
        }
        3 => {
            let at = place(input, len);
            let value = input.u8();
            let count = (usize::from(input.u16()) + 1).min(len.saturating_sub(at));
            files[index].bytes[at..][..count].fill(value);
        }
        4 => {
            let (from, to) = (place(input, len) / sector * sector, place(input, len));
            let piece = sector_at(&files[index].bytes, from, sector).to_vec();
            write(&mut files[index].bytes, to / sector * sector, &piece);
        }
        5 => {
            let other = usize::from(input.u8()) % files.len();
            let from = place(input, files[other].bytes.len()) / sector * sector;
            let piece = sector_at(&files[other].bytes, from, sector).to_vec();
            let at = place(input, len);
            write(&mut files[index].bytes, at / sector * sector, &piece);
        }
        6 => {
            let at = place(input, len + sector);
            files[index].bytes.resize(at.min(FILE_LEN_MAX), 0);
        }
        _ => {
            let at = place(input, len);
            if let Some(byte) = files[index].bytes.get_mut(at) {
                *byte ^= 1 << (input.u8() % 8);
            }
        }
    }
    keep_length(&mut files[index]);
}

/// A data file of a page is still opened as one; without any it would be created anew.
fn keep_length(file: &mut File) {
    if file.kind == FileKind::Data && file.bytes.is_empty() {
        file.bytes.resize(1, 0);
    }
}

fn place(input: &mut Input<'_>, len: usize) -> usize {
    let number = input.u32() & 0x00ff_ffff;
    usize::try_from(number).unwrap_or(0) % len.max(1)
}

fn write(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = (at + piece.len()).min(FILE_LEN_MAX);
    let Some(count) = end.checked_sub(at) else { return };
    if end > bytes.len() {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(&piece[..count]);
}

fn sector_at(bytes: &[u8], at: usize, size: usize) -> &[u8] {
    bytes.get(at..bytes.len().min(at + size)).unwrap_or(&[])
}

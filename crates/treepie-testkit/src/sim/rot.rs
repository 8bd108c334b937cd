//! Bit rot: durable bytes that change behind everybody's back.

use std::path::Path;

use super::{content::Content, disk::SimDisk, names::Node};

impl SimDisk {
    /// Replaces the durable bytes of a file behind everybody's back: bit rot.
    ///
    /// # Panics
    /// If there is no such file, or if the disk was changed since it was made: rot is put on a
    /// disk at rest, such as an image.
    pub fn rot(&self, path: &Path, bytes: &[u8]) {
        self.rot_with(path, |content| *content = Content::from_bytes(bytes));
    }

    /// Flips bit `bit % 8` of byte `bit / 8` of a file, as [`rot`](SimDisk::rot) does it.
    ///
    /// # Panics
    /// As `rot`, and if the file ends before.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        self.rot_with(path, |content| {
            assert!(bit / 8 < content.len(), "{path:?} ends before bit {bit}");
            let mut byte = [0];
            content.read(bit / 8, &mut byte);
            content.write(bit / 8, &[byte[0] ^ 1 << (bit % 8)]);
        });
    }

    fn rot_with(&self, path: &Path, change: impl FnOnce(&mut Content)) {
        let mut state = self.state.lock();
        assert!(state.log.is_empty(), "rot is for disks at rest");
        let Some(Node::File(id)) = state.names.get(path) else { panic!("no file {path:?}") };
        let content = &mut state.files.get_mut(&id).expect("it has a name").content;
        change(content);
        let content = content.clone();
        state.log.base.files.insert(id, content);
    }
}

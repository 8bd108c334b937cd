//! Scratch memory: a writable map of an unlinked file, so that the operating system may move to
//! the disk what does not fit in memory. The file is gone when the map is, also after a crash.
//!
//! Its blocks are allocated at once: on a full disk the call fails, where a sparse file would
//! raise `SIGBUS` at the first touch of a page that has no block.

use std::{io, path::Path};

use memmap2::{MmapOptions, MmapRaw};

use super::{ScratchMap, file::allocate};

/// A writable map of an unlinked file.
#[derive(Debug)]
pub(super) struct RealScratch {
    map: MmapRaw,
}

impl RealScratch {
    pub(super) fn create(dir: &Path, len: usize) -> io::Result<RealScratch> {
        let file = tempfile::tempfile_in(dir)?;
        allocate(&file, len as u64)?;
        Ok(RealScratch { map: MmapOptions::new().len(len).map_raw(&file)? })
    }
}

impl ScratchMap for RealScratch {
    fn base(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    fn size(&self) -> usize {
        self.map.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code, reason = "reads and writes through the map, as the engine does")]

    use crate::disk::{Disk, RealDisk};

    #[test]
    fn scratch_is_zeroed_writable_and_leaves_no_name_behind() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = RealDisk.scratch(dir.path(), 1 << 20).unwrap();
        assert!(RealDisk.list(dir.path()).unwrap().is_empty());
        assert_eq!(scratch.size(), 1 << 20);
        assert_eq!(scratch.base().addr() % 4096, 0);
        let last = scratch.base().wrapping_add((1 << 20) - 1);
        // SAFETY: inside the map, which lives to the end of the test; nobody else has its address.
        assert_eq!(unsafe { last.read() }, 0);
        // SAFETY: as above.
        unsafe { last.write(7) };
        // SAFETY: as above.
        assert_eq!(unsafe { last.read() }, 7);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RealDisk.scratch(&dir.path().join("none"), 4096).is_err());
    }
}

//! The read-only map of a file, with address space reserved past its end.
//!
//! A shared map of a file may be longer than the file: POSIX lets it be made, and Linux shows the
//! bytes of the file's later growth at their places. Touching a page that lies wholly past the end
//! raises `SIGBUS`; who reads through the map keeps within the file. Making the map and handing
//! out its address is safe; it is the reader of the bytes who says why they do not change.

use std::{fs::File, io};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::DiskMap;

/// What a reserve is rounded up to: the largest page size of the processors in use.
const GRAIN: usize = 1 << 16;

/// A read-only, shared map of a file.
#[derive(Debug)]
pub(super) struct RealMap {
    map: MmapRaw,
}

impl RealMap {
    /// Maps `reserve` bytes from the file's start on. Where so much address space is refused (a
    /// limit of the process, or of the kernel), it takes half, and again, but never less than the
    /// file has bytes; `reserved` tells what it became.
    pub(super) fn create(file: &File, reserve: usize) -> io::Result<RealMap> {
        let file_len = usize::try_from(file.metadata()?.len())
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let least = file_len.max(1).next_multiple_of(GRAIN);
        let mut len = reserve.max(1).next_multiple_of(GRAIN);
        loop {
            match MmapOptions::new().len(len).map_raw_read_only(file) {
                Ok(map) => return Ok(RealMap { map }),
                Err(error) if len <= least || !for_want_of_space(&error) => return Err(error),
                Err(_) => len = (len / 2).next_multiple_of(GRAIN).max(least),
            }
        }
    }
}

/// Reads bytes that were never written into the page cache, as huge pages where the kernel has them:
/// that takes no I/O, pages written later land in these, and a random read of them misses the
/// processor's cache of addresses less often.
#[cfg(target_os = "linux")]
pub(super) fn prepare_cache(file: &File, offset: u64, len: u64) {
    let Ok(len) = usize::try_from(len) else { return };
    let populated =
        MmapOptions::new().offset(offset).len(len).map_raw_read_only(file).and_then(|map| {
            map.advise(Advice::HugePage)?;
            map.advise(Advice::PopulateRead)
        });
    if let Err(error) = populated {
        tracing::trace!(%error, offset, "the kernel took no advice");
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn prepare_cache(_file: &File, _offset: u64, _len: u64) {}

fn for_want_of_space(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EOVERFLOW | libc::EINVAL))
}

impl DiskMap for RealMap {
    fn base(&self) -> *const u8 {
        self.map.as_ptr()
    }

    fn reserved(&self) -> usize {
        self.map.len()
    }

    /// A hint: what the kernel refuses is not an error, and what lies outside is left out.
    fn prefetch(&self, offset: usize, len: usize) {
        let end = offset.saturating_add(len).min(self.map.len());
        if offset < end
            && let Err(error) = self.map.advise_range(Advice::WillNeed, offset, end - offset)
        {
            tracing::trace!(%error, offset, "the kernel took no advice");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code, reason = "reads through the map, as the engine does")]

    use std::{env, path::Path, process::Command, slice};

    use crate::disk::{Disk, OpenMode, RealDisk};

    #[test]
    fn a_map_sees_the_growth_of_its_file_at_the_same_address() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("data"), OpenMode::CreateNew).unwrap();
        let map = file.map(1 << 30).unwrap();
        assert_eq!(map.reserved(), 1 << 30);
        let base = map.base();
        for page in 0..100_u8 {
            file.write_at(u64::from(page) * 4096, &[page; 4096]).unwrap();
        }
        map.prefetch(0, usize::MAX);
        assert_eq!(base, map.base());
        // SAFETY: the file has 100 pages, and nothing writes to them any more.
        let bytes = unsafe { slice::from_raw_parts(base, 100 * 4096) };
        for page in 0..100_u8 {
            assert_eq!(bytes[usize::from(page) * 4096 + 17], page);
        }
    }

    #[test]
    fn a_reserve_that_no_address_space_has_becomes_a_smaller_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("data"), OpenMode::CreateNew).unwrap();
        let map = file.map(1 << 52).unwrap();
        assert!(map.reserved() < 1 << 52);
        assert!(map.reserved() >= 1 << 30);
    }

    /// Runs itself again in a shell that limits the address space.
    #[test]
    fn a_limit_on_address_space_makes_the_reserve_smaller_than_asked() {
        const DIR: &str = "TREEPIE_TEST_SMALL_SPACE_DIR";
        const NAME: &str =
            "disk::map::tests::a_limit_on_address_space_makes_the_reserve_smaller_than_asked";
        if let Some(dir) = env::var_os(DIR) {
            let file = RealDisk.open(&Path::new(&dir).join("data"), OpenMode::CreateNew).unwrap();
            file.write_at(0, &[1; 4096]).unwrap();
            let map = file.map(1 << 36).unwrap();
            assert!(map.reserved() < 1 << 33, "got {}", map.reserved());
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("sh")
            .args(["-c", "ulimit -v 4194304 || exit 99; exec \"$0\" --exact \"$1\""])
            .arg(env::current_exe().unwrap())
            .arg(NAME)
            .env(DIR, dir.path())
            .status();
        match status {
            Ok(status) if status.code() == Some(99) => eprintln!("skipped: no ulimit -v here"),
            Ok(status) => assert!(status.success(), "the limited child failed"),
            Err(error) => eprintln!("skipped: no shell here ({error})"),
        }
    }
}

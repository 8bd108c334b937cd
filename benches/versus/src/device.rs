//! Bytes written to the block device under a folder, from the kernel's counter.
//!
//! The counter is the device's, not the process's: whatever else writes meanwhile is counted too,
//! and so is the file system's own journal. (The process's own counter is no alternative: it
//! counts pages dirtied, and too many of them where the page cache holds large folios.) Where the
//! folder is not on a block device, as with tmpfs, there is no figure.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::Result;

/// `/proc/diskstats` counts in units of 512 bytes, whatever the device's own sectors are.
const SECTOR_SIZE: u64 = 512;

/// A block device's counter of written bytes.
#[derive(Clone, Debug)]
pub struct Device {
    major: u32,
    minor: u32,
}

impl Device {
    /// The device that holds the folder.
    pub fn of(dir: &Path) -> Result<Device> {
        let dev = fs::metadata(dir)?.dev();
        Ok(Device { major: rustix::fs::major(dev), minor: rustix::fs::minor(dev) })
    }

    /// Bytes written since the machine started, after everything dirty has been written out.
    pub fn written(&self) -> Result<Option<u64>> {
        rustix::fs::sync();
        let stats = match fs::read_to_string("/proc/diskstats") {
            Ok(stats) => stats,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(written(&stats, self.major, self.minor))
    }
}

fn written(stats: &str, major: u32, minor: u32) -> Option<u64> {
    let mut lines = stats.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let line = lines.find(|fields| {
        fields.first().and_then(|field| field.parse().ok()) == Some(major)
            && fields.get(1).and_then(|field| field.parse().ok()) == Some(minor)
    })?;
    Some(line.get(9)?.parse::<u64>().ok()? * SECTOR_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_sectors_are_the_tenth_field_of_the_device() {
        let stats = "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0\n \
                     254       0 vda 13681 11679 2513010 9511 921 7501 441120 1234 0 3340 10955\n";
        assert_eq!(written(stats, 254, 0), Some(441_120 * 512));
        assert_eq!(written(stats, 7, 0), Some(0));
        assert_eq!(written(stats, 8, 1), None);
    }
}

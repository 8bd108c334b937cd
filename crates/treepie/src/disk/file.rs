//! Real files: the [`Disk`] of the machine.
//!
//! Files are created with mode 0600 and folders with 0700, and no descriptor outlives an `exec`.
//! Reads and writes are positioned, complete, and repeated after `EINTR`; syncs are made once
//! (`syscalls.rs`). Where a file system cannot allocate blocks, zeros are written instead.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Disk, DiskFile, DiskLock, DiskMap, LockError, OpenMode, ScratchMap,
    lock::RealLock,
    map::{self, RealMap},
    medium::Medium,
    scratch::RealScratch,
    syscalls,
};

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Bytes of one write of zeros, where blocks cannot be allocated: large enough for large folios.
const ZEROS_LEN: usize = 1 << 20;

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(DIR_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::CreateNew => options.write(true).create_new(true).mode(FILE_MODE),
            OpenMode::ReadWrite => options.write(true),
            OpenMode::ReadOnly => &mut options,
        };
        Ok(Arc::new(RealFile { file: options.open(path)?, medium: Medium::default() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    /// Names that are not UTF-8 are none of Treepie's; they are returned with the odd bytes
    /// replaced, so that a folder with foreign files does not look empty.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn modified_us(&self, path: &Path) -> io::Result<Option<u64>> {
        let since = fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_micros()).ok())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        syscalls::sync_dir(&File::open(dir)?)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        Ok(Box::new(RealLock::take(path)?))
    }

    fn scratch(&self, dir: &Path, len: usize) -> io::Result<Box<dyn ScratchMap>> {
        Ok(Box::new(RealScratch::create(dir, len)?))
    }

    fn scratch_file(&self, dir: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = tempfile::tempfile_in(dir)?;
        Ok(Arc::new(RealFile { file, medium: Medium::default() }))
    }

    /// A clock set before 1970 reads as 0, one that overflows 64 bits as the largest time.
    fn now_us(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        Ok(bytes)
    }
}

/// An open file of the machine.
#[derive(Debug)]
struct RealFile {
    file: File,
    medium: Medium,
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn read_medium(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.medium.read_at(&self.file, offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        allocate(&self.file, len)
    }

    fn prepare_cache(&self, offset: u64, len: u64) {
        map::prepare_cache(&self.file, offset, len);
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        syscalls::sync_data(&self.file)
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        syscalls::start_writeback(&self.file, offset, len)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        Ok(Box::new(RealMap::create(&self.file, reserve)?))
    }
}

/// Allocates blocks for bytes `0..len`, or writes zeros from the file's end on where the file
/// system cannot. A file that is longer keeps its length.
pub(super) fn allocate(file: &File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match syscalls::allocate(file, len) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => append_zeros(file, len),
        other => other,
    }
}

fn append_zeros(file: &File, len: u64) -> io::Result<()> {
    let mut offset = file.metadata()?.len();
    if offset >= len {
        return Ok(());
    }
    let zeros = vec![0; ZEROS_LEN];
    while offset < len {
        let rest = usize::try_from(len - offset).unwrap_or(ZEROS_LEN).min(ZEROS_LEN);
        file.write_all_at(&zeros[..rest], offset)?;
        offset += rest as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    fn create(path: &Path) -> Arc<dyn DiskFile> {
        RealDisk.open(path, OpenMode::CreateNew).expect("the folder is new")
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("tests need a temporary folder")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it was just created").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_read_again_through_another_handle() {
        let dir = folder();
        let path = dir.path().join("data");
        let file = create(&path);
        file.write_at(5000, b"pie").unwrap();
        file.sync_data().unwrap();
        file.start_writeback(0, 8192).unwrap();
        RealDisk.sync_dir(dir.path()).unwrap();

        let again = RealDisk.open(&path, OpenMode::ReadOnly).unwrap();
        let mut bytes = [1; 4];
        again.read_at(4999, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0pie");
        assert_eq!(again.len().unwrap(), 5003);
        assert!(again.write_at(0, b"x").is_err(), "opened read-only");
    }

    #[test]
    fn a_read_past_the_end_is_an_error_not_a_short_read() {
        let dir = folder();
        let file = create(&dir.path().join("data"));
        file.write_at(0, b"abc").unwrap();
        let error = file.read_at(1, &mut [0; 3]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn files_and_folders_belong_to_their_owner_alone() {
        let dir = folder();
        let inner = dir.path().join("db");
        RealDisk.create_dir(&inner).unwrap();
        RealDisk.create_dir(&inner).expect("a folder that is there already is fine");
        create(&inner.join("data"));
        assert_eq!(mode(&inner), DIR_MODE);
        assert_eq!(mode(&inner.join("data")), FILE_MODE);
    }

    #[test]
    fn a_new_file_never_replaces_an_old_one() {
        let dir = folder();
        let path = dir.path().join("data");
        create(&path);
        let error = RealDisk.open(&path, OpenMode::CreateNew).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(RealDisk.create_dir(&path).is_err(), "a file is not a folder");
        let missing = RealDisk.open(&dir.path().join("none"), OpenMode::ReadWrite).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn allocated_bytes_read_as_zeros_and_keep_what_was_there() {
        let dir = folder();
        for by_zeros in [false, true] {
            let path = dir.path().join(by_zeros.to_string());
            create(&path).write_at(0, b"pie").unwrap();
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let len = ZEROS_LEN as u64 + 10_000;
            if by_zeros { append_zeros(&file, len) } else { allocate(&file, len) }.unwrap();
            allocate(&file, 10).expect("a longer file keeps its length");
            let bytes = fs::read(&path).unwrap();
            assert_eq!(bytes.len() as u64, len);
            assert_eq!(&bytes[..3], b"pie");
            assert!(bytes[3..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_scratch_file_is_read_again_and_has_no_name() {
        let dir = folder();
        let file = RealDisk.scratch_file(dir.path()).unwrap();
        assert!(RealDisk.list(dir.path()).unwrap().is_empty());
        file.write_at(9_000, b"pie").unwrap();
        let mut bytes = [1; 4];
        file.read_at(8_999, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0pie");
        assert!(RealDisk.scratch_file(&dir.path().join("none")).is_err());
    }

    #[test]
    fn names_are_listed_renamed_and_removed() {
        let dir = folder();
        create(&dir.path().join("a"));
        create(&dir.path().join("b")).write_at(0, b"old").unwrap();
        RealDisk.create_dir(&dir.path().join("folder")).unwrap();
        RealDisk.rename(&dir.path().join("a"), &dir.path().join("b")).unwrap();
        assert_eq!(RealDisk.list(dir.path()).unwrap(), ["b"]);
        assert!(!RealDisk.exists(&dir.path().join("a")).unwrap());
        let file = RealDisk.open(&dir.path().join("b"), OpenMode::ReadWrite).unwrap();
        assert!(file.is_empty().unwrap(), "the rename replaced the old file");
        RealDisk.remove(&dir.path().join("b")).unwrap();
        assert!(RealDisk.list(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn random_bytes_and_the_clock_come_from_the_machine() {
        assert_ne!(RealDisk.random().unwrap(), RealDisk.random().unwrap());
        assert!(RealDisk.now_us() > 1_577_836_800_000_000, "later than 2020");
    }

    /// Runs itself again in a shell that limits the length of files, because the limit is the
    /// whole process's.
    #[test]
    fn a_write_past_the_limit_of_the_file_system_is_reported() {
        const DIR: &str = "TREEPIE_TEST_LIMITED_DIR";
        const NAME: &str =
            "disk::file::tests::a_write_past_the_limit_of_the_file_system_is_reported";
        if let Some(dir) = env::var_os(DIR) {
            let file = create(&Path::new(&dir).join("data"));
            file.write_at(0, &[7; 4096]).expect("below the limit");
            let error = file.write_at(4096, &vec![7; 1 << 20]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
            let error = file.allocate(1 << 20).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
            return;
        }
        let dir = folder();
        // A signal that is ignored stays ignored across `exec`; by default it would kill.
        let status = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 64 || exit 99; exec \"$0\" --exact \"$1\""])
            .arg(env::current_exe().expect("tests run from a file"))
            .arg(NAME)
            .env(DIR, dir.path())
            .status();
        match status {
            Ok(status) if status.code() == Some(99) => eprintln!("skipped: no ulimit -f here"),
            Ok(status) => assert!(status.success(), "the limited child failed"),
            Err(error) => eprintln!("skipped: no shell here ({error})"),
        }
    }
}

//! The lock that keeps a second process, or a second handle in this one, out of a database.
//!
//! Two things together, because neither is enough: an exclusive `flock` on the lock file, and a
//! registry of the files locked by this process. Where a file system emulates `flock` with classic
//! record locks, the same process would be let in twice, and closing *any* descriptor of the file
//! would drop the lock; hence the registry is asked, by device and inode, before the file is opened.
//!
//! The owner's process id stands in the file while the lock is held, for the error message. The
//! file is never removed: whoever waits on an unlinked file waits on another file than the next
//! one to come.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
    process,
};

use crate::sync::LeafMutex;

use super::{DiskLock, LockError};

/// Longest text that is read as a process id.
const OWNER_LEN_MAX: u64 = 20;

/// Device and inode of every lock file that this process holds. Held while one is taken or given
/// back, so that these do not overlap.
static HELD: LeafMutex<BTreeSet<FileKey>> = LeafMutex::new(BTreeSet::new());

type FileKey = (u64, u64);

/// A lock that is held; dropping it releases it.
#[derive(Debug)]
pub(super) struct RealLock {
    /// Gone only inside `drop`.
    file: Option<File>,
    key: FileKey,
}

impl RealLock {
    pub(super) fn take(path: &Path) -> Result<RealLock, LockError> {
        let mut held = HELD.lock();
        if let Ok(metadata) = fs::metadata(path)
            && held.contains(&key(&metadata))
        {
            return Err(LockError::Held(Some(process::id())));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held(owner(&file))),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let key = key(&file.metadata().map_err(LockError::Io)?);
        write_owner(&file).map_err(LockError::Io)?;
        held.insert(key);
        Ok(RealLock { file: Some(file), key })
    }
}

impl DiskLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        let mut held = HELD.lock();
        if let Some(file) = self.file.take() {
            // Both are courtesies: closing the file releases the lock, and a process id that is
            // left behind is overwritten by the next owner.
            if let Err(error) = file.set_len(0).and_then(|()| file.unlock()) {
                tracing::debug!(%error, "the lock file was closed without being cleared");
            }
        }
        held.remove(&self.key);
    }
}

fn key(metadata: &fs::Metadata) -> FileKey {
    (metadata.dev(), metadata.ino())
}

fn write_owner(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(format!("{}\n", process::id()).as_bytes(), 0)
}

/// The process id in the file; none while its owner is about to write it, or of a foreign file.
fn owner(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(OWNER_LEN_MAX).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        io::{BufRead, BufReader, Write},
        os::unix::fs::PermissionsExt,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::disk::{Disk, RealDisk};

    #[test]
    fn a_second_lock_in_the_same_process_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = RealDisk.lock(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let link = dir.path().join("alias");
        fs::hard_link(&path, &link).unwrap();
        for name in [&path, &link] {
            match RealDisk.lock(name) {
                Err(LockError::Held(Some(pid))) => assert_eq!(pid, process::id()),
                other => panic!("{other:?}"),
            }
        }
        drop(lock);
        drop(RealDisk.lock(&path).unwrap());
        assert!(path.exists(), "the lock file stays");
    }

    /// Runs itself again as another process, which holds the lock until its input ends.
    #[test]
    fn a_lock_of_another_process_is_refused_with_its_id_and_freed_by_its_death() {
        const PATH: &str = "TREEPIE_TEST_LOCK_PATH";
        const NAME: &str = "disk::lock::tests::a_lock_of_another_process_is_refused_with_its_id_and_freed_by_its_death";
        if let Some(path) = env::var_os(PATH) {
            let _lock = RealDisk.lock(Path::new(&path)).unwrap();
            println!("\nlocked");
            io::stdout().flush().unwrap();
            io::stdin().read_line(&mut String::new()).unwrap();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(PATH, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "locked"), "the child got no lock");
        match RealDisk.lock(&path) {
            Err(LockError::Held(Some(pid))) => assert_eq!(pid, child.id()),
            other => panic!("{other:?}"),
        }
        child.kill().unwrap();
        child.wait().unwrap();
        RealDisk.lock(&path).expect("a killed process holds no lock");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_io_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = RealDisk.lock(&dir.path().join("none").join("lock")).unwrap_err();
        assert!(matches!(error, LockError::Io(error) if error.kind() == io::ErrorKind::NotFound));

        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
        match RealDisk.lock(&dir.path().join("lock")) {
            Err(LockError::Io(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            }
            Ok(_) => eprintln!("skipped: this user may write to read-only folders"),
            Err(other) => panic!("{other:?}"),
        }
    }
}

//! Calls that fail, and planted bugs.

use std::{io, path::Path};

/// The kinds of calls to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the call of the disk seam with its name")]
pub enum Call {
    CreateDir,
    /// `open` with `CreateNew`.
    Create,
    /// `open` of a file that exists.
    Open,
    Rename,
    Remove,
    Exists,
    List,
    SyncDir,
    Lock,
    Scratch,
    Random,
    Len,
    Read,
    Write,
    Allocate,
    SetLen,
    SyncData,
    StartWriteback,
    Map,
}

impl Call {
    /// Every kind.
    pub const ALL: [Call; 19] = [
        Call::CreateDir,
        Call::Create,
        Call::Open,
        Call::Rename,
        Call::Remove,
        Call::Exists,
        Call::List,
        Call::SyncDir,
        Call::Lock,
        Call::Scratch,
        Call::Random,
        Call::Len,
        Call::Read,
        Call::Write,
        Call::Allocate,
        Call::SetLen,
        Call::SyncData,
        Call::StartWriteback,
        Call::Map,
    ];

    /// Whether the call changes files or names.
    #[must_use]
    pub fn changes(self) -> bool {
        use Call::{Allocate, Create, CreateDir, Remove, Rename, SetLen, SyncData, SyncDir, Write};
        matches!(
            self,
            CreateDir | Create | Rename | Remove | SyncDir | Write | Allocate | SetLen | SyncData
        )
    }
}

/// What a failing call reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// An error number of the operating system.
    Os(i32),
    /// An error of the standard library's kinds, without a number.
    Kind(io::ErrorKind),
}

impl FaultError {
    /// "Input/output error".
    pub const EIO: FaultError = FaultError::Os(5);
    /// "No space left on device".
    pub const ENOSPC: FaultError = FaultError::Os(28);
    /// "Interrupted system call".
    pub const EINTR: FaultError = FaultError::Os(4);
    /// "Disk quota exceeded".
    pub const EDQUOT: FaultError = FaultError::Os(122);
    /// "Read-only file system": what a file system becomes after an error of its own.
    pub const EROFS: FaultError = FaultError::Os(30);

    pub(crate) fn to_error(self) -> io::Error {
        match self {
            FaultError::Os(number) => io::Error::from_raw_os_error(number),
            FaultError::Kind(kind) => kind.into(),
        }
    }
}

/// "The n-th call of these fails": by default any call, once, with EIO, having done nothing.
///
/// ```
/// use treepie_testkit::{Call, Fault, FaultError};
///
/// let fault = Fault::nth(3).of(Call::Write).on("journal").error(FaultError::ENOSPC).forever();
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    remaining: u64,
    call: Option<Call>,
    changes_only: bool,
    path: String,
    error: FaultError,
    forever: bool,
    short_write: usize,
    has_effect: bool,
}

impl Fault {
    /// The `n`-th matching call from now on fails, counted from 1.
    #[must_use]
    pub fn nth(n: u64) -> Fault {
        Fault {
            remaining: n.max(1),
            call: None,
            changes_only: false,
            path: String::new(),
            error: FaultError::EIO,
            forever: false,
            short_write: 0,
            has_effect: false,
        }
    }

    /// Matches calls of one kind.
    #[must_use]
    pub fn of(mut self, call: Call) -> Fault {
        self.call = Some(call);
        self
    }

    /// Matches calls that change files or names.
    #[must_use]
    pub fn of_changes(mut self) -> Fault {
        self.changes_only = true;
        self
    }

    /// Matches calls on paths that contain `part`.
    #[must_use]
    pub fn on(mut self, part: &str) -> Fault {
        part.clone_into(&mut self.path);
        self
    }

    /// What the call reports.
    #[must_use]
    pub fn error(mut self, error: FaultError) -> Fault {
        self.error = error;
        self
    }

    /// Every later matching call fails too.
    #[must_use]
    pub fn forever(mut self) -> Fault {
        self.forever = true;
        self
    }

    /// A write that fails has written its first `len` bytes; an allocation has made the file as much
    /// longer.
    #[must_use]
    pub fn after_short_write(mut self, len: usize) -> Fault {
        self.short_write = len;
        self
    }

    /// The call does all that it should, and then fails: a name is there, bytes are written or even
    /// durable, and whoever asked for it does not know.
    #[must_use]
    pub fn with_effect(mut self) -> Fault {
        self.has_effect = true;
        self
    }

    /// Counts a call, and tells whether and how it fails.
    pub(crate) fn strike(&mut self, call: Call, path: &Path) -> Option<Failure> {
        let matches = self.call.is_none_or(|wanted| wanted == call)
            && (!self.changes_only || call.changes())
            && path.to_string_lossy().contains(&self.path);
        if !matches || self.remaining == 0 {
            return None;
        }
        if self.remaining > 1 {
            self.remaining -= 1;
            return None;
        }
        if !self.forever {
            self.remaining = 0;
        }
        let Fault { error, short_write, has_effect, .. } = *self;
        Some(Failure { error, short_write, has_effect })
    }
}

/// How one call fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) error: FaultError,
    pub(crate) short_write: usize,
    pub(crate) has_effect: bool,
}

/// The result of a call that has taken effect.
pub(crate) fn result_of(late: Option<Failure>) -> io::Result<()> {
    late.map_or(Ok(()), |failure| Err(failure.error.to_error()))
}

/// A bug put in on purpose, to see that a harness finds it. Paths match by what they contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// `sync_data` of such files does nothing and reports success.
    SkipSyncData(String),
    /// `sync_dir` of such folders does nothing and reports success.
    SkipSyncDir(String),
    /// A `sync_data` of such files that fails reports success.
    HideFailedSync(String),
}

impl PlantedBug {
    pub(crate) fn skips(&self, call: Call, path: &Path) -> bool {
        let (kind, part) = match self {
            PlantedBug::SkipSyncData(part) => (Call::SyncData, part),
            PlantedBug::SkipSyncDir(part) => (Call::SyncDir, part),
            PlantedBug::HideFailedSync(_) => return false,
        };
        kind == call && path.to_string_lossy().contains(part)
    }

    pub(crate) fn hides_failure(&self, path: &Path) -> bool {
        matches!(self, PlantedBug::HideFailedSync(part) if path.to_string_lossy().contains(part))
    }
}

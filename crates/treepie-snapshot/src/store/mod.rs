//! NAMES <-> BYTES: where the files of a repository are kept.
//!
//! A store is small and blocking: names, bytes, one lock. What each implementation promises:
//!
//! - Nothing is to be seen under a name before [`StoreWriter::finish`], and all of it after: a crash
//!   or an error on the way leaves no part of it there. What `finish` returned `Ok` for is durable.
//! - [`Store::put_if_absent`] lets exactly one of several callers win.
//! - [`Store::remove`] is durable when it has returned.
//!
//! A file is written once and never changed, except small ones that are replaced as a whole.

mod error;
pub mod lease;
pub mod local;
pub mod numbered;
#[cfg(feature = "object-store")]
pub mod object;

use std::{
    fmt,
    io::{self, Read, Write},
};

pub use error::StoreError;
pub use local::LocalStore;

/// Bytes that are copied at a time.
const COPY_LEN: usize = 1 << 20;
/// Longest name, in bytes: what any file system takes.
pub const NAME_LEN_MAX: usize = 255;
/// Most files that are listed: far above what a manifest may hold.
pub const LISTED_MAX: usize = 1 << 20;

/// A name in a store: `file`, or `folder/file`. Letters, digits, `.`, `_` and `-`; no part begins
/// with a dot, so that nothing leads out of the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// [`StoreError::Name`] if it is none.
    pub fn new(name: impl Into<String>) -> Result<Name, StoreError> {
        let name = name.into();
        match fault_of(&name) {
            None => Ok(Name(name)),
            Some(reason) => Err(StoreError::Name { name: shortened(&name), reason }),
        }
    }

    /// The name as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder, if it has one.
    #[must_use]
    pub fn folder(&self) -> Option<&str> {
        self.0.split_once('/').map(|(folder, _)| folder)
    }

    /// The last part.
    #[must_use]
    pub fn file(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(_, file)| file)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn fault_of(name: &str) -> Option<&'static str> {
    if name.len() > NAME_LEN_MAX {
        return Some("it is longer than 255 bytes");
    }
    if name.matches('/').count() > 1 {
        return Some("it has more than one folder");
    }
    for part in name.split('/') {
        if part.is_empty() {
            return Some("a part of it is empty");
        }
        if part.starts_with('.') {
            return Some("a part of it begins with a dot");
        }
        if !part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return Some("it has other characters than letters, digits, `.`, `_` and `-`");
        }
    }
    None
}

/// The beginning of a text that someone else wrote, for a message.
pub(crate) fn shortened(text: &str) -> String {
    let printable: String = text.chars().take(80).flat_map(char::escape_default).collect();
    if text.chars().count() > 80 { format!("{printable}…") } else { printable }
}

/// A file in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: Name,
    /// Its length.
    pub bytes: u64,
    /// When it was last changed, microseconds since 1970, where the store knows.
    pub modified_us: Option<u64>,
}

/// Where files are kept.
pub trait Store: Send + Sync + fmt::Debug {
    /// Where this is, for messages: a path or a URL.
    fn place(&self) -> String;

    /// Begins a file, in the place of one of the same name if there is one.
    ///
    /// # Errors
    /// What the medium says.
    fn create(&self, name: &Name) -> Result<Box<dyn StoreWriter>, StoreError>;

    /// Writes a small file, unless one of this name is there; whether it did.
    ///
    /// # Errors
    /// What the medium says. Whether the file is there is not known then.
    fn put_if_absent(&self, name: &Name, bytes: &[u8]) -> Result<bool, StoreError>;

    /// Reads a file from `offset` on. A reader of a file that is removed meanwhile reads on, or gets
    /// an error; never other bytes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; what the medium says.
    fn open(&self, name: &Name, offset: u64) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Length of a file, none if there is no such file.
    ///
    /// # Errors
    /// What the medium says.
    fn len(&self, name: &Name) -> Result<Option<u64>, StoreError>;

    /// The files of a folder, in no order. What has no proper name is not listed.
    ///
    /// # Errors
    /// What the medium says; [`StoreError::Bound`] with more than [`LISTED_MAX`].
    fn list(&self, folder: &str) -> Result<Vec<Item>, StoreError>;

    /// Removes a file; it is no error if there is none.
    ///
    /// # Errors
    /// What the medium says.
    fn remove(&self, name: &Name) -> Result<(), StoreError>;

    /// Takes the lock that lets one writer in at a time; refuses at once if somebody has it. Released
    /// on drop. `purpose` is told to whoever is refused.
    ///
    /// # Errors
    /// [`StoreError::Locked`]; what the medium says.
    fn lock(&self, purpose: &str) -> Result<Box<dyn StoreLock>, StoreError>;

    /// Wall-clock time in microseconds since 1970.
    fn now_us(&self) -> u64;

    /// 16 bytes that no other call returns.
    ///
    /// # Errors
    /// What the operating system says.
    fn random(&self) -> Result<[u8; 16], StoreError>;

    /// Writes a file as a whole, in the place of one of the same name; how many bytes it has.
    ///
    /// # Errors
    /// As [`Store::create`], or what `content` says: nothing is there then.
    fn put(&self, name: &Name, content: &mut dyn Read) -> Result<u64, StoreError> {
        let mut writer = self.create(name)?;
        let mut buf = vec![0; COPY_LEN];
        let mut len = 0;
        let copied = loop {
            match content.read(&mut buf) {
                Ok(0) => break Ok(len),
                Ok(count) => match writer.write_all(&buf[..count]) {
                    Ok(()) => len += count as u64,
                    Err(error) => break Err(error),
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        match copied {
            Ok(len) => writer.finish().map(|_| len),
            Err(error) => {
                writer.abort();
                Err(StoreError::io("write", name, self.place())(error))
            }
        }
    }
}

/// A file that is being written. Dropping it is as [`StoreWriter::abort`].
pub trait StoreWriter: Write + Send + fmt::Debug {
    /// Makes the file durable and lets it be seen; its length.
    ///
    /// # Errors
    /// What the medium says. The file is then not there, or it is there as a whole.
    fn finish(self: Box<Self>) -> Result<u64, StoreError>;

    /// Gives the file up. What cannot be cleared away stays under a temporary name.
    fn abort(self: Box<Self>);
}

/// A lock that is held.
pub trait StoreLock: Send + fmt::Debug {
    /// Says that the owner is still there. Locks that can expire are to be renewed before each step
    /// that others must not see half done.
    ///
    /// # Errors
    /// [`StoreError::LockLost`] if somebody else has it now.
    fn renew(&mut self) -> Result<(), StoreError>;
}

/// The whole of a small file, none if there is no such file.
///
/// # Errors
/// [`StoreError::Bound`] if it is longer than `len_max`; what the medium says.
pub fn read_small(
    store: &dyn Store,
    name: &Name,
    len_max: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let reader = match store.open(name, 0) {
        Ok(reader) => reader,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let read = reader.take(len_max + 1).read_to_end(&mut bytes);
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", name, store.place())(error)),
        Ok(_) => {}
    }
    if bytes.len() as u64 > len_max {
        let what = format!("{name} is longer than {len_max} bytes");
        return Err(StoreError::Bound { place: store.place(), what });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_a_store_are_refused() {
        for name in ["a", "streams/full-1.tps", "A_b-c.d", "0/1"] {
            assert_eq!(Name::new(name).unwrap().as_str(), name);
        }
        let long = "x".repeat(NAME_LEN_MAX + 1);
        for name in [
            "", "/", "/a", "a/", "..", "../a", "a/..", "a/../b", "a//b", "a/b/c", ".a", "a/.b",
            "a b", "a\\b", "a\0", "ä", "a\n", &long,
        ] {
            match Name::new(name) {
                Err(StoreError::Name { .. }) => {}
                other => panic!("{name:?}: {other:?}"),
            }
        }
    }
}

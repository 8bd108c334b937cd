//! Keys and their ids.

use std::{
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use zeroize::{Zeroize, Zeroizing};

use crate::{
    error::{Error, Result},
    hash::parse_hex,
    limits::{KEY_FILE_LEN_MAX, KEY_ID_LEN_MAX, KEY_SIZE},
};

const ID_CONTEXT: &str = "treepie-snapshot version 1: id of a key";

/// Name of a key, stored in the header of a stream: 1 to 32 printable characters of ASCII.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID_LEN_MAX]);

impl KeyId {
    /// Makes an id of a text.
    ///
    /// # Errors
    /// [`Error::Key`] if it is empty, too long, or has other characters.
    pub fn new(text: &str) -> Result<KeyId> {
        let mut stored = [0; KEY_ID_LEN_MAX];
        if let Some(place) = stored.get_mut(..text.len()) {
            place.copy_from_slice(text.as_bytes());
        }
        let id = KeyId::from_stored(stored).filter(|_| text.len() <= KEY_ID_LEN_MAX);
        id.ok_or_else(|| {
            unusable(None, format!("its id has to be 1 to {KEY_ID_LEN_MAX} printable characters"))
        })
    }

    /// The id in a header, if it is one.
    pub(crate) fn from_stored(stored: [u8; KEY_ID_LEN_MAX]) -> Option<KeyId> {
        let len = stored.iter().position(|byte| *byte == 0).unwrap_or(KEY_ID_LEN_MAX);
        let (text, rest) = stored.split_at(len);
        let is_text = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
        (is_text && rest.iter().all(|byte| *byte == 0)).then_some(KeyId(stored))
    }

    pub(crate) fn stored(&self) -> &[u8; KEY_ID_LEN_MAX] {
        &self.0
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or(KEY_ID_LEN_MAX);
        self.0.get(..len).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A key of 32 bytes, and its id. It is overwritten when it goes, and `Debug` does not show it.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; KEY_SIZE],
    id: KeyId,
}

impl Key {
    /// A key whose id follows from its bytes, and does not tell them.
    #[must_use]
    pub fn new(bytes: [u8; KEY_SIZE]) -> Key {
        let hash = blake3::derive_key(ID_CONTEXT, &bytes);
        let text: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Key { bytes, id: KeyId::new(&text).expect("16 hexadecimal digits are an id") }
    }

    /// Reads a key from text or bytes: 64 hexadecimal digits, white space around them, or 32 bytes.
    ///
    /// # Errors
    /// [`Error::Key`] if it is neither.
    pub fn parse(text: &[u8]) -> Result<Key> {
        if let Ok(bytes) = <[u8; KEY_SIZE]>::try_from(text) {
            return Ok(Key::new(bytes));
        }
        let what = || unusable(None, "it has to be 32 bytes, or 64 hexadecimal digits".to_owned());
        let bytes = Zeroizing::new(parse_hex(text.trim_ascii()).ok_or_else(what)?);
        Ok(Key::new(*bytes))
    }

    /// Reads a key from a file, as [`parse`](Key::parse).
    ///
    /// # Errors
    /// [`Error::Key`] if the file cannot be read, or holds no key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Key> {
        let path = path.as_ref();
        let mut text = Zeroizing::new(Vec::with_capacity(KEY_FILE_LEN_MAX as usize + 1));
        let read = File::open(path)
            .and_then(|file| file.take(KEY_FILE_LEN_MAX + 1).read_to_end(&mut text));
        read.map_err(|error| unusable(Some(path), error.to_string()))?;
        Key::parse(&text).map_err(|error| match error {
            Error::Key { what, .. } => unusable(Some(path), what),
            other => other,
        })
    }

    /// The same key under another id.
    #[must_use]
    pub fn named(mut self, id: KeyId) -> Key {
        self.id = id;
        self
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    #[cfg(feature = "encryption")]
    pub(super) fn bytes(&self) -> &[u8; KEY_SIZE] {
        &self.bytes
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// Where a reader gets keys from.
#[derive(Clone, Default)]
pub struct Keys(Source);

type Find = dyn Fn(&KeyId) -> Option<Key> + Send + Sync;

#[derive(Clone, Default)]
enum Source {
    #[default]
    None,
    One(Key),
    ById(Arc<Find>),
}

impl Keys {
    /// Whoever has the key with an id: a key ring, a service.
    pub fn by_id(find: impl Fn(&KeyId) -> Option<Key> + Send + Sync + 'static) -> Keys {
        Keys(Source::ById(Arc::new(find)))
    }

    /// The key for a stream. A single key is tried whatever its id says.
    pub(crate) fn find(&self, id: &KeyId) -> Result<Key> {
        let key = match &self.0 {
            Source::None => None,
            Source::One(key) => Some(key.clone()),
            Source::ById(find) => find(id),
        };
        key.ok_or(Error::KeyMissing { key_id: *id })
    }
}

impl From<Key> for Keys {
    fn from(key: Key) -> Keys {
        Keys(Source::One(key))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::None => "Keys(none)",
            Source::One(_) => "Keys(one)",
            Source::ById(_) => "Keys(by id)",
        })
    }
}

fn unusable(file: Option<&Path>, what: String) -> Error {
    Error::Key { file: file.map(PathBuf::from), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_comes_as_bytes_or_digits_and_in_no_other_length() {
        let bytes = [0xa5; 32];
        let key = Key::new(bytes);
        let digits = "a5".repeat(32);
        for text in [&bytes[..], digits.as_bytes(), format!(" {digits}\r\n").as_bytes()] {
            assert_eq!(Key::parse(text).expect("a key").bytes, key.bytes);
        }
        let upper = Key::parse(digits.to_uppercase().as_bytes()).expect("a key");
        assert_eq!(upper.id(), key.id());
        for text in [&[][..], &bytes[..31], &[0xa5; 33], &digits.as_bytes()[..63], &[b'g'; 64]] {
            assert!(matches!(Key::parse(text), Err(Error::Key { .. })), "{text:?}");
        }
    }

    #[test]
    fn key_file_is_named_when_it_holds_no_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("backup.key");
        assert!(Key::from_file(&path).is_err());
        std::fs::write(&path, "a5".repeat(32)).expect("a file");
        assert_eq!(Key::from_file(&path).expect("a key").id(), Key::new([0xa5; 32]).id());
        for content in [vec![], vec![7; 31], vec![b'a'; 4096]] {
            std::fs::write(&path, content).expect("a file");
            let said = Key::from_file(&path).expect_err("no key").to_string();
            assert!(said.contains("backup.key"), "{said}");
        }
    }

    #[test]
    fn ids_are_short_printable_texts() {
        assert_eq!(KeyId::new("nightly-2026").expect("an id").to_string(), "nightly-2026");
        for text in ["", "two words", "é", "a\0b", &"x".repeat(33)] {
            assert!(KeyId::new(text).is_err(), "{text:?}");
        }
        assert!(KeyId::new(&"x".repeat(32)).is_ok());
    }

    #[test]
    fn debug_output_of_a_key_does_not_show_it() {
        let key = Key::new([0xa5; 32]);
        let said = format!("{key:?} {:?}", Keys::from(key.clone()));
        assert!(!said.contains("a5a5") && !said.contains("165"), "{said}");
    }
}

//! A small file that has versions: `<folder>/<number>.json`, the highest number counts.
//!
//! Every store can create a file if there is none of its name, and not every one can replace a file
//! only if it is unchanged. So nothing is replaced: whoever changes what version `n` says writes
//! version `n + 1`, if it is absent. Of several, one wins; the others see that they have lost.
//!
//! Old versions are removed by and by. A writer that slept so long that version `n + 1` was made and
//! removed in between could create it again, below the newest: so after writing, it looks whether its
//! version is the newest. One that is not stays where it is: whoever wrote the newer one may have gone on
//! from it, and it goes with the old ones.

use super::{Name, Store, StoreError, read_small};

/// How often a list is read again because what it named was removed meanwhile.
const ATTEMPTS_MAX: u32 = 8;

/// One version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its number, from 1.
    pub number: u64,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// The name of a version.
#[must_use]
pub fn name_of(folder: &str, number: u64) -> Name {
    Name::new(format!("{folder}/{number:020}.json")).expect("a folder and a number are a name")
}

fn number_of(name: &Name) -> Option<u64> {
    let digits = name.file().strip_suffix(".json")?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| is_number && *number > 0)
}

/// The numbers of all versions, ascending.
///
/// # Errors
/// As [`Store::list`].
pub fn numbers(store: &dyn Store, folder: &str) -> Result<Vec<u64>, StoreError> {
    let items = store.list(folder)?;
    let mut numbers: Vec<u64> = items.iter().filter_map(|item| number_of(&item.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The newest version that `choose` takes, newest first; none if there is none. `choose` is shown
/// each version until it returns something.
///
/// # Errors
/// As [`Store::list`] and [`read_small`].
pub fn newest<T>(
    store: &dyn Store,
    folder: &str,
    len_max: u64,
    mut choose: impl FnMut(&Version) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    let mut attempts = 0;
    'again: loop {
        for number in numbers(store, folder)?.into_iter().rev() {
            let Some(bytes) = read_small(store, &name_of(folder, number), len_max)? else {
                attempts += 1;
                if attempts < ATTEMPTS_MAX {
                    continue 'again;
                }
                continue;
            };
            if let Some(chosen) = choose(&Version { number, bytes }) {
                return Ok(Some(chosen));
            }
        }
        return Ok(None);
    }
}

/// Writes version `number`; whether it is the newest, and ours. Where it is not, another writer was
/// faster: ours is not there, or the newer one was made with it or without it. The bytes must hold
/// something that no other writer's do.
///
/// # Errors
/// What the medium says: whether the version is there is not known then.
pub fn append(
    store: &dyn Store,
    folder: &str,
    number: u64,
    bytes: &[u8],
) -> Result<bool, StoreError> {
    let name = name_of(folder, number);
    if !store.put_if_absent(&name, bytes)? {
        // A request whose answer was lost may have been repeated, and met its own first attempt.
        let found = read_small(store, &name, bytes.len() as u64);
        let is_ours = matches!(found, Ok(Some(found)) if found == bytes);
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(numbers(store, folder)?.last() == Some(&number))
}

/// Removes all but the newest `keep` versions. What cannot be removed stays until the next time.
pub fn trim(store: &dyn Store, folder: &str, keep: usize) {
    let Ok(numbers) = numbers(store, folder) else { return };
    for &number in &numbers[..numbers.len().saturating_sub(keep)] {
        if let Err(error) = store.remove(&name_of(folder, number)) {
            tracing::debug!(%error, "an old version stays");
        }
    }
}

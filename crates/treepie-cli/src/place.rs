//! Where backups are: standard input and output, files, repositories.

use std::{
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use treepie_snapshot::{
    ids::Lsn,
    repository::{Branch, Repository, RepositoryError, STREAMS_FOLDER},
    store::{LocalStore, Store},
};

use crate::failure::{Failure, Result};

/// What is in the folder of a repository before its first manifest is: what locks it.
const LOCKS: &[&str] = &["lock", "lease"];

/// A branch of the history of a repository, as an argument.
#[derive(Clone, Copy, Debug)]
pub struct BranchName(pub Branch);

impl FromStr for BranchName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<BranchName, String> {
        let number = |text: &str| {
            text.parse::<u64>().map_err(|_| "a branch is EPOCH, or EPOCH@LSN".to_owned())
        };
        let (epoch, forked_at) = match text.split_once('@') {
            Some((epoch, lsn)) => (epoch, Some(Lsn(number(lsn)?))),
            None => (text, None),
        };
        Ok(BranchName(Branch { epoch: number(epoch)?, forked_at }))
    }
}

/// Where a backup goes.
pub enum To {
    /// Standard output, which is no terminal.
    Stdout,
    /// A new file.
    File(PathBuf),
    /// A repository, which is there by now.
    Repository(Repository),
}

impl To {
    /// What an argument means; a repository is made if need be.
    pub fn of(path: &Path) -> Result<To> {
        if path == Path::new("-") {
            if io::stdout().is_terminal() {
                let what = "standard output is a terminal; a backup goes to a file or a pipe";
                return Err(Failure::Use(what.to_owned()));
            }
            return Ok(To::Stdout);
        }
        if is_repository(path) {
            return repository_to_write(path).map(To::Repository);
        }
        Ok(To::File(path.to_owned()))
    }
}

/// Where backups come from.
pub enum Source {
    /// Standard input.
    Stdin,
    /// Files, in this order.
    Files(Vec<PathBuf>),
    /// A repository.
    Repository(Repository),
}

impl Source {
    /// What arguments mean.
    pub fn of(paths: &[PathBuf]) -> Result<Source> {
        let mixed = |what: &str| Err(Failure::Use(format!("{what} comes alone")));
        match paths {
            [path] if path == Path::new("-") => {
                if io::stdin().is_terminal() {
                    let what = "standard input is a terminal; a backup comes from a file or a pipe";
                    return Err(Failure::Use(what.to_owned()));
                }
                Ok(Source::Stdin)
            }
            [path] if is_repository(path) => repository(path).map(Source::Repository),
            paths if paths.iter().any(|path| path == Path::new("-")) => mixed("standard input"),
            paths if paths.iter().any(|path| is_repository(path)) => mixed("a repository"),
            paths => Ok(Source::Files(paths.to_vec())),
        }
    }
}

/// Whether a path is meant to be a repository: a URL, a folder, or something that ends like one.
fn is_repository(path: &Path) -> bool {
    url(path).is_some() || path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.is_dir()
}

fn url(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| text.contains("://"))
}

/// The store at a path or URL.
pub fn store(path: &Path) -> Result<Arc<dyn Store>> {
    match url(path) {
        Some(url) => object_store(url),
        None => Ok(Arc::new(LocalStore::new(path.components().collect::<PathBuf>()))),
    }
}

#[cfg(feature = "object-store")]
fn object_store(url: &str) -> Result<Arc<dyn Store>> {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?.to_ascii_lowercase(), value.into_string().ok()?))
    });
    Ok(Arc::new(treepie_snapshot::store::object::ObjectFolder::from_url(url, variables)?))
}

#[cfg(not(feature = "object-store"))]
fn object_store(url: &str) -> Result<Arc<dyn Store>> {
    let what = "this build has no object stores; build it with the feature `object-store`";
    Err(Failure::Place { place: url.into(), what: what.to_owned() })
}

/// Opens a repository that must be there. That its newest list is damaged is told on standard error.
pub fn repository(path: &Path) -> Result<Repository> {
    let repository = Repository::open(store(path)?)?;
    if let Some((file, what)) = repository.damage() {
        let place = path.display();
        eprintln!(
            "treepie: {file} in {place} is damaged ({what}); this goes by the list before it, and \
             `rebuild` makes a new one"
        );
    }
    Ok(repository)
}

/// Opens a repository to write to, and makes it in a folder that is missing or empty.
pub fn repository_to_write(path: &Path) -> Result<Repository> {
    let store = store(path)?;
    match Repository::open(Arc::clone(&store)) {
        Err(RepositoryError::NotFound { .. }) => {}
        opened => return Ok(opened?),
    }
    if url(path).is_none() {
        refuse_others(path)?;
    }
    Ok(Repository::open_or_create(store)?)
}

/// Refuses a folder that holds anything but the locks of a repository.
fn refuse_others(path: &Path) -> Result<()> {
    let items = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        items => items.map_err(Failure::io("list", path))?,
    };
    for item in items {
        let name = item.map_err(Failure::io("list", path))?.file_name();
        let what = match name.to_str() {
            Some(name) if LOCKS.contains(&name) => continue,
            Some(STREAMS_FOLDER) => "it has streams and no list of them; `rebuild` makes one",
            _ => "it is neither empty nor a repository; name another folder",
        };
        return Err(Failure::Place { place: path.to_owned(), what: what.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_an_epoch_and_maybe_where_it_forked() {
        let BranchName(branch) = "3".parse().unwrap();
        assert_eq!(branch, Branch { epoch: 3, forked_at: None });
        let BranchName(branch) = "3@1200".parse().unwrap();
        assert_eq!(branch, Branch { epoch: 3, forked_at: Some(Lsn(1200)) });
        for text in ["", "x", "3@", "@3", "3@x", "-1"] {
            assert!(text.parse::<BranchName>().is_err(), "{text}");
        }
    }
}

//! The folder of the demonstration: made when it is missing, emptied when an earlier one left it.
//!
//! A file in it says that it is one. Without that file nothing is touched, and with it only what
//! the demonstration makes: the marker, databases and their backups.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::failure::{Failure, Result};

const MARKER: &str = "TREEPIE-DEMO";
const MARKER_TEXT: &str =
    "Made by `treepie demo`. The next one removes the databases and backups beside this file.\n";

/// The folder.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder ready, without databases and backups in it.
    pub fn prepare(path: &Path) -> Result<Folder> {
        let folder = Folder { path: path.to_owned() };
        fs::create_dir_all(path).map_err(Failure::io("create", path))?;
        let marker = path.join(MARKER);
        if !marker.is_file() && !is_empty(path)? {
            return Err(Failure::Demo(format!(
                "{} holds files that no demonstration made; choose another folder with --dir",
                path.display()
            )));
        }
        fs::write(&marker, MARKER_TEXT).map_err(Failure::io("write", &marker))?;
        for made in [
            folder.unicode(),
            folder.killed(),
            folder.backups(),
            folder.restored(),
            folder.cluster(),
        ] {
            remove(&made)?;
        }
        Ok(folder)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Database of the characters.
    pub fn unicode(&self) -> PathBuf {
        self.path.join("unicode")
    }

    /// Database of the process that is killed.
    pub fn killed(&self) -> PathBuf {
        self.path.join("killed")
    }

    /// Repository of backups of the characters.
    pub fn backups(&self) -> PathBuf {
        self.path.join("backups")
    }

    /// Folder of the nodes.
    pub fn cluster(&self) -> PathBuf {
        self.path.join("cluster")
    }

    /// Database that is made of them.
    pub fn restored(&self) -> PathBuf {
        self.path.join("restored")
    }
}

fn is_empty(path: &Path) -> Result<bool> {
    let mut items = fs::read_dir(path).map_err(Failure::io("list", path))?;
    Ok(items.next().is_none())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

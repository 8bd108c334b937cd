//! Drills: a restore that is made to see that it can be, and removed again.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    progress::Control,
    repository::{Branch, Repository, Target},
    restore::{RestoreOptions, RestoreReport, restore_plan},
};

/// What a drill has shown.
#[derive(Debug)]
#[non_exhaustive]
pub struct DrillReport {
    /// The restore: its LSN, what was read, what the check found.
    pub restore: RestoreReport,
    /// Streams that it took.
    pub stream_count: usize,
    /// How long it took, the check included.
    pub time: Duration,
}

/// Restores into a folder of its own in `scratch`, checks what was made and compares its pages with the
/// stream's, and removes it, whether it went well or not. `scratch` must be there.
///
/// # Errors
/// Those of [`restore_plan`]; [`Error::Io`] when the folder cannot be made or removed.
pub fn drill(
    repository: &Repository,
    target: Target,
    branch: Option<Branch>,
    scratch: impl AsRef<Path>,
    options: &RestoreOptions,
    control: Control,
) -> Result<DrillReport> {
    let begin = Instant::now();
    let plan = repository.plan(target, branch)?;
    let folder = Folder::create(scratch.as_ref())?;
    let options = options.clone().check(true);
    let restore = restore_plan(repository, &plan, folder.0.join("db"), &options, control)?;
    let time = begin.elapsed();
    folder.remove()?;
    Ok(DrillReport { restore, stream_count: plan.steps.len(), time })
}

/// A folder that is gone with it.
struct Folder(PathBuf);

impl Folder {
    fn create(scratch: &Path) -> Result<Folder> {
        let name = format!("treepie-drill-{}", std::process::id());
        let mut random = [0; 8];
        let io = |error: std::io::Error| Error::io("make a scratch folder for", 0, error);
        getrandom::fill(&mut random).map_err(std::io::Error::from).map_err(io)?;
        let path = scratch.join(format!("{name}-{:016x}", u64::from_le_bytes(random)));
        fs::create_dir(&path).map_err(io)?;
        Ok(Folder(path))
    }

    fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.0).map_err(|error| Error::io("remove the folder of", 0, error))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %self.0.display(), "a drill leaves its folder");
        }
    }
}

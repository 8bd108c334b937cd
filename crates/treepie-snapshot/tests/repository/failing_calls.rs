//! Every call to the disk fails, once and for ever: an error, never a panic; what was acknowledged
//! stays, and once the disk is well the job goes on.

use std::sync::Arc;

use treepie_snapshot::repository::{Repository, RepositoryError};
use treepie_testkit::{
    Fault, FaultError, SimDisk,
    tally::{note, thousands},
};

use crate::harness::{self, Expected, Job, Step, content, rerun, script, seeds};

/// Runs a job up to its end or its first error. Whoever gets one goes on with the next step, as a
/// job does that runs every hour.
fn run(disk: &SimDisk, steps: &[Step]) -> (Option<Job>, Vec<RepositoryError>, Expected) {
    let mut errors = Vec::new();
    let mut gone = Expected::new();
    let mut job = match Job::begin(harness::store(disk)) {
        Ok(job) => job,
        Err(error) => return (None, vec![error], gone),
    };
    for step in steps {
        let before = job.expected.clone();
        if job.writer.is_none()
            && let Err(error) = job.reopen()
        {
            errors.push(error);
            continue;
        }
        if let Err(error) = job.step(step) {
            errors.push(error);
            if matches!(step, Step::Prune(_)) {
                // What it was to remove may be gone, or may not.
                gone.extend(before);
                job.expected.clear();
            }
        }
    }
    (Some(job), errors, gone)
}

fn check(seed: u64, fault: Fault) -> Result<bool, String> {
    let steps = script(seed, 8);
    let disk = SimDisk::new(seed);
    disk.fail(fault);
    let (job, errors, gone) = run(&disk, &steps);
    let was_hit = !disk.failed_calls().is_empty();
    for error in &errors {
        if error.to_string().is_empty() {
            return Err("an error says nothing".to_owned());
        }
    }
    let must = job.map(|job| job.expected).unwrap_or_default();
    let disk = disk.restart();
    disk.heal();
    let store = harness::store(&disk);
    let repository = Repository::open_or_create(Arc::clone(&store));
    let repository = repository.map_err(|error| format!("after healing: {error}"))?;
    // What was not acknowledged may be there as a whole.
    let mut may = gone;
    for entry in &repository.manifest().entries {
        may.insert(entry.file.to_string(), content(&entry.stream));
    }
    harness::verify(&repository, &must, &may)?;
    harness::sweep(&store)?;
    let repository = Repository::open(Arc::clone(&store)).map_err(|error| error.to_string())?;
    harness::verify(&repository, &must, &may)?;
    let mut job = Job::begin(store).map_err(|error| error.to_string())?;
    for step in script(seed + 1, 4).iter().filter(|step| matches!(step, Step::Reopen)) {
        job.step(step).map_err(|error| error.to_string())?;
    }
    Ok(was_hit)
}

#[test]
fn every_failing_call_is_an_error_and_loses_nothing_that_was_acknowledged() {
    let mut runs = 0;
    let seeds = seeds(13_300, 2);
    for &seed in &seeds {
        for error in [FaultError::EIO, FaultError::ENOSPC] {
            for k in 0.. {
                let faults = [
                    Fault::nth(k).error(error),
                    Fault::nth(k).error(error).forever(),
                    Fault::nth(k).error(error).with_effect(),
                    Fault::nth(k).error(error).of_changes().after_short_write(100),
                ];
                let mut was_hit = false;
                for (number, fault) in faults.into_iter().enumerate() {
                    runs += 1;
                    was_hit |= check(seed, fault).unwrap_or_else(|what| {
                        let again = rerun(seed, "every_failing_call");
                        panic!("call {k}, {error:?}, fault {number}: {what}\n{again}")
                    });
                }
                if !was_hit {
                    break;
                }
            }
        }
    }
    note(13, "repository: failing calls", &format!("{} runs", thousands(runs)));
}

//! The power fails at every moment of a backup job: what was acknowledged is there, whole, and the
//! job goes on.

use std::sync::Arc;

use treepie_snapshot::repository::{Kind, Repository, RepositoryError};
use treepie_testkit::{
    PlantedBug, SimDisk,
    tally::{note, thousands},
};

use crate::harness::{self, Expected, Job, Step, add, content, description, rerun, script, seeds};

/// Images of each cut.
const IMAGES: u64 = 3;

/// What was acknowledged at a mark, and what the step after it may have brought or taken.
struct Moment {
    must: Expected,
    may: Expected,
}

/// Runs a job to its end. The mark of a moment is its number.
fn run(disk: &SimDisk, steps: &[Step]) -> Result<Vec<Moment>, RepositoryError> {
    let mut job = Job::begin(harness::store(disk))?;
    let mut moments = Vec::new();
    let mut before = job.expected.clone();
    disk.mark(0);
    for (number, step) in steps.iter().enumerate() {
        job.step(step)?;
        // While the step runs, what it adds may be there already, and what it removes may be gone.
        let must = before.iter().filter(|(file, _)| job.expected.contains_key(*file));
        let must = must.map(|(file, bytes)| (file.clone(), bytes.clone())).collect();
        let may = before.iter().chain(&job.expected);
        let may = may.map(|(file, bytes)| (file.clone(), bytes.clone())).collect();
        moments.push(Moment { must, may });
        before = job.expected.clone();
        disk.mark(number as u64 + 1);
    }
    let last = Moment { must: before.clone(), may: before };
    moments.push(last);
    Ok(moments)
}

/// What is wrong with an image of a cut, if anything.
fn check_image(image: &SimDisk, moment: Option<&Moment>) -> Result<(), String> {
    let store = harness::store(image);
    let repository = match Repository::open(Arc::clone(&store)) {
        Ok(repository) => repository,
        Err(RepositoryError::NotFound { .. }) if moment.is_none() => {
            let created = Repository::open_or_create(Arc::clone(&store));
            created.map_err(|error| error.to_string())?
        }
        Err(error) => return Err(error.to_string()),
    };
    if let Some(moment) = moment {
        harness::verify(&repository, &moment.must, &moment.may)?;
    }
    // The next job goes on, and what is left of this one is cleared away.
    let must: Expected = repository
        .manifest()
        .entries
        .iter()
        .map(|entry| (entry.file.to_string(), content(&entry.stream)))
        .collect();
    let mut writer = repository.writer("the next job").map_err(|error| error.to_string())?;
    let stream = description(Kind::Full, 0, 100_000);
    let entry = add(&mut writer, &stream, &content(&stream)).map_err(|error| error.to_string())?;
    drop(writer);
    harness::sweep(&store)?;
    let mut must = must;
    must.insert(entry.file.to_string(), content(&stream));
    let repository = Repository::open(store).map_err(|error| error.to_string())?;
    harness::verify(&repository, &must, &Expected::new())
}

/// Cuts a job everywhere. Returns how many images were looked at, or the first fault.
fn cut_everywhere(seed: u64, steps: usize, bug: Option<PlantedBug>) -> Result<u64, String> {
    let disk = SimDisk::new(seed);
    if let Some(bug) = bug {
        disk.plant(bug);
    }
    let moments = run(&disk, &script(seed, steps)).map_err(|error| error.to_string())?;
    let log = disk.log();
    let mut player = log.player(seed);
    let mut images = 0;
    while player.advance() {
        let mark = player.acknowledged().and_then(|mark| usize::try_from(mark).ok());
        let moment = mark.map(|mark| &moments[mark]);
        for image in 0..IMAGES {
            images += 1;
            check_image(&player.image(image), moment)
                .map_err(|what| format!("cut at {}, image {image}: {what}", player.position()))?;
        }
    }
    Ok(images)
}

#[test]
fn acknowledged_streams_survive_a_power_cut_at_any_moment() {
    let seeds = seeds(13_100, 12);
    let mut images = 0;
    for &seed in &seeds {
        images += cut_everywhere(seed, 14, None).unwrap_or_else(|what| {
            panic!("{what}\n{}", rerun(seed, "acknowledged_streams_survive"))
        });
    }
    let counts = format!("{} images of {} jobs", thousands(images), seeds.len());
    note(13, "repository: power cuts", &counts);
}

#[test]
fn planted_bugs_of_a_store_are_found_by_power_cuts() {
    let bugs = [
        PlantedBug::SkipSyncData("streams".to_owned()),
        PlantedBug::SkipSyncData("manifest".to_owned()),
        PlantedBug::SkipSyncDir("streams".to_owned()),
        PlantedBug::SkipSyncDir("manifest".to_owned()),
    ];
    for bug in &bugs {
        let found =
            (13_200..13_220).find(|&seed| cut_everywhere(seed, 10, Some(bug.clone())).is_err());
        assert!(found.is_some(), "{bug:?} was not found in 20 jobs");
    }
    note(13, "repository: planted bugs", &format!("{} of a store, all found", bugs.len()));
}

//! Power cuts during recovery: an image is opened on a disk that logs, the power is cut inside that
//! too, and in the recovery after it. However often and wherever it is cut, it ends in the same
//! state: the same trees, made of the same pages, the same free space.

use treepie::{Database, ids::PageId};
use treepie_testkit::{
    Call, Log, PlantedBug, Rng, SimDisk, hash_bytes, mix,
    script::{Manner, Script},
    tally::{note, thousands},
};

use crate::{
    harness::{self, DIR, for_seeds, insert, seeds, verify},
    life::{Lived, live, options},
    power_cuts::{look_at, options_of, record, shape_of},
};

/// Cuts of the first life that are looked into: while it begins, and later.
const CREATION_CUTS: usize = 4;
const FIRST_CUTS: usize = 24;
/// Operations on the disk within which a database is made.
const CREATION: usize = 28;
/// Images of each cut inside a recovery.
const DRAWS: u64 = 2;
/// Of the cuts of one recovery, every so-manyth is recovered, and cut, once more; in a long one fewer.
const DEEPER_EVERY: usize = 3;
const DEEPER_MAX: usize = 8;
/// Pages before the first one of a tree: meta pages, and the bitmap pages of the first region.
const FIXED_PAGES: u32 = 18;

/// What was found at an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    lsn: u64,
    hash: u64,
}

/// A hash of all that recovery makes: trees with their pages and entries, and the free space.
fn state_hash(db: &Database) -> treepie::Result<u64> {
    let snapshot = db.read()?;
    let mut hash = snapshot.lsn().0;
    for info in snapshot.trees()? {
        hash = mix(hash, hash_bytes(format!("{info:?}").as_bytes()));
        for entry in snapshot.tree(&info.name)?.iter() {
            let (key, value) = entry?;
            hash = mix(hash, mix(hash_bytes(&key.to_vec()), hash_bytes(value)));
        }
    }
    for page in 2..FIXED_PAGES {
        hash = mix(hash, hash_bytes(&db.page(PageId(page))?.bytes));
    }
    Ok(hash)
}

/// Opens an image on itself, which logs, and looks at everything.
fn recover(life: &Lived, image: &SimDisk, floor: u64) -> Result<Found, String> {
    let roomy = options(&life.setup, image).checkpoint_on_close(false);
    // Too little for all that is to be replayed: pages go to the data file on the way. Where even one
    // record needs more, opening is refused, and succeeds with more room.
    let tight = roomy.clone().scratch_memory(0);
    let is_large = life.setup.checkpoint_distance > 2 << 20;
    let opened = if is_large { tight.open(DIR) } else { roomy.open(DIR) };
    let db = match opened {
        Err(treepie::Error::Bound { .. }) if is_large => roomy.open(DIR),
        opened => opened,
    };
    let db = db.map_err(|error| format!("opening: {error}"))?;
    let lsn = verify(&db, &life.model)?;
    if lsn < floor {
        return Err(format!("LSN {floor} was there, {lsn} is now"));
    }
    let hash = state_hash(&db).map_err(|error| format!("the state: {error}"))?;
    Ok(Found { lsn, hash })
}

/// Images of cuts during a recovery, and of cuts during the recovery after such a cut.
#[derive(Clone, Copy, Default)]
struct Counts {
    two_deep: u64,
    three_deep: u64,
    /// Of these, cuts of recoveries that wrote pages.
    written: u64,
}

/// What recovers an image, and what is put in to be found.
struct Recovery<'a> {
    life: &'a Lived,
    bugs: &'a [PlantedBug],
    /// Somebody was told that the database is there. Before, it may be created again, with another
    /// identity.
    is_known: bool,
}

impl Recovery<'_> {
    /// Recovers an image, cuts that everywhere, and recovers what is left. All is durable in an image,
    /// so that each of these ends in the state that the first has found, `is_same` says.
    fn cut(&self, image: &SimDisk, floor: u64, depth: u32) -> Result<Counts, String> {
        self.bugs.iter().for_each(|bug| image.plant(bug.clone()));
        let found = recover(self.life, image, floor)?;
        let log: Log = image.log();
        let mut player = log.player(self.life.setup.seed);
        let mut counts = Counts::default();
        let every = DEEPER_EVERY.max(log.len() / DEEPER_MAX);
        let writes = u64::from(self.is_known && image.calls_of(Call::Write) > 3);
        loop {
            for draw in 0..DRAWS {
                let draw_seed = mix(self.life.setup.seed, mix(draw, u64::from(depth)));
                let inner = player.image(draw_seed);
                let context = |what| {
                    let (cut, all) = (player.position(), log.len());
                    format!("depth {depth}, cut {cut} of {all}, image seed {draw_seed}: {what}")
                };
                if depth == 2 {
                    counts.two_deep += 1;
                } else {
                    counts.three_deep += 1;
                }
                counts.written += writes;
                if depth == 2 && player.position() % every == 1 {
                    let deeper = self.cut(&inner, found.lsn, depth + 1).map_err(context)?;
                    counts.three_deep += deeper.three_deep;
                    counts.written += deeper.written;
                } else {
                    let again = recover(self.life, &inner, found.lsn).map_err(context)?;
                    if self.is_known && again != found {
                        return Err(context(format!("{found:?} was there, now {again:?}")));
                    }
                }
            }
            if !player.advance() {
                return Ok(counts);
            }
        }
    }
}

/// Cuts into the recoveries of some images of a seed.
fn cut_recoveries(seed: u64, bugs: &[PlantedBug]) -> Result<Counts, String> {
    let manner = Manner::of_seed(seed);
    let large = Manner {
        steps: 90,
        trees: 12,
        keys: 2000,
        value_pages_max: 40,
        checkpoint_every: 1000,
        reopen_every: 1000,
        ..manner
    };
    let manner = if seed.is_multiple_of(6) { large } else { manner };
    let script = Script::of_seed(seed, &manner);
    let life = live(&script, &[]).map_err(|what| format!("seed {seed}: {what}"))?;
    let mut rng = Rng::new(mix(seed, 8));
    // Recoveries that write have many places to be cut at.
    let later = if seed.is_multiple_of(6) { FIRST_CUTS / 8 } else { FIRST_CUTS };
    let mut cuts: Vec<usize> = (0..CREATION_CUTS).map(|_| rng.index(CREATION)).collect();
    cuts.extend((0..later).map(|_| rng.range(CREATION..life.log.len() + 1)));
    cuts.sort_unstable();
    let mut player = life.log.player(seed);
    let mut all = Counts::default();
    for cut in cuts {
        player.advance_to(cut);
        let image_seed = rng.next_u64();
        let floor = player.acknowledged().unwrap_or(0);
        let recovery = Recovery { life: &life, bugs, is_known: floor > 0 };
        let counts = recovery.cut(&player.image(image_seed), floor, 2).map_err(|what| {
            format!(
                "seed {seed}, first cut {cut}, image seed {image_seed}: {what}\n\
                 again: TREEPIE_SEED={seed} cargo test -p treepie --test engine recovery_cuts"
            )
        })?;
        all.two_deep += counts.two_deep;
        all.three_deep += counts.three_deep;
        all.written += counts.written;
    }
    Ok(all)
}

#[test]
fn power_cuts_during_recovery_leave_what_was_recovered() {
    let begin = std::time::Instant::now();
    let seeds = seeds(100, 12);
    let results =
        for_seeds(&seeds, |seed| cut_recoveries(seed, &[]).unwrap_or_else(|what| panic!("{what}")));
    let two: u64 = results.iter().map(|counts| counts.two_deep).sum();
    let three: u64 = results.iter().map(|counts| counts.three_deep).sum();
    let written: u64 = results.iter().map(|counts| counts.written).sum();
    let counts = format!(
        "{} cuts, {} of them three deep, {} of recoveries that write pages, {:.0} s",
        thousands(two + three),
        thousands(three),
        thousands(written),
        begin.elapsed().as_secs_f64()
    );
    note(3, "cuts during recovery", &counts);
    let is_enough = two + three >= 10_000 && three > 1_000 && written > 500;
    assert!(seeds.len() == 1 || is_enough, "{counts}");
}

/// Names that a recovery makes are lost when it does not sync their folder.
#[test]
fn a_recovery_that_does_not_sync_its_folders_is_found() {
    let bug = PlantedBug::SkipSyncDir("/db".to_owned());
    let found = (100..140).find_map(|seed| cut_recoveries(seed, std::slice::from_ref(&bug)).err());
    println!("{bug:?} is found: {}", found.unwrap_or_else(|| panic!("{bug:?} is not found")));
}

/// After a recovery life goes on, and what is written then survives the next cut.
#[test]
fn commits_after_a_recovery_survive_the_next_power_cut() {
    let counts = for_seeds(&seeds(200, 12), |seed| {
        let mut recorded = record(seed, &shape_of(seed), &[]);
        let mut rng = Rng::new(mix(seed, 9));
        let cut = rng.index(recorded.log.len() + 1);
        let image = recorded.log.image(cut, seed);
        let db = options_of(seed, &image).open(DIR).expect("an image opens");
        let lsn = verify(&db, &recorded.model).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        image.mark(lsn);
        recorded.model.truncate(lsn);
        for number in 0..5 {
            let ops = [insert("tree0", &format!("after {number}"), &[7; 300])];
            let lsn = harness::write(&db, &ops).expect("a recovered database takes writes");
            image.mark(lsn);
            recorded.model.commit(lsn, &ops);
            if number == 2 {
                db.checkpoint().expect("a checkpoint");
            }
        }
        drop(db);
        let log = image.log();
        let mut player = log.player(seed);
        let mut images = 0_u64;
        loop {
            let floor = player.acknowledged().unwrap_or(0);
            for draw in 0..6 {
                images += 1;
                look_at(&recorded, &player.image(draw), floor).unwrap_or_else(|what| {
                    let second = player.position();
                    panic!("seed {seed}, cut {cut}, second cut {second}, image seed {draw}: {what}")
                });
            }
            if !player.advance() {
                return images;
            }
        }
    });
    println!("{} images of second lives", counts.iter().sum::<u64>());
}

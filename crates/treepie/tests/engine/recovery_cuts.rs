//! Power cuts during recovery: an image is opened on a disk that logs, the power is cut inside that
//! too, and what is left of it opens to the same state. Three deep for some.

use treepie_testkit::{Log, Rng, SimDisk, mix};

use crate::{
    harness::{self, DIR, for_seeds, insert, seeds, verify},
    power_cuts::{Recorded, look_at, options_of, record, shape_of},
};

/// Cuts of the first life that are looked into, and images of each cut inside recovery.
const FIRST_CUTS: usize = 12;
const DRAWS: u64 = 2;

/// Opens an image on itself, and returns what opening did to the disk with the LSN that it found.
fn open_logged(recorded: &Recorded, image: &SimDisk, floor: u64) -> Result<(Log, u64), String> {
    let lsn = look_at(recorded, image, floor)?;
    Ok((image.log(), lsn))
}

/// Everything in an image is durable, so every cut during its recovery leaves the same state.
fn cut_recovery(
    recorded: &Recorded,
    image: &SimDisk,
    floor: u64,
    depth: u32,
) -> Result<u64, String> {
    let (log, lsn) = open_logged(recorded, image, floor)?;
    let mut player = log.player(recorded.seed);
    let mut images = 0;
    loop {
        for draw in 0..DRAWS {
            let draw_seed = mix(recorded.seed, mix(draw, u64::from(depth)));
            let inner = player.image(draw_seed);
            images += 1;
            let context = |what| {
                let (cut, all) = (player.position(), log.len());
                format!("depth {depth}, cut {cut} of {all}, image seed {draw_seed}: {what}")
            };
            if depth > 1 && player.position() % 5 == 2 {
                images += cut_recovery(recorded, &inner, lsn, depth - 1).map_err(context)?;
            } else {
                let again = look_at(recorded, &inner, lsn).map_err(context)?;
                if again != lsn {
                    return Err(context(format!("LSN {lsn} was there, now {again}")));
                }
            }
        }
        if !player.advance() {
            return Ok(images);
        }
    }
}

#[test]
fn power_cuts_during_recovery_leave_what_was_recovered() {
    let seeds = seeds(100, 12);
    let counts = for_seeds(&seeds, |seed| {
        let recorded = record(seed, &shape_of(seed), &[]);
        let mut rng = Rng::new(mix(seed, 8));
        let mut cuts: Vec<usize> =
            (0..FIRST_CUTS).map(|_| rng.index(recorded.log.len() + 1)).collect();
        cuts.sort_unstable();
        let mut player = recorded.log.player(seed);
        let mut images = 0;
        for cut in cuts {
            player.advance_to(cut);
            let image_seed = rng.next_u64();
            let floor = player.acknowledged().unwrap_or(0);
            let image = player.image(image_seed);
            images += cut_recovery(&recorded, &image, floor, 2).unwrap_or_else(|what| {
                panic!(
                    "seed {seed}, first cut {cut}, image seed {image_seed}: {what}\n\
                     again: TREEPIE_SEED={seed} cargo test -p treepie --test engine recovery_cuts"
                )
            });
        }
        images
    });
    let images: u64 = counts.iter().sum();
    println!("{images} images of cuts during recovery");
    assert!(seeds.len() == 1 || images >= 2_000, "only {images} images");
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

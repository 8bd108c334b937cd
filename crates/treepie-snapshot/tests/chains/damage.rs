//! Damaged chains: streams that are cut, flipped, missing, repeated, exchanged, or another's. What is
//! restored is a state of the model, or there is an error and nothing has the name.

use treepie::disk::Disk;
use treepie_snapshot::{StreamKind, repository::Until};
use treepie_testkit::{Fault, Rng, SimDisk, mix, tally};

use crate::{
    chain::{Chain, Part, TARGET, is_published},
    for_seeds, seeds,
};

/// Damages a chain in one way; says which. None where that way is not open to it.
fn damage(rng: &mut Rng, parts: &mut Vec<Part>, other: &Chain) -> Option<String> {
    let index = rng.index(parts.len());
    let len = parts[index].bytes.len() as u64;
    match rng.below(7) {
        0 => {
            let at = rng.below(len);
            parts[index].bytes.truncate(usize::try_from(at).expect("a short stream"));
            Some(format!("stream {index} is cut at byte {at}"))
        }
        1 | 2 => {
            let bit = rng.below(len * 8);
            let byte = usize::try_from(bit / 8).expect("a short stream");
            parts[index].bytes[byte] ^= 1 << (bit % 8);
            Some(format!("bit {bit} of stream {index} is flipped"))
        }
        3 if index + 1 < parts.len() => {
            parts.remove(index);
            Some(format!("stream {index} is missing"))
        }
        4 => {
            parts.insert(index, parts[index].clone());
            Some(format!("stream {index} comes twice"))
        }
        5 if index > 0 => {
            parts.swap(index, index - 1);
            Some(format!("streams {} and {index} have changed places", index - 1))
        }
        6 if parts.len() > 1 => {
            let stranger = rng.pick(&other.parts).clone();
            parts[index] = stranger;
            Some(format!("stream {index} is another database's"))
        }
        _ => None,
    }
}

/// Restores a damaged chain; then, over what it has left, the whole one.
fn check(seed: u64, other: &Chain) -> Option<()> {
    let chain = Chain::new(seed);
    let mut rng = Rng::new(mix(seed, 2));
    let mut parts = chain.parts.clone();
    let what = damage(&mut rng, &mut parts, other)?;
    let disk = SimDisk::new(mix(seed, 3));
    let at = |problem: String| -> ! { panic!("seed {seed}: {what}: {problem}") };
    match chain.restore(&disk, &parts, Until::End) {
        // Repeated records are passed over, and bits that mean nothing may flip.
        Ok(found) => match chain.verify(&disk, found) {
            Ok(()) => {}
            Err(problem) => at(problem),
        },
        Err(error) if is_published(&disk) => at(format!("{error}, and something was published")),
        Err(_) => {
            let whole = chain.restore(&disk, &chain.parts, Until::End);
            // What is left of it may lead elsewhere: that is told, and the folder can be removed.
            match whole {
                Ok(found) => chain.verify(&disk, found).unwrap_or_else(|problem| at(problem)),
                Err(error) if is_published(&disk) => at(format!("then {error}, and published")),
                Err(error) if error.to_string().contains("remove `.partial`") => {}
                Err(error) => at(format!("the whole chain fails after it: {error}")),
            }
        }
    }
    Some(())
}

#[test]
fn damaged_chain_restores_a_state_of_the_database_or_is_an_error_and_publishes_nothing() {
    let other = Chain::new(1_000_000);
    let other = &other.parts;
    let seeds = seeds(1000);
    // Databases are not shared by threads here.
    let work = |seed| {
        let stranger = Chain { parts: other.clone(), ..Chain::new(1_000_000) };
        u64::from(check(seed, &stranger).is_some())
    };
    let count = for_seeds(&seeds, work, |sum, count| *sum += count);
    tally::note(13, "damaged chains", &tally::thousands(count));
}

#[test]
fn restore_that_fails_or_is_killed_anywhere_goes_on_and_ends_in_the_same_state() {
    let seeds = seeds(40);
    let work = |seed| {
        let chain = Chain::new(seed);
        let clean = SimDisk::new(seed);
        let expected = chain.restore(&clean, &chain.parts, Until::End).expect("nothing fails");
        let calls = clean.calls();
        let mut rng = Rng::new(mix(seed, 4));
        for _ in 0..20 {
            let call = 1 + rng.below(calls);
            let disk = SimDisk::new(mix(seed, call));
            disk.fail(Fault::nth(call).forever());
            let first = chain.restore(&disk, &chain.parts, Until::End);
            let disk = if rng.chance(1, 2) {
                // The machine loses power with it.
                let log = disk.log();
                log.image(log.len(), mix(seed, call))
            } else {
                disk.heal();
                disk.restart()
            };
            let at = format!("seed {seed}, call {call}");
            if !disk.exists(TARGET.as_ref()).expect("it can be asked") {
                assert!(first.is_err(), "{at}: what was published is gone");
                let found = chain.restore(&disk, &chain.parts, Until::End);
                let found = found.unwrap_or_else(|error| panic!("{at}: {error}"));
                assert_eq!(found, expected, "{at}");
            }
            chain.verify(&disk, expected).unwrap_or_else(|what| panic!("{at}: {what}"));
        }
        20
    };
    let count: u64 = for_seeds(&seeds, work, |sum, count| *sum += count);
    tally::note(13, "interrupted restores", &tally::thousands(count));
}

#[test]
fn chain_without_its_full_backup_is_refused_with_what_it_needs() {
    let mut seed = 1;
    let chain = loop {
        let chain = Chain::new(seed);
        if chain.parts.get(1).is_some_and(|part| part.kind == StreamKind::Increment) {
            break chain;
        }
        seed += 1;
    };
    let disk = SimDisk::new(1);
    let error = chain.restore(&disk, &chain.parts[1..], Until::End).expect_err("no full backup");
    let text = error.to_string();
    assert!(text.contains("begins with a full backup"), "{text}");
    assert!(!is_published(&disk));
}

#[test]
fn restore_onto_a_disk_that_is_full_says_so_and_goes_on_once_there_is_room() {
    let seeds = seeds(60);
    let work = |seed| {
        let chain = Chain::new(seed);
        let disk = SimDisk::new(mix(seed, 6));
        let mut rng = Rng::new(mix(seed, 7));
        let mut full = 0;
        disk.set_capacity(Some(rng.below(300 << 10)));
        let mut found = chain.restore(&disk, &chain.parts, Until::End);
        if let Err(error) = &found {
            let text = error.to_string();
            assert!(text.contains("make room on the disk"), "seed {seed}: {text}");
            assert!(!is_published(&disk), "seed {seed}: {text}, and something was published");
            full = 1;
            disk.set_capacity(None);
            found = chain.restore(&disk, &chain.parts, Until::End);
        }
        disk.set_capacity(None);
        let found = found.unwrap_or_else(|error| panic!("seed {seed}: with room: {error}"));
        chain.verify(&disk, found).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        full
    };
    let full = for_seeds(&seeds, work, |sum, count| *sum += count);
    assert!(full > 5, "only {full} disks were full");
    tally::note(13, "full disks", &tally::thousands(full));
}

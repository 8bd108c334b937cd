//! The simulated disk keeps what was synced, and loses, tears and reorders what was not. Every
//! assertion names the seed that broke it.
#![allow(unsafe_code, reason = "reads through a map, as the engine does")]

use std::{collections::BTreeSet, io, path::Path, slice, sync::Arc};

use treepie::disk::{Disk, DiskFile, LockError, OpenMode};
use treepie_testkit::{Call, Fault, FaultError, PlantedBug, Rng, SimDisk};

const SEEDS: u64 = 400;

type Outcome = io::Result<()>;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn create(disk: &SimDisk, name: &str) -> io::Result<Arc<dyn DiskFile>> {
    disk.open(path(name), OpenMode::CreateNew)
}

/// A file of `len` bytes `old`, synced with its name.
fn synced_file(disk: &SimDisk, name: &str, old: u8, len: usize) -> io::Result<Arc<dyn DiskFile>> {
    let file = create(disk, name)?;
    file.write_at(0, &vec![old; len])?;
    file.sync_data()?;
    disk.sync_dir(path(""))?;
    Ok(file)
}

/// What `name` holds after a cut at the end, for many seeds.
fn outcomes(disk: &SimDisk, name: &str) -> Vec<Option<Vec<u8>>> {
    let log = disk.log();
    let mut player = log.player(1);
    player.advance_to(log.len());
    (0..SEEDS).map(|seed| player.image(seed).file_bytes(path(name))).collect()
}

/// A workload over a few files that uses every call; returns the disk.
fn busy(seed: u64) -> io::Result<SimDisk> {
    let disk = SimDisk::new(seed);
    let mut rng = Rng::new(seed);
    disk.create_dir(path("db"))?;
    disk.sync_dir(path(""))?;
    let mut file = create(&disk, "db/0")?;
    for step in 1..120_u64 {
        match rng.below(12) {
            0 => {
                let name = format!("db/{step}");
                file = create(&disk, &name)?;
            }
            1 => disk.sync_dir(path("db"))?,
            2 => {
                let names = disk.list(path("db"))?;
                let from = format!("db/{}", rng.pick(&names));
                let to = format!("db/{}", rng.pick(&names));
                disk.rename(path(&from), path(&to))?;
            }
            3 => file.set_len(rng.below(20_000))?,
            4 => file.allocate(rng.below(30_000))?,
            5 | 6 => {
                file.sync_data()?;
                disk.mark(step);
            }
            _ => {
                let offset = rng.below(20_000);
                let len = rng.range(1..6000);
                file.write_at(offset, &rng.bytes(len))?;
            }
        }
    }
    assert_ne!(disk.random()?, disk.random()?);
    assert!(disk.now_us() < disk.now_us());
    Ok(disk)
}

#[test]
fn the_same_seed_gives_the_same_trace_and_the_same_images() -> Outcome {
    for seed in 0..10 {
        let (one, two) = (busy(seed)?, busy(seed)?);
        assert_eq!(one.trace_hash(), two.trace_hash(), "seed {seed}");
        let (one, two) = (one.log(), two.log());
        let (mut first, mut second) = (one.player(seed), two.player(seed));
        while first.advance() && second.advance() {
            assert_eq!(first.acknowledged(), second.acknowledged());
            for draw in 0..5 {
                let hashes = (first.image(draw).state_hash(), second.image(draw).state_hash());
                assert_eq!(hashes.0, hashes.1, "seed {seed}, cut {}", first.position());
            }
        }
        assert_eq!(first.position(), second.position());
        assert_ne!(busy(seed)?.trace_hash(), busy(seed + 100)?.trace_hash());
    }
    Ok(())
}

#[test]
fn a_player_and_a_log_draw_the_same_image() -> Outcome {
    let log = busy(3)?.log();
    for cut in [0, 1, log.len() / 2, log.len()] {
        let mut player = log.player(9);
        player.advance_to(cut);
        assert_eq!(player.image(9).state_hash(), log.image(cut, 9).state_hash());
    }
    Ok(())
}

#[test]
fn what_was_synced_is_never_lost_and_what_was_not_is_lost_by_some_seeds() -> Outcome {
    let disk = SimDisk::new(1);
    let file = synced_file(&disk, "data", 1, 10_000)?;
    assert!(outcomes(&disk, "data").iter().all(|bytes| *bytes == Some(vec![1; 10_000])));
    file.write_at(0, &[2; 10_000])?;
    file.start_writeback(0, 10_000)?;
    let found = outcomes(&disk, "data");
    assert!(found.contains(&Some(vec![1; 10_000])), "all of it can be lost");
    assert!(found.contains(&Some(vec![2; 10_000])), "all of it can survive");
    file.sync_data()?;
    assert!(outcomes(&disk, "data").iter().all(|bytes| *bytes == Some(vec![2; 10_000])));
    Ok(())
}

#[test]
fn unsynced_writes_are_torn_at_512_and_at_4096_bytes() -> Outcome {
    let disk = SimDisk::new(2);
    let file = synced_file(&disk, "data", 1, 16 * 4096)?;
    file.write_at(0, &[2; 16 * 4096])?;
    let (mut small, mut large, mut alone) = (0, 0, 0);
    for bytes in outcomes(&disk, "data").into_iter().flatten() {
        let mixed = |sector: &[u8]| sector.iter().any(|byte| *byte != sector[0]);
        assert!(!bytes.chunks(512).any(mixed), "a sector is never torn");
        if bytes.chunks(4096).any(mixed) {
            small += 1;
        } else if mixed(&bytes) {
            large += 1;
        }
        let lost = bytes.chunks(512).filter(|sector| sector[0] == 1).count();
        alone += i32::from(lost == 1 || lost == 8);
    }
    assert!(small > 20, "torn at 512 bytes only {small} times of {SEEDS}");
    assert!(large > 20, "torn at 4096 bytes only {large} times of {SEEDS}");
    assert!(alone > 5, "everything but one sector survived only {alone} times of {SEEDS}");
    Ok(())
}

#[test]
fn writes_between_two_syncs_survive_in_any_order() -> Outcome {
    let disk = SimDisk::new(3);
    let file = synced_file(&disk, "data", 0, 8192)?;
    let other = synced_file(&disk, "other", 0, 512)?;
    file.write_at(0, &[1; 512])?;
    other.write_at(0, &[1; 512])?;
    file.write_at(0, &[2; 512])?;
    file.write_at(4096, &[3; 512])?;
    let log = disk.log();
    let mut player = log.player(1);
    player.advance_to(log.len());
    let mut seen = BTreeSet::new();
    for seed in 0..2000 {
        let image = player.image(seed);
        let data = image.file_bytes(path("data")).expect("synced");
        let other = image.file_bytes(path("other")).expect("synced");
        seen.insert((data[0], data[4096], other[0]));
    }
    let all = [0, 1, 2].map(|a| [0, 3].map(|b| [0, 1].map(|c| (a, b, c))));
    let all: BTreeSet<_> = all.into_iter().flatten().flatten().collect();
    assert_eq!(seen, all);
    Ok(())
}

#[test]
fn every_combination_of_a_small_cut_can_be_looked_at() -> Outcome {
    let disk = SimDisk::new(19);
    let file = synced_file(&disk, "data", 0, 1024)?;
    file.write_at(0, &[1; 1024])?;
    file.write_at(1024, &[1; 512])?;
    create(&disk, "new")?;
    let log = disk.log();
    let mut player = log.player(1);
    player.advance_to(log.len());
    assert_eq!(player.choices(512), 5, "a name, a length, three sectors");
    assert_eq!(player.choices(4096), 3, "a name, a length, a sector");
    let seen: BTreeSet<u64> = (0..32).map(|bits| player.image_of(512, bits).state_hash()).collect();
    // Without the length, the third sector is lost either way.
    assert_eq!(seen.len(), 2 * (8 + 4));
    let all = player.image_of(512, 31);
    assert_eq!(all.file_bytes(path("data")), Some(vec![1; 1536]));
    assert_eq!(all.file_bytes(path("new")), Some(Vec::new()));
    Ok(())
}

#[test]
fn lengths_lag_and_what_lies_past_them_is_lost() -> Outcome {
    let disk = SimDisk::new(4);
    let file = synced_file(&disk, "data", 1, 1000)?;
    file.write_at(1000, &[2; 1000])?;
    file.allocate(5000)?;
    file.write_at(3000, &[3; 10])?;
    let lengths: BTreeSet<usize> = outcomes(&disk, "data").iter().flatten().map(Vec::len).collect();
    assert_eq!(lengths, BTreeSet::from([1000, 2000, 5000]));
    for bytes in outcomes(&disk, "data").into_iter().flatten() {
        assert!(bytes.iter().skip(2000).all(|&byte| byte == 0 || byte == 3));
        assert!(bytes.iter().take(512).all(|&byte| byte == 1), "its sector was not touched");
    }
    file.sync_data()?;
    assert!(outcomes(&disk, "data").iter().flatten().all(|bytes| bytes.len() == 5000));
    Ok(())
}

#[test]
fn what_a_surviving_shrinking_cut_off_does_not_come_back() -> Outcome {
    let disk = SimDisk::new(5);
    let file = synced_file(&disk, "data", 1, 4096)?;
    file.set_len(0)?;
    file.write_at(4095, &[2])?;
    let mut kinds = BTreeSet::new();
    for (seed, bytes) in outcomes(&disk, "data").into_iter().flatten().enumerate() {
        let last = bytes.last().copied();
        kinds.insert((bytes.len(), last));
        let old = bytes.iter().filter(|&&byte| byte == 1).count();
        let whole = bytes == [1; 4096];
        assert!(whole || old == 0, "seed {seed}: {old} old bytes beside the new one");
    }
    let expected = [(0, None), (4096, Some(0)), (4096, Some(1)), (4096, Some(2))];
    assert_eq!(kinds, BTreeSet::from(expected));
    Ok(())
}

#[test]
fn names_are_lost_one_by_one_until_their_folder_is_synced() -> Outcome {
    let disk = SimDisk::new(6);
    synced_file(&disk, "old", 1, 10)?;
    synced_file(&disk, "gone", 2, 10)?;
    let file = create(&disk, "new")?;
    file.write_at(0, &[3; 10])?;
    file.sync_data()?;
    disk.rename(path("new"), path("old"))?;
    disk.remove(path("gone"))?;
    let log = disk.log();
    let mut player = log.player(1);
    player.advance_to(log.len());
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let image = player.image(seed);
        let byte = |name| image.file_bytes(path(name)).map(|bytes| bytes[0]);
        seen.insert((byte("old"), byte("new"), byte("gone")));
    }
    let mut expected = BTreeSet::new();
    for gone in [None, Some(2)] {
        // All lost; created alone; renamed (the file then has no other name).
        expected.extend([(Some(1), None, gone), (Some(1), Some(3), gone), (Some(3), None, gone)]);
    }
    assert_eq!(seen, expected);
    disk.sync_dir(path(""))?;
    assert!(outcomes(&disk, "old").iter().all(|bytes| *bytes == Some(vec![3; 10])));
    assert!(outcomes(&disk, "gone").iter().all(Option::is_none));
    Ok(())
}

#[test]
fn a_folder_that_is_lost_takes_its_files_along() -> Outcome {
    let disk = SimDisk::new(7);
    disk.create_dir(path("db"))?;
    create(&disk, "db/data")?.sync_data()?;
    disk.sync_dir(path("db"))?;
    let found = outcomes(&disk, "db/data");
    assert!(found.contains(&None), "the folder itself was not synced");
    assert!(found.contains(&Some(Vec::new())));
    disk.sync_dir(path(""))?;
    assert!(outcomes(&disk, "db/data").iter().all(Option::is_some));
    Ok(())
}

#[test]
fn the_nth_call_of_a_kind_fails_once_or_for_ever() -> Outcome {
    let disk = SimDisk::new(8);
    let file = synced_file(&disk, "data", 1, 100)?;
    disk.fail(Fault::nth(2).of(Call::Write).on("data").error(FaultError::ENOSPC));
    file.write_at(0, &[2; 10])?;
    let error = file.write_at(0, &[3; 10]).expect_err("the second write");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    file.write_at(10, &[4; 10])?;
    let bytes = disk.file_bytes(path("data")).expect("it is there");
    assert_eq!((bytes[0], bytes[10]), (2, 4), "a failed write did nothing");

    disk.fail(Fault::nth(1).of(Call::Write).after_short_write(3));
    file.write_at(50, &[9; 10]).expect_err("it is short");
    let bytes = disk.file_bytes(path("data")).expect("it is there");
    assert_eq!(bytes[50..55], [9, 9, 9, 1, 1]);

    for call in Call::ALL {
        let disk = SimDisk::new(8);
        let file = synced_file(&disk, "data", 1, 100)?;
        let before = disk.calls_of(call);
        disk.fail(Fault::nth(1).of(call).error(FaultError::EIO).forever());
        for _ in 0..2 {
            let error = make(&disk, &*file, call).expect_err("for ever");
            assert_eq!(error.raw_os_error(), Some(5), "{call:?}");
        }
        assert_eq!(disk.calls_of(call), before + 2, "{call:?}: failed calls count");
        disk.heal();
        make(&disk, &*file, call).unwrap_or_else(|error| panic!("{call:?}: {error}"));
    }
    Ok(())
}

#[test]
fn a_call_may_take_effect_and_fail_all_the_same() -> Outcome {
    let disk = SimDisk::new(20);
    let file = synced_file(&disk, "data", 1, 100)?;
    disk.fail(Fault::nth(1).with_effect().forever());
    create(&disk, "new").expect_err("planted");
    file.write_at(0, &[2; 100]).expect_err("planted");
    file.sync_data().expect_err("planted");
    file.allocate(200).expect_err("planted");
    disk.rename(path("new"), path("newer")).expect_err("planted");
    disk.create_dir(path("folder")).expect_err("planted");
    disk.sync_dir(path("")).expect_err("planted");
    let failed: Vec<Call> = disk.failed_calls().iter().map(|(call, _)| *call).collect();
    assert_eq!(failed.len(), 7);
    assert_eq!(failed[..2], [Call::Create, Call::Write]);
    disk.heal();
    assert!(disk.exists(path("newer"))? && disk.exists(path("folder"))?);
    assert_eq!(file.len()?, 200);
    for bytes in outcomes(&disk, "data") {
        assert_eq!(bytes.expect("synced")[..100], [2; 100], "the sync that failed was done");
    }
    assert!(outcomes(&disk, "newer").iter().all(Option::is_some), "its folder was synced");
    Ok(())
}

#[test]
fn a_full_disk_takes_the_part_of_a_write_that_fits() -> Outcome {
    let disk = SimDisk::new(21);
    let file = synced_file(&disk, "data", 1, 1000)?;
    disk.set_capacity(Some(1500));
    let error = file.write_at(900, &[2; 1000]).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let bytes = disk.file_bytes(path("data")).expect("it is there");
    assert_eq!((bytes.len(), bytes[899], bytes[900], bytes[1499]), (1500, 1, 2, 2));
    disk.set_capacity(None);
    disk.fail(Fault::nth(1).of(Call::Allocate).error(FaultError::EDQUOT).after_short_write(100));
    let error = file.allocate(5000).expect_err("planted");
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    assert_eq!(file.len()?, 1600, "a part of it was allocated");
    Ok(())
}

#[test]
fn a_failed_sync_that_is_hidden_loses_what_its_caller_trusts() -> Outcome {
    let disk = SimDisk::new(22);
    let file = synced_file(&disk, "data", 1, 16 * 4096)?;
    disk.plant(PlantedBug::HideFailedSync("data".into()));
    file.write_at(0, &[2; 16 * 4096])?;
    disk.fail(Fault::nth(1).of(Call::SyncData));
    file.sync_data()?;
    assert!(outcomes(&disk, "data").iter().flatten().any(|bytes| bytes.contains(&1)));
    Ok(())
}

fn make(disk: &SimDisk, file: &dyn DiskFile, call: Call) -> Outcome {
    match call {
        Call::CreateDir => disk.create_dir(path("folder")),
        Call::Create => create(disk, "fresh").map(drop),
        Call::Open => disk.open(path("data"), OpenMode::ReadOnly).map(drop),
        Call::Rename => disk.rename(path("data"), path("renamed")),
        Call::Remove => disk.remove(path("data")),
        Call::Exists => disk.exists(path("data")).map(drop),
        Call::List => disk.list(path("")).map(drop),
        Call::SyncDir => disk.sync_dir(path("")),
        Call::Lock => match disk.lock(path("lock")) {
            Err(LockError::Io(error)) => Err(error),
            Err(LockError::Held(_)) => panic!("nobody holds it"),
            Ok(_) => Ok(()),
        },
        Call::Scratch => disk.scratch(path(""), 4096).map(drop),
        Call::Random => disk.random().map(drop),
        Call::Len => file.len().map(drop),
        Call::Read => file.read_at(0, &mut [0; 1]),
        Call::Write => file.write_at(0, &[0; 1]),
        Call::Allocate => file.allocate(4096),
        Call::SetLen => file.set_len(4096),
        Call::SyncData => file.sync_data(),
        Call::StartWriteback => file.start_writeback(0, 1),
        Call::Map => file.map(4096).map(drop),
    }
}

#[test]
fn data_of_a_failed_sync_is_not_saved_by_the_next_one() -> Outcome {
    let disk = SimDisk::new(9);
    let file = synced_file(&disk, "data", 1, 16 * 4096)?;
    file.write_at(0, &[2; 16 * 4096])?;
    disk.fail(Fault::nth(1).of(Call::SyncData));
    file.sync_data().expect_err("planted");
    file.sync_data()?;
    let mut bytes = [0; 1];
    file.read_at(0, &mut bytes)?;
    assert_eq!(bytes, [2], "the page cache shows the new bytes");
    let mut lost = 0;
    for seed in 0..50 {
        let bytes = disk.log().image(disk.log().len(), seed).file_bytes(path("data"));
        lost += bytes.expect("synced").chunks(4096).filter(|page| page[0] == 1).count();
    }
    assert!((200..600).contains(&lost), "{lost} of 800 pages were dropped");

    file.write_at(0, &[3; 16 * 4096])?;
    file.sync_data()?;
    assert!(outcomes(&disk, "data").iter().all(|bytes| *bytes == Some(vec![3; 16 * 4096])));
    Ok(())
}

#[test]
fn a_new_write_makes_a_page_dirty_again_with_all_that_the_cache_holds() -> Outcome {
    let disk = SimDisk::new(10);
    let file = synced_file(&disk, "data", 1, 4096)?;
    file.write_at(0, &[2; 4096])?;
    disk.fail(Fault::nth(1).of(Call::SyncData));
    file.sync_data().expect_err("planted");
    file.write_at(7, &[3])?;
    file.sync_data()?;
    let mut expected = vec![2; 4096];
    expected[7] = 3;
    for seed in 0..50 {
        let image = disk.log().image(disk.log().len(), seed);
        assert_eq!(image.file_bytes(path("data")), Some(expected.clone()), "seed {seed}");
    }
    Ok(())
}

#[test]
fn planted_bugs_lose_what_was_synced() -> Outcome {
    let disk = SimDisk::new(11);
    disk.plant(PlantedBug::SkipSyncData("data".into()));
    synced_file(&disk, "data", 1, 100)?;
    synced_file(&disk, "other", 1, 100)?;
    assert!(outcomes(&disk, "data").iter().flatten().any(|bytes| bytes.len() < 100));
    assert!(outcomes(&disk, "other").iter().all(|bytes| *bytes == Some(vec![1; 100])));

    let disk = SimDisk::new(11);
    disk.plant(PlantedBug::SkipSyncDir(String::new()));
    synced_file(&disk, "data", 1, 100)?;
    assert!(outcomes(&disk, "data").contains(&None));
    Ok(())
}

#[test]
fn a_map_shows_writes_and_growth_at_one_address() -> Outcome {
    let disk = SimDisk::new(12);
    let file = synced_file(&disk, "data", 1, 5000)?;
    let map = file.map(1 << 16)?;
    let base = map.base();
    file.write_at(4999, &[2; 3])?;
    file.write_at(9000, &[3; 1000])?;
    file.set_len(9500)?;
    file.set_len(60_000)?;
    file.write_at(65_000, &[4; 9000])?;
    let wider = file.map(1 << 17)?;
    assert_eq!(base, map.base());
    let expected = disk.file_bytes(path("data")).expect("it is there");
    // SAFETY: the file fills the map, and nobody writes to it while the slice lives.
    let bytes = unsafe { slice::from_raw_parts(base, map.reserved()) };
    assert_eq!(bytes, &expected[..map.reserved()]);
    // SAFETY: the map is wider than the file, and nobody writes to it while the slice lives.
    let bytes = unsafe { slice::from_raw_parts(wider.base(), expected.len()) };
    assert_eq!(bytes, expected);

    let scratch = disk.scratch(path(""), 5000)?;
    assert_eq!((scratch.size(), scratch.base().addr() % 4096), (5000, 0));
    let last = scratch.base().wrapping_add(4999);
    // SAFETY: inside the scratch memory, which nobody else knows.
    assert_eq!(unsafe { last.read() }, 0);
    Ok(())
}

#[test]
fn a_restart_frees_locks_and_leaves_the_dead_process_without_effect() -> Outcome {
    let disk = SimDisk::new(13);
    let file = synced_file(&disk, "data", 1, 10)?;
    let lock = disk.lock(path("lock")).expect("free");
    assert!(matches!(disk.lock(path("lock")), Err(LockError::Held(Some(_)))));
    file.write_at(0, &[2; 10])?;
    let next = disk.restart();
    file.write_at(0, &[3; 10]).expect_err("its process is dead");
    disk.sync_dir(path("")).expect_err("its process is dead");
    assert_eq!(next.file_bytes(path("data")), Some(vec![2; 10]), "the page cache stays");
    let held = next.lock(path("lock")).expect("the dead hold nothing");
    drop(lock);
    assert!(next.lock(path("lock")).is_err(), "a dead lock frees nothing");
    drop(held);
    next.lock(path("lock")).expect("free again");
    Ok(())
}

#[test]
fn a_full_disk_refuses_growth_and_takes_overwrites_and_removals() -> Outcome {
    let disk = SimDisk::new(14);
    let file = synced_file(&disk, "data", 1, 4096)?;
    synced_file(&disk, "old", 1, 4096)?;
    disk.set_capacity(Some(8192));
    let error = file.write_at(4096, &[2; 1]).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(file.allocate(4097).is_err());
    file.write_at(0, &[2; 4096])?;
    disk.remove(path("old"))?;
    file.write_at(4096, &[2; 4096])
}

#[test]
fn an_image_is_a_disk_whose_own_cuts_can_be_drawn() -> Outcome {
    let disk = SimDisk::new(15);
    let file = synced_file(&disk, "data", 1, 8192)?;
    file.write_at(0, &[2; 8192])?;
    for seed in 0..50 {
        let second = disk.log().image(disk.log().len(), seed);
        let found = second.file_bytes(path("data")).expect("synced");
        let file = second.open(path("data"), OpenMode::ReadWrite)?;
        file.write_at(0, &[3; 512])?;
        let third = second.log().image(1, seed).file_bytes(path("data")).expect("synced");
        assert_eq!(third[512..], found[512..], "seed {seed}: what survived once is durable");
        file.sync_data()?;
        let third = second.log().image(2, seed).file_bytes(path("data")).expect("synced");
        assert_eq!((&third[..512], &third[512..]), (&[3; 512][..], &found[512..]), "seed {seed}");
    }
    Ok(())
}

#[test]
fn rot_changes_the_durable_bytes_of_a_disk_at_rest() -> Outcome {
    let disk = SimDisk::new(16);
    synced_file(&disk, "data", 1, 100)?;
    let rotten = disk.settled(1);
    rotten.rot(path("data"), &[7; 50]);
    assert_eq!(rotten.file_bytes(path("data")), Some(vec![7; 50]));
    assert_eq!(rotten.log().image(0, 3).file_bytes(path("data")), Some(vec![7; 50]));
    assert_eq!(disk.file_bytes(path("data")), Some(vec![1; 100]));
    Ok(())
}

#[test]
fn marks_tell_what_was_acknowledged_before_a_cut() -> Outcome {
    let disk = SimDisk::new(17);
    let file = create(&disk, "data")?;
    disk.mark(5);
    file.write_at(0, b"x")?;
    disk.mark(6);
    let log = disk.log();
    let mut player = log.player(0);
    let mut seen = vec![player.acknowledged()];
    while player.advance() {
        seen.push(player.acknowledged());
    }
    assert_eq!(seen, [None, None, Some(5), Some(5), Some(6)]);
    assert!(player.after_mark());
    Ok(())
}

/// The target is 100 µs for a database of 300 KB; the bound leaves room for slow machines.
#[test]
fn an_image_of_a_small_database_costs_little() -> Outcome {
    let disk = SimDisk::new(18);
    let file = synced_file(&disk, "data", 1, 300_000)?;
    let journal = synced_file(&disk, "journal", 0, 1 << 20)?;
    for page in 0..20 {
        file.write_at(page * 4096 * 3, &[2; 4096])?;
        journal.write_at(page * 4096, &[3; 4096])?;
    }
    let log = disk.log();
    let mut player = log.player(1);
    player.advance_to(log.len());
    let begin = std::time::Instant::now();
    let count = 500;
    for seed in 0..count {
        let image = player.image(seed);
        let map = image.open(path("data"), OpenMode::ReadOnly)?.map(1 << 22)?;
        assert_eq!(map.reserved(), 1 << 22);
    }
    let each_us = begin.elapsed().as_micros() / u128::from(count);
    eprintln!("{each_us} µs an image, its map included");
    assert!(each_us < 1000, "{each_us} µs an image");
    Ok(())
}

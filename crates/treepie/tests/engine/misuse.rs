//! What callers can do wrong with an open database: each has its own error with its limit, the
//! transaction is undone, and the database goes on.

use std::sync::Arc;

use treepie::{Database, Error, Options, limits};

use crate::harness::{assert_says, file_options, open_new};

fn small() -> Options {
    file_options().scratch_memory(4 << 20).background_threads(false)
}

#[test]
fn a_key_that_is_too_long_is_refused_with_the_limit_and_the_longest_one_is_not() {
    for page_size in [4096, 8192] {
        let (_dir, db) = open_new(&small().page_size(page_size));
        let max = limits::key_len_max(page_size);
        db.write(|tx| {
            let mut tree = tx.tree("t")?;
            for byte in 0..40 {
                tree.insert(vec![byte; max], b"at the limit")?;
            }
            let error = tree.insert(vec![1; max + 1], b"v").expect_err("too long");
            assert!(
                matches!(error, Error::KeyTooLong { len, max: m } if len == max + 1 && m == max)
            );
            assert_says(&error, &[&max.to_string(), "shorten the key"]);
            // Nothing was changed: the transaction goes on.
            tree.insert(b"", b"the empty key is a key")?;
            Ok(())
        })
        .expect("the transaction commits");
        let snapshot = db.read().expect("a snapshot");
        assert_eq!(snapshot.tree("t").expect("a tree").len(), 41);
        // Nobody has such a key, and asking for it is no error.
        let asked = snapshot.tree("t").expect("a tree").get(vec![1; max + 1]);
        assert!(matches!(asked, Ok(None)), "{asked:?}");
        assert!(db.check().expect("a check").is_clean());
    }
}

#[test]
fn a_value_that_is_too_long_is_refused_with_the_limit() {
    let (_dir, db) = open_new(&small());
    let max = usize::try_from(limits::VALUE_LEN_MAX).expect("64-bit");
    // Zeroed by the allocator: these pages are never touched.
    let value = vec![0; max + 1];
    db.write(|tx| {
        let mut tree = tx.tree("t")?;
        let error = tree.insert("k", &value).expect_err("too long");
        assert!(matches!(error, Error::ValueTooLong { len, .. } if len == max as u64 + 1));
        assert_says(&error, &["1073741824", "several entries"]);
        tree.insert("k", "v")?;
        Ok(())
    })
    .expect("the transaction commits");
}

#[test]
fn unknown_trees_and_names_that_cannot_be_given_say_why() {
    let (_dir, db) = open_new(&small());
    let snapshot = db.read().expect("a snapshot");
    let error = snapshot.tree("birds").expect_err("unknown");
    assert!(matches!(&error, Error::UnknownTree { name } if name == b"birds"));
    assert_says(&error, &["\"birds\"", "list the names"]);
    assert!(snapshot.find_tree("birds").expect("no damage").is_none());
    assert!(snapshot.find_tree("").expect("no damage").is_none());
    db.write(|tx| {
        assert!(matches!(tx.existing_tree("birds"), Err(Error::UnknownTree { .. })));
        assert!(!tx.drop_tree("birds")?);
        let long = vec![b'x'; limits::TREE_NAME_LEN_MAX + 1];
        for (name, reason) in [
            (&b""[..], "at least one byte"),
            (b"$metadata", "belong to the engine"),
            (&long, "at most 512"),
        ] {
            let error = tx.tree(name).expect_err("refused");
            assert!(matches!(&error, Error::TreeName { name: n, .. } if n == name), "{error:?}");
            assert_says(&error, &[reason]);
            assert!(tx.drop_tree(name).is_err());
        }
        tx.tree(&long[1..])?.insert("k", "v")?;
        assert_eq!(tx.tree_names()?, [long[1..].to_vec()]);
        Ok(())
    })
    .expect("the transaction commits");
    assert_eq!(db.read().expect("a snapshot").trees().expect("trees").len(), 2);
}

#[test]
fn a_write_inside_a_write_is_refused_and_the_outer_one_goes_on() {
    let (_dir, db) = open_new(&small());
    let (_other_dir, other) = open_new(&small());
    db.write(|tx| {
        tx.tree("t")?.insert("outer", "1")?;
        let inner = db.write(|tx| tx.tree("t")?.insert("inner", "1"));
        assert!(matches!(inner, Err(Error::Reentrant)), "{inner:?}");
        assert!(matches!(db.begin_write(), Err(Error::Reentrant)));
        assert!(matches!(db.check(), Err(Error::Reentrant)));
        assert_eq!(db.read()?.find_tree("t")?.map(|tree| tree.len()), None);
        // Another database is another matter.
        other.write(|tx| tx.tree("t")?.insert("k", "v"))?;
        Ok(())
    })
    .expect("the outer transaction commits");
    let snapshot = db.read().expect("a snapshot");
    let tree = snapshot.tree("t").expect("a tree");
    assert!(tree.contains_key("outer").expect("read"));
    assert!(!tree.contains_key("inner").expect("read"));
    db.write(|tx| tx.tree("t")?.insert("later", "1")).expect("and the next one too");
}

#[test]
fn another_application_or_an_older_version_of_it_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("db");
    drop(small().application("ledger", 3).open(&path).expect("it is created"));
    for (name, version, fits) in
        [("ledger", 3, true), ("ledger", 5, true), ("ledger", 4, false), ("blog", 9, false)]
    {
        let opened = small().application(name, version).open(&path);
        assert_eq!(opened.is_ok(), fits, "{name} {version}: {:?}", opened.err());
        if let Err(error) = opened {
            assert!(matches!(error, Error::Application { .. }), "{error:?}");
            assert_says(&error, &["ledger 5", &format!("{name} {version}")]);
        }
    }
    drop(small().open(&path).expect("not asking is no error"));
}

#[test]
fn more_readers_than_the_bound_are_refused_until_one_ends() {
    let (_dir, db) = open_new(&small().readers_max(4));
    let readers: Vec<_> = (0..4).map(|_| db.read().expect("a snapshot")).collect();
    let error = db.read().expect_err("one too many");
    assert!(matches!(error, Error::Bound { option: "readers_max", max: 4, .. }), "{error:?}");
    assert_says(&error, &["readers_max", "4"]);
    let write = db.write(|tx| tx.tree("t")?.insert("k", "v"));
    assert!(matches!(write, Err(Error::Bound { .. })), "{write:?}");
    let places = db.readers();
    assert!(places.iter().all(|reader| reader.opened_at.contains("misuse.rs")), "{places:?}");
    drop(readers);
    db.write(|tx| tx.tree("t")?.insert("k", "v")).expect("now there is room");
    db.read().expect("a snapshot");
}

#[test]
fn a_transaction_larger_than_its_bounds_is_refused_and_undone() {
    let (_dir, db) = open_new(&small());
    db.write(|tx| tx.tree("t")?.insert("before", "1")).expect("a commit");
    for value_len in [100, 3000, 60_000] {
        let too_large = db.write(|tx| {
            let mut tree = tx.tree("t")?;
            for number in 0..1_000_000_u32 {
                tree.insert(number.to_be_bytes(), vec![7; value_len])?;
            }
            Ok(())
        });
        let error = too_large.expect_err("it does not fit");
        assert!(matches!(error, Error::Bound { option: "scratch_memory", .. }), "{error:?}");
        assert_says(&error, &["scratch_memory", "split the transaction"]);
        let stats = db.stats();
        assert!(stats.scratch_memory < 1 << 20, "the scratch memory is given back: {stats:?}");
        let snapshot = db.read().expect("a snapshot");
        assert_eq!(snapshot.tree("t").expect("a tree").len(), 1, "values of {value_len} bytes");
        drop(snapshot);
        assert!(db.check().expect("a check").is_clean());
        db.write(|tx| tx.tree("t")?.insert("before", "2")).expect("smaller ones go on");
    }
}

#[test]
fn a_failed_operation_that_the_closure_ignores_does_not_become_a_commit() {
    let (_dir, db) = open_new(&small());
    let result = db.write(|tx| {
        let mut tree = tx.tree("t")?;
        for number in 0..100_000_u32 {
            if tree.insert(number.to_be_bytes(), [7; 1000]).is_err() {
                return Ok(());
            }
        }
        panic!("the bounds hold 5 MiB");
    });
    let error = result.expect_err("what stopped half-way is not committed");
    assert!(matches!(error, Error::TransactionBroken { operation: "insert", .. }), "{error:?}");
    assert_says(&error, &["insert", "run the transaction again"]);
    assert!(db.read().expect("a snapshot").find_tree("t").expect("no damage").is_none());
}

#[test]
fn a_journal_that_an_old_snapshot_keeps_growing_stops_at_its_bound() {
    for background in [false, true] {
        let options = small()
            .background_threads(background)
            .scratch_memory(64 << 20)
            .checkpoint_distance(128 << 10)
            .journal_max(512 << 10);
        let (_dir, db) = open_new(&options);
        db.write(|tx| tx.tree("t")?.insert("k", "v")).expect("a commit");
        let old = db.read().expect("a snapshot");
        let mut commits = 0_u32;
        let error = loop {
            let value = vec![commits as u8; 20_000];
            match db.write(|tx| tx.tree("t")?.insert(commits.to_be_bytes(), &value)) {
                Ok(_) => commits += 1,
                Err(error) => break error,
            }
            assert!(commits < 1000, "the bound does not hold: {:?}", db.stats());
        };
        assert!(matches!(error, Error::Bound { option: "journal_max", .. }), "{error:?}");
        assert_says(&error, &["journal_max", "old snapshot", "`report`"]);
        assert_eq!(old.tree("t").expect("a tree").len(), 1);
        let readers = db.report().expect("a report").readers;
        assert!(readers[0].pinned_bytes > 0 || readers[0].lsn == old.lsn(), "{readers:?}");
        drop(old);
        db.write(|tx| tx.tree("t")?.insert("later", "v")).expect("without it writes go on");
        assert!(db.check().expect("a check").is_clean());
    }
}

#[test]
fn options_out_of_their_range_name_the_option() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("db");
    for (options, option) in [
        (small().page_size(5000), "page_size"),
        (small().versions_memory(1000), "versions_memory"),
        (small().readers_max(2), "readers_max"),
        (small().journal_segment_size(100), "journal_segment_size"),
        (small().checkpoint_distance(2 << 20).journal_max(1 << 20), "journal_max"),
    ] {
        let error = options.open(&path).map(|_| ()).expect_err("refused");
        assert!(matches!(error, Error::Options { option: o, .. } if o == option), "{error:?}");
        assert_says(&error, &[option, "must be"]);
    }
    assert!(!path.exists(), "nothing was made");
}

#[test]
fn a_handle_may_be_cloned_and_the_last_one_closes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("db");
    let db = Arc::new(small().open(&path).expect("it opens"));
    let other = Database::clone(&db);
    drop(db);
    other.write(|tx| tx.tree("t")?.insert("k", "v")).expect("a commit");
    other.close().expect("closing");
    small().open(&path).expect("it opens again");
}

#[test]
fn annotations_beyond_their_bound_are_refused_and_the_transaction_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let db = Database::open(dir.path().join("db")).expect("a new database opens");
    let receipt = db.write(|tx| {
        tx.annotate("a note")?;
        let error = tx.annotate(vec![0; 16 << 20]).expect_err("too long");
        assert!(error.to_string().contains("annotations"), "{error}");
        tx.tree("t")?.insert("k", "v")
    });
    let lsn = receipt.expect("a commit").lsn;
    let records = db.journal_records(lsn).expect("the journal is read");
    let bytes: Vec<u64> = records.map(|r| r.expect("a record").annotation_bytes).collect();
    assert_eq!(bytes, [6]);
}

#[test]
#[should_panic(expected = "the handle is of another transaction")]
fn a_tree_handle_of_another_transaction_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let db = Database::open(dir.path().join("db")).expect("a new database opens");
    let handle = db.write(|tx| tx.tree_handle("t")).expect("a commit").value;
    let _ = db.write(|tx| tx.by_handle(handle).map(|tree| tree.len()));
}

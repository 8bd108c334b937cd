//! Savepoints in merged closures: nested, failing, panicking, around trees that come and go.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use treepie::{Database, Error, Result, WriteTxn};

use crate::{batches::together, merging::open};

fn rejected<T>() -> Result<T> {
    Err(Error::rejected("on purpose"))
}

fn insert(tx: &mut WriteTxn<'_>, tree: &str, key: &str, len: usize) -> Result<()> {
    tx.tree(tree)?.insert(key, vec![7; len]).map(|_| ())
}

/// Runs a closure alone, and as the last of a batch, where it has a savepoint around it.
fn alone_and_merged(
    change: impl Fn(&mut WriteTxn<'_>) -> Result<()> + Sync,
    look: impl Fn(&Database),
) {
    for before in [0, 2] {
        let db = open(|options| options);
        db.write(|tx| {
            insert(tx, "t", "first", 10)?;
            insert(tx, "t", "run", 30_000)?;
            (0..200).try_for_each(|n| insert(tx, "many", &format!("{n:05}"), 100))
        })
        .expect("a commit");
        let mut callers: Vec<crate::batches::Caller<'_, ()>> = Vec::new();
        for number in 0..before {
            let db = &db;
            callers.push(Box::new(move || {
                let touch = |tx: &mut WriteTxn<'_>| {
                    insert(tx, "others", &number.to_string(), 500)?;
                    insert(tx, "many", "zzz", 50 + number)
                };
                db.write(touch).expect("a commit");
            }));
        }
        callers.push(Box::new(|| db.write(&change).expect("a commit").value));
        for end in together(&db, callers) {
            end.expect("no panic");
        }
        let check = db.check().expect("a check begins");
        assert!(check.is_clean(), "after {before}: {:?}", check.problems);
        look(&db);
    }
}

/// Keys of a tree with the lengths of their values.
fn entries(db: &Database, tree: &str) -> Vec<(String, usize)> {
    let snapshot = db.read().expect("a snapshot");
    let Some(tree) = snapshot.find_tree(tree).expect("a read") else { return Vec::new() };
    let entry = |entry: Result<(treepie::Key<'_>, &[u8])>| {
        let (key, value) = entry.expect("an entry");
        (String::from_utf8(key.to_vec()).expect("text"), value.len())
    };
    tree.iter().map(entry).collect()
}

fn names(db: &Database) -> Vec<String> {
    let snapshot = db.read().expect("a snapshot");
    let names = snapshot.trees().expect("trees").into_iter().map(|info| info.name);
    let names = names.map(|name| String::from_utf8(name).expect("text"));
    names.filter(|name| !name.starts_with('$') && name != "others").collect()
}

#[test]
fn an_inner_savepoint_that_fails_leaves_the_outer_one_and_the_closure() {
    alone_and_merged(
        |tx| {
            insert(tx, "t", "a", 1)?;
            tx.savepoint(|tx| {
                insert(tx, "t", "b", 2)?;
                let inner = tx.savepoint(|tx| {
                    insert(tx, "t", "a", 100)?;
                    insert(tx, "t", "c", 40_000)?;
                    tx.tree("t")?.remove("run")?;
                    rejected::<()>()
                });
                assert!(inner.is_err());
                insert(tx, "t", "d", 4)
            })?;
            let outer = tx.savepoint(|tx| {
                insert(tx, "t", "b", 200)?;
                tx.savepoint(|tx| insert(tx, "t", "e", 5))?;
                rejected::<()>()
            });
            assert!(outer.is_err());
            insert(tx, "t", "f", 6)
        },
        |db| {
            let expected = [("a", 1), ("b", 2), ("d", 4), ("f", 6), ("first", 10), ("run", 30_000)];
            assert_eq!(entries(db, "t"), expected.map(|(key, len)| (key.to_owned(), len)));
        },
    );
}

#[test]
fn a_panic_inside_a_savepoint_goes_through_and_a_closure_that_catches_it_goes_on() {
    alone_and_merged(
        |tx| {
            insert(tx, "t", "a", 1)?;
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                tx.savepoint(|tx| {
                    tx.savepoint(|tx| insert(tx, "t", "b", 50_000))?;
                    tx.tree("many")?.clear()?;
                    tx.savepoint(|tx| -> Result<()> {
                        tx.drop_tree("t")?;
                        resume_unwind(Box::new("on purpose"))
                    })
                })
            }));
            let panic = panicked.expect_err("it goes through").downcast::<&str>();
            assert_eq!(*panic.expect("a text"), "on purpose");
            insert(tx, "t", "c", 3)
        },
        |db| {
            let expected = [("a", 1), ("c", 3), ("first", 10), ("run", 30_000)];
            assert_eq!(entries(db, "t"), expected.map(|(key, len)| (key.to_owned(), len)));
            assert!(entries(db, "many").len() >= 200);
        },
    );
}

#[test]
fn trees_dropped_and_made_again_after_a_savepoint_are_what_they_were_before_it() {
    alone_and_merged(
        |tx| {
            tx.drop_tree("many")?;
            insert(tx, "made", "before", 1)?;
            let outer = tx.savepoint(|tx| {
                tx.drop_tree("t")?;
                assert_eq!(tx.tree("t")?.len(), 0);
                insert(tx, "t", "again", 30_000)?;
                tx.drop_tree("made")?;
                insert(tx, "many", "again", 1)?;
                let inner = tx.savepoint(|tx| {
                    tx.drop_tree("t")?;
                    insert(tx, "t", "a third time", 3)?;
                    tx.drop_tree("many")?;
                    insert(tx, "made", "again", 2)?;
                    rejected::<()>()
                });
                assert!(inner.is_err());
                assert_eq!(tx.tree("t")?.get("again")?.map(<[u8]>::len), Some(30_000));
                assert_eq!(tx.tree("many")?.len(), 1);
                assert!(!tx.tree_names()?.contains(&b"made".to_vec()));
                rejected::<()>()
            });
            assert!(outer.is_err());
            assert_eq!(tx.tree("made")?.get("before")?.map(<[u8]>::len), Some(1));
            assert!(!tx.tree_names()?.contains(&b"many".to_vec()));
            insert(tx, "t", "last", 9)
        },
        |db| {
            let expected = [("first", 10), ("last", 9), ("run", 30_000)];
            assert_eq!(entries(db, "t"), expected.map(|(key, len)| (key.to_owned(), len)));
            assert_eq!(names(db), ["made", "t"]);
        },
    );
}

#[test]
fn a_tree_dropped_by_one_closure_and_made_again_by_the_next_is_empty() {
    let db = open(|options| options);
    db.write(|tx| insert(tx, "t", "old", 20_000)).expect("a commit");
    type Change = fn(&mut WriteTxn<'_>) -> Result<()>;
    let changes: [(Change, bool); 6] = [
        (|tx| tx.drop_tree("t").map(drop), true),
        (|tx| insert(tx, "t", "undone", 5000).and_then(|()| rejected()), false),
        (|tx| insert(tx, "t", "new", 20_000), true),
        (
            |tx| tx.drop_tree("t").and_then(|_| insert(tx, "t", "x", 1)).and_then(|()| rejected()),
            false,
        ),
        (|tx| tx.tree("u").map(drop), true),
        (|tx| tx.drop_tree("u").map(drop), true),
    ];
    let callers = changes.map(|(change, is_kept)| -> crate::batches::Caller<'_, ()> {
        let db = &db;
        Box::new(move || assert_eq!(db.write(change).is_ok(), is_kept))
    });
    for end in together(&db, callers.into()) {
        end.expect("as expected");
    }
    assert_eq!(db.stats().committed.0, 3);
    assert_eq!(entries(&db, "t"), [("new".to_owned(), 20_000)]);
    assert_eq!(names(&db), ["t"]);
    assert!(db.check().expect("a check").is_clean());
}

/// What a savepoint made is gone with it, so its handles lead nowhere, also when a tree made later
/// has taken the place.
#[test]
fn a_handle_from_inside_a_savepoint_that_was_undone_leads_to_no_other_tree() {
    let db = open(|options| options);
    let before = db.write(|tx| {
        let t = tx.tree_handle("t")?;
        let mut inside = None;
        let undone = tx.savepoint(|tx| {
            inside = Some(tx.tree_handle("gone")?);
            rejected::<()>()
        });
        assert!(undone.is_err());
        let inside = inside.expect("it ran");
        assert!(matches!(tx.by_handle(inside), Err(Error::UnknownTree { .. })), "nothing there");
        tx.tree("other")?.insert("k", "v")?;
        assert!(matches!(tx.by_handle(inside), Err(Error::UnknownTree { .. })), "not the other");
        tx.by_handle(t)?.insert("k", "v")?;
        Ok(())
    });
    before.expect("the handle from before the savepoint is good");
    assert_eq!(names(&db), ["other", "t"]);
}

#[test]
fn a_savepoint_costs_what_it_changes_and_gives_its_memory_back() {
    let db = open(|options| options.sync_interval(Duration::from_secs(60)));
    db.write(|tx| {
        for n in 0..2000_u32 {
            tx.tree("t")?.insert(n.to_be_bytes(), [1; 200])?;
        }
        Ok(())
    })
    .expect("a commit");
    db.checkpoint().expect("a checkpoint");
    let before = db.stats().versions_memory;
    let undone = db.write(|tx| {
        for round in 0..50_u8 {
            let _ = tx.savepoint(|tx| {
                tx.tree("t")?.insert([0, 0, 0, round], [2; 200])?;
                insert(tx, "t", "run", 20_000)?;
                if round.is_multiple_of(2) { rejected() } else { Ok(()) }
            });
        }
        rejected::<()>()
    });
    assert!(undone.is_err());
    assert_eq!(db.stats().versions_memory, before);
    assert!(db.check().expect("a check").is_clean());
}

//! What can be asked for.

use std::{sync::mpsc, thread};

use parking_lot::Mutex;
use treepie::{Receipt, ids::Lsn};
use treepie_raft::{
    ids::NodeId,
    service::{
        ClientError, Refusal, ScanOptions, ServerOptions, Transaction,
        message::{Admin, Consistency, Effect, Outcome, Role, Unmet},
    },
};

use crate::serving::{Rerouted, Served};

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Refusal {
    match result {
        Err(ClientError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_are_set_read_and_removed() {
    let served = Served::new();
    let client = served.client();
    let put = client.put("birds", "pica", "magpie").unwrap();
    assert!(!put.value);
    assert!(client.put("birds", "pica", "crow").unwrap().value);
    let got = client.get("birds", "pica").unwrap();
    assert_eq!(got.value.as_deref(), Some(&b"crow"[..]));
    assert!(got.lsn > put.lsn);
    assert_eq!(served.db.read().unwrap().tree("birds").unwrap().len(), 1);
    assert!(client.delete("birds", "pica").unwrap().value);
    assert!(!client.delete("birds", "pica").unwrap().value);
    assert!(!client.delete("fish", "pica").unwrap().value);
    assert_eq!(client.get("birds", "pica").unwrap().value, None);
    assert_eq!(refusal(client.get("fish", "pica")), Refusal::NoTree { name: b"fish".to_vec() });
}

#[test]
fn values_up_to_megabytes_come_back_byte_by_byte() {
    let served = Served::new();
    let client = served.client();
    for len in [0, 1, 4096, 70_000, 3_000_000, 15 << 20] {
        let value: Vec<u8> =
            (0..len).map(|i: u32| u8::try_from(i.wrapping_mul(i) % 251).unwrap()).collect();
        client.put("large", len.to_be_bytes(), &value).unwrap();
        assert!(client.get("large", len.to_be_bytes()).unwrap().value.unwrap() == value);
    }
    let long = client.put("large", "k", vec![0; 16 << 20]);
    assert!(matches!(long, Err(ClientError::TooLarge(_))), "{long:?}");
    // One that got there in another way is refused, and the connection goes on.
    served.db.write(|tx| tx.tree("large")?.insert("k", vec![0; 20 << 20])).unwrap();
    assert!(matches!(refusal(client.get("large", "k")), Refusal::TooLarge { .. }));
    client.put("large", "k", "short").unwrap();
}

#[test]
fn condition_that_does_not_hold_changes_nothing_and_tells_what_is_there() {
    let client = Served::new();
    let (_served, client) = (&client, client.client());
    let cas = |expected: Option<&[u8]>, value| {
        client.compare_and_put("t", "k", expected, value).unwrap().value
    };
    assert_eq!(cas(Some(b"a"), "b"), Err(Unmet { index: 0, exists: false, found: None }));
    assert_eq!(cas(None, "a"), Ok(()));
    let found = Some(b"a".to_vec());
    assert_eq!(cas(None, "b"), Err(Unmet { index: 0, exists: true, found: found.clone() }));
    assert_eq!(cas(Some(b"a"), "b"), Ok(()));
    client.put("t", "long", vec![7; 5000]).unwrap();
    let transaction = Transaction::new()
        .expect("t", "k", Some("b"))
        .expect("t", "long", Some("short"))
        .put("t", "k", "c");
    let outcome = client.run(transaction).unwrap().value;
    assert_eq!(outcome, Outcome::Unmet(Unmet { index: 1, exists: true, found: None }));
    assert_eq!(client.get("t", "k").unwrap().value.as_deref(), Some(&b"b"[..]));
}

#[test]
fn transaction_is_done_as_a_whole_and_sees_its_own_steps() {
    let served = Served::new();
    let client = served.client();
    let transaction = Transaction::new()
        .expect("a", "k1", None::<&str>)
        .put("a", "k1", "1")
        .put("a", "k2", "2")
        .put("b", "k", "3")
        .get("a", "k2")
        .delete("a", "k1")
        .get("a", "k1")
        .get("missing", "k")
        .delete_range("a", "k".."l");
    let Receipt { value, lsn } = client.run(transaction).unwrap();
    let effects = vec![
        Effect::Put(false),
        Effect::Put(false),
        Effect::Put(false),
        Effect::Value(Some(b"2".to_vec())),
        Effect::Deleted(true),
        Effect::Value(None),
        Effect::Value(None),
        Effect::DeletedRange(1),
    ];
    assert_eq!(value, Outcome::Done(effects));
    assert_eq!(served.db.read().unwrap().lsn(), lsn);
    let failing = Transaction::new().put("b", "k", "4").put("b", vec![0; 5000], "too long");
    assert!(matches!(refusal(client.run(failing)), Refusal::Invalid(_)));
    assert_eq!(client.get("b", "k").unwrap().value.as_deref(), Some(&b"3"[..]));
    let much = Transaction::new().put("b", "much", vec![0; 70_000]).get("b", "much");
    assert!(matches!(refusal(client.run(much)), Refusal::TooLarge { .. }));
    assert_eq!(client.get("b", "much").unwrap().value, None);
}

#[test]
fn tree_of_the_service_is_out_of_reach() {
    let served = Served::new();
    let client = served.client();
    client.put("t", "k", "v").unwrap();
    let names: Vec<_> = served.db.read().unwrap().trees().unwrap();
    let own = names.iter().find(|tree| tree.name.starts_with(b"treepie")).unwrap();
    assert!(matches!(refusal(client.put(&own.name, "k", "v")), Refusal::Invalid(_)));
    assert!(matches!(refusal(client.delete(&own.name, "k")), Refusal::Invalid(_)));
    assert!(matches!(refusal(client.get(&own.name, "k")), Refusal::NoTree { .. }));
    let scanned = client.scan(&own.name, ScanOptions::new()).next().unwrap();
    assert!(matches!(refusal(scanned), Refusal::NoTree { .. }));
    assert!(matches!(refusal(client.put("$metadata", "k", "v")), Refusal::Invalid(_)));
}

#[test]
fn scan_returns_all_entries_in_order_over_many_pages() {
    let served = Served::new();
    let client = served.client();
    let keys: Vec<String> = (0..3000).map(|n| format!("key {n:05}")).collect();
    let value = vec![b'v'; 500];
    served
        .db
        .write(|tx| {
            let mut tree = tx.tree("t")?;
            keys.iter().try_for_each(|key| tree.insert(key, &value).map(drop))
        })
        .unwrap();
    let scan = |options| -> Vec<String> {
        let entries = client.scan("t", options).map(Result::unwrap);
        entries
            .map(|(key, found)| {
                assert_eq!(found, value);
                String::from_utf8(key).unwrap()
            })
            .collect()
    };
    assert_eq!(scan(ScanOptions::new()), keys);
    let mut backwards = keys.clone();
    backwards.reverse();
    assert_eq!(scan(ScanOptions::new().reverse()), backwards);
    assert_eq!(scan(ScanOptions::new().prefix("key 0012")), keys[120..130]);
    assert_eq!(scan(ScanOptions::new().range("key 00010".."key 02500")), keys[10..2500]);
    assert_eq!(scan(ScanOptions::new().reverse().limit(1500)), backwards[..1500]);
    assert_eq!(scan(ScanOptions::new().range("z"..)), Vec::<String>::new());
    assert!(scan(ScanOptions::new().limit(0)).is_empty());
}

#[test]
fn read_is_as_new_as_it_is_asked_for() {
    let served = Served::new();
    let client = served.client();
    let Receipt { lsn: Lsn(lsn), .. } = client.put("t", "k", "v").unwrap();
    let read = |consistency| client.reading(consistency).get("t", "k");
    assert_eq!(read(Consistency::AtLeast(lsn)).unwrap().lsn, Lsn(lsn));
    assert_eq!(read(Consistency::Stale(0)).unwrap().lsn, Lsn(lsn));
    let ahead = read(Consistency::AtLeast(lsn + 1));
    assert_eq!(refusal(ahead), Refusal::Behind { at: lsn });
}

#[test]
fn node_tells_what_it_is_doing_and_takes_no_members_when_it_is_alone() {
    let served = Served::new();
    let client = served.client();
    let Lsn(lsn) = client.put("t", "k", "v").unwrap().lsn;
    let status = client.status().unwrap();
    assert_eq!((status.node, status.role, status.committed), (NodeId(1), Role::Standalone, lsn));
    assert_eq!(status.cluster.database, served.db.id());
    let members = client.members().unwrap();
    assert_eq!((members.len(), members[0].client_address.as_str()), (1, "here"));
    let refused = client.admin(Admin::Promote { node: NodeId(2) });
    assert!(matches!(refusal(refused), Refusal::Unsupported(_)));
}

#[test]
fn threads_share_one_connection_and_each_gets_its_own_answer() {
    let served = Served::new();
    let client = served.client();
    thread::scope(|scope| {
        for thread in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                for n in 0..200 {
                    let key = format!("{thread}/{n}");
                    assert!(!client.put("t", &key, &key).unwrap().value, "{key}");
                    let got = client.get("t", &key).unwrap().value;
                    assert_eq!(got.as_deref(), Some(key.as_bytes()));
                }
            });
        }
    });
    assert_eq!(served.db.read().unwrap().tree("t").unwrap().len(), 1600);
    let counters = served.server.counters();
    assert_eq!((counters.accepted, counters.broken), (1, 0));
    assert_eq!((counters.requests, counters.responses), (3201, 3201));
}

#[test]
fn started_requests_are_done_in_order_and_waited_for_in_any() {
    let served = Served::new();
    let client = served.client();
    let started: Vec<_> = (0..500_u32)
        .map(|n| {
            client.start(Transaction::new().put("t", "k", n.to_string()).get("t", "k")).unwrap()
        })
        .collect();
    for (n, pending) in started.into_iter().enumerate().rev() {
        let effects = vec![Effect::Put(n > 0), Effect::Value(Some(n.to_string().into_bytes()))];
        assert_eq!(pending.wait().unwrap().value, Outcome::Done(effects));
    }
}

#[test]
fn answer_that_takes_long_does_not_hold_back_those_behind_it() {
    let (held, release) = mpsc::channel();
    let held = Mutex::new(held);
    let served = Served::with(ServerOptions::new(), |inner| {
        let on_write = move |inner: &dyn treepie_raft::service::Store, write: _, done: _| {
            let write: treepie_raft::service::message::Write = write;
            if write.operations.len() == 2 {
                held.lock().send((write, done)).unwrap();
            } else {
                inner.write(write, done);
            }
        };
        std::sync::Arc::new(Rerouted { inner, on_write: Box::new(on_write) })
    });
    let client = served.client();
    let slow = client.start(Transaction::new().put("t", "slow", "").get("t", "slow")).unwrap();
    client.put("t", "fast", "").unwrap();
    assert!(!slow.is_done());
    let (_, done) = release.recv().unwrap();
    done(Err(Refusal::Full("as a test says".to_owned())));
    assert_eq!(refusal(slow.wait()), Refusal::Full("as a test says".to_owned()));
}

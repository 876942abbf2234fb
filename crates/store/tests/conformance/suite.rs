//! The conformance suite: one claim per function, all on one store, each in a directory of its own.

use bytes::Bytes;
use lakebed_store::{Created, Directory, Key, Payload, ReadError, Store};

/// Runs every claim on an empty root. `big_pieces` is the size of the biggest object in MiB, from 11 on.
pub(crate) async fn run(store: &Store, big_pieces: u8) {
    of_sixteen_rivals_one_creates(store).await;
    a_create_that_is_repeated_finds_its_own_object(store).await;
    an_overwrite_leaves_the_last_payload_whole(store).await;
    reads_give_exactly_what_was_asked_for(store).await;
    an_empty_object_is_an_object(store).await;
    what_was_created_is_listed_in_order(store).await;
    directories_are_those_with_objects(store).await;
    deletes_can_be_repeated(store).await;
    odd_keys_stay_as_they_are(store).await;
    a_big_object_in_pieces_comes_back_whole(store, big_pieces).await;
    objects_in_parts_come_back_whole(store).await;
    of_rivals_in_parts_one_creates(store).await;
    parts_that_are_given_up_are_no_object(store).await;
}

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

fn directory(path: &str) -> Directory {
    Directory::new(path).unwrap()
}

async fn listed(store: &Store, within: &str, start_after: Option<&str>, limit: usize) -> (Vec<String>, bool) {
    let start_after = start_after.map(key);
    let listing = store.list(&directory(within), start_after.as_ref(), limit).await.unwrap();
    (listing.objects.iter().map(|object| object.key.to_string()).collect(), listing.more)
}

async fn of_sixteen_rivals_one_creates(store: &Store) {
    for round in 0..4 {
        let target = key(&format!("race/{round}"));
        let rivals = (0..16).map(|rival| {
            let (store, target) = (store.clone(), target.clone());
            tokio::spawn(async move { store.create(&target, format!("rival {rival:02}").into_bytes()).await.unwrap() })
        });
        let rivals: Vec<_> = rivals.collect();
        let mut winners = Vec::new();
        for (rival, task) in rivals.into_iter().enumerate() {
            match task.await.unwrap() {
                Created::New | Created::Mine => winners.push(rival),
                Created::Other => {}
            }
        }
        let [winner] = winners[..] else { panic!("winners of round {round}: {winners:?}") };
        assert_eq!(store.get(&target).await.unwrap(), format!("rival {winner:02}"));
    }
}

async fn a_create_that_is_repeated_finds_its_own_object(store: &Store) {
    let mut body = vec![7; 200_000];
    let target = key("repeat/a");
    assert_ne!(store.create(&target, body.clone()).await.unwrap(), Created::Other);
    assert_eq!(store.create(&target, body.clone()).await.unwrap(), Created::Mine);
    body[199_990] = 8;
    assert_eq!(store.create(&target, body.clone()).await.unwrap(), Created::Other);
    assert_eq!(store.create(&target, body[..199_000].to_vec()).await.unwrap(), Created::Other);
    assert_eq!(store.create(&target, Payload::default()).await.unwrap(), Created::Other);
    assert_eq!(store.get(&target).await.unwrap(), vec![7; 200_000]);
    let small = key("repeat/b");
    assert_ne!(store.create(&small, "one").await.unwrap(), Created::Other);
    assert_eq!(store.create(&small, "two").await.unwrap(), Created::Other);
    assert_eq!(
        store.create(&small, Payload::from(vec![Bytes::from("o"), Bytes::from("ne")])).await.unwrap(),
        Created::Mine
    );
}

async fn an_overwrite_leaves_the_last_payload_whole(store: &Store) {
    let target = key("overwrite/deep/hint");
    for payload in ["7", "a longer one", "", "8"] {
        store.overwrite(&target, payload).await.unwrap();
        assert_eq!(store.get(&target).await.unwrap(), payload);
    }
    assert_eq!(listed(store, "overwrite", None, 10).await.0, ["overwrite/deep/hint"]);
    let created = key("overwrite/created");
    store.create(&created, "first").await.unwrap();
    store.overwrite(&created, "second").await.unwrap();
    assert_eq!(store.get(&created).await.unwrap(), "second");
    assert_eq!(store.create(&created, "first").await.unwrap(), Created::Other);
    let rivals = (0..8).map(|rival: u8| {
        let (store, target) = (store.clone(), target.clone());
        tokio::spawn(async move { store.overwrite(&target, vec![b'a' + rival; 5000]).await.unwrap() })
    });
    for rival in rivals.collect::<Vec<_>>() {
        rival.await.unwrap();
    }
    let left = store.get(&target).await.unwrap();
    assert!(left.len() == 5000 && left.iter().all(|byte| *byte == left[0]), "two payloads were mixed");
    store.delete(&[target.clone(), created]).await.unwrap();
    assert!(!store.exists(&target).await.unwrap());
}

async fn reads_give_exactly_what_was_asked_for(store: &Store) {
    let target = key("read/a");
    store.create(&target, "0123456789").await.unwrap();
    for start in 0..12u64 {
        for end in start..12 {
            let read = store.get_range(&target, start..end).await;
            match start == end || end <= 10 {
                true => assert_eq!(read.unwrap(), "0123456789".get(start as usize..end as usize).unwrap_or("")),
                false => assert!(
                    matches!(read, Err(ReadError::OutOfRange { size_bytes: 10, .. })),
                    "{start}..{end}: {read:?}"
                ),
            }
        }
    }
    assert!(matches!(store.get_range(&target, 5_000_000..5_000_001).await, Err(ReadError::OutOfRange { .. })));
    for length in [0, 1, 3, 9, 10, 11, 1_000_000] {
        let suffix = store.get_suffix(&target, length).await.unwrap();
        assert_eq!(suffix.bytes, "0123456789"[10 - (length as usize).min(10)..], "the last {length}");
        assert_eq!(suffix.object_size_bytes, 10);
    }
    let missing = key("read/missing");
    assert!(matches!(store.get(&missing).await, Err(ReadError::NotFound { .. })));
    assert!(matches!(store.get_range(&missing, 0..1).await, Err(ReadError::NotFound { .. })));
    assert!(matches!(store.get_suffix(&missing, 1).await, Err(ReadError::NotFound { .. })));
    assert!(matches!(store.get_suffix(&missing, 0).await, Err(ReadError::NotFound { .. })));
    assert!(matches!(store.size(&missing).await, Err(ReadError::NotFound { .. })));
    assert!(!store.exists(&missing).await.unwrap());
    assert!(store.exists(&target).await.unwrap());
    assert!(!store.exists(&key("read")).await.unwrap(), "a directory is no object");
}

async fn an_empty_object_is_an_object(store: &Store) {
    let target = key("empty/a");
    assert_ne!(store.create(&target, Payload::default()).await.unwrap(), Created::Other);
    assert_eq!(store.create(&target, Payload::default()).await.unwrap(), Created::Mine);
    assert_eq!(store.create(&target, "x").await.unwrap(), Created::Other);
    assert!(store.get(&target).await.unwrap().is_empty());
    for length in [0, 1, 65_536] {
        let suffix = store.get_suffix(&target, length).await.unwrap();
        assert_eq!((suffix.bytes.len(), suffix.object_size_bytes), (0, 0));
    }
    assert!(store.get_range(&target, 0..0).await.unwrap().is_empty());
    assert!(matches!(store.get_range(&target, 0..1).await, Err(ReadError::OutOfRange { size_bytes: 0, .. })));
    assert_eq!(store.size(&target).await.unwrap(), 0);
}

async fn what_was_created_is_listed_in_order(store: &Store) {
    let paths =
        ["list/a", "list/a+", "list/a-b/c", "list/a.b", "list/a/b", "list/a0", "list/b/1/2", "list/b/2", "list/c"];
    // A file system can't have both `a` and `a/b`.
    let paths: Vec<&str> = paths.into_iter().filter(|path| *path != "list/a").collect();
    store.create(&key("list-before/x"), "1").await.unwrap();
    store.create(&key("listing"), "1").await.unwrap();
    for path in paths.iter().rev() {
        store.create(&key(path), path.as_bytes()).await.unwrap();
        assert!(listed(store, "list", None, 100).await.0.contains(&path.to_string()), "{path} is not listed at once");
    }
    assert_eq!(listed(store, "list", None, 100).await, (to_strings(&paths), false));
    for start in 0..=paths.len() {
        for limit in 1..=paths.len() + 1 {
            let start_after = start.checked_sub(1).map(|last| paths[last]);
            let end = (start + limit).min(paths.len());
            let expected = (to_strings(&paths[start..end]), end < paths.len());
            assert_eq!(listed(store, "list", start_after, limit).await, expected, "after {start_after:?}, {limit}");
        }
    }
    assert_eq!(listed(store, "list", Some("a"), 1).await, (to_strings(&paths[..1]), true));
    assert_eq!(listed(store, "list", Some("list/a-"), 1).await, (to_strings(&paths[1..2]), true));
    assert_eq!(listed(store, "list", Some("z"), 100).await, (Vec::new(), false));
    assert_eq!(listed(store, "list/b", Some("list/b/1/9"), 100).await.0, ["list/b/2"]);
    assert_eq!(listed(store, "list/absent", None, 100).await, (Vec::new(), false));
    assert_eq!(listed(store, "list/c", None, 100).await, (Vec::new(), false));
    assert!(listed(store, "", Some("list/b"), 3).await.0.contains(&"list/b/1/2".to_owned()));
    let sizes = store.list(&directory("list/b"), None, 10).await.unwrap().objects;
    assert_eq!(sizes.iter().map(|object| object.size_bytes).collect::<Vec<_>>(), [10, 8]);
}

async fn directories_are_those_with_objects(store: &Store) {
    for path in ["dirs/x/1", "dirs/x/2/3", "dirs/y-/1", "dirs/file"] {
        store.create(&key(path), path.as_bytes()).await.unwrap();
    }
    assert_eq!(store.list_directories(&directory("dirs")).await.unwrap(), ["x", "y-"]);
    assert_eq!(store.list_directories(&directory("dirs/x")).await.unwrap(), ["2"]);
    assert!(store.list_directories(&directory("dirs/none")).await.unwrap().is_empty());
    assert!(store.list_directories(&Directory::root()).await.unwrap().contains(&"dirs".to_owned()));
    store.delete(&[key("dirs/y-/1")]).await.unwrap();
    assert_eq!(store.list_directories(&directory("dirs")).await.unwrap(), ["x"]);
}

async fn deletes_can_be_repeated(store: &Store) {
    let keys: Vec<Key> = (0..5).map(|index| key(&format!("delete/{index}"))).collect();
    for key in &keys {
        store.create(key, "x").await.unwrap();
    }
    store.delete(&[]).await.unwrap();
    store.delete(&keys[1..3]).await.unwrap();
    store.delete(&keys[1..4]).await.unwrap();
    store.delete(&[key("delete/none/at/all")]).await.unwrap();
    assert_eq!(listed(store, "delete", None, 10).await.0, ["delete/0", "delete/4"]);
    assert!(matches!(store.get(&keys[1]).await, Err(ReadError::NotFound { .. })));
    assert_ne!(store.create(&keys[1], "again").await.unwrap(), Created::Other);
    assert_eq!(store.get(&keys[1]).await.unwrap(), "again");
}

async fn odd_keys_stay_as_they_are(store: &Store) {
    let names = ["a b", "a+b", "a=b&c", "!$'(),-.@_", "UPPER", "dots...", "-", "=", "2026-01-01T00,00"];
    for name in names {
        let odd = key(&format!("odd/{name}/{name}"));
        assert_ne!(store.create(&odd, name.as_bytes()).await.unwrap(), Created::Other, "{odd}");
        assert_eq!(store.get(&odd).await.unwrap(), name, "{odd}");
        assert_eq!(listed(store, &format!("odd/{name}"), None, 2).await.0, [odd.as_str()]);
        assert_eq!(store.list_directories(&directory("odd")).await.unwrap(), [name]);
        store.delete(std::slice::from_ref(&odd)).await.unwrap();
        assert!(!store.exists(&odd).await.unwrap(), "{odd}");
    }
    let long = key(&format!("odd/{}", ["n".repeat(255), "m".repeat(255), "l".repeat(255)].join("/")));
    store.create(&long, "long").await.unwrap();
    assert_eq!(store.get(&long).await.unwrap(), "long");
}

async fn a_big_object_in_pieces_comes_back_whole(store: &Store, count: u8) {
    const PIECE_BYTES: usize = 1 << 20;
    let pieces: Vec<Bytes> = (0..count).map(|piece| Bytes::from(vec![piece; PIECE_BYTES])).collect();
    let target = key("big/a");
    assert_ne!(store.create(&target, Payload::from(pieces.clone())).await.unwrap(), Created::Other);
    assert_eq!(store.create(&target, Payload::from(pieces.clone())).await.unwrap(), Created::Mine);
    let whole = store.get(&target).await.unwrap();
    assert!(whole == pieces.concat(), "{count} MiB came back changed");
    let middle = (10 * PIECE_BYTES - 5) as u64..(10 * PIECE_BYTES + 5) as u64;
    assert_eq!(&store.get_range(&target, middle).await.unwrap()[..], [9, 9, 9, 9, 9, 10, 10, 10, 10, 10]);
    assert_eq!(store.get_suffix(&target, 3).await.unwrap().bytes, vec![count - 1; 3]);
}

/// An object of so many parts and some bytes, which says whose it is at its end.
fn in_parts(store: &Store, parts: usize, more: usize, whose: u8) -> Bytes {
    let size = parts * store.part_bytes() + more;
    let mut body: Vec<u8> = (0..size).map(|index| (index % 251 + index / 65_536) as u8).collect();
    body.extend_from_slice(&[whose; 20]);
    body.into()
}

async fn create_in_parts(store: &Store, target: &Key, body: &Bytes, piece: usize) -> Created {
    let mut upload = store.create_in_parts(target);
    for piece in body.chunks(piece) {
        upload.push(body.slice_ref(piece)).await.unwrap();
    }
    upload.finish().await.unwrap()
}

async fn objects_in_parts_come_back_whole(store: &Store) {
    let part = store.part_bytes();
    for (index, (parts, more, piece)) in [(0, 5, 9), (1, 0, 1 + part / 3), (2, 7, part * 5)].into_iter().enumerate() {
        let target = key(&format!("parts/whole/{index}"));
        let body = in_parts(store, parts, more, 7);
        assert_ne!(create_in_parts(store, &target, &body, piece).await, Created::Other);
        assert!(store.get(&target).await.unwrap() == body, "{parts} parts and {more} bytes came back changed");
        let (from, to) = (body.len() as u64 - 25, body.len() as u64 - 15);
        assert_eq!(store.get_range(&target, from..to).await.unwrap(), body[from as usize..to as usize]);
        assert_eq!(listed(store, "parts/whole", None, 10).await.0.len(), index + 1);
        assert_eq!(create_in_parts(store, &target, &body, piece).await, Created::Mine, "it is known again");
        let other = in_parts(store, parts, more, 8);
        assert_eq!(create_in_parts(store, &target, &other, piece).await, Created::Other);
        assert_eq!(store.create(&target, other).await.unwrap(), Created::Other);
        assert!(store.get(&target).await.unwrap() == body, "it was overwritten");
    }
}

async fn of_rivals_in_parts_one_creates(store: &Store) {
    let target = key("parts/race");
    let rivals = (0..4_u8).map(|rival| {
        let (store, target) = (store.clone(), target.clone());
        let body = in_parts(&store, 1, 1, rival);
        tokio::spawn(async move {
            match rival {
                // One of them does it at once.
                0 => store.create(&target, body).await.unwrap(),
                _ => create_in_parts(&store, &target, &body, usize::MAX).await,
            }
        })
    });
    let rivals: Vec<_> = rivals.collect();
    let mut winners = Vec::new();
    for (rival, task) in rivals.into_iter().enumerate() {
        if task.await.unwrap() != Created::Other {
            winners.push(rival as u8);
        }
    }
    let [winner] = winners[..] else { panic!("winners: {winners:?}") };
    assert!(store.get(&target).await.unwrap() == in_parts(store, 1, 1, winner));
}

async fn parts_that_are_given_up_are_no_object(store: &Store) {
    let target = key("parts/given-up/a");
    for is_dropped in [false, true] {
        let mut upload = store.create_in_parts(&target);
        upload.push(in_parts(store, 2, 1, 0)).await.unwrap();
        assert!(!store.exists(&target).await.unwrap());
        assert_eq!(listed(store, "parts/given-up", None, 10).await, (Vec::new(), false));
        if is_dropped { drop(upload) } else { upload.abort().await }
    }
    assert!(!store.exists(&target).await.unwrap());
    let body = in_parts(store, 1, 1, 1);
    assert_ne!(create_in_parts(store, &target, &body, usize::MAX).await, Created::Other);
}

/// Holds on stores without faults only.
pub(crate) async fn requests_are_counted(store: &Store) {
    let before = store.counts();
    let target = key("count/a");
    store.create(&target, "12345").await.unwrap();
    store.create(&target, "other").await.unwrap();
    store.get(&target).await.unwrap();
    store.list(&directory("count"), None, 10).await.unwrap();
    store.delete(&[target]).await.unwrap();
    let after = store.counts();
    assert_eq!(after.put.succeeded - before.put.succeeded, 1);
    assert_eq!(after.put.declined - before.put.declined, 1);
    assert_eq!(after.put.bytes - before.put.bytes, 5);
    assert_eq!(after.get.succeeded - before.get.succeeded, 2, "one of them is the read-back");
    assert_eq!(after.get.bytes - before.get.bytes, 10);
    assert_eq!(after.list.succeeded - before.list.succeeded, 1);
    assert_eq!(after.delete.succeeded - before.delete.succeeded, 1);
    assert_eq!(after.requests() - before.requests(), 6);
}

fn to_strings(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

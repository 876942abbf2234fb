//! Objects that are gone or have other bytes.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use lakebed_store::backend::{Body, Failure, Span};
use lakebed_store::{Created, Directory, Listed, Payload};

use super::*;

/// Puts other bytes in an object's place.
async fn replace(world: &World, key: &Key, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = world.store.get(key).await.unwrap().to_vec();
    change(&mut bytes);
    world.store.delete(std::slice::from_ref(key)).await.unwrap();
    assert_eq!(world.store.create(key, Payload::from(bytes)).await.unwrap(), Created::New);
}

fn damage_a_value(bytes: &mut [u8]) {
    let value = b"value of";
    let at = bytes.windows(value.len()).position(|window| window == value).unwrap();
    bytes[at] ^= 1;
}

#[tokio::test]
async fn a_damaged_object_is_named_and_all_others_can_be_read() {
    let changes: [fn(&mut Vec<u8>); 3] = [
        |bytes| damage_a_value(bytes),
        |bytes| {
            let end = bytes.len() - 100;
            bytes[end] ^= 1;
        },
        |bytes| bytes.truncate(bytes.len() / 2),
    ];
    for change in changes {
        let mut world = World::new(no_tail()).await;
        for flush in 0..3 {
            world.produce(&[(0, encode(Codec::None, flush * 10..flush * 10 + 10), None)]).await;
        }
        let damaged = commit_key(&world, 3);
        replace(&world, &damaged, change).await;
        assert_eq!(world.fetch_one(0, 0, 1 << 20).await.unwrap().next_offset, Offset::new(10), "up to the damage");
        match world.fetch_one(0, 10, 1 << 20).await {
            Err(FetchError::Damaged { object, .. }) => assert_eq!(object, damaged.to_string()),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.fetch_one(0, 20, 1 << 20).await.unwrap().next_offset, Offset::new(30));
    }
}

#[tokio::test]
async fn an_object_that_is_gone_though_the_log_names_it_is_damage() {
    let mut world = World::new(no_tail()).await;
    world.produce(&[(0, encode(Codec::None, 0..10), None)]).await;
    world.produce(&[(1, encode(Codec::None, 0..10), None)]).await;
    let gone = commit_key(&world, 2);
    world.store.delete(std::slice::from_ref(&gone)).await.unwrap();
    let answers = world.fetch.fetch(request(&[(0, 0), (1, 0)], 1 << 20)).await;
    assert!(
        matches!(&answers[0], Err(FetchError::Damaged { object, .. }) if *object == gone.to_string()),
        "{answers:?}"
    );
    assert_eq!(answers[1].as_ref().unwrap().next_offset, Offset::new(10));
}

#[tokio::test]
async fn an_old_plan_that_meets_another_object_in_a_commits_place_is_no_damage() {
    let mut world = World::new(no_tail()).await;
    world.produce(&[(0, encode(Codec::None, 0..10), None)]).await;
    // Another broker has taken over, has merged and reclaimed the commit, and a takeover came late to its place.
    let seams = Seams { seed: 99, ..world.log.seams() };
    let successor = Log::open(world.store.clone(), lakebed_log::Options::default(), seams).await.unwrap();
    let takeover = world.store.get(&commit_key(&world, 0)).await.unwrap();
    replace(&world, &commit_key(&world, 2), |bytes| *bytes = takeover.to_vec()).await;
    let answer = world.fetch_one(0, 0, 1000).await;
    assert!(
        matches!(answer, Err(FetchError::Unavailable { .. })),
        "only a log that was read to its end proves damage: {answer:?}"
    );
    drop(successor);
}

#[tokio::test]
async fn a_repaired_object_can_be_read_again() {
    let mut world = World::new(no_tail()).await;
    world.produce(&[(0, encode(Codec::None, 0..10), None)]).await;
    let (key, sound) = (commit_key(&world, 2), world.store.get(&commit_key(&world, 2)).await.unwrap());
    replace(&world, &key, |bytes| damage_a_value(bytes)).await;
    assert!(world.fetch_one(0, 0, 1000).await.is_err());
    world.store.delete(std::slice::from_ref(&key)).await.unwrap();
    world.backend.create(&key, &Payload::from(sound)).await.unwrap();
    assert_eq!(world.consume(0, 0, 1000).await, world.expected(0), "nothing wrong was kept");
}

#[tokio::test]
async fn bytes_that_were_damaged_on_their_way_are_read_again() {
    let corrupting = Arc::new(Corrupting::default());
    let mut world = World::on(Arc::clone(&corrupting) as _, no_tail()).await;
    world.produce(&[(0, encode(Codec::None, 0..10), None)]).await;
    corrupting.answers.store(1, Ordering::Relaxed);
    assert_eq!(world.consume(0, 0, 1000).await, world.expected(0));
    assert_eq!(corrupting.answers.load(Ordering::Relaxed), 0);
}

/// Changes a byte in the next answers.
#[derive(Debug, Default)]
struct Corrupting {
    inner: MemoryBackend,
    answers: AtomicUsize,
}

#[async_trait]
impl Backend for Corrupting {
    async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.inner.create(key, payload).await
    }

    async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.inner.overwrite(key, payload).await
    }

    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        let body = self.inner.get(key, span).await?;
        if self.answers.load(Ordering::Relaxed) == 0 {
            return Ok(body);
        }
        self.answers.fetch_sub(1, Ordering::Relaxed);
        let mut bytes = body.bytes.to_vec();
        damage_a_value(&mut bytes);
        Ok(Body { bytes: bytes.into(), ..body })
    }

    async fn size(&self, key: &Key) -> Result<u64, Failure> {
        self.inner.size(key).await
    }

    async fn list(&self, directory: &Directory, after: Option<&Key>, limit: usize) -> Result<Vec<Listed>, Failure> {
        self.inner.list(directory, after, limit).await
    }

    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        self.inner.list_directories(directory).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Failure> {
        self.inner.delete(keys).await
    }
}

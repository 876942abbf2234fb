//! The questions of a check, one for each promise: `Ok` says what was done, `Err` what the store did that it must not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{CheckError, CheckOptions, DIRECTORY, Latency, key, lacks_conditions};
use crate::backend::DELETE_KEYS_MAX;
use crate::create::Created;
use crate::key::{Directory, Key};
use crate::payload::Payload;
use crate::read::ReadError;
use crate::store::Store;

/// Rivals for one key.
const RIVALS: usize = 16;
/// Sizes of what they create: a store that is slow to write has a wider gap between looking and writing.
const RACE_BYTES: [usize; 3] = [100, 16 << 10, 256 << 10];
/// Objects that are listed, more than a small page.
const LISTED: usize = 24;
/// Keys on a page of the listings that are continued.
const PAGE_KEYS: usize = 7;
/// Size of the object whose parts are read.
const PARTS_BYTES: usize = 100_000;
/// A large object is made of pieces of this size.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of the objects whose latency is taken: a small commit.
const SAMPLE_BYTES: usize = 4 << 10;

pub(super) type Asked = Result<Result<String, String>, CheckError>;

/// A store and a place in it where a check may write.
pub(super) struct Bench {
    pub(super) store: Store,
    options: CheckOptions,
    directory: Directory,
}

impl Bench {
    pub(super) fn new(store: Store, options: CheckOptions) -> Self {
        let directory = Directory::new(format!("{DIRECTORY}/{:016x}", options.nonce)).expect("a name that is portable");
        Self { store, options, directory }
    }

    pub(super) fn key(&self, name: &str) -> Key {
        key(&self.directory, name)
    }

    /// Deletes everything that the check wrote.
    pub(super) async fn clean_up(&self) -> Result<(), CheckError> {
        loop {
            let listed = self.store.list(&self.directory, None, DELETE_KEYS_MAX).await?;
            let keys: Vec<Key> = listed.objects.into_iter().map(|object| object.key).collect();
            self.store.delete(&keys).await?;
            // SUBTLE: a store that goes on listing what was deleted would never let it end.
            if !listed.more {
                return Ok(());
            }
        }
    }

    /// What a store does that must not create over another object; `None` if it does not.
    pub(super) async fn creates_over_another(&self) -> Result<Option<String>, CheckError> {
        let target = self.key("twice");
        // Of one size: that of an object is seen before its bytes are, and would tell the two apart by itself.
        for (body, expected) in [("one", Created::New), ("two", Created::Other)] {
            match self.store.create(&target, body).await {
                Ok(created) if created == expected || created == Created::Mine && expected == Created::New => {}
                Ok(_) => {
                    return Ok(Some(
                        "a second create at a key succeeded: the store does not look at `If-None-Match`, and overwrites"
                            .to_owned(),
                    ));
                }
                Err(error) if lacks_conditions(&error) => {
                    return Ok(Some("the store knows no conditional writes (501 NotImplemented)".to_owned()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let stands = self.store.get(&target).await?;
        Ok((stands != "one").then(|| "an object was overwritten, though the store said that it was not".to_owned()))
    }

    pub(super) async fn one_creates(&self) -> Asked {
        if let Some(what) = self.creates_over_another().await? {
            return Ok(Err(what));
        }
        let mut won = Vec::new();
        for round in 0..self.options.rounds {
            let target = self.key(&format!("race/{round:06}"));
            let size = RACE_BYTES[round as usize % RACE_BYTES.len()];
            match self.race(&target, size).await? {
                Ok(winner) => won.push((target, winner)),
                Err(what) => return Ok(Err(format!("round {}: {what}", round + 1))),
            }
        }
        // A write that came late would have changed what was there when the race ended.
        for (target, winner) in &won {
            let now = self.store.get(target).await?;
            if now != *winner {
                return Ok(Err(format!("'{target}' was another object after the race than when it ended")));
            }
        }
        Ok(Ok(format!("{} rounds of {RIVALS} rivals had one winner each", self.options.rounds)))
    }

    /// Lets rivals create at one key. Returns what the one who did has created.
    async fn race(&self, target: &Key, size: usize) -> Result<Result<Bytes, String>, CheckError> {
        let begin = Arc::new(Barrier::new(RIVALS));
        let mut rivals = JoinSet::new();
        for rival in 0..RIVALS {
            let (store, target, begin) = (self.store.clone(), target.clone(), Arc::clone(&begin));
            let body = Bytes::from(format!("{rival:02}").repeat(size / 2));
            rivals.spawn(async move {
                begin.wait().await;
                let created = store.create(&target, body.clone()).await?;
                Ok::<_, CheckError>((created, body, store.get(&target).await?))
            });
        }
        let (mut winners, mut seen) = (Vec::new(), Vec::new());
        while let Some(ended) = rivals.join_next().await {
            let (created, body, now) = ended.expect("a rival does not panic, and nobody stops it")?;
            if created != Created::Other {
                winners.push(body);
            }
            seen.push(now);
        }
        let [winner] = &winners[..] else {
            return Ok(Err(format!("{} of {RIVALS} rivals created '{target}'", winners.len())));
        };
        let wrong = seen.iter().filter(|body| *body != winner).count();
        match wrong {
            0 => Ok(Ok(winner.clone())),
            _ => Ok(Err(format!("{wrong} of {RIVALS} rivals read another object at '{target}' than the winner's"))),
        }
    }

    pub(super) async fn reads_what_was_written(&self) -> Asked {
        for index in 0..LISTED {
            let target = self.key(&format!("read/{index:04}"));
            // A store that remembers that there was nothing would go on saying so.
            match self.store.get(&target).await {
                Err(ReadError::NotFound { .. }) => {}
                Ok(_) => return Ok(Err(format!("'{target}' is read before it was created"))),
                Err(error) => return Err(error.into()),
            }
            let body = Bytes::from(format!("{index:04}").repeat(1 + index * 100));
            self.create(&target, body.clone()).await?;
            match self.store.get(&target).await {
                Ok(read) if read == body => {}
                Ok(_) => return Ok(Err(format!("'{target}' is read with other bytes than it was created with"))),
                Err(ReadError::NotFound { .. }) => {
                    return Ok(Err(format!("'{target}' is not found right after it was created")));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Ok(format!("{LISTED} objects were read right after their creation")))
    }

    pub(super) async fn lists_what_was_written(&self) -> Asked {
        let within = self.directory.directory("list").expect("a name that is portable");
        let mut expected = Vec::new();
        for index in 0..LISTED {
            // Backwards, so that each new key comes first.
            let target = key(&within, &format!("{:04}/x", LISTED - index));
            self.create(&target, Bytes::from_static(b"x")).await?;
            expected.insert(0, target.clone());
            let listed = self.store.list(&within, None, LISTED).await?;
            let keys: Vec<Key> = listed.objects.into_iter().map(|object| object.key).collect();
            if !keys.contains(&target) {
                return Ok(Err(format!("'{target}' is not listed right after it was created")));
            }
            if keys != expected {
                return Ok(Err(format!("a listing of {} keys is not what was created, in order", expected.len())));
            }
        }
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.list(&within, after.as_ref(), PAGE_KEYS).await?;
            paged.extend(page.objects.into_iter().map(|object| object.key));
            after = paged.last().cloned();
            if !page.more || paged.len() > LISTED {
                break;
            }
        }
        if paged != expected {
            return Ok(Err(format!("pages of {PAGE_KEYS} keys do not make up the listing of {LISTED}")));
        }
        let directories = self.store.list_directories(&within).await?;
        match directories.len() == LISTED {
            true => Ok(Ok(format!("{LISTED} objects were listed right after their creation, in order, and in pages"))),
            false => Ok(Err(format!("{} directories of {LISTED} are listed", directories.len()))),
        }
    }

    pub(super) async fn reads_parts(&self) -> Asked {
        let target = self.key("parts");
        let body: Bytes = (0..PARTS_BYTES).map(|index| (index / 251 + index) as u8).collect();
        self.create(&target, body.clone()).await?;
        let size = PARTS_BYTES as u64;
        let ranges = [0..1, 0..size, 1..2, 4095..8193, size / 2..size, size - 1..size];
        for range in &ranges {
            let part = self.store.get_range(&target, range.clone()).await?;
            if part != body[range.start as usize..range.end as usize] {
                return Ok(Err(format!("the range {}..{} has other bytes", range.start, range.end)));
            }
        }
        for length in [1, 4096, size, size + 1] {
            let suffix = self.store.get_suffix(&target, length).await?;
            let start = PARTS_BYTES.saturating_sub(length as usize);
            if suffix.bytes != body[start..] || suffix.object_size_bytes != size {
                return Ok(Err(format!("the last {length} bytes are other bytes")));
            }
        }
        match self.store.get_range(&target, size..size + 1).await {
            Err(ReadError::OutOfRange { .. }) => {}
            Ok(_) => return Ok(Err("a range behind the end has bytes".to_owned())),
            Err(error) => return Err(error.into()),
        }
        Ok(Ok(format!("{} parts of an object of {PARTS_BYTES} bytes were right", ranges.len() + 4)))
    }

    pub(super) async fn keeps_large_objects(&self) -> Asked {
        let pieces = self.options.large_bytes.div_ceil(PIECE_BYTES as u64);
        // Few different pieces, so that the body takes little memory, in an order that a mistake changes.
        let kinds: Vec<Bytes> = (0..7u8).map(|kind| Bytes::from(vec![kind; PIECE_BYTES])).collect();
        let kind = |piece: u64| &kinds[(piece * piece % 7) as usize];
        let payload: Vec<Bytes> = (0..pieces).map(|piece| kind(piece).clone()).collect();
        let target = self.key("large");
        let begun = Instant::now();
        self.create(&target, Payload::from(payload)).await?;
        let read = self.store.get(&target).await?;
        let seconds = begun.elapsed().as_secs_f64().max(0.001);
        let same = read.len() as u64 == pieces * PIECE_BYTES as u64
            && read.chunks(PIECE_BYTES).zip(0..).all(|(piece, index)| piece == kind(index));
        match same {
            true => {
                let rate = 2.0 * pieces as f64 / seconds;
                Ok(Ok(format!("{pieces} MiB were created and read back, at {rate:.0} MiB/s")))
            }
            false => Ok(Err(format!("an object of {pieces} MiB came back changed"))),
        }
    }

    pub(super) async fn deletes(&self) -> Asked {
        let within = self.directory.directory("delete").expect("a name that is portable");
        let keys: Vec<Key> = (0..LISTED).map(|index| key(&within, &format!("{index:04}"))).collect();
        for target in &keys {
            self.create(target, Bytes::from_static(b"x")).await?;
        }
        self.store.delete(&keys[1..]).await?;
        let listed = self.store.list(&within, None, LISTED).await?;
        if listed.objects.iter().map(|object| &object.key).ne(&keys[..1]) {
            return Ok(Err(format!("{} keys are listed where one was left", listed.objects.len())));
        }
        for target in &keys[1..] {
            if self.store.exists(target).await? {
                return Ok(Err(format!("'{target}' is found after it was deleted")));
            }
        }
        match self.store.create(&keys[1], "again").await? {
            Created::Other => return Ok(Err(format!("'{}' can't be created after it was deleted", keys[1]))),
            Created::New | Created::Mine => {}
        }
        match self.store.get(&keys[1]).await? == "again" {
            true => Ok(Ok(format!("{} deleted objects were gone, and could be created again", LISTED - 1))),
            false => Ok(Err(format!("'{}' is what was deleted", keys[1]))),
        }
    }

    pub(super) async fn latencies(&self) -> Result<Vec<Latency>, CheckError> {
        let within = self.directory.directory("latency").expect("a name that is portable");
        let body = Bytes::from(vec![7; SAMPLE_BYTES]);
        let (mut creates, mut reads, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        for sample in 0..self.options.samples {
            let target = key(&within, &format!("{sample:06}"));
            let begun = Instant::now();
            self.create(&target, body.clone()).await?;
            creates.push(begun.elapsed());
            let begun = Instant::now();
            self.store.get(&target).await?;
            reads.push(begun.elapsed());
            let begun = Instant::now();
            self.store.list(&within, None, PAGE_KEYS).await?;
            lists.push(begun.elapsed());
        }
        let taken = [("create", creates), ("read", reads), ("list", lists)];
        Ok(taken.into_iter().filter_map(|(operation, times)| latency(operation, times)).collect())
    }

    /// Creates an object at a key that is the check's alone.
    async fn create(&self, target: &Key, payload: impl Into<Payload>) -> Result<(), CheckError> {
        self.store.create(target, payload).await?;
        Ok(())
    }
}

fn latency(operation: &'static str, mut times: Vec<Duration>) -> Option<Latency> {
    times.sort();
    let last = times.len().checked_sub(1)?;
    let at = |hundredths: usize| times[(last * hundredths).div_ceil(100)];
    Some(Latency { operation, p50: at(50), p99: at(99) })
}

//! The objects of the server: in memory, each change in one step under one lock.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};

use super::conduct::{Demeanour, Weakness};
use super::uploads::Uploads;

/// What is counted for an object besides its body: key and bookkeeping.
const OVERHEAD_BYTES: usize = 512;

#[derive(Debug)]
pub(crate) struct Objects {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    /// How many objects were ever stored.
    versions: AtomicUsize,
    memory: Arc<Memory>,
    demeanour: Arc<Demeanour>,
    pub(super) uploads: Mutex<Uploads>,
}

#[derive(Debug)]
struct Bucket {
    created: SystemTime,
    objects: BTreeMap<String, Object>,
    /// The key that was stored last.
    latest: Option<String>,
}

/// A stored object.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) body: Arc<Held>,
    /// Differs for everything that was ever stored. It is no MD5, and has the dash that says so.
    pub(crate) etag: String,
    pub(crate) modified: SystemTime,
    pub(crate) content_type: Option<String>,
    pub(crate) metadata: Option<std::collections::HashMap<String, String>>,
    /// It has not been asked for yet.
    fresh: bool,
    /// It was deleted, and only listings have not heard of it.
    deleted: bool,
}

/// What an object is to be made of.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) body: Held,
    pub(crate) content_type: Option<String>,
    pub(crate) metadata: Option<std::collections::HashMap<String, String>>,
}

/// What must stand at a key for a PUT to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    None,
    Absent,
    Present,
    Etag(String),
}

/// Why nothing was stored, read or listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Bucket,
    Object,
    /// Something else stands there than the condition asks for.
    Condition,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, u64, String, SystemTime)>,
    pub(crate) prefixes: Vec<String>,
    /// The last key or prefix of the page, if there is more behind it.
    pub(crate) next: Option<String>,
}

/// What to list.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) delimiter: &'a str,
    /// Keys up to this one are passed over; a prefix with all that is in it.
    pub(crate) after: &'a str,
    pub(crate) max: usize,
}

/// How much is held, against the limit.
#[derive(Debug)]
pub(crate) struct Memory {
    held: AtomicUsize,
    max: usize,
}

/// Bytes that count against the limit as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    counted: usize,
    memory: Arc<Memory>,
}

impl Memory {
    /// Counts `bytes` more, unless that would be too many.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let add = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Held { bytes: Bytes::new(), counted: bytes, memory: Arc::clone(self) })
    }
}

impl Held {
    /// Counts `bytes` more with these, unless that would be too many.
    pub(crate) fn grow(&mut self, bytes: usize) -> Option<()> {
        let mut more = self.memory.reserve(bytes)?;
        self.counted += std::mem::take(&mut more.counted);
        Some(())
    }
}

/// Why a body was not taken in.
#[derive(Debug)]
pub(crate) enum NotReceived<E> {
    /// The memory is full.
    Full,
    /// It ended early.
    Ended(E),
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl Objects {
    pub(crate) fn new(memory_bytes_max: usize, demeanour: Arc<Demeanour>) -> Self {
        let memory = Arc::new(Memory { held: AtomicUsize::new(0), max: memory_bytes_max });
        let (buckets, uploads) = (Mutex::default(), Mutex::default());
        Self { buckets, versions: AtomicUsize::new(1), memory, demeanour, uploads }
    }

    pub(crate) fn weakness(&self) -> Weakness {
        self.demeanour.weakness()
    }

    /// Room for an object, so far without a body.
    pub(crate) fn room(&self) -> Option<Held> {
        self.memory.reserve(OVERHEAD_BYTES)
    }

    /// Takes a body in, which announces `expected` bytes and may have more.
    pub(crate) async fn receive<E>(
        &self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        expected: usize,
    ) -> Result<Held, NotReceived<E>> {
        let mut held = self.room().ok_or(NotReceived::Full)?;
        held.grow(expected).ok_or(NotReceived::Full)?;
        let mut bytes = BytesMut::with_capacity(expected);
        let mut counted = expected;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(NotReceived::Ended)?;
            let beyond = (bytes.len() + piece.len()).saturating_sub(counted);
            held.grow(beyond).ok_or(NotReceived::Full)?;
            counted += beyond;
            bytes.extend_from_slice(&piece);
        }
        held.bytes = bytes.freeze();
        Ok(held)
    }

    /// Whether it was new.
    pub(crate) fn create_bucket(&self, name: &str) -> bool {
        match self.lock().entry(name.to_owned()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(Bucket { created: now(), objects: BTreeMap::new(), latest: None });
                true
            }
        }
    }

    /// `Some(false)`: it has objects.
    pub(crate) fn delete_bucket(&self, name: &str) -> Option<bool> {
        let mut buckets = self.lock();
        let empty = buckets.get(name)?.objects.values().all(|object| object.deleted);
        if empty {
            buckets.remove(name);
        }
        Some(empty)
    }

    /// Their names, and when each was made.
    pub(crate) fn buckets(&self) -> Vec<(String, SystemTime)> {
        self.lock().iter().map(|(name, bucket)| (name.clone(), bucket.created)).collect()
    }

    pub(crate) fn has_bucket(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Whether a PUT would be done now. Returns nothing that still holds when this has returned.
    pub(crate) fn look(&self, bucket: &str, key: &str, condition: &Condition) -> Result<(), Missing> {
        let buckets = self.lock();
        met(buckets.get(bucket).ok_or(Missing::Bucket)?, key, condition)
    }

    /// Stores an object if `condition` is met. Returns its etag.
    pub(crate) fn put(&self, bucket: &str, key: &str, new: New, condition: &Condition) -> Result<String, Missing> {
        let mut buckets = self.lock();
        let bucket = buckets.get_mut(bucket).ok_or(Missing::Bucket)?;
        met(bucket, key, condition)?;
        let etag = self.fresh_etag();
        let New { body, content_type, metadata } = new;
        let (body, modified) = (Arc::new(body), now());
        let object = Object { body, etag: etag.clone(), modified, content_type, metadata, fresh: true, deleted: false };
        bucket.objects.insert(key.to_owned(), object);
        bucket.latest = Some(key.to_owned());
        Ok(etag)
    }

    /// One that nothing had before.
    pub(super) fn fresh_etag(&self) -> String {
        format!("{:032x}-1", self.versions.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> Result<Object, Missing> {
        let weakness = self.weakness();
        let mut buckets = self.lock();
        let bucket = buckets.get_mut(bucket).ok_or(Missing::Bucket)?;
        let object = bucket.objects.get_mut(key).filter(|object| !object.deleted).ok_or(Missing::Object)?;
        match std::mem::take(&mut object.fresh) && weakness == Weakness::ReadsLate {
            true => Err(Missing::Object),
            false => Ok(object.clone()),
        }
    }

    /// Deletes an object, if it is there.
    pub(crate) fn delete(&self, bucket: &str, key: &str) -> Result<(), Missing> {
        let listed = self.weakness() == Weakness::ListsDeleted;
        let mut buckets = self.lock();
        let bucket = buckets.get_mut(bucket).ok_or(Missing::Bucket)?;
        match bucket.objects.get_mut(key) {
            Some(object) if listed => object.deleted = true,
            _ => drop(bucket.objects.remove(key)),
        }
        Ok(())
    }

    pub(crate) fn list(&self, bucket: &str, asked: &Asked<'_>) -> Result<Page, Missing> {
        let late = self.weakness() == Weakness::ListsLate;
        let buckets = self.lock();
        let bucket = buckets.get(bucket).ok_or(Missing::Bucket)?;
        let mut page = Page::default();
        let mut last = asked.after.to_owned();
        let begin =
            if asked.after < asked.prefix { Bound::Included(asked.prefix) } else { Bound::Excluded(asked.after) };
        for (key, object) in bucket.objects.range::<str, _>((begin, Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(asked.prefix) else { break };
            if late && bucket.latest.as_ref() == Some(key) {
                continue;
            }
            let group = rest.find(asked.delimiter).filter(|_| !asked.delimiter.is_empty());
            let group = group.map(|end| &key[..asked.prefix.len() + end + asked.delimiter.len()]);
            // In a group that is on this page already, or was the last of the page before.
            if group.is_some_and(|group| group == last) {
                continue;
            }
            if page.objects.len() + page.prefixes.len() == asked.max {
                page.next = Some(last);
                break;
            }
            match group {
                Some(group) => page.prefixes.push(group.to_owned()),
                None => {
                    let size = object.body.bytes.len() as u64;
                    page.objects.push((key.clone(), size, object.etag.clone(), object.modified));
                }
            }
            last = group.unwrap_or(key).to_owned();
        }
        Ok(page)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        self.buckets.lock().expect("no code panics while it holds the objects")
    }
}

fn met(bucket: &Bucket, key: &str, condition: &Condition) -> Result<(), Missing> {
    let stands = bucket.objects.get(key).filter(|object| !object.deleted);
    match (condition, stands) {
        (Condition::None, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => Ok(()),
        (Condition::Etag(etag), Some(object)) if *etag == object.etag => Ok(()),
        (Condition::Present | Condition::Etag(_), None) => Err(Missing::Object),
        (Condition::Absent | Condition::Etag(_), Some(_)) => Err(Missing::Condition),
    }
}

#[expect(clippy::disallowed_methods, reason = "the server's clock is the machine's, as its clients' are")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::conduct::Clock;

    fn objects(memory_bytes_max: usize) -> Objects {
        let objects = Objects::new(memory_bytes_max, Arc::new(Demeanour::new(0, Clock::default())));
        assert!(objects.create_bucket("b") && !objects.create_bucket("b"));
        objects
    }

    fn new(objects: &Objects, bytes: usize) -> Option<New> {
        let mut body = objects.room()?;
        body.grow(bytes)?;
        body.bytes = Bytes::from(vec![0; bytes]);
        Some(New { body, content_type: None, metadata: None })
    }

    fn put(objects: &Objects, key: &str, condition: &Condition) -> Result<String, Missing> {
        objects.put("b", key, new(objects, 1).unwrap(), condition)
    }

    #[test]
    fn a_condition_decides_by_what_stands_there() {
        let objects = objects(1 << 20);
        assert_eq!(put(&objects, "k", &Condition::Present), Err(Missing::Object));
        assert_eq!(put(&objects, "k", &Condition::Etag("x".to_owned())), Err(Missing::Object));
        let first = put(&objects, "k", &Condition::Absent).unwrap();
        assert_eq!(put(&objects, "k", &Condition::Absent), Err(Missing::Condition));
        let second = put(&objects, "k", &Condition::Etag(first.clone())).unwrap();
        assert_ne!(first, second);
        assert_eq!(put(&objects, "k", &Condition::Etag(first)), Err(Missing::Condition));
        assert!(put(&objects, "k", &Condition::Present).is_ok() && put(&objects, "k", &Condition::None).is_ok());
        assert_eq!(objects.put("none", "k", new(&objects, 1).unwrap(), &Condition::None), Err(Missing::Bucket));
    }

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let objects = objects(2 * (1000 + OVERHEAD_BYTES));
        for key in ["a", "b"] {
            objects.put("b", key, new(&objects, 1000).unwrap(), &Condition::None).unwrap();
        }
        assert!(new(&objects, 1).is_none());
        let read = objects.get("b", "a").unwrap();
        objects.delete("b", "a").unwrap();
        assert!(new(&objects, 1).is_none(), "a reader still holds it");
        drop(read);
        assert!(new(&objects, 1000).is_some() && new(&objects, 1001).is_none());
    }

    #[test]
    fn pages_of_any_size_make_up_the_whole_listing() {
        let objects = objects(1 << 20);
        for key in ["a", "d/", "d/1", "d/2/3", "d-", "d0", "e/1", "e/2", "z"] {
            put(&objects, key, &Condition::None).unwrap();
        }
        let listed = |prefix: &str, delimiter: &str, start: &str, max: usize| {
            let (mut all, mut after) = (Vec::new(), start.to_owned());
            loop {
                let page = objects.list("b", &Asked { prefix, delimiter, after: &after, max }).unwrap();
                let size = page.objects.len() + page.prefixes.len();
                assert!(size <= max && (size == max || page.next.is_none()));
                all.extend(page.objects.into_iter().map(|object| object.0));
                all.extend(page.prefixes);
                match page.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            all.sort();
            all
        };
        for max in 1..10 {
            assert_eq!(listed("", "", "", max), ["a", "d-", "d/", "d/1", "d/2/3", "d0", "e/1", "e/2", "z"]);
            assert_eq!(listed("", "/", "", max), ["a", "d-", "d/", "d0", "e/", "z"]);
            assert_eq!(listed("d/", "/", "", max), ["d/", "d/1", "d/2/"]);
            assert_eq!(listed("", "", "d/1", max), ["d/2/3", "d0", "e/1", "e/2", "z"]);
            assert_eq!(listed("", "/", "e/1", max), ["e/", "z"], "a group begins before the key and ends behind it");
            assert_eq!(listed("e", "", "", max), ["e/1", "e/2"]);
            assert!(listed("x", "", "", max).is_empty() && listed("", "", "zz", max).is_empty());
        }
    }
}

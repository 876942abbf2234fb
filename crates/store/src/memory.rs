//! Objects in memory: `memory://`. Lives as long as its last [`Store`](crate::Store), and answers at once.
//!
//! It never waits, spawns or asks for the time, so a simulation stays deterministic over it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use crate::backend::{Backend, Body, Failure, FailureKind, Listed, Part, PartId, Span, UploadId};
use crate::key::{Directory, Key};
use crate::payload::Payload;

/// A store in memory. It keeps the pieces that it was given, without copying.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    objects: Mutex<BTreeMap<Key, Payload>>,
    uploads: Mutex<BTreeMap<UploadId, BTreeMap<u32, Payload>>>,
    /// How many uploads were ever begun.
    begun: AtomicU64,
}

impl MemoryBackend {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Payload>> {
        self.objects.lock().expect("no code panics while it holds the objects")
    }

    fn uploads(&self) -> MutexGuard<'_, BTreeMap<UploadId, BTreeMap<u32, Payload>>> {
        self.uploads.lock().expect("no code panics while it holds the uploads")
    }

    /// How many objects in parts were begun and neither completed nor given up.
    pub fn uploads_open(&self) -> usize {
        self.uploads().len()
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Err(Failure::new(FailureKind::Exists, "an object stands there"));
        }
        objects.insert(key.clone(), payload.clone());
        Ok(())
    }

    async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.objects().insert(key.clone(), payload.clone());
        Ok(())
    }

    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        let object = self.objects().get(key).cloned().ok_or_else(absent)?;
        let size_bytes = object.size_bytes();
        let bytes = match span {
            Span::All => object.slice(0, size_bytes),
            Span::Range(range) => object.slice(range.start, range.end),
            Span::Last(count) => object.slice(size_bytes.saturating_sub(*count), size_bytes),
        };
        Ok(Body { bytes, object_size_bytes: size_bytes })
    }

    async fn size(&self, key: &Key) -> Result<u64, Failure> {
        self.objects().get(key).map(Payload::size_bytes).ok_or_else(absent)
    }

    async fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Listed>, Failure> {
        let objects = self.objects();
        let first = first_possible(directory);
        let from = match (start_after, &first) {
            (Some(after), Some(first)) if after < first => Bound::Included(first),
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        // A key such as `a-b` sorts between `a` and `a/b`: skip what is before, stop at what is behind.
        let listed = objects
            .range::<Key, _>((from, Bound::Unbounded))
            .skip_while(|(key, _)| !directory.contains(key) && before(key, directory))
            .take_while(|(key, _)| directory.contains(key))
            .take(limit);
        Ok(listed.map(|(key, object)| Listed { key: key.clone(), size_bytes: object.size_bytes() }).collect())
    }

    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        let objects = self.objects();
        let below = objects.keys().filter_map(|key| directory.relative(key));
        let names: BTreeSet<&str> = below.filter_map(|path| Some(path.split_once('/')?.0)).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Failure> {
        let mut objects = self.objects();
        for key in keys {
            objects.remove(key);
        }
        Ok(())
    }

    async fn begin(&self, _: &Key) -> Result<UploadId, Failure> {
        let upload = UploadId(self.begun.fetch_add(1, Ordering::Relaxed).to_string());
        self.uploads().insert(upload.clone(), BTreeMap::new());
        Ok(upload)
    }

    async fn put_part(&self, _: &Key, upload: &UploadId, part: &Part) -> Result<PartId, Failure> {
        self.uploads().get_mut(upload).ok_or_else(no_upload)?.insert(part.index, part.payload.clone());
        Ok(PartId(part.index.to_string()))
    }

    async fn complete(&self, key: &Key, upload: &UploadId, parts: &[PartId], size_bytes: u64) -> Result<(), Failure> {
        let (mut uploads, mut objects) = (self.uploads(), self.objects());
        let stored = uploads.get(upload).ok_or_else(no_upload)?;
        if objects.contains_key(key) {
            return Err(Failure::new(FailureKind::Exists, "an object stands there"));
        }
        let payload: Vec<Bytes> = stored.values().flat_map(|part| part.parts().iter().cloned()).collect();
        let payload = Payload::from(payload);
        if stored.len() != parts.len() || payload.size_bytes() != size_bytes {
            return Err(Failure::new(FailureKind::Refused, "the parts are not those that were stored"));
        }
        objects.insert(key.clone(), payload);
        uploads.remove(upload);
        Ok(())
    }

    async fn abort(&self, _: &Key, upload: &UploadId) -> Result<(), Failure> {
        self.uploads().remove(upload).map(drop).ok_or_else(no_upload)
    }
}

fn no_upload() -> Failure {
    Failure::new(FailureKind::Absent, "there is no such upload")
}

fn absent() -> Failure {
    Failure::new(FailureKind::Absent, "nothing stands there")
}

/// A key that sorts at or before every key in `directory`; nothing for the root.
fn first_possible(directory: &Directory) -> Option<Key> {
    Key::new(directory.as_str()).ok()
}

/// Whether `key` sorts before every key in `directory`.
fn before(key: &Key, directory: &Directory) -> bool {
    key.as_str().as_bytes() < [directory.as_str().as_bytes(), b"/"].concat().as_slice()
}

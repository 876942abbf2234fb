//! The bucket of a world: objects in memory, and an archive of everything that ever stood in it.
//!
//! The archive is what a god would know: the first object at a place of the log is the one that counts, whatever was deleted later
//! and whatever landed in the hole. The checker replays the log from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use lakebed_store::backend::{Backend, Body, Failure, Listed, Part, PartId, Span, UploadId};
use lakebed_store::{Directory, Key, MemoryBackend, Payload};
use tokio::sync::Notify;

use crate::reader::takeover_of;
use crate::trace::Trace;

/// The memory behind every process's store.
#[derive(Clone)]
pub(crate) struct Bucket {
    objects: Arc<MemoryBackend>,
    archive: Arc<Mutex<BTreeMap<String, Vec<Bytes>>>>,
    hole_filled: Arc<Notify>,
    takeover_declined: Arc<Notify>,
    /// Takeovers that were declined, if copies of them lie in ambush.
    ambushes: Option<Arc<Mutex<BTreeMap<Key, Payload>>>>,
    trace: Trace,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Bucket")
    }
}

impl Bucket {
    /// An empty bucket. With `ambush`, a copy of each takeover that was declined is still on its way, and lands at the worst time:
    /// as soon as what stood in its place is reclaimed.
    pub(crate) fn new(trace: Trace, ambush: bool) -> Self {
        Self {
            objects: Arc::default(),
            archive: Arc::default(),
            hole_filled: Arc::default(),
            takeover_declined: Arc::default(),
            ambushes: ambush.then(Arc::default),
            trace,
        }
    }

    /// Every object that ever stood at each key, in the order in which they stood there.
    pub(crate) fn archive(&self) -> BTreeMap<String, Vec<Bytes>> {
        self.archive.lock().expect("no code panics while it holds the archive").clone()
    }

    /// What stands in it now.
    pub(crate) async fn contents(&self) -> BTreeMap<String, Bytes> {
        let listed = self.objects.list(&Directory::root(), None, usize::MAX).await.expect("memory answers");
        let mut contents = BTreeMap::new();
        for one in listed {
            let body = self.objects.get(&one.key, &Span::All).await.expect("memory answers");
            contents.insert(one.key.as_str().to_owned(), body.bytes);
        }
        contents
    }

    /// What stands at a key now.
    pub(crate) async fn object(&self, key: &str) -> Option<Bytes> {
        let key = Key::new(key).ok()?;
        Some(self.objects.get(&key, &Span::All).await.ok()?.bytes)
    }

    /// The newest version of a table's name that ever stood here.
    pub(crate) fn newest_version(&self, table: &str) -> Option<u64> {
        let prefix = format!("tables/default/{table}/metadata/v");
        let archive = self.archive.lock().expect("no code panics while it holds the archive");
        let keys = archive.range(prefix.clone()..).map(|(key, _)| key).take_while(|key| key.starts_with(&prefix));
        keys.filter_map(|key| key[prefix.len()..].strip_suffix(".metadata.json")?.parse().ok()).max()
    }

    /// Waits until an object lands where a commit was reclaimed.
    pub(crate) async fn hole_filled(&self) {
        self.hole_filled.notified().await;
    }

    /// Waits until a takeover finds something in its place.
    pub(crate) async fn takeover_declined(&self) {
        self.takeover_declined.notified().await;
    }

    /// Damages the newest checkpoint, if the one before it is sound: a newcomer must do with that one.
    pub(crate) async fn damage_newest_checkpoint(&self) {
        const DAMAGED: &[u8] = b"rotten";
        let listed = self.objects.list(&Directory::root(), None, usize::MAX).await.expect("memory answers");
        let manifests = listed.into_iter().filter(|one| one.key.as_str().ends_with("/manifest.json"));
        let newest: Vec<Listed> = manifests.rev().take(2).collect();
        let rotten = DAMAGED.len() as u64;
        let ([newest, older], true) = (newest.as_slice(), newest.iter().all(|one| one.size_bytes != rotten)) else {
            return;
        };
        self.trace.note(format_args!("{} is damaged, {} is sound", newest.key, older.key));
        self.trace.count("checkpoints damaged");
        self.objects.delete(std::slice::from_ref(&newest.key)).await.expect("memory answers");
        let payload = Payload::from(Bytes::from_static(DAMAGED));
        self.objects.create(&newest.key, &payload).await.expect("nothing stands there");
    }

    /// Takes note of an object that was created; how many ever stood there.
    fn stands(&self, key: &Key, bytes: Bytes) -> usize {
        let mut archive = self.archive.lock().expect("no code panics while it holds the archive");
        let stood = archive.entry(key.as_str().to_owned()).or_default();
        stood.push(bytes);
        stood.len()
    }

    async fn spring_ambush(&self, key: &Key) {
        let Some(ambushes) = &self.ambushes else { return };
        let late = ambushes.lock().expect("no code panics while it holds the ambushes").remove(key);
        if let Some(payload) = late {
            self.trace.note(format_args!("a late copy of a takeover lands at {key}"));
            // What comes late has nobody who hears of its outcome.
            self.create(key, &payload).await.ok();
        }
    }

    fn lie_in_ambush(&self, key: &Key, payload: &Payload) {
        if key.as_str().contains("/log/") && takeover_of(&payload.slice(0, payload.size_bytes())).is_some() {
            self.takeover_declined.notify_one();
            let Some(ambushes) = &self.ambushes else { return };
            let mut ambushes = ambushes.lock().expect("no code panics while it holds the ambushes");
            ambushes.insert(key.clone(), payload.clone());
        }
    }

    fn count_deleted(&self, key: &Key) {
        let path = key.as_str();
        if path.contains("/log/") {
            self.trace.count("commits reclaimed");
        } else if path.contains("/segments/") {
            self.trace.count("segments reclaimed");
        } else if path.ends_with("manifest.json") {
            self.trace.count("checkpoints dropped");
        } else if path.contains("/data/") {
            self.trace.count("table files deleted");
        } else if path.contains("/metadata/") {
            self.trace.count("table metadata deleted");
        }
    }
}

#[async_trait]
impl Backend for Bucket {
    async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        let outcome = self.objects.create(key, payload).await;
        let word = if outcome.is_ok() { "created" } else { "declined" };
        self.trace.note(format_args!("  {word} {key} ({} bytes)", payload.size_bytes()));
        if outcome.is_ok() {
            let stood = self.stands(key, payload.slice(0, payload.size_bytes()));
            if stood > 1 && key.as_str().contains("/log/") {
                self.trace.count("holes filled");
                self.hole_filled.notify_one();
            }
        } else {
            self.lie_in_ambush(key, payload);
        }
        outcome
    }

    async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.trace.note(format_args!("  overwrote {key} ({} bytes)", payload.size_bytes()));
        self.objects.overwrite(key, payload).await
    }

    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        let outcome = self.objects.get(key, span).await;
        if outcome.is_ok() && key.as_str().ends_with("manifest.json") {
            self.trace.count("manifests read");
        }
        if outcome.is_ok() && key.as_str().contains("/log/") {
            let archive = self.archive.lock().expect("no code panics while it holds the archive");
            if archive.get(key.as_str()).is_some_and(|objects| objects.len() > 1) {
                self.trace.count("objects in holes read");
            }
        }
        outcome
    }

    async fn size(&self, key: &Key) -> Result<u64, Failure> {
        self.objects.size(key).await
    }

    async fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Listed>, Failure> {
        self.objects.list(directory, start_after, limit).await
    }

    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        self.objects.list_directories(directory).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Failure> {
        for key in keys {
            if self.objects.size(key).await.is_ok() {
                self.trace.note(format_args!("  deleted {key}"));
                self.count_deleted(key);
            }
        }
        self.objects.delete(keys).await?;
        for key in keys {
            self.spring_ambush(key).await;
        }
        Ok(())
    }

    async fn begin(&self, key: &Key) -> Result<UploadId, Failure> {
        let upload = self.objects.begin(key).await?;
        self.trace.note(format_args!("  began {key} in parts ({})", upload.0));
        Ok(upload)
    }

    async fn put_part(&self, key: &Key, upload: &UploadId, part: &Part) -> Result<PartId, Failure> {
        let stored = self.objects.put_part(key, upload, part).await;
        let word = if stored.is_ok() { "stored" } else { "declined" };
        self.trace.note(format_args!("  {word} part {} of {key} ({})", part.index, upload.0));
        stored
    }

    async fn complete(&self, key: &Key, upload: &UploadId, parts: &[PartId], size_bytes: u64) -> Result<(), Failure> {
        let outcome = self.objects.complete(key, upload, parts, size_bytes).await;
        let word = if outcome.is_ok() { "completed" } else { "declined" };
        self.trace.note(format_args!("  {word} {key} of {} parts ({size_bytes} bytes)", parts.len()));
        if outcome.is_ok() {
            self.trace.count("objects in parts");
            let body = self.objects.get(key, &Span::All).await?;
            self.stands(key, body.bytes);
        }
        outcome
    }

    async fn abort(&self, key: &Key, upload: &UploadId) -> Result<(), Failure> {
        let outcome = self.objects.abort(key, upload).await;
        let word = if outcome.is_ok() { "gave up" } else { "found gone" };
        self.trace.note(format_args!("  {word} {key} in parts ({})", upload.0));
        self.trace.count("objects in parts given up");
        outcome
    }
}

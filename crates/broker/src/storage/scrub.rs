//! Reading every object, and comparing it with its own hashes and with what the log says of it.
//!
//! 1. An object is read once, a part at a time, so that memory is bounded whatever its size. [`ScrubOptions::bytes_per_second`] bounds what
//!    is read.
//! 2. A broker may rewrite and delete meanwhile. What looks damaged is judged again by the log as it is at the end: an object that is gone
//!    and that nothing names any more was no damage.
//! 3. Nothing is mended and nothing deleted.

mod objects;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lakebed_log::{Offload, load_checkpoint};
use lakebed_model::{ObjectId, Offset, PartitionKey, Run, State, TopicId};
use lakebed_segment::layout;
use lakebed_segment::root::Root;
use lakebed_segment::verdict::Verdict;
use lakebed_store::{Directory, Key, Listed};
use tokio::time::Instant;
use uuid::Uuid;

use super::fate::checkpoints;
use super::file::ObjectError;
use super::names::{Kind, Named};
use super::{Listing, Storage, StorageError, look};

/// What is to be read, and how fast.
#[derive(Debug, Clone, Default)]
pub struct ScrubOptions {
    /// Only objects with records of this topic, and its table.
    pub topic: Option<String>,
    /// Read no more than so many bytes a second.
    pub bytes_per_second: Option<u64>,
    /// Pass over objects up to this key, which an earlier scrub has read. What was written below it since is not read.
    pub after: Option<Key>,
}

/// What is told while it reads.
#[derive(Debug)]
pub enum Told<'a> {
    /// An object was read: its key, and how far that is.
    Read(&'a Key, Progress),
    /// Something looks damaged; whether it is, is judged at the end.
    Damaged(&'a Damage),
    /// A page of the listing is done.
    Page(&'a Key),
}

/// How far it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects to read, as they were listed when it began.
    pub objects_total: u64,
    /// Bytes of these.
    pub bytes_total: u64,
}

/// Records that can't be read, or may not be what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Their topic.
    pub topic: String,
    /// Their partition.
    pub partition: u32,
    /// The first offset.
    pub base_offset: u64,
    /// The last offset.
    pub last_offset: u64,
}

/// An object that is not what was written, or is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its key.
    pub key: String,
    /// What it is.
    pub kind: Kind,
    /// What is wrong.
    pub what: String,
    /// Which records it holds that count.
    pub touched: Vec<Touched>,
    /// What can be done.
    pub remedy: &'static str,
}

/// What came of reading everything.
#[derive(Debug, Clone, Default)]
pub struct Scrubbed {
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows of the log that were compared with their hash.
    pub rows: u64,
    /// What is damaged.
    pub damaged: Vec<Damage>,
    /// If it was stopped before its end: the last object that it, or the one before it, has read.
    pub stopped_after: Option<Option<Key>>,
}

/// The runs of the log by the object that holds them.
type Runs = BTreeMap<ObjectId, Vec<(PartitionKey, Offset, Run)>>;

/// A run of reading.
struct Scrub<'a> {
    storage: &'a Storage,
    runs: Runs,
    only: Option<TopicId>,
    begun: Instant,
    bytes_per_second: Option<u64>,
    done: Scrubbed,
    /// Objects with rows that stood.
    seen: BTreeSet<ObjectId>,
}

impl Storage {
    /// Reads and verifies what stands, until all of it is read or `stop` is ready; says what it does to `tell`.
    ///
    /// Whatever is missing, and the metadata of tables, is looked at when all objects have been read.
    ///
    /// # Errors
    /// [`StorageError`] if the store gives no good answer, or the log can't be read at all. Damage is no error.
    /// # Cost
    /// Every byte of the objects is read once, table metadata twice; two LISTs for each thousand objects, whatever is passed over.
    pub async fn scrub(
        &self,
        options: &ScrubOptions,
        stop: impl Future<Output = ()>,
        mut tell: impl FnMut(Told<'_>),
    ) -> Result<Scrubbed, StorageError> {
        let mut scrub = Scrub::new(self, options)?;
        let (mut at, mut last) = (scrub.total().await?, options.after.clone());
        let mut stop = std::pin::pin!(stop);
        let mut listing = Listing::of(&self.store, Directory::root());
        while let Some(page) = listing.next().await? {
            for listed in &page {
                scrub.see(&listed.key);
                if !scrub.is_wanted(&listed.key) {
                    continue;
                }
                let is_read = options.after.as_ref().is_some_and(|after| listed.key <= *after);
                if !is_read {
                    let known = scrub.done.damaged.len();
                    tokio::select! {
                        biased;
                        () = &mut stop => return scrub.stopped(last).await,
                        read = scrub.object(listed) => read?,
                    }
                    last = Some(listed.key.clone());
                    scrub.done.damaged[known..].iter().for_each(|damage| tell(Told::Damaged(damage)));
                }
                at.objects += 1;
                at.bytes += listed.size_bytes;
                tell(Told::Read(&listed.key, at));
                tokio::select! {
                    biased;
                    () = &mut stop => return scrub.stopped(last).await,
                    () = scrub.keep_pace() => {}
                }
            }
            page.last().into_iter().for_each(|listed| tell(Told::Page(&listed.key)));
        }
        if scrub.only.is_none() {
            scrub.checkpoints().await?;
        }
        scrub.missing();
        scrub.tables().await?;
        scrub.settle().await
    }
}

impl<'a> Scrub<'a> {
    fn new(storage: &'a Storage, options: &ScrubOptions) -> Result<Self, StorageError> {
        let state = &storage.log.state;
        let only = match &options.topic {
            Some(name) => Some(state.topic_id(name).ok_or_else(|| StorageError::UnknownTopic(name.clone()))?),
            None => None,
        };
        let mut runs = Runs::new();
        for (key, base, run) in state.runs() {
            runs.entry(run.object).or_default().push((key, base, run));
        }
        for of_object in runs.values_mut() {
            of_object.sort_unstable_by_key(|(_, _, run)| run.first_row);
        }
        Ok(Self {
            storage,
            runs,
            only,
            begun: Instant::now(),
            bytes_per_second: options.bytes_per_second.filter(|rate| *rate > 0),
            done: Scrubbed::default(),
            seen: BTreeSet::new(),
        })
    }

    /// What there is to read.
    async fn total(&self) -> Result<Progress, StorageError> {
        let mut at = Progress::default();
        let mut listing = Listing::of(&self.storage.store, Directory::root());
        while let Some(page) = listing.next().await? {
            for listed in page.iter().filter(|listed| self.is_wanted(&listed.key)) {
                at.objects_total += 1;
                at.bytes_total += listed.size_bytes;
            }
        }
        Ok(at)
    }
}

impl Scrub<'_> {
    fn state(&self) -> &State {
        &self.storage.log.state
    }

    /// Whether it is to be read, given the topic.
    fn is_wanted(&self, key: &Key) -> bool {
        let named = Named::of(self.storage.log.identity.cell, key);
        let Some(topic) = self.only else { return named.kind() != Kind::Other };
        let table = self.state().topic(topic).map(|topic| topic.name.table_name());
        match &named {
            Named::TableFile(of, _) | Named::Metadata(of) => Some(of) == table.as_ref(),
            named => self.id_of(named).and_then(|id| self.runs.get(&id)).is_some_and(|runs| self.holds(runs, topic)),
        }
    }

    fn holds(&self, runs: &[(PartitionKey, Offset, Run)], topic: TopicId) -> bool {
        runs.iter().any(|(key, _, _)| key.topic == topic)
    }

    fn id_of(&self, named: &Named) -> Option<ObjectId> {
        match named {
            Named::Commit(place) => self.state().number_at(*place).map(ObjectId::Commit),
            Named::Segment(id) => Some(ObjectId::Segment(*id)),
            Named::TableFile(_, id) => Some(ObjectId::Table(*id)),
            _ => None,
        }
    }

    /// Takes note of an object that stands.
    fn see(&mut self, key: &Key) {
        let named = Named::of(self.storage.log.identity.cell, key);
        let id = self.id_of(&named).filter(|id| self.runs.contains_key(id));
        self.seen.extend(id);
    }

    /// Reads one object.
    async fn object(&mut self, listed: &Listed) -> Result<(), StorageError> {
        let named = Named::of(self.storage.log.identity.cell, &listed.key);
        let id = self.id_of(&named);
        let found = match &named {
            Named::Root => self.whole(&listed.key, |bytes| Root::decode(bytes).map(drop)).await,
            Named::Verdict => self.whole(&listed.key, |bytes| Verdict::decode(bytes).map(drop)).await,
            Named::Checkpoint(_, part) => self.checkpoint_part(&listed.key, part).await,
            Named::Commit(_) | Named::Segment(_) => self.log_object(&listed.key, &named, id).await,
            Named::TableFile(table, file) => self.table_file(&listed.key, table, *file).await,
            // Its newest version is followed as a whole.
            Named::Metadata(_) | Named::Other => Ok(()),
        };
        self.done.objects += 1;
        self.done.bytes += listed.size_bytes;
        match found {
            Ok(()) => Ok(()),
            Err(ObjectError::Damaged(what)) => {
                self.damaged(&listed.key, named.kind(), what, id);
                Ok(())
            }
            Err(ObjectError::Store(error)) => Err(error.into()),
        }
    }

    async fn whole(
        &self,
        key: &Key,
        decode: impl FnOnce(&[u8]) -> Result<(), lakebed_segment::FormatError>,
    ) -> Result<(), ObjectError> {
        let bytes = self.storage.store.get(key).await?;
        decode(&bytes).map_err(|error| ObjectError::Damaged(error.to_string()))
    }

    /// A part's name has the hash of its bytes; a manifest is sealed.
    async fn checkpoint_part(&self, key: &Key, part: &str) -> Result<(), ObjectError> {
        if part == layout::MANIFEST {
            return self.whole(key, |bytes| lakebed_segment::checkpoint::Manifest::decode(bytes).map(drop)).await;
        }
        let bytes = self.storage.store.get(key).await?;
        let hash = Uuid::new_v5(&Uuid::nil(), &bytes).simple().to_string();
        let named = part.strip_suffix(".json").and_then(|part| part.rsplit_once('-')).map(|(_, hash)| hash);
        if named == Some(hash.as_str()) {
            Ok(())
        } else {
            Err(ObjectError::Damaged(format!("its bytes have the hash {hash}, and not that of its name")))
        }
    }

    /// Whether the two newest checkpoints can be loaded: each alone opens the log.
    async fn checkpoints(&mut self) -> Result<(), StorageError> {
        let (storage, identity) = (self.storage, self.storage.log.identity);
        let numbers = checkpoints(&storage.store, &storage.log).await?;
        for number in numbers.iter().rev().take(2) {
            if let Err(what) = load_checkpoint(&storage.store, identity, *number, Offload::Blocking).await? {
                let key = layout::checkpoint_key(identity.cell, *number, layout::MANIFEST);
                // Its parts may be told of already.
                if !self.done.damaged.iter().any(|damage| damage.key == key) {
                    self.damaged(&super::key(&key), Kind::Checkpoint, what, None);
                }
            }
        }
        Ok(())
    }

    /// What the log names and was not listed.
    fn missing(&mut self) {
        let wanted = |runs: &Vec<_>| self.only.is_none_or(|topic| self.holds(runs, topic));
        let missing = self.runs.iter().filter(|(id, runs)| !self.seen.contains(id) && wanted(runs));
        let missing: Vec<(ObjectId, Option<Key>)> =
            missing.map(|(id, runs)| (*id, self.key_of(*id, runs[0].0))).collect();
        for (id, key) in missing {
            let Some(key) = key else { continue };
            let kind = Named::of(self.storage.log.identity.cell, &key).kind();
            self.damaged(&key, kind, "nothing stands there, but the log names it".to_owned(), Some(id));
        }
    }

    fn key_of(&self, id: ObjectId, partition: PartitionKey) -> Option<Key> {
        let cell = self.storage.log.identity.cell;
        Some(super::key(&match id {
            ObjectId::Segment(id) => layout::segment_key(cell, id),
            ObjectId::Commit(number) => layout::commit_key(cell, self.state().place_of(number)?),
            ObjectId::Table(id) => layout::table_file_key(&self.state().topic(partition.topic)?.name.table_name(), id),
        }))
    }

    fn damaged(&mut self, key: &Key, kind: Kind, what: String, id: Option<ObjectId>) {
        let runs = id.and_then(|id| self.runs.get(&id)).map(Vec::as_slice).unwrap_or_default();
        let touched: Vec<Touched> = runs.iter().map(|(key, base, run)| self.touched(*key, *base, run.span)).collect();
        let remedy = remedy(kind, !touched.is_empty());
        self.done.damaged.push(Damage { key: key.to_string(), kind, what, touched, remedy });
    }

    fn touched(&self, key: PartitionKey, base: Offset, offsets: u64) -> Touched {
        let topic = self.state().topic(key.topic).map(|topic| topic.name.as_str().to_owned());
        Touched {
            topic: topic.unwrap_or_else(|| key.topic.to_string()),
            partition: key.partition.get(),
            base_offset: base.get(),
            last_offset: base.get() + offsets - 1,
        }
    }

    /// Waits until so much may have been read.
    async fn keep_pace(&self) {
        if let Some(rate) = self.bytes_per_second {
            let due = Duration::from_secs_f64(self.done.bytes as f64 / rate as f64);
            tokio::time::sleep_until(self.begun + due).await;
        }
    }

    /// What has come of it until it was stopped.
    async fn stopped(mut self, last: Option<Key>) -> Result<Scrubbed, StorageError> {
        self.done.stopped_after = Some(last);
        self.settle().await
    }

    /// Looks at the log again, and takes back what has gone in the meantime as it should.
    async fn settle(mut self) -> Result<Scrubbed, StorageError> {
        if self.done.damaged.is_empty() {
            return Ok(self.done);
        }
        let now = look(&self.storage.store).await?;
        if now.state.number() == self.state().number() {
            return Ok(self.done);
        }
        let mut kept = Vec::new();
        for damage in std::mem::take(&mut self.done.damaged) {
            let key = super::key(&damage.key);
            let named = Named::of(now.identity.cell, &key);
            let id = match &named {
                Named::Commit(place) => now.state.number_at(*place).map(ObjectId::Commit),
                Named::Segment(id) => Some(ObjectId::Segment(*id)),
                Named::TableFile(_, id) => Some(ObjectId::Table(*id)),
                _ => None,
            };
            let is_named = id.is_some_and(|id| now.state.object(id).is_some());
            if is_named || self.storage.store.exists(&key).await? {
                kept.push(damage);
            }
        }
        self.done.damaged = kept;
        Ok(self.done)
    }
}

fn remedy(kind: Kind, holds_rows: bool) -> &'static str {
    match (kind, holds_rows) {
        (Kind::Commit | Kind::Segment | Kind::TableFile, true) => {
            "put the object back from a backup or an earlier version of the bucket's; until then the named records can't be read, all others can"
        }
        (Kind::Commit, false) => {
            "the log can't be replayed across it: put it back from a backup, or keep two checkpoints behind it; see docs/recovery.md"
        }
        (Kind::Segment | Kind::TableFile, false) => "nothing needs it: a broker deletes it in time",
        (Kind::Checkpoint, _) => {
            "the other checkpoint opens the log, and the next one that a broker writes replaces both"
        }
        (Kind::TableMetadata, _) => {
            "the next publication of the table writes a version without it; consumers are not touched"
        }
        (Kind::Root | Kind::Other, _) => "put it back from a backup: without it no broker starts; see docs/recovery.md",
    }
}

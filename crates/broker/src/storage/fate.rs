//! What becomes of an object: whether anything needs it, and if not, why it still stands and since when it may go.
//!
//! The rules are those by which a broker deletes (`log::reclaim`, `tables`, `lake::sweep`); here they only tell.

use std::collections::BTreeSet;

use lakebed_lake::{Expiry, StandingError, StandingTable, TableName, TableVersion};
use lakebed_log::load_checkpoint;
use lakebed_log::{Looked, Offload};
use lakebed_model::{CommitNumber, ObjectId, Place, SegmentId, State, TableFileId};
use lakebed_segment::checkpoint::Manifest;
use lakebed_segment::layout;
use lakebed_store::{Key, Listed, Store};

use super::names::{Kind, Named};
use super::{Listing, StorageError, directory, key};

/// What is known of the need for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is part of the log, or readers of a table's newest version come to it.
    Live,
    /// Something else has taken its place; it waits for a checkpoint, or for queries that may run.
    Waiting,
    /// Nothing names it.
    Unreferenced,
}

impl Fate {
    /// Its name, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Waiting => "waiting",
            Self::Unreferenced => "unreferenced",
        }
    }
}

/// An object and what becomes of it.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Its key.
    pub key: Key,
    /// Its size.
    pub size_bytes: u64,
    /// What it is.
    pub kind: Kind,
    /// The table that it belongs to.
    pub table: Option<String>,
    /// Whether it is needed.
    pub fate: Fate,
    /// Why it still stands, and when it goes.
    pub why: &'static str,
    /// When it was made, in milliseconds since 1970, where its name tells.
    pub created_ms: Option<i64>,
    /// Since when, or from when on, a broker may delete it; `None`: not known, or not yet to be said.
    pub reclaimable_ms: Option<i64>,
}

/// Where a verdict comes from.
struct Verdict(Fate, &'static str, Option<i64>);

const LIVE: Verdict = Verdict(Fate::Live, "", None);

/// Judges the objects of a store, one after another by their keys.
pub(super) struct Judge<'a> {
    store: &'a Store,
    log: &'a Looked,
    /// The older of the two newest checkpoints: by it commits are deleted.
    older: Option<State>,
    /// The objects of the two newest checkpoints.
    kept: BTreeSet<Key>,
    oldest_kept: CommitNumber,
    /// The table that was looked at last; objects of one come together.
    table: Option<(String, Option<Result<StandingTable, ()>>)>,
}

impl<'a> Judge<'a> {
    /// Reads the newest checkpoints.
    pub(super) async fn new(store: &'a Store, log: &'a Looked) -> Result<Self, StorageError> {
        let mut judge =
            Self { store, log, older: None, kept: BTreeSet::new(), oldest_kept: CommitNumber::ZERO, table: None };
        let numbers = checkpoints(store, log).await?;
        for (age, number) in numbers.iter().rev().take(2).enumerate() {
            let manifest_key = layout::checkpoint_key(log.identity.cell, *number, layout::MANIFEST);
            judge.kept.insert(key(&manifest_key));
            judge.oldest_kept = *number;
            if let Ok(manifest) = Manifest::decode(&store.get(&key(&manifest_key)).await?) {
                judge.kept.extend(manifest.parts.iter().map(|part| key(&part.key(log.identity.cell))));
            }
            if age == 1 {
                let loaded = load_checkpoint(store, log.identity, *number, Offload::Blocking).await?;
                judge.older = loaded.ok().map(|(state, _)| state);
            }
        }
        Ok(judge)
    }

    /// Judges one object.
    ///
    /// # Cost
    /// Of the first object of a table, that of [`lakebed_lake::standing`].
    pub(super) async fn judge(&mut self, listed: &Listed) -> Result<Judged, StorageError> {
        let named = Named::of(self.log.identity.cell, &listed.key);
        let Verdict(fate, why, reclaimable_ms) = match &named {
            Named::Root | Named::Verdict => LIVE,
            Named::Commit(place) => self.commit(*place),
            Named::Segment(id) => self.segment(*id),
            Named::Checkpoint(number, _) => self.checkpoint(&listed.key, *number),
            Named::TableFile(table, id) => self.table_file(table, *id, &listed.key).await?,
            Named::Metadata(table) => self.metadata(table, &listed.key).await?,
            Named::Other => Verdict(Fate::Unreferenced, "it is none of Lakebed's, which leaves it alone", None),
        };
        let created_ms = match &named {
            Named::Segment(id) => Some(ulid_ms(*id)),
            Named::TableFile(_, id) => Some(ulid_ms(SegmentId::from(*id))),
            _ => None,
        };
        Ok(Judged {
            key: listed.key.clone(),
            size_bytes: listed.size_bytes,
            kind: named.kind(),
            table: named.table().map(str::to_owned),
            fate,
            why,
            created_ms,
            reclaimable_ms,
        })
    }

    fn commit(&self, place: Place) -> Verdict {
        let state = &self.log.state;
        let Some(number) = state.number_at(place) else {
            return match state.takeover_of(place.directory) {
                Some(takeover) if place.index > takeover.index => Verdict(
                    Fate::Unreferenced,
                    "it landed behind a takeover, where nobody reads: a checkpoint deletes it",
                    None,
                ),
                _ if is_newer(place, state.place()) => {
                    Verdict(Fate::Live, "it is newer than what was read of the log", None)
                }
                _ => Verdict(Fate::Unreferenced, "it is no place of the log", None),
            };
        };
        if state.is_takeover(number) || state.object(ObjectId::Commit(number)).is_some() {
            return LIVE;
        }
        match &self.older {
            Some(older) if number < older.number() => {
                Verdict(Fate::Waiting, "its rows are elsewhere: the next checkpoint deletes it", None)
            }
            _ => Verdict(Fate::Live, "the log is opened with it until there are two later checkpoints", None),
        }
    }

    fn segment(&self, id: SegmentId) -> Verdict {
        let state = &self.log.state;
        if state.object(ObjectId::Segment(id)).is_some() {
            return LIVE;
        }
        let boundary = state.reclaim_boundary();
        if id < boundary {
            Verdict(
                Fate::Waiting,
                "its rows are elsewhere or were never named: the next checkpoint deletes it",
                Some(ulid_ms(boundary)),
            )
        } else {
            Verdict(
                Fate::Unreferenced,
                "it lies above the reclaim boundary: a commit in flight may still name it",
                None,
            )
        }
    }

    fn checkpoint(&self, key: &Key, number: CommitNumber) -> Verdict {
        if self.kept.contains(key) {
            LIVE
        } else if number < self.oldest_kept {
            Verdict(Fate::Waiting, "later checkpoints have taken its place: the next one deletes it", None)
        } else {
            Verdict(
                Fate::Unreferenced,
                "it is a part of a checkpoint that is being written, or was never finished",
                None,
            )
        }
    }

    async fn table_file(&mut self, table: &str, id: TableFileId, key: &Key) -> Result<Verdict, StorageError> {
        let state = &self.log.state;
        if state.object(ObjectId::Table(id)).is_some() {
            return Ok(LIVE);
        }
        let boundary = state.reclaim_boundary();
        let (is_below, since) = (SegmentId::from(id) < boundary, ulid_ms(boundary));
        let grace_ms = Expiry::default().age_ms;
        let standing = self.standing(table).await?;
        let Some(standing) = standing else {
            return Ok(Verdict(Fate::Unreferenced, "its table has no metadata that can be read", None));
        };
        let is_it = |uri: &str| uri.ends_with(key.as_str());
        if standing.files.iter().any(|file| is_it(&file.uri)) {
            return Ok(Verdict(
                Fate::Waiting,
                "the newest version that is published shows it, the log no longer does",
                None,
            ));
        }
        if let Some(superseded_ms) = standing.earlier.iter().find(|(uri, _)| is_it(uri)).map(|(_, at)| *at) {
            let due = superseded_ms.saturating_add(grace_ms);
            return Ok(Verdict(
                Fate::Waiting,
                "an earlier version shows it, and queries may still read that",
                Some(due),
            ));
        }
        Ok(match is_below {
            true => Verdict(
                Fate::Unreferenced,
                "nothing shows it: a broker deletes it when it has seen it so for an hour",
                Some(since),
            ),
            false => Verdict(
                Fate::Unreferenced,
                "it lies above the reclaim boundary: a compaction under way may still name it",
                None,
            ),
        })
    }

    async fn metadata(&mut self, table: &str, key: &Key) -> Result<Verdict, StorageError> {
        let is_known = self.log.state.topic_of_table(table).is_some();
        let newest = lakebed_lake::layout::parse_metadata_key(&name_of(table), key);
        let Some(standing) = self.standing(table).await? else {
            return Ok(Verdict(
                Fate::Live,
                "the metadata of its table can't be read: see `lakebed storage scrub`",
                None,
            ));
        };
        if !is_known {
            return Ok(Verdict(Fate::Waiting, "its topic is deleted; its versions are never used again", None));
        }
        if standing.in_sight.contains(key) {
            return Ok(LIVE);
        }
        if newest.is_some_and(|version: TableVersion| Some(&version) > standing.versions.last()) {
            return Ok(Verdict(Fate::Unreferenced, "its version is being published", None));
        }
        Ok(Verdict(
            Fate::Waiting,
            "the newest version does not lead to it: a broker deletes it an hour after that was so",
            None,
        ))
    }

    /// What stands of a table; `None` if that can't be read.
    async fn standing(&mut self, table: &str) -> Result<Option<&StandingTable>, StorageError> {
        if self.table.as_ref().is_none_or(|(name, _)| name != table) {
            let found = match lakebed_lake::standing(self.store, &name_of(table)).await {
                Ok(found) => found.map(Ok),
                Err(StandingError::Damaged { .. }) => Some(Err(())),
                Err(source) => return Err(StorageError::Table { table: table.to_owned(), source }),
            };
            self.table = Some((table.to_owned(), found));
        }
        Ok(self.table.as_ref().and_then(|(_, found)| found.as_ref()?.as_ref().ok()))
    }
}

/// The numbers of the checkpoints whose manifest stands, ascending.
pub(super) async fn checkpoints(store: &Store, log: &Looked) -> Result<Vec<CommitNumber>, StorageError> {
    let cell = log.identity.cell;
    let mut listing = Listing::of(store, directory(&layout::checkpoints_prefix(cell)));
    let mut numbers = Vec::new();
    while let Some(page) = listing.next().await? {
        let parts = page.iter().filter_map(|listed| layout::parse_checkpoint_key(cell, listed.key.as_str()));
        numbers.extend(parts.filter(|(_, part)| *part == layout::MANIFEST).map(|(number, _)| number));
    }
    Ok(numbers)
}

/// Whether a place comes at or after the next one of a log that goes on.
fn is_newer(place: Place, next: Place) -> bool {
    let same = place.directory == next.directory;
    place.directory.epoch > next.directory.epoch || (same && place.index >= next.index)
}

pub(super) fn name_of(table: &str) -> TableName {
    TableName::new(layout::NAMESPACE, table).expect("names of keys make names of tables")
}

fn ulid_ms(id: SegmentId) -> i64 {
    i64::try_from(id.ulid().timestamp_ms()).unwrap_or(i64::MAX)
}

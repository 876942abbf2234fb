//! Consumer groups: rivals that each believe to coordinate them, and what the log makes of that.
//!
//! A rival begins a generation, commits offsets under it for as long as it is let, and begins another when it is refused. What it commits is a number
//! that nobody has committed before, so that the checker can tell which commit stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lakebed_log::AppendError;
use lakebed_model::{
    Change, CommitOffsets, CommittedOffset, Generation, GroupId, GroupKind, Offset, PartitionIndex, PartitionKey,
    StartGeneration, State,
};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::climate::within;
use crate::history::Fate;
use crate::reader::{Partition, array, number, text};
use crate::trace::Trace;
use crate::world::World;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Rivals of each group.
pub(crate) const RIVALS: u64 = 2;
/// The groups.
const GROUPS: [&str; 2] = ["readers", "writers"];

/// What clients of groups know.
#[derive(Debug, Default)]
pub(crate) struct GroupHistory {
    /// The greatest generation of each group that somebody was told.
    generations: BTreeMap<String, u32>,
    /// Every generation that somebody was told it had begun.
    granted: BTreeSet<(String, u32)>,
    /// The greatest number that was acknowledged as committed, until the group was deleted or may have been. Answers may come in another
    /// order than the commits, from a broker that was fenced meanwhile.
    acknowledged: BTreeMap<(String, PartitionKey), u64>,
    /// Numbers of a group up to this one may have been deleted.
    deleted: BTreeMap<String, u64>,
    /// How many numbers were committed, or tried to.
    numbers: u64,
}

/// Coordinates groups until the end.
pub(crate) async fn run(world: Arc<World>, rival: u64) {
    let mut rng = world.rng("groups", rival);
    let mut believed: BTreeMap<&str, u32> = BTreeMap::new();
    while !world.has_ended() {
        sleep(Duration::from_millis(within(&mut rng, world.climate.produce_ms) * 2)).await;
        let name = GROUPS[rng.random_range(0..GROUPS.len())];
        match believed.get(name).copied() {
            Some(generation) if rng.random_range(0..40) == 0 => {
                believed.remove(name);
                delete(&world, &mut rng, name, generation).await;
            }
            Some(generation) if rng.random_range(0..12) > 0 => {
                if !commit(&world, &mut rng, name, generation).await {
                    world.trace.count("commits of old generations refused");
                    believed.remove(name);
                }
            }
            _ => {
                if let Some(generation) = start(&world, &mut rng, name).await {
                    believed.insert(name, generation);
                }
            }
        }
    }
}

fn id(name: &str) -> GroupId {
    GroupId::new(name).expect("names here are short")
}

/// Begins a generation above the one that its broker knows of.
async fn start(world: &World, rng: &mut StdRng, name: &str) -> Option<u32> {
    let members = rng.random_range(0..3);
    let next = |state: &State| {
        let generation = state.latest_generation(&id(name)).next();
        // A group changes hands between protocols, too.
        let kinds = [GroupKind::Classic, GroupKind::Consumer, GroupKind::Grpc];
        let (group, kind) = (id(name), kinds[generation.get() as usize % kinds.len()]);
        let start = StartGeneration { group, generation, kind, protocol_type: "consumer".into(), members, time_ms: 1 };
        (generation.get(), Change::StartGeneration(start))
    };
    let before = world.history().groups.generations.get(name).copied().unwrap_or_default();
    let (generation, fate) = change(world, rng, next).await?;
    if !matches!(fate, Fate::Acked(_)) {
        return None;
    }
    world.trace.count("generations begun");
    let mut history = world.history();
    let is_new = history.groups.granted.insert((name.to_owned(), generation));
    if !is_new || generation <= before {
        let what = format!("{generation} of {name}, asked for when {before} was known, new: {is_new}");
        world.trace.anomaly("generation-twice", what);
    }
    let greatest = history.groups.generations.entry(name.to_owned()).or_default();
    *greatest = generation.max(*greatest);
    Some(generation)
}

/// Commits a fresh number; false if it was refused.
async fn commit(world: &World, rng: &mut StdRng, name: &str, generation: u32) -> bool {
    let pick: u64 = rng.random();
    let (number, superseded) = {
        let mut history = world.history();
        history.groups.numbers += 1;
        let greatest = history.groups.generations.get(name).copied().unwrap_or_default();
        (history.groups.numbers, greatest > generation)
    };
    let chosen = |state: &State| {
        let topics: Vec<_> = state.topics().map(|(id, topic)| (id, topic.partitions)).collect();
        let (topic, partitions) = topics.get(usize::try_from(pick).unwrap_or(0) % topics.len().max(1)).copied()?;
        Some(PartitionKey::new(topic, PartitionIndex::new(u32::try_from(pick >> 32).unwrap_or(0) % partitions)))
    };
    let committing = |state: &State| {
        let key = chosen(state);
        let metadata = format!("{name} {generation}").into();
        let committed = CommittedOffset { offset: Offset::new(number), leader_epoch: None, time_ms: 1, metadata };
        let offsets = key.map(|key| (key, committed)).into_iter().collect();
        let commit = CommitOffsets { group: id(name), generation: Generation::new(generation), offsets };
        (key, Change::CommitOffsets(commit))
    };
    let Some((Some(key), fate)) = change(world, rng, committing).await else { return true };
    match fate {
        Fate::Acked(_) => {
            world.trace.count("offsets committed");
            if superseded {
                let what = format!("{number} under generation {generation} of {name}, which was over");
                world.trace.anomaly("zombie-commit", what);
            }
            let mut history = world.history();
            if history.groups.deleted.get(name).is_none_or(|deleted| number > *deleted) {
                let greatest = history.groups.acknowledged.entry((name.to_owned(), key)).or_default();
                *greatest = number.max(*greatest);
            }
            true
        }
        Fate::NotDone => false,
        Fate::Unknown => true,
    }
}

async fn delete(world: &World, rng: &mut StdRng, name: &str, generation: u32) {
    let delete = |_: &State| ((), Change::DeleteGroup { group: id(name), generation: Generation::new(generation) });
    let Some(((), fate)) = change(world, rng, delete).await else { return };
    if !matches!(fate, Fate::NotDone) {
        world.trace.count("groups deleted");
        let mut history = world.history();
        let numbers = history.groups.numbers;
        history.groups.deleted.insert(name.to_owned(), numbers);
        history.groups.acknowledged.retain(|(group, _), _| group != name);
    }
}

/// One attempt of a change that is made of what its broker knows.
async fn change<T>(world: &World, rng: &mut StdRng, make: impl FnOnce(&State) -> (T, Change)) -> Option<(T, Fate)> {
    let broker = world.sequencer(rng)?;
    let (told, change) = make(&broker.log.state());
    let asked = broker.gate.unless_dead(async {
        broker.gate.pass().await;
        let answer = broker.log.change(change).await;
        broker.gate.pass().await;
        answer
    });
    let fate = match timeout(PATIENCE, asked).await {
        Ok(Some(Ok(_))) => Fate::Acked(0),
        Ok(Some(Err(AppendError::NotDone { .. } | AppendError::Refused(_)))) => Fate::NotDone,
        Ok(Some(Err(AppendError::Unknown { .. })) | None) | Err(_) => Fate::Unknown,
    };
    Some((told, fate))
}

/// A group as the reader finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundGroup {
    generation: u64,
    offsets: BTreeMap<Partition, u64>,
}

/// The groups as the reader finds them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundGroups {
    by_id: BTreeMap<String, FoundGroup>,
    /// The highest generation of a group that was deleted.
    pub(crate) gone: u64,
}

impl FoundGroups {
    /// Folds an entry in.
    pub(crate) fn apply(&mut self, kind: &str, entry: &Value) -> Result<(), String> {
        let (id, named) = (text(&entry["group"])?, number(&entry["generation"])?);
        let current = self.by_id.get(&id).map_or(0, |group| group.generation);
        match kind {
            "start_generation" if named > current.max(self.gone) => {
                self.by_id.entry(id).or_default().generation = named
            }
            "commit_offsets" if named == current => {
                let group = self.by_id.entry(id).or_default();
                group.offsets.extend(offsets(&entry["topics"])?);
            }
            "delete_group" if named == current => {
                self.by_id.remove(&id).ok_or("a group that does not exist is deleted")?;
                self.gone = self.gone.max(named);
            }
            other => return Err(format!("{other} under generation {named} of {id}, which has {current}")),
        }
        Ok(())
    }

    /// Takes in a group of a checkpoint.
    pub(crate) fn restore(&mut self, group: &Value) -> Result<(), String> {
        let found = FoundGroup { generation: number(&group["generation"])?, offsets: offsets(&group["topics"])? };
        self.by_id.insert(text(&group["group"])?, found);
        Ok(())
    }

    /// A topic is gone, and what was committed in it.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.by_id.values_mut().for_each(|group| group.offsets.retain(|(owner, _), _| owner != topic));
    }
}

fn offsets(topics: &Value) -> Result<BTreeMap<Partition, u64>, String> {
    let mut found = BTreeMap::new();
    for topic in array(topics)? {
        for offset in array(&topic["offsets"])? {
            found.insert((text(&topic["topic"])?, number(&offset[0])?), number(&offset[1])?);
        }
    }
    Ok(found)
}

/// Every commit that was acknowledged stands, or one after it, unless its partition or group is gone; a fresh open has what the reader
/// finds.
pub(crate) fn check(trace: &Trace, history: &GroupHistory, found: &FoundGroups, state: &State) {
    for ((name, key), number) in &history.acknowledged {
        let partition = (key.topic.to_string(), u64::from(key.partition.get()));
        let stands = found.by_id.get(name).and_then(|group| group.offsets.get(&partition));
        if state.partition(*key).is_some() && stands.is_none_or(|stands| stands < number) {
            trace.anomaly("lost-commit", format!("{number} of {name} in {key} was acknowledged, {stands:?} stands"));
        }
    }
    for (name, generation) in &history.generations {
        let greatest = found.by_id.get(name).map_or(0, |group| group.generation).max(found.gone);
        if greatest < u64::from(*generation) {
            trace.anomaly("lost-generation", format!("{generation} of {name} was told, {greatest} is the greatest"));
        }
    }
    let opened = state.groups().map(|(id, group)| {
        let offsets = group
            .offsets
            .iter()
            .map(|(key, committed)| ((key.topic.to_string(), u64::from(key.partition.get())), committed.offset.get()));
        let found = FoundGroup { generation: group.generation.get().into(), offsets: offsets.collect() };
        (id.as_str().to_owned(), found)
    });
    let opened = FoundGroups { by_id: opened.collect(), gone: state.generation_gone().get().into() };
    if opened != *found {
        trace.anomaly("state-differs", format!("groups {opened:?}, the reader has {found:?}"));
    }
}

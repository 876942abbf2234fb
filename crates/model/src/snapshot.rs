//! A state as plain lists, the shape in which a checkpoint persists it.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use crate::group::{Group, GroupId};
use crate::ids::{
    CommitNumber, Directory, FeatureLevel, FlushId, Generation, NodeId, Nonce, Offset, PartitionKey, Place, ProducerId,
    SegmentId, TableFileId, TopicId,
};
use crate::invariants::Violation;
use crate::member::Node;
use crate::producer::Producer;
use crate::state::groups::Groups;
use crate::state::members::Members;
use crate::state::tables::Versions;
use crate::state::{FlushOutcome, Object, ObjectId, Partition, Run, RunOutcomes, State};
use crate::table::Table;
use crate::topic::Topic;

/// A state as plain lists. Everything that can be derived (names, live objects) is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// How many commits are folded.
    pub number: CommitNumber,
    /// Where the next commit stands.
    pub place: Place,
    /// Who may write there.
    pub owner: Option<Nonce>,
    /// Where the owner can be reached; empty if nowhere.
    pub owner_address: String,
    /// The rules in force.
    pub feature_level: FeatureLevel,
    /// The reclaim boundary.
    pub boundary: SegmentId,
    /// The highest committed id.
    pub highest: SegmentId,
    /// The number of the first commit of each directory.
    pub directories: Vec<(CommitNumber, Directory)>,
    /// How many producer ids were allotted.
    pub producer_ids: u64,
    /// Topics by id.
    pub topics: Vec<(TopicId, Topic)>,
    /// Remembered flushes by id.
    pub flushes: Vec<(FlushId, CommitNumber, Vec<RunOutcomes>)>,
    /// Partitions by key.
    pub partitions: Vec<PartitionSnapshot>,
    /// The highest generation of any group that was deleted.
    pub generation_gone: Generation,
    /// Groups by id.
    pub groups: Vec<(GroupId, Group)>,
    /// The highest version of any table whose topic was deleted.
    pub table_version_gone: u32,
    /// Tables by topic.
    pub tables: Vec<(TopicId, Table)>,
    /// Table files with rows that are not named any more.
    pub partial_files: Vec<TableFileId>,
    /// Members by their numbers.
    pub nodes: Vec<Node>,
    /// The highest number that was ever given to a member.
    pub highest_node: NodeId,
}

/// One partition of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionSnapshot {
    /// Which.
    pub key: PartitionKey,
    /// Where it begins and ends.
    pub bounds: Partition,
    /// Its runs by base offset.
    pub runs: Vec<(Offset, Run)>,
    /// Its producers by id.
    pub producers: Vec<(ProducerId, Producer)>,
}

impl State {
    /// The state as plain lists.
    ///
    /// # Cost
    /// Copies the whole state; take it off the async threads when the state is large.
    pub fn snapshot(&self) -> Snapshot {
        let partitions = self.partitions.iter().map(|(key, bounds)| PartitionSnapshot {
            key: *key,
            bounds: *bounds,
            runs: self.runs_of(*key).collect(),
            producers: self.producers_of(*key).map(|(id, producer)| (id, producer.clone())).collect(),
        });
        Snapshot {
            number: self.number,
            place: self.place,
            owner: self.owner,
            owner_address: self.owner_address.clone(),
            feature_level: self.feature_level,
            boundary: self.boundary,
            highest: self.highest,
            directories: self.directories().collect(),
            producer_ids: self.producer_ids,
            topics: self.topics().map(|(id, topic)| (id, topic.clone())).collect(),
            flushes: self.flushes().map(|(id, outcome)| (id, outcome.number, outcome.runs.clone())).collect(),
            partitions: partitions.collect(),
            generation_gone: self.generation_gone(),
            groups: self.groups().map(|(id, group)| (id.clone(), group.clone())).collect(),
            table_version_gone: self.table_version_gone(),
            tables: self.tables().collect(),
            partial_files: self.objects().filter_map(partial_file).collect(),
            nodes: self.nodes().collect(),
            highest_node: self.highest_node(),
        }
    }

    /// The state of a snapshot.
    ///
    /// # Errors
    /// [`Violation`] if the lists contradict one another: the checkpoint is damaged or written by a bug.
    pub fn restore(snapshot: Snapshot) -> Result<Self, Violation> {
        let mut state = Self {
            number: snapshot.number,
            place: snapshot.place,
            owner: snapshot.owner,
            owner_address: snapshot.owner_address,
            feature_level: snapshot.feature_level,
            boundary: snapshot.boundary,
            highest: snapshot.highest,
            directories: snapshot.directories.into_iter().collect(),
            topics: OrdMap::new(),
            names: OrdMap::new(),
            tables: OrdMap::new(),
            partitions: OrdMap::new(),
            runs: OrdMap::new(),
            objects: OrdMap::new(),
            producers: OrdMap::new(),
            producer_counts: OrdMap::new(),
            producer_ids: snapshot.producer_ids,
            flushes: OrdMap::new(),
            outcomes: 0,
            groups: Groups::new(),
            versions: Versions { by_topic: snapshot.tables.into_iter().collect(), gone: snapshot.table_version_gone },
            members: Members {
                by_id: snapshot.nodes.into_iter().map(|node| (node.id, node.member)).collect(),
                highest: snapshot.highest_node,
            },
        };
        for (id, topic) in snapshot.topics {
            state.names.insert(topic.name.clone(), id);
            state.tables.insert(topic.name.table_name(), id);
            state.topics.insert(id, topic);
        }
        for (id, number, runs) in snapshot.flushes {
            state.remember(id, Arc::new(FlushOutcome { number, runs }));
        }
        let mut sizes = snapshot.partitions.iter().flat_map(|partition| &partition.runs).map(|(_, run)| run.bytes);
        if sizes.try_fold(0_u64, u64::checked_add).is_none() {
            let what = "the runs have more bytes than can be counted".to_owned();
            return Err(Violation { invariant: "2 (objects count their runs)", what });
        }
        let mut objects: BTreeMap<ObjectId, Object> = BTreeMap::new();
        for partition in snapshot.partitions {
            let key = partition.key;
            state.partitions.insert(key, partition.bounds);
            for (base, run) in partition.runs {
                objects.entry(run.object).or_default().count(&run);
                state.runs.insert((key, base), run);
            }
            state.restore_producers(key, partition.producers);
        }
        state.groups.gone = snapshot.generation_gone;
        for (id, group) in snapshot.groups {
            state.groups.restore(id, group);
        }
        for file in snapshot.partial_files {
            let Some(object) = objects.get_mut(&ObjectId::Table(file)) else {
                let what = format!("table file {file} is partial, and not there");
                return Err(Violation { invariant: "2 (objects count their runs)", what });
            };
            object.is_partial = true;
        }
        state.objects = objects.into_iter().collect();
        state.check_invariants()?;
        Ok(state)
    }
}

/// The id of an object, if it is a table file with rows that are not named any more.
fn partial_file((id, object): (ObjectId, Object)) -> Option<TableFileId> {
    match id {
        ObjectId::Table(file) if object.is_partial => Some(file),
        _ => None,
    }
}

//! A state as format 1 persists it: the JSON of a checkpoint's parts.
//!
//! These types are never changed once released; a new format gets a module of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use lakebed_model::producer::{Producer, RECENT_BATCHES, RecentBatch};
use lakebed_model::snapshot::PartitionSnapshot;
use lakebed_model::state::RunOutcomes;
use lakebed_model::{
    CommitNumber, Directory, FeatureLevel, FlushId, Generation, Group, GroupId, Node, NodeId, Nonce, ObjectId, Offset,
    Partition, PartitionIndex, PartitionKey, Place, ProducerEpoch, ProducerId, Run, SegmentId, Sequence, Snapshot,
    Table, TableFileId, Topic, TopicId, TopicName,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::commit::groups_v1::GroupV1;
use crate::commit::v1::{MemberV1, OutcomeV1, outcome, outcome_v1, rows_hash, timestamps};
use crate::error::{FormatError, malformed};
use crate::text::{Hex, Text};

mod run;

use run::RunV1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BaseV1 {
    number: u64,
    directory: Text<Directory>,
    index: u64,
    owner: Option<Hex>,
    feature_level: u16,
    boundary: Text<SegmentId>,
    highest: Text<SegmentId>,
    /// The number of the first commit of each directory.
    directories: Vec<(u64, Text<Directory>)>,
    producer_ids: u64,
    topics: Vec<TopicV1>,
    flushes: Vec<FlushV1>,
    /// The highest generation of any group that was deleted.
    generation_gone: u32,
    /// The highest version of any table whose topic was deleted.
    table_version_gone: u32,
    /// Table files with rows that are not named any more; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    partial_files: Vec<Text<TableFileId>>,
    /// Where the owner can be reached; absent if nowhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    owner_address: String,
    /// Members by their numbers; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<(i32, MemberV1)>,
    /// The highest number that was ever given to a member; absent if none was.
    #[serde(default, skip_serializing_if = "is_zero")]
    highest_node: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicV1 {
    topic: Text<Uuid>,
    name: String,
    partitions: u32,
    config: BTreeMap<String, String>,
    /// Of its table: version, published version, the commit that allotted the version, and when that was written in milliseconds; absent if it
    /// never had a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<(u32, u32, u64, i64)>,
}

/// Topic, partition, outcomes.
type RunOutcomesV1 = (Text<Uuid>, u32, Vec<(OutcomeV1, Option<u64>)>);

/// A remembered flush.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlushV1 {
    id: Text<FlushId>,
    commit: u64,
    runs: Vec<RunOutcomesV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionV1 {
    topic: Text<Uuid>,
    partition: u32,
    log_start: u64,
    high_watermark: u64,
    runs: Vec<RunV1>,
    producers: Vec<ProducerV1>,
}

/// A run; see [`RunV1`].
pub(super) type DenseV1 = (u64, u64, ObjectV1, u64, u64, Option<i64>, Option<i64>, Hex);

/// The number of a commit, the id of a segment, or that of a table file in a list of its own.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum ObjectV1 {
    Commit(u64),
    Segment(Text<SegmentId>),
    Table((Text<TableFileId>,)),
}

/// Producer id, epoch, when it wrote last in milliseconds, the last batches: first sequence, rows, base offset.
type ProducerV1 = (i64, i16, i64, Vec<(i32, u32, u64)>);

fn json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, FormatError> {
    serde_json::from_slice(bytes).map_err(|error| malformed(format!("{what}: {error}")))
}

fn bytes_of<T: Serialize>(part: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(part).expect("persisted types have string keys");
    bytes.push(b'\n');
    bytes
}

/// The bytes of the base part.
pub(super) fn encode_base(snapshot: &Snapshot) -> Vec<u8> {
    let tables: BTreeMap<TopicId, Table> = snapshot.tables.iter().copied().collect();
    bytes_of(&BaseV1 {
        number: snapshot.number.get(),
        directory: Text(snapshot.place.directory),
        index: snapshot.place.index,
        owner: snapshot.owner.map(|owner| Hex(owner.get())),
        feature_level: snapshot.feature_level.get(),
        boundary: Text(snapshot.boundary),
        highest: Text(snapshot.highest),
        directories: snapshot.directories.iter().map(|(number, at)| (number.get(), Text(*at))).collect(),
        producer_ids: snapshot.producer_ids,
        topics: snapshot.topics.iter().map(|topic| topic_v1(topic, &tables)).collect(),
        flushes: snapshot.flushes.iter().map(flush_v1).collect(),
        generation_gone: snapshot.generation_gone.get(),
        table_version_gone: snapshot.table_version_gone,
        partial_files: snapshot.partial_files.iter().copied().map(Text).collect(),
        owner_address: snapshot.owner_address.clone(),
        nodes: snapshot.nodes.iter().map(|node| (node.id.get(), (&node.member).into())).collect(),
        highest_node: snapshot.highest_node.get(),
    })
}

/// Reads the base part: a snapshot without partitions and groups.
pub(super) fn decode_base(bytes: &[u8]) -> Result<Snapshot, FormatError> {
    let base: BaseV1 = json("the base of a checkpoint", bytes)?;
    let directories = base.directories.into_iter().map(|(number, at)| (CommitNumber::new(number), at.0));
    let tables = base.topics.iter().filter_map(|topic| {
        let (version, published, commit, time_ms) = topic.table?;
        let table = Table { version, published, commit: CommitNumber::new(commit), time_ms };
        Some((TopicId::new(topic.topic.0), table))
    });
    Ok(Snapshot {
        tables: tables.collect(),
        table_version_gone: base.table_version_gone,
        partial_files: base.partial_files.into_iter().map(|file| file.0).collect(),
        number: CommitNumber::new(base.number),
        place: Place { directory: base.directory.0, index: base.index },
        owner: base.owner.map(|owner| Nonce::new(owner.0)),
        feature_level: FeatureLevel::new(base.feature_level),
        boundary: base.boundary.0,
        highest: base.highest.0,
        directories: directories.collect(),
        producer_ids: base.producer_ids,
        topics: base.topics.into_iter().map(topic).collect::<Result<_, _>>()?,
        flushes: base.flushes.into_iter().map(flush).collect::<Result<_, _>>()?,
        partitions: Vec::new(),
        generation_gone: Generation::new(base.generation_gone),
        groups: Vec::new(),
        owner_address: base.owner_address,
        nodes: base.nodes.into_iter().map(|(id, member)| Node { id: NodeId::new(id), member: member.into() }).collect(),
        highest_node: NodeId::new(base.highest_node),
    })
}

fn topic_v1((id, topic): &(TopicId, Topic), tables: &BTreeMap<TopicId, Table>) -> TopicV1 {
    TopicV1 {
        topic: Text(id.uuid()),
        name: topic.name.as_str().to_owned(),
        partitions: topic.partitions,
        config: topic.config.as_ref().clone(),
        table: tables.get(id).map(|table| (table.version, table.published, table.commit.get(), table.time_ms)),
    }
}

fn topic(topic: TopicV1) -> Result<(TopicId, Topic), FormatError> {
    let name = TopicName::new(&topic.name).map_err(|error| malformed(error.to_string()))?;
    let value = Topic { name, partitions: topic.partitions, config: Arc::new(topic.config) };
    Ok((TopicId::new(topic.topic.0), value))
}

type Remembered = (FlushId, CommitNumber, Vec<RunOutcomes>);

fn flush_v1((id, number, runs): &Remembered) -> FlushV1 {
    let runs = runs.iter().map(|(key, outcomes)| {
        (Text(key.topic.uuid()), key.partition.get(), outcomes.iter().map(|outcome| outcome_v1(*outcome)).collect())
    });
    FlushV1 { id: Text(*id), commit: number.get(), runs: runs.collect() }
}

fn flush(flush: FlushV1) -> Result<Remembered, FormatError> {
    let mut runs = Vec::with_capacity(flush.runs.len());
    for (topic, partition, outcomes) in flush.runs {
        let outcomes = outcomes.into_iter().map(|(kind, offset)| outcome(kind, offset));
        runs.push((partition_key(topic.0, partition), outcomes.collect::<Result<_, _>>()?));
    }
    Ok((flush.id.0, CommitNumber::new(flush.commit), runs))
}

fn partition_key(topic: Uuid, partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId::new(topic), PartitionIndex::new(partition))
}

/// About how many bytes a partition takes; decides how many buckets there are.
pub(super) fn estimate_bytes(partition: &PartitionSnapshot) -> usize {
    const PARTITION_BYTES: usize = 130;
    const RUN_BYTES: usize = 90;
    const PRODUCER_BYTES: usize = 130;
    PARTITION_BYTES + partition.runs.len() * RUN_BYTES + partition.producers.len() * PRODUCER_BYTES
}

/// The bytes of a part with groups.
pub(super) fn encode_groups(groups: &[&(GroupId, Group)]) -> Vec<u8> {
    let groups: Vec<GroupV1> = groups.iter().map(|(id, group)| GroupV1::from((id, group))).collect();
    bytes_of(&groups)
}

/// Reads a part with groups.
pub(super) fn decode_groups(bytes: &[u8]) -> Result<Vec<(GroupId, Group)>, FormatError> {
    let groups: Vec<GroupV1> = json("groups of a checkpoint", bytes)?;
    groups.into_iter().map(TryFrom::try_from).collect()
}

/// The bytes of each bucket part.
pub(super) fn encode_buckets<'a>(buckets: &'a [Vec<&'a PartitionSnapshot>]) -> impl Iterator<Item = Vec<u8>> + 'a {
    buckets.iter().map(|bucket| {
        let partitions: Vec<PartitionV1> = bucket.iter().map(|partition| partition_v1(partition)).collect();
        bytes_of(&partitions)
    })
}

/// Reads a bucket part.
pub(super) fn decode_bucket(bytes: &[u8], out: &mut Vec<PartitionSnapshot>) -> Result<(), FormatError> {
    let partitions: Vec<PartitionV1> = json("a bucket of a checkpoint", bytes)?;
    for persisted in partitions {
        out.push(partition(persisted)?);
    }
    Ok(())
}

fn partition_v1(partition: &PartitionSnapshot) -> PartitionV1 {
    PartitionV1 {
        topic: Text(partition.key.topic.uuid()),
        partition: partition.key.partition.get(),
        log_start: partition.bounds.log_start.get(),
        high_watermark: partition.bounds.high_watermark.get(),
        runs: partition.runs.iter().map(run_v1).collect(),
        producers: partition.producers.iter().map(producer_v1).collect(),
    }
}

fn partition(partition: PartitionV1) -> Result<PartitionSnapshot, FormatError> {
    Ok(PartitionSnapshot {
        key: partition_key(partition.topic.0, partition.partition),
        bounds: Partition {
            log_start: Offset::new(partition.log_start),
            high_watermark: Offset::new(partition.high_watermark),
        },
        runs: partition.runs.into_iter().map(run).collect::<Result<_, _>>()?,
        producers: partition.producers.into_iter().map(producer).collect::<Result<_, _>>()?,
    })
}

fn run_v1((base, run): &(Offset, Run)) -> RunV1 {
    let keys = (run.has_gaps() || run.clean).then_some((run.span, run.clean));
    let object = match run.object {
        ObjectId::Commit(number) => ObjectV1::Commit(number.get()),
        ObjectId::Segment(id) => ObjectV1::Segment(Text(id)),
        ObjectId::Table(id) => ObjectV1::Table((Text(id),)),
    };
    let first_ms = run.timestamps.map(|range| range.first_ms);
    let last_ms = run.timestamps.map(|range| range.last_ms);
    let hash = Hex(run.hash.to_bits());
    RunV1 { run: (base.get(), run.rows, object, run.first_row, run.bytes, first_ms, last_ms, hash), keys }
}

fn run(persisted: RunV1) -> Result<(Offset, Run), FormatError> {
    let (base, rows, object, first_row, bytes, first_ms, last_ms, hash) = persisted.run;
    let (span, clean) = persisted.keys.unwrap_or((rows, false));
    let object = match object {
        ObjectV1::Commit(number) => ObjectId::Commit(CommitNumber::new(number)),
        ObjectV1::Segment(id) => ObjectId::Segment(id.0),
        ObjectV1::Table((id,)) => ObjectId::Table(id.0),
    };
    let timestamps = timestamps(first_ms, last_ms)?;
    let hash = rows_hash(hash)?;
    Ok((Offset::new(base), Run { rows, span, clean, object, first_row, bytes, timestamps, hash }))
}

fn producer_v1((id, producer): &(ProducerId, Producer)) -> ProducerV1 {
    let recent = producer.recent.iter().map(|batch| (batch.first.get(), batch.rows, batch.base_offset.get()));
    (id.get(), producer.epoch.get(), producer.last_ms, recent.collect())
}

fn producer((id, epoch, last_ms, recent): ProducerV1) -> Result<(ProducerId, Producer), FormatError> {
    if recent.len() > RECENT_BATCHES {
        return Err(malformed(format!("{} remembered batches of a producer", recent.len())));
    }
    let recent: VecDeque<RecentBatch> = recent
        .into_iter()
        .map(|(first, rows, base)| RecentBatch { first: Sequence::new(first), rows, base_offset: Offset::new(base) })
        .collect();
    Ok((ProducerId::new(id), Producer { epoch: ProducerEpoch::new(epoch), last_ms, recent }))
}

//! A commit as format 1 persists it: the JSON of `lakebed.commit`.
//!
//! These types are never changed once released; a new format gets a module of its own.

use std::collections::BTreeMap;

use lakebed_model::{
    BatchFacts, BatchRefusal, Commit, CommitNumber, CompactedFile, Compaction, Directory, Entry, FeatureLevel, Flush,
    FlushBody, FlushId, FlushRun, Generation, KeyCompaction, Member, Merge, MergedRun, Nonce, Offset, Outcome,
    PartitionIndex, PartitionKey, Place, ProducerEpoch, ProducerId, ProducerStamp, RowsHash, SegmentId, Sequence,
    TableFileId, Takeover, TimestampRange, TopicId, TopicName, TrimRun,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cleaned_v1::CleanedFileV1;
use super::groups_v1::{CommitOffsetsV1, DeleteOffsetsV1, StartGenerationV1, group_id};
use crate::error::{FormatError, malformed};
use crate::text::{Hex, Text};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitV1 {
    number: u64,
    directory: Text<Directory>,
    index: u64,
    writer: Hex,
    time_ms: i64,
    entries: Vec<EntryV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum EntryV1 {
    Takeover { next: Text<Directory>, address: String },
    RaiseFeatureLevel { level: u16 },
    CreateTopic { topic: Text<Uuid>, name: String, partitions: u32, config: BTreeMap<String, String> },
    AlterTopic { topic: Text<Uuid>, config: BTreeMap<String, String> },
    AddPartitions { topic: Text<Uuid>, partitions: u32 },
    DeleteTopic { topic: Text<Uuid> },
    Flush(FlushV1),
    Merge { segment: Text<SegmentId>, runs: Vec<MergedRunV1> },
    Compact { topic: Text<Uuid>, files: Vec<CompactedFileV1> },
    CompactKeys { topic: Text<Uuid>, replaces: Vec<Text<TableFileId>>, files: Vec<CleanedFileV1> },
    PublishTable { topic: Text<Uuid>, version: u32 },
    MoveLogStart { topic: Text<Uuid>, partition: u32, offset: u64 },
    TrimRun(TrimRunV1),
    StartGeneration(StartGenerationV1),
    CommitOffsets(CommitOffsetsV1),
    DeleteOffsets(DeleteOffsetsV1),
    ExpireOffsets { group: String, generation: u32, before_ms: i64 },
    DeleteGroup { group: String, generation: u32 },
    MoveReclaimBoundary { id: Text<SegmentId> },
    AllotProducerIds { first: u64, count: u32 },
    ExpireProducers { before_ms: i64, forgotten: u64 },
    Join(MemberV1),
    Leave { member: Hex },
}

/// A broker as it describes itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberV1 {
    member: Hex,
    kafka: String,
    http: String,
    zone: String,
    version: String,
}

impl From<&Member> for MemberV1 {
    fn from(member: &Member) -> Self {
        let Member { nonce, kafka, http, zone, version } = member.clone();
        Self { member: Hex(nonce.get()), kafka, http, zone, version }
    }
}

impl From<MemberV1> for Member {
    fn from(member: MemberV1) -> Self {
        let MemberV1 { member, kafka, http, zone, version } = member;
        Self { nonce: Nonce::new(member.0), kafka, http, zone, version }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlushV1 {
    id: Text<FlushId>,
    broker: Hex,
    previous: Option<Text<FlushId>>,
    body: BodyV1,
    ingest_time_ms: i64,
    topics: Vec<TopicRunsV1>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BodyV1 {
    Inline,
    Segment,
}

/// The runs of one topic; consecutive runs of a flush that are of one topic stand together.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicRunsV1 {
    topic: Text<Uuid>,
    runs: Vec<FlushRunV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlushRunV1 {
    partition: u32,
    first_row: u64,
    batches: Vec<BatchV1>,
}

/// Rows, outcome, offset, bytes, hash, first and last timestamp in milliseconds, producer id, epoch, sequence, expected next offset.
type BatchV1 = (
    u32,
    OutcomeV1,
    Option<u64>,
    u64,
    Hex,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i16>,
    Option<i32>,
    Option<u64>,
);

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeV1 {
    Appended,
    Duplicate,
    UnknownTopic,
    UnknownPartition,
    OutOfOrderSequence,
    InvalidProducerEpoch,
    OffsetsExhausted,
    OffsetMismatch,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MergedRunV1 {
    topic: Text<Uuid>,
    partition: u32,
    base_offset: u64,
    rows: u64,
    first_row: u64,
    hash: Hex,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompactedFileV1 {
    file: Text<TableFileId>,
    /// Partition, base offset, rows, hash.
    runs: Vec<(u32, u64, u64, Hex)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrimRunV1 {
    topic: Text<Uuid>,
    partition: u32,
    offset: u64,
    rows: u64,
    hash: Hex,
    bytes: u64,
    first_ms: Option<i64>,
    last_ms: Option<i64>,
}

impl From<&TrimRun> for TrimRunV1 {
    fn from(trim: &TrimRun) -> Self {
        Self {
            topic: Text(trim.partition.topic.uuid()),
            partition: trim.partition.partition.get(),
            offset: trim.offset.get(),
            rows: trim.rows,
            hash: Hex(trim.hash.to_bits()),
            bytes: trim.bytes,
            first_ms: trim.timestamps.map(|range| range.first_ms),
            last_ms: trim.timestamps.map(|range| range.last_ms),
        }
    }
}

impl TryFrom<TrimRunV1> for TrimRun {
    type Error = FormatError;

    fn try_from(trim: TrimRunV1) -> Result<Self, FormatError> {
        Ok(Self {
            partition: partition_key(trim.topic.0, trim.partition),
            offset: Offset::new(trim.offset),
            rows: trim.rows,
            hash: rows_hash(trim.hash)?,
            bytes: trim.bytes,
            timestamps: timestamps(trim.first_ms, trim.last_ms)?,
        })
    }
}

impl From<&CompactedFile> for CompactedFileV1 {
    fn from(file: &CompactedFile) -> Self {
        let run =
            |run: &MergedRun| (run.partition.partition.get(), run.base_offset.get(), run.rows, Hex(run.hash.to_bits()));
        Self { file: Text(file.id), runs: file.runs.iter().map(run).collect() }
    }
}

impl CompactedFileV1 {
    /// The rows of its runs lie one after another from row 0.
    fn restore(self, topic: TopicId) -> Result<CompactedFile, FormatError> {
        let (mut runs, mut first_row) = (Vec::with_capacity(self.runs.len()), 0_u64);
        for (partition, base_offset, rows, hash) in self.runs {
            runs.push(MergedRun {
                partition: partition_key(topic.uuid(), partition),
                base_offset: Offset::new(base_offset),
                rows,
                first_row,
                hash: rows_hash(hash)?,
            });
            let too_many = || malformed("a table file of more rows than can be counted");
            first_row = first_row.checked_add(rows).ok_or_else(too_many)?;
        }
        Ok(CompactedFile { id: self.file.0, runs })
    }
}

impl From<&Commit> for CommitV1 {
    fn from(commit: &Commit) -> Self {
        Self {
            number: commit.number.get(),
            directory: Text(commit.place.directory),
            index: commit.place.index,
            writer: Hex(commit.writer.get()),
            time_ms: commit.time_ms,
            entries: commit.entries.iter().map(EntryV1::from).collect(),
        }
    }
}

impl TryFrom<CommitV1> for Commit {
    type Error = FormatError;

    fn try_from(commit: CommitV1) -> Result<Self, FormatError> {
        Ok(Self {
            number: CommitNumber::new(commit.number),
            place: Place { directory: commit.directory.0, index: commit.index },
            writer: Nonce::new(commit.writer.0),
            time_ms: commit.time_ms,
            entries: commit.entries.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Entry> for EntryV1 {
    fn from(entry: &Entry) -> Self {
        match entry {
            Entry::Takeover(takeover) => {
                Self::Takeover { next: Text(takeover.next), address: takeover.address.clone() }
            }
            Entry::Join(member) => Self::Join(member.into()),
            Entry::Leave { member } => Self::Leave { member: Hex(member.get()) },
            Entry::RaiseFeatureLevel(level) => Self::RaiseFeatureLevel { level: level.get() },
            Entry::CreateTopic { id, name, partitions, config } => Self::CreateTopic {
                topic: Text(id.uuid()),
                name: name.as_str().to_owned(),
                partitions: *partitions,
                config: config.clone(),
            },
            Entry::AlterTopic { id, config } => Self::AlterTopic { topic: Text(id.uuid()), config: config.clone() },
            Entry::AddPartitions { id, partitions } => {
                Self::AddPartitions { topic: Text(id.uuid()), partitions: *partitions }
            }
            Entry::DeleteTopic { id } => Self::DeleteTopic { topic: Text(id.uuid()) },
            Entry::Flush(flush) => Self::Flush(FlushV1::from(flush)),
            Entry::Merge(merge) => {
                Self::Merge { segment: Text(merge.segment), runs: merge.runs.iter().map(MergedRunV1::from).collect() }
            }
            Entry::Compact(compaction) => Self::Compact {
                topic: Text(compaction.topic.uuid()),
                files: compaction.files.iter().map(CompactedFileV1::from).collect(),
            },
            Entry::CompactKeys(compaction) => Self::CompactKeys {
                topic: Text(compaction.topic.uuid()),
                replaces: compaction.replaces.iter().copied().map(Text).collect(),
                files: compaction.files.iter().map(CleanedFileV1::from).collect(),
            },
            Entry::PublishTable { topic, version } => {
                Self::PublishTable { topic: Text(topic.uuid()), version: *version }
            }
            Entry::MoveLogStart { partition, offset } => Self::MoveLogStart {
                topic: Text(partition.topic.uuid()),
                partition: partition.partition.get(),
                offset: offset.get(),
            },
            Entry::TrimRun(trim) => Self::TrimRun(trim.into()),
            Entry::StartGeneration(start) => Self::StartGeneration(start.into()),
            Entry::CommitOffsets(commit) => Self::CommitOffsets(commit.into()),
            Entry::DeleteOffsets(delete) => Self::DeleteOffsets(delete.into()),
            Entry::ExpireOffsets { group, generation, before_ms } => Self::ExpireOffsets {
                group: group.as_str().to_owned(),
                generation: generation.get(),
                before_ms: *before_ms,
            },
            Entry::DeleteGroup { group, generation } => {
                Self::DeleteGroup { group: group.as_str().to_owned(), generation: generation.get() }
            }
            Entry::MoveReclaimBoundary(id) => Self::MoveReclaimBoundary { id: Text(*id) },
            Entry::AllotProducerIds { first, count } => Self::AllotProducerIds { first: *first, count: *count },
            Entry::ExpireProducers { before_ms, forgotten } => {
                Self::ExpireProducers { before_ms: *before_ms, forgotten: *forgotten }
            }
        }
    }
}

impl TryFrom<EntryV1> for Entry {
    type Error = FormatError;

    fn try_from(entry: EntryV1) -> Result<Self, FormatError> {
        Ok(match entry {
            EntryV1::Takeover { next, address } => Self::Takeover(Takeover { next: next.0, address }),
            EntryV1::Join(member) => Self::Join(member.into()),
            EntryV1::Leave { member } => Self::Leave { member: Nonce::new(member.0) },
            EntryV1::RaiseFeatureLevel { level } => Self::RaiseFeatureLevel(FeatureLevel::new(level)),
            EntryV1::CreateTopic { topic, name, partitions, config } => Self::CreateTopic {
                id: TopicId::new(topic.0),
                name: TopicName::new(&name).map_err(|error| malformed(error.to_string()))?,
                partitions,
                config,
            },
            EntryV1::AlterTopic { topic, config } => Self::AlterTopic { id: TopicId::new(topic.0), config },
            EntryV1::AddPartitions { topic, partitions } => {
                Self::AddPartitions { id: TopicId::new(topic.0), partitions }
            }
            EntryV1::DeleteTopic { topic } => Self::DeleteTopic { id: TopicId::new(topic.0) },
            EntryV1::Flush(flush) => Self::Flush(Flush::try_from(flush)?),
            EntryV1::Merge { segment, runs } => Self::Merge(Merge {
                segment: segment.0,
                runs: runs.into_iter().map(MergedRun::try_from).collect::<Result<_, _>>()?,
            }),
            EntryV1::Compact { topic, files } => {
                let topic = TopicId::new(topic.0);
                let files = files.into_iter().map(|file| file.restore(topic)).collect::<Result<_, _>>()?;
                Self::Compact(Compaction { topic, files })
            }
            EntryV1::CompactKeys { topic, replaces, files } => {
                let topic = TopicId::new(topic.0);
                let files = files.into_iter().map(|file| file.restore(topic)).collect::<Result<_, _>>()?;
                let replaces = replaces.into_iter().map(|file| file.0).collect();
                Self::CompactKeys(KeyCompaction { topic, replaces, files })
            }
            EntryV1::PublishTable { topic, version } => Self::PublishTable { topic: TopicId::new(topic.0), version },
            EntryV1::MoveLogStart { topic, partition, offset } => {
                Self::MoveLogStart { partition: partition_key(topic.0, partition), offset: Offset::new(offset) }
            }
            EntryV1::TrimRun(trim) => Self::TrimRun(trim.try_into()?),
            EntryV1::StartGeneration(start) => Self::StartGeneration(start.try_into()?),
            EntryV1::CommitOffsets(commit) => Self::CommitOffsets(commit.try_into()?),
            EntryV1::DeleteOffsets(delete) => Self::DeleteOffsets(delete.try_into()?),
            EntryV1::ExpireOffsets { group, generation, before_ms } => {
                Self::ExpireOffsets { group: group_id(&group)?, generation: Generation::new(generation), before_ms }
            }
            EntryV1::DeleteGroup { group, generation } => {
                Self::DeleteGroup { group: group_id(&group)?, generation: Generation::new(generation) }
            }
            EntryV1::MoveReclaimBoundary { id } => Self::MoveReclaimBoundary(id.0),
            EntryV1::AllotProducerIds { first, count } => Self::AllotProducerIds { first, count },
            EntryV1::ExpireProducers { before_ms, forgotten } => Self::ExpireProducers { before_ms, forgotten },
        })
    }
}

pub(super) fn partition_key(topic: Uuid, partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId::new(topic), PartitionIndex::new(partition))
}

/// Reads a persisted row hash.
pub(crate) fn rows_hash(bits: Hex) -> Result<RowsHash, FormatError> {
    RowsHash::from_bits(bits.0).ok_or_else(|| malformed(format!("{:016x} is no hash of rows", bits.0)))
}

impl From<&Flush> for FlushV1 {
    fn from(flush: &Flush) -> Self {
        let same_topic = |a: &FlushRun, b: &FlushRun| a.partition.topic == b.partition.topic;
        let topics = flush.runs.chunk_by(same_topic).map(|runs| TopicRunsV1 {
            topic: Text(runs[0].partition.topic.uuid()),
            runs: runs
                .iter()
                .map(|run| FlushRunV1 {
                    partition: run.partition.partition.get(),
                    first_row: run.first_row,
                    batches: run.batches.iter().map(batch_v1).collect(),
                })
                .collect(),
        });
        Self {
            id: Text(flush.id),
            broker: Hex(flush.broker.get()),
            previous: flush.previous.map(Text),
            body: match flush.body {
                FlushBody::Inline => BodyV1::Inline,
                FlushBody::Segment => BodyV1::Segment,
            },
            ingest_time_ms: flush.ingest_time_ms,
            topics: topics.collect(),
        }
    }
}

impl TryFrom<FlushV1> for Flush {
    type Error = FormatError;

    fn try_from(flush: FlushV1) -> Result<Self, FormatError> {
        let mut runs = Vec::new();
        for topic in flush.topics {
            for run in topic.runs {
                runs.push(FlushRun {
                    partition: partition_key(topic.topic.0, run.partition),
                    first_row: run.first_row,
                    batches: run.batches.into_iter().map(batch).collect::<Result<_, _>>()?,
                });
            }
        }
        Ok(Self {
            id: flush.id.0,
            broker: Nonce::new(flush.broker.0),
            previous: flush.previous.map(|previous| previous.0),
            body: match flush.body {
                BodyV1::Inline => FlushBody::Inline,
                BodyV1::Segment => FlushBody::Segment,
            },
            ingest_time_ms: flush.ingest_time_ms,
            runs,
        })
    }
}

fn batch_v1((facts, outcome): &(BatchFacts, Outcome)) -> BatchV1 {
    let (outcome, offset) = outcome_v1(*outcome);
    (
        facts.rows,
        outcome,
        offset,
        facts.bytes,
        Hex(facts.hash.to_bits()),
        facts.timestamps.map(|range| range.first_ms),
        facts.timestamps.map(|range| range.last_ms),
        facts.producer.map(|stamp| stamp.id.get()),
        facts.producer.map(|stamp| stamp.epoch.get()),
        facts.producer.map(|stamp| stamp.sequence.get()),
        facts.expected_next_offset.map(Offset::get),
    )
}

fn batch(persisted: BatchV1) -> Result<(BatchFacts, Outcome), FormatError> {
    let (rows, kind, offset, bytes, hash, first_ms, last_ms, id, epoch, sequence, expected) = persisted;
    let producer = match (id, epoch, sequence) {
        (None, None, None) => None,
        (Some(id), Some(epoch), Some(sequence)) => Some(ProducerStamp {
            id: ProducerId::new(id),
            epoch: ProducerEpoch::new(epoch),
            sequence: Sequence::new(sequence),
        }),
        _ => return Err(malformed("half a producer's stamp")),
    };
    let facts = BatchFacts {
        rows,
        bytes,
        timestamps: timestamps(first_ms, last_ms)?,
        hash: rows_hash(hash)?,
        producer,
        expected_next_offset: expected.map(Offset::new),
    };
    Ok((facts, outcome(kind, offset)?))
}

/// Reads a persisted range of timestamps.
pub(crate) fn timestamps(first_ms: Option<i64>, last_ms: Option<i64>) -> Result<Option<TimestampRange>, FormatError> {
    match (first_ms, last_ms) {
        (None, None) => Ok(None),
        (Some(first_ms), Some(last_ms)) => Ok(Some(TimestampRange { first_ms, last_ms })),
        _ => Err(malformed("half a range of timestamps")),
    }
}

/// An outcome as it is persisted.
pub(crate) fn outcome_v1(outcome: Outcome) -> (OutcomeV1, Option<u64>) {
    match outcome {
        Outcome::Appended(offset) => (OutcomeV1::Appended, Some(offset.get())),
        Outcome::Duplicate(offset) => (OutcomeV1::Duplicate, Some(offset.get())),
        Outcome::Refused(BatchRefusal::UnknownTopic) => (OutcomeV1::UnknownTopic, None),
        Outcome::Refused(BatchRefusal::UnknownPartition) => (OutcomeV1::UnknownPartition, None),
        Outcome::Refused(BatchRefusal::OutOfOrderSequence) => (OutcomeV1::OutOfOrderSequence, None),
        Outcome::Refused(BatchRefusal::InvalidProducerEpoch) => (OutcomeV1::InvalidProducerEpoch, None),
        Outcome::Refused(BatchRefusal::OffsetsExhausted) => (OutcomeV1::OffsetsExhausted, None),
        Outcome::Refused(BatchRefusal::OffsetMismatch { next }) => (OutcomeV1::OffsetMismatch, Some(next.get())),
    }
}

/// Reads a persisted outcome.
pub(crate) fn outcome(kind: OutcomeV1, offset: Option<u64>) -> Result<Outcome, FormatError> {
    let refusal = match (kind, offset) {
        (OutcomeV1::Appended, Some(offset)) => return Ok(Outcome::Appended(Offset::new(offset))),
        (OutcomeV1::Duplicate, Some(offset)) => return Ok(Outcome::Duplicate(Offset::new(offset))),
        (OutcomeV1::UnknownTopic, None) => BatchRefusal::UnknownTopic,
        (OutcomeV1::UnknownPartition, None) => BatchRefusal::UnknownPartition,
        (OutcomeV1::OutOfOrderSequence, None) => BatchRefusal::OutOfOrderSequence,
        (OutcomeV1::InvalidProducerEpoch, None) => BatchRefusal::InvalidProducerEpoch,
        (OutcomeV1::OffsetsExhausted, None) => BatchRefusal::OffsetsExhausted,
        (OutcomeV1::OffsetMismatch, Some(next)) => BatchRefusal::OffsetMismatch { next: Offset::new(next) },
        _ => {
            return Err(malformed(
                "an offset goes with an appended batch, a duplicate or a mismatch, and with no other",
            ));
        }
    };
    Ok(Outcome::Refused(refusal))
}

impl From<&MergedRun> for MergedRunV1 {
    fn from(run: &MergedRun) -> Self {
        Self {
            topic: Text(run.partition.topic.uuid()),
            partition: run.partition.partition.get(),
            base_offset: run.base_offset.get(),
            rows: run.rows,
            first_row: run.first_row,
            hash: Hex(run.hash.to_bits()),
        }
    }
}

impl TryFrom<MergedRunV1> for MergedRun {
    type Error = FormatError;

    fn try_from(run: MergedRunV1) -> Result<Self, FormatError> {
        Ok(Self {
            partition: partition_key(run.topic.0, run.partition),
            base_offset: Offset::new(run.base_offset),
            rows: run.rows,
            first_row: run.first_row,
            hash: rows_hash(run.hash)?,
        })
    }
}

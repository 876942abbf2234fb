//! One batch of a producer: from what came in a message to what the write path takes. The same for both calls of `ProduceService`.

use bytes::Bytes;
use lakebed_ingest::{AdmitError, Admitted, BatchLimits, ProduceError, admit_encoded};
use lakebed_model::{BatchRefusal, Offset, PartitionIndex, PartitionKey, State};
use lakebed_segment::batch::{Codec, Encoder, Fields, Record, TimestampType};
use lakebed_wire::received::{self, Content, Payload, Records};
use tonic::Status;

use super::Services;
use super::produce::wire_partition;
use super::status::{invalid, status, violation};
use crate::admission::is_compressed;
use crate::reason::Reason;
use crate::topics::settings::AdmissionSettings;
use crate::topics::{FoundTopic, TopicError, TopicReference};

/// Records of at least this many bytes are encoded away from the threads that serve sockets: it takes longer than half a millisecond.
const ENCODE_ELSEWHERE_BYTES: usize = 1 << 20;
/// A Kafka batch smaller than this is copied, so that it does not keep the whole buffer that it came in.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// What holds for a batch of ours: its producer is neither idempotent nor in a transaction.
pub(super) const FIELDS: Fields =
    Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };

/// The topic of a producer, as it was when it was looked at last.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) topic: FoundTopic,
    settings: AdmissionSettings,
}

/// A batch as it came.
#[derive(Debug)]
pub(super) struct Asked {
    /// The partition that was named for it.
    pub(super) partition: Option<i32>,
    pub(super) payload: Payload,
    pub(super) expected_next_offset: Option<i64>,
}

/// A batch that can be handed to the write path.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) key: PartitionKey,
    pub(super) admitted: Admitted,
}

impl Target {
    pub(super) fn new(topic: FoundTopic) -> Self {
        let settings = AdmissionSettings::of(&topic.config);
        Self { topic, settings }
    }

    /// Looks at the topic again: it may have other settings by now, and more partitions.
    ///
    /// # Errors
    /// NOT_FOUND: it is gone.
    pub(super) fn refresh(&mut self, state: &State) -> Result<(), Status> {
        let Some(topic) = state.topic(self.topic.id) else {
            let gone = TopicError::NoSuchName { name: self.topic.name.to_string() };
            return Err(status(Reason::from(&gone), gone, [("topic", self.topic.name.to_string())]));
        };
        self.topic.partitions = topic.partitions;
        if !std::sync::Arc::ptr_eq(&self.topic.config, &topic.config) {
            self.topic.config = std::sync::Arc::clone(&topic.config);
            self.settings = AdmissionSettings::of(&topic.config);
        }
        Ok(())
    }

    /// Most bytes of a batch of the topic.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.settings.max_message_bytes
    }

    /// The place of a partition that exists.
    fn partition(&self, index: i32) -> Option<u32> {
        u32::try_from(index).ok().filter(|index| *index < self.topic.partitions)
    }
}

impl Services {
    /// The topic of a name.
    pub(super) async fn find_topic(&self, name: &str) -> Result<FoundTopic, Status> {
        let found = self.rooms.topics.find(&TopicReference::Name(name.to_owned())).await;
        found.map_err(|error| status(Reason::from(&error), &error, [("topic", name.to_owned())]))
    }

    /// The topic of a name for a producer: one that does not exist is made, where the configuration says so.
    pub(super) async fn topic_to_produce(&self, name: &str) -> Result<FoundTopic, Status> {
        if !self.rooms.config.auto_create_topics {
            return self.find_topic(name).await;
        }
        let made = self.rooms.topics.ensure(name).await;
        made.map_err(|error| status(Reason::from(&error), &error, [("topic", name.to_owned())]))
    }

    /// A partition that was named; one that is missing is looked for behind a barrier.
    pub(super) async fn find_partition(&self, target: &mut Target, index: i32) -> Result<u32, Status> {
        if let Some(partition) = target.partition(index) {
            return Ok(partition);
        }
        if index >= 0 {
            let state = self.rooms.log.barrier().await;
            target.refresh(&state.map_err(|error| status(Reason::from(&error), &error, []))?)?;
        }
        target.partition(index).ok_or_else(|| no_such_partition(&target.topic, index))
    }

    /// The partition and the records of a message that may share a batch with others: it is shorter than `bytes_max`, has a partition,
    /// and asks for nothing of its own. Whether its records are good is not known yet.
    pub(super) fn joinable(&self, target: &Target, asked: &Asked, bytes_max: usize) -> Option<(u32, Bytes)> {
        let Asked { partition, payload, expected_next_offset } = asked;
        let Payload { last: Some(Content::Records(records)), pieces: 1 } = payload else { return None };
        if records.len() >= bytes_max || expected_next_offset.is_some() {
            return None;
        }
        let partition = match partition {
            Some(index) => target.partition(*index)?,
            None => {
                let mut placing = Placing { partitions: target.topic.partitions, named: None, first: None };
                for (index, record) in (0..).zip(Records::new(records)) {
                    if let Some(key) = record.ok()?.key {
                        placing.see(index, key).ok()?;
                    }
                }
                placing.chosen().unwrap_or_else(|| self.turn(target))
            }
        };
        Some((partition, records.clone()))
    }

    /// The partition of records that have neither a key nor a partition.
    fn turn(&self, target: &Target) -> u32 {
        self.rooms.next_turn() % target.topic.partitions.max(1)
    }

    /// Verifies a batch and chooses its partition. One that is compressed needs [`crate::Rooms::inflating`];
    /// `inflated_bytes` counts what batches of this request take beyond their own bytes.
    pub(super) async fn prepare(
        &self,
        target: &mut Target,
        asked: Asked,
        inflated_bytes: &mut usize,
    ) -> Result<Prepared, Status> {
        let Asked { partition, payload, expected_next_offset } = asked;
        let named = match partition {
            Some(index) => Some(self.find_partition(target, index).await?),
            None => None,
        };
        let expected = expected_next_offset.map(|offset| expected_offset(offset, named.is_some())).transpose()?;
        if payload.pieces > 1 {
            let what = format!("a batch has one payload, this has {} pieces", payload.pieces);
            return Err(invalid("records", what));
        }
        let limits = self.limits(target, *inflated_bytes);
        let (admitted, chosen) = match payload.last {
            None => return Err(invalid("records", "a batch has records or a kafka_batch, this has neither")),
            Some(Content::KafkaBatch(batch)) => {
                let partition = named.ok_or_else(|| invalid("partition", "a kafka_batch needs a partition"))?;
                (self.admit_kafka(target, batch, limits, inflated_bytes).await?, Some(partition))
            }
            Some(Content::Records(records)) => self.admit_records(target, records, limits, named).await?,
        };
        let admitted = match expected {
            Some(next) => admitted.expecting(next),
            None => admitted,
        };
        let chosen = chosen.unwrap_or_else(|| self.turn(target));
        Ok(Prepared { key: PartitionKey::new(target.topic.id, PartitionIndex::new(chosen)), admitted })
    }

    pub(super) fn limits(&self, target: &Target, inflated_bytes: usize) -> BatchLimits {
        let settings = &target.settings;
        BatchLimits {
            message_bytes_max: settings.max_message_bytes,
            decompressed_bytes_max: self.rooms.inflated_bytes_max.saturating_sub(inflated_bytes),
            timestamp_before_max_ms: settings.timestamp_before_max_ms,
            timestamp_after_max_ms: settings.timestamp_after_max_ms,
            now_ms: (self.rooms.seams.wall)(),
            log_append: settings.log_append_time,
            keys_required: settings.keys_required,
        }
    }

    async fn admit_kafka(
        &self,
        target: &Target,
        batch: Bytes,
        limits: BatchLimits,
        inflated_bytes: &mut usize,
    ) -> Result<Admitted, Status> {
        let batch = if batch.len() < COPIED_BYTES_MAX { Bytes::copy_from_slice(&batch) } else { batch };
        let compressed = is_compressed(&batch);
        let admitted = self.rooms.admit(batch, limits).await;
        let admitted = admitted.map_err(|error| not_admitted(&target.topic, "kafka_batch", &error))?;
        if compressed {
            *inflated_bytes += admitted.cost_bytes();
        }
        Ok(admitted)
    }

    /// Encodes and admits records; also tells the partition that was named, or that their keys belong to.
    async fn admit_records(
        &self,
        target: &Target,
        records: Bytes,
        limits: BatchLimits,
        named: Option<u32>,
    ) -> Result<(Admitted, Option<u32>), Status> {
        let partitions = target.topic.partitions;
        let placing = move || Placing { partitions, named, first: None };
        let encoded = if records.len() >= ENCODE_ELSEWHERE_BYTES {
            self.rooms.seams.offload.run(move || encode(&records, &limits, placing())).await
        } else {
            encode(&records, &limits, placing())
        };
        encoded.map_err(|error| match error {
            NotEncoded::Refused(status) => *status,
            NotEncoded::NotAdmitted(error) => not_admitted(&target.topic, "records", &error),
        })
    }
}

/// Where the keys of a batch's records belong.
struct Placing {
    partitions: u32,
    /// The partition that was named: then keys don't matter.
    named: Option<u32>,
    /// The first record with a key, and its partition.
    first: Option<(i64, u32)>,
}

impl Placing {
    /// Takes note of a record's key.
    fn see(&mut self, index: i64, key: &[u8]) -> Result<(), NotEncoded> {
        if self.named.is_some() {
            return Ok(());
        }
        let partition = lakebed_wire::kafka::partition_for_key(key, self.partitions);
        match self.first {
            None => self.first = Some((index, partition)),
            Some((_, same)) if same == partition => {}
            Some((first, other)) => {
                let message = format!(
                    "records {first} and {index} belong to different partitions, {other} and {partition}, by their keys: a batch has one partition; name it, or send them apart"
                );
                return Err(NotEncoded::Refused(Box::new(violation(
                    Reason::InvalidRequest,
                    &field_of(index, ".key"),
                    message,
                    [("record", index.to_string()), ("partition", partition.to_string())],
                ))));
            }
        }
        Ok(())
    }

    fn chosen(&self) -> Option<u32> {
        self.named.or(self.first.map(|(_, partition)| partition))
    }
}

enum NotEncoded {
    Refused(Box<Status>),
    NotAdmitted(AdmitError),
}

impl From<AdmitError> for NotEncoded {
    fn from(error: AdmitError) -> Self {
        Self::NotAdmitted(error)
    }
}

/// One batch of all the records. A record without a timestamp gets the time of now, as Kafka's clients do.
///
/// # Cost
/// One copy of the records; no more than the topic allows for a batch.
fn encode(records: &[u8], limits: &BatchLimits, mut placing: Placing) -> Result<(Admitted, Option<u32>), NotEncoded> {
    let refused = |status: Status| NotEncoded::Refused(Box::new(status));
    let mut encoder = Encoder::new(FIELDS, capacity_bytes(records.len(), limits));
    push_all(&mut encoder, records, limits, &mut placing)?;
    let encoded = encoder.finish_with_rows().map_err(|error| NotEncoded::NotAdmitted(error.into()))?;
    let encoded =
        encoded.ok_or_else(|| refused(invalid("records", "a batch has at least one record, this has none")))?;
    Ok((admit_encoded(encoded, limits)?, placing.chosen()))
}

/// One batch of the records of several messages for the same partition; with the records of each message, and their bytes in the
/// batch. `None` if one of the messages has to be refused: prepared alone, it is told why.
///
/// # Cost
/// One copy of the records.
pub(super) fn join(messages: &[Bytes], limits: &BatchLimits) -> Option<(Admitted, Vec<(u32, usize)>)> {
    let bytes = messages.iter().map(Bytes::len).sum();
    let mut encoder = Encoder::new(FIELDS, capacity_bytes(bytes, limits));
    let mut placing = Placing { partitions: 1, named: Some(0), first: None };
    let mut sizes = Vec::with_capacity(messages.len());
    let mut bytes_before = 0;
    for records in messages {
        let count_before = encoder.count();
        push_all(&mut encoder, records, limits, &mut placing).ok()?;
        let (count, bytes) = (encoder.count() - count_before, encoder.size_bytes());
        if count == 0 {
            return None;
        }
        sizes.push((count, bytes - bytes_before));
        bytes_before = bytes;
    }
    let encoded = encoder.finish_with_rows().ok().flatten()?;
    Some((admit_encoded(encoded, limits).ok()?, sizes))
}

/// Room for a batch: a record's overhead is about the same in both encodings, and a batch has its header, too.
fn capacity_bytes(records_bytes: usize, limits: &BatchLimits) -> usize {
    (records_bytes + records_bytes / 8 + 128).min(limits.message_bytes_max)
}

/// Adds the records of a message.
fn push_all(
    encoder: &mut Encoder,
    records: &[u8],
    limits: &BatchLimits,
    placing: &mut Placing,
) -> Result<(), NotEncoded> {
    let refused = |status: Status| NotEncoded::Refused(Box::new(status));
    for (index, record) in (i64::from(encoder.count())..).zip(Records::new(records)) {
        let record =
            record.map_err(|error| refused(invalid(&field_of(index, ""), format_args!("record {index}: {error}"))))?;
        if let Some(key) = record.key {
            placing.see(index, key)?;
        }
        push(encoder, index, record, limits.now_ms).map_err(refused)?;
        if encoder.size_bytes() > limits.message_bytes_max {
            return Err(AdmitError::TooLarge { bytes: encoder.size_bytes(), max: limits.message_bytes_max }.into());
        }
    }
    Ok(())
}

fn push(encoder: &mut Encoder, index: i64, record: received::Record<'_>, now_ms: i64) -> Result<(), Status> {
    let received::Record { key, value, timestamp_ms, offset, headers } = record;
    let timestamp_ms = timestamp_ms.unwrap_or(now_ms);
    if timestamp_ms < 0 {
        let message = format!("record {index}: timestamp {timestamp_ms} is before 1970; leave it out for now");
        return Err(violation(Reason::InvalidTimestamp, &field_of(index, ".timestamp"), message, []));
    }
    if offset.is_some() {
        let what = format!("record {index}: its offset is the broker's to give; leave it out");
        return Err(invalid(&field_of(index, ".offset"), what));
    }
    let record = Record { offset: index, timestamp_ms, key, value };
    encoder
        .push(record, headers)
        .map_err(|error| invalid(&field_of(index, ""), format_args!("record {index}: {error}")))
}

/// The path of a record in its batch, and of what is within it.
fn field_of(index: i64, within: &str) -> String {
    format!("records.records[{index}]{within}")
}

/// An offset that the next record of a partition is expected to get.
fn expected_offset(offset: i64, is_partition_named: bool) -> Result<Offset, Status> {
    if !is_partition_named {
        return Err(invalid("partition", "expected_next_offset needs a partition: name it"));
    }
    let offset = u64::try_from(offset)
        .map_err(|_| invalid("expected_next_offset", "expected_next_offset must not be negative"))?;
    Ok(Offset::new(offset))
}

/// The status of a batch that was handed over and is not acknowledged.
pub(super) fn not_produced(error: &ProduceError) -> Status {
    let reason = Reason::from(error);
    match error {
        ProduceError::Refused(BatchRefusal::OffsetMismatch { next }) => {
            status(reason, error, [("next_offset", next.to_string())])
        }
        _ => status(reason, error, []),
    }
}

/// The status of a batch that came in `field`.
fn not_admitted(topic: &FoundTopic, field: &str, error: &AdmitError) -> Status {
    violation(Reason::from(error), field, error, [("topic", topic.name.to_string())])
}

fn no_such_partition(topic: &FoundTopic, partition: i32) -> Status {
    let message = format!("topic {} has no partition {partition}; it has {}", topic.name, topic.partitions);
    status(
        Reason::PartitionNotFound,
        message,
        [("topic", topic.name.to_string()), ("partition", partition.to_string())],
    )
}

/// A partition that the topic has.
pub(super) fn check_partition(topic: &FoundTopic, partition: i32) -> Result<u32, Status> {
    let exists = u32::try_from(partition).ok().filter(|partition| *partition < topic.partitions);
    exists.ok_or_else(|| no_such_partition(topic, partition))
}

impl Asked {
    /// Records for a partition that exists.
    pub(super) fn of_records(partition: u32, records: Bytes) -> Self {
        let payload = Payload { last: Some(Content::Records(records)), pieces: 1 };
        Self { partition: Some(wire_partition(partition)), payload, expected_next_offset: None }
    }

    /// Whether it claims to be compressed.
    pub(super) fn is_compressed(&self) -> bool {
        matches!(&self.payload.last, Some(Content::KafkaBatch(batch)) if is_compressed(batch))
    }
}

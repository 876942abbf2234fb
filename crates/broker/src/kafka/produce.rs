//! Produce: batches are admitted and put into the ingest buffer when the request is started, and answered when they are durable.
//!
//! Whatever `acks` says, an answer means that the batch is durable; with acks=0 there is no answer, and an error closes the
//! connection, as Kafka does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use lakebed_ingest::{AdmitError, Admitted, BatchLimits, Produced, Ticket};
use lakebed_model::{Offset, PartitionIndex, PartitionKey, State, TopicId};
use tokio::time::{Instant, timeout_at};

use super::Service;
use super::connection::Started;
use super::response::{Reply, ReplyTo};
use crate::admission::is_compressed;
use crate::cluster::leads;
use crate::reason::Reason;
use crate::topics::settings::AdmissionSettings;

/// No client waits longer than this, whatever it asks for.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Where a batch's length, magic and attributes stand, and where its length counts from (Kafka's record batch, magic 2).
const LENGTH_AT: std::ops::Range<usize> = 8..12;
const COUNTED_FROM: usize = 12;

/// Why one partition's batch is not acknowledged.
#[derive(Debug)]
struct Refused {
    reason: Reason,
    why: String,
    /// Whether a record is not what its topic asks for; Kafka tells where the log starts then.
    is_of_record: bool,
}

impl Refused {
    fn new(reason: Reason, why: impl ToString) -> Self {
        Self { reason, why: why.to_string(), is_of_record: false }
    }
}

/// One partition of the request: refused at once, or its bytes are on their way under the next ticket.
type Step = (i32, Result<Size, Refused>);

/// Records and bytes of a batch.
type Size = (u64, usize);

/// How a request wants to be answered.
struct Asked {
    reply_to: ReplyTo,
    acks: i16,
    deadline: Instant,
}

/// What was asked, with what can be said at once; in the order of the request.
struct Plan {
    topics: Vec<(TopicName, Vec<Step>)>,
}

/// Admits the batches and puts them into the ingest buffer; waits while that is full.
pub(super) async fn start(service: &Arc<Service>, reply_to: ReplyTo, request: ProduceRequest) -> Started {
    let begun = Instant::now();
    let patience = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(1).max(1)).min(TIMEOUT_MAX);
    let asked = Asked { reply_to, acks: request.acks, deadline: begun + patience };
    let inflating = if has_compressed(&request) {
        // Held until the ingest buffer counts what is decompressed.
        Some(service.rooms.inflating().await)
    } else {
        None
    };
    let (mut plan, batches) = plan(service, request).await;
    let tickets = if batches.is_empty() {
        Vec::new()
    } else if !leads(&service.rooms.log) {
        plan.refuse_all(Reason::Fenced, "this broker follows the sequencer, which leads all partitions")
    } else {
        match timeout_at(asked.deadline, service.rooms.ingest.produce(batches)).await {
            Ok(tickets) => tickets,
            // SUBTLE: part of it may have been taken, so it can't be said that nothing was stored.
            Err(_) => plan.refuse_all(Reason::OutcomeUnknown, "the broker's buffer was full for the request's timeout"),
        }
    };
    drop(inflating);
    finish(Arc::clone(service), asked, plan, tickets).boxed()
}

async fn finish(service: Arc<Service>, asked: Asked, plan: Plan, tickets: Vec<Ticket>) -> Reply {
    let mut tickets = tickets.into_iter();
    let mut first_refused = None;
    let mut topics = Vec::with_capacity(plan.topics.len());
    for (name, steps) in plan.topics {
        let mut partitions = Vec::with_capacity(steps.len());
        for (index, step) in steps {
            let outcome = match step {
                Ok((records, bytes)) => {
                    let ticket = tickets.next().expect("there is a ticket for every batch that was not refused");
                    let outcome = outcome(ticket, asked.deadline).await;
                    if outcome.is_ok() {
                        service.metrics.produced(records, bytes);
                    }
                    outcome
                }
                Err(refused) => Err(refused),
            };
            if let Err(refused) = &outcome {
                service.metrics.produce_refused(refused.reason.row().name);
                first_refused.get_or_insert_with(|| format!("{}/{index}: {}", name.as_str(), refused.why));
            }
            let log_start = outcome.as_ref().err().and_then(|refused| log_start(&service, &name, index, refused));
            partitions.push(partition_response(index, outcome, log_start));
        }
        topics.push(TopicProduceResponse::default().with_name(name).with_partition_responses(partitions));
    }
    match (asked.acks, first_refused) {
        (0, None) => Reply::Nothing,
        (0, Some(why)) => Reply::Close { why: format!("Produce with acks=0 was refused: {why}") },
        _ => asked.reply_to.send(&ProduceResponse::default().with_responses(topics)),
    }
}

async fn outcome(ticket: Ticket, deadline: Instant) -> Result<Produced, Refused> {
    match timeout_at(deadline, ticket).await {
        Ok(Ok(produced)) => Ok(produced),
        Ok(Err(error)) => Err(Refused::new(Reason::from(&error), error)),
        Err(_) => {
            Err(Refused::new(Reason::OutcomeUnknown, "not durable within the request's timeout; it may become so"))
        }
    }
}

/// Where the log of a partition starts that refused a batch for what the partition holds, as Kafka tells it.
fn log_start(service: &Service, topic: &str, index: i32, refused: &Refused) -> Option<Offset> {
    let is_of_log =
        matches!(refused.reason, Reason::InvalidTimestamp | Reason::OutOfOrderSequence | Reason::InvalidProducerEpoch);
    if !is_of_log && !refused.is_of_record {
        return None;
    }
    let state = service.rooms.log.state();
    let (_, key) = find(&state, topic, index).ok()?;
    Some(state.partition(key)?.log_start)
}

fn partition_response(
    index: i32,
    outcome: Result<Produced, Refused>,
    log_start: Option<Offset>,
) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match outcome {
        Ok(produced) => response
            .with_base_offset(offset(produced.base_offset))
            .with_log_append_time_ms(produced.log_append_time_ms.unwrap_or(-1))
            .with_log_start_offset(offset(produced.log_start)),
        Err(refused) => response
            .with_error_code(refused.reason.kafka())
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(log_start.map_or(-1, offset))
            .with_error_message(Some(StrBytes::from_string(refused.why))),
    }
}

fn offset(offset: Offset) -> i64 {
    i64::try_from(offset.get()).expect("offsets have 63 bits")
}

impl Plan {
    /// Refuses what was not refused yet; there are no tickets then.
    fn refuse_all(&mut self, reason: Reason, why: &str) -> Vec<Ticket> {
        for (_, step) in self.topics.iter_mut().flat_map(|(_, steps)| steps) {
            if step.is_ok() {
                *step = Err(Refused::new(reason, why));
            }
        }
        Vec::new()
    }
}

async fn plan(service: &Service, request: ProduceRequest) -> (Plan, Vec<(PartitionKey, Admitted)>) {
    let nothing_missing = |state: &State| {
        let all =
            request.topic_data.iter().flat_map(|topic| topic.partition_data.iter().map(move |part| (topic, part)));
        all.into_iter().all(|(topic, part)| find(state, &topic.name, part.index).is_ok())
    };
    let state = service.state_where(nothing_missing).await;
    let wrong_request = wrong_request(&request);
    let mut batches = Vec::new();
    let mut inflated_bytes = 0;
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut steps = Vec::with_capacity(topic.partition_data.len());
        for part in topic.partition_data {
            let index = part.index;
            let bytes = part.records.as_ref().map_or(0, Bytes::len);
            let step = match (&wrong_request, &state) {
                (Some((reason, why)), _) => Err(Refused::new(*reason, why)),
                (None, Err(error)) => Err(Refused::new(Reason::from(error), error)),
                (None, Ok(state)) => admit_partition(service, state, &topic.name, part, &mut inflated_bytes).await,
            };
            steps.push((
                index,
                step.map(|batch| {
                    let records = u64::from(batch.1.records());
                    batches.push(batch);
                    (records, bytes)
                }),
            ));
        }
        topics.push((topic.name, steps));
    }
    (Plan { topics }, batches)
}

/// What is wrong with the request as a whole; every partition of it is refused for that.
fn wrong_request(request: &ProduceRequest) -> Option<(Reason, &'static str)> {
    if !matches!(request.acks, -1..=1) {
        return Some((Reason::InvalidAcks, "acks must be 0, 1 or -1 (all)"));
    }
    request.transactional_id.is_some().then_some((Reason::Unsupported, "transactions are not supported yet"))
}

fn find(state: &State, topic: &str, index: i32) -> Result<(TopicId, PartitionKey), Reason> {
    let id = state.topic_id(topic).ok_or(Reason::TopicNotFound)?;
    let index = u32::try_from(index).map_err(|_| Reason::PartitionNotFound)?;
    let key = PartitionKey::new(id, PartitionIndex::new(index));
    state.partition(key).map(|_| (id, key)).ok_or(Reason::PartitionNotFound)
}

async fn admit_partition(
    service: &Service,
    state: &State,
    topic: &str,
    part: PartitionProduceData,
    inflated_bytes: &mut usize,
) -> Result<(PartitionKey, Admitted), Refused> {
    let (id, key) = find(state, topic, part.index).map_err(|reason| {
        Refused::new(reason, format_args!("there is no partition {} of topic {topic:?}", part.index))
    })?;
    let batch = one_batch(part.records)?;
    let settings = AdmissionSettings::of(&state.topic(id).expect("a topic with a partition is known").config);
    let limits = BatchLimits {
        message_bytes_max: settings.max_message_bytes,
        decompressed_bytes_max: service.rooms.inflated_bytes_max.saturating_sub(*inflated_bytes),
        timestamp_before_max_ms: settings.timestamp_before_max_ms,
        timestamp_after_max_ms: settings.timestamp_after_max_ms,
        now_ms: (service.rooms.seams.wall)(),
        log_append: settings.log_append_time,
        keys_required: settings.keys_required,
    };
    let compressed = is_compressed(&batch);
    let admitted = service.rooms.admit(batch, limits).await;
    let admitted = admitted.map_err(|error: AdmitError| {
        let is_of_record = matches!(error, AdmitError::KeyMissing { .. });
        Refused { is_of_record, ..Refused::new(Reason::from(&error), error) }
    })?;
    if compressed {
        *inflated_bytes += admitted.cost_bytes();
    }
    Ok((key, admitted))
}

/// Kafka demands exactly one batch per partition and request from version 3 on. A length that does not end within the bytes is
/// left to [`admit`].
fn one_batch(records: Option<Bytes>) -> Result<Bytes, Refused> {
    let records = records.unwrap_or_default();
    if records.is_empty() {
        return Err(Refused::new(
            Reason::InvalidRecord,
            "a request must have one record batch per partition, this has none",
        ));
    }
    let length = records.get(LENGTH_AT).map_or(-1, |bytes| i32::from_be_bytes(bytes.try_into().expect("four bytes")));
    let end = usize::try_from(length).map_or(records.len(), |length| COUNTED_FROM.saturating_add(length));
    if length > 0 && end < records.len() {
        let why = format!(
            "a request must have one record batch per partition, {} bytes follow the first",
            records.len() - end
        );
        return Err(Refused::new(Reason::InvalidRecord, why));
    }
    Ok(records)
}

fn has_compressed(request: &ProduceRequest) -> bool {
    let mut batches =
        request.topic_data.iter().flat_map(|topic| &topic.partition_data).filter_map(|part| part.records.as_ref());
    batches.any(|batch| is_compressed(batch))
}

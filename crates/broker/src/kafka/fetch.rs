//! Fetch: whole record batches from an offset on, as they are in the log.
//!
//! Sessions (KIP-227) are declined: every fetch names all its partitions, which costs bytes and keeps no state here.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest as KafkaFetch;
use kafka_protocol::messages::fetch_request::FetchPartition as KafkaPartition;
use lakebed_fetch::{FetchError, FetchPartition, FetchRequest, Fetched, FetchedBatch};
use lakebed_model::{Offset, PartitionIndex, PartitionKey, State, TopicId};
use lakebed_wire::kafka::{FetchResponse, FetchedPartition, FetchedTopic, fetch_response};

use super::response::{Reply, ReplyTo, Response};
use super::{Service, epoch_error};
use crate::reason::Reason;

/// No poll waits longer than this, whatever the client asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Pieces of batches below this are copied on their way out.
const COPIED_BELOW_BYTES: usize = 2048;
/// Topic ids instead of names from this version on.
const IDS_FROM: i16 = 13;

/// Reads, waiting for data as the client asks.
pub(super) async fn answer(service: Arc<Service>, reply_to: ReplyTo, request: KafkaFetch) -> Reply {
    let read_committed = request.isolation_level != 0;
    // SUBTLE: an epoch above 0 continues a session; we never gave one out, so the client must have it from another broker's life.
    if request.session_epoch > 0 {
        return send(reply_to, read_committed, ResponseError::FetchSessionIdNotFound.code(), Vec::new());
    }
    let by_id = reply_to.version >= IDS_FROM;
    let nothing_missing = |state: &State| {
        request.topics.iter().all(|topic| {
            let id = topic_id(state, by_id, &topic.topic, topic.topic_id);
            topic.partitions.iter().all(|part| id.is_some_and(|id| key(state, id, part.partition).is_some()))
        })
    };
    let state = match service.state_where(nothing_missing).await {
        Ok(state) => state,
        Err(error) => return refused(reply_to, &request, Reason::from(&error)),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut partitions = Vec::new();
    let mut refused = false;
    for topic in &request.topics {
        let id = topic_id(&state, by_id, &topic.topic, topic.topic_id);
        let mut answers = Vec::with_capacity(topic.partitions.len());
        for part in &topic.partitions {
            let planned = plan(&state, id, by_id, part);
            refused |= planned.is_err();
            answers.push((part.partition, planned.map(|partition| partitions.push(partition))));
        }
        let (name, id) = (topic.topic.to_string(), topic.topic_id.into_bytes());
        topics.push((FetchedTopic { name, id, partitions: Vec::new() }, answers));
    }
    let wait_max = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let bytes = |claimed: i32| usize::try_from(claimed).unwrap_or(0);
    let request = FetchRequest {
        partitions,
        bytes_max: bytes(request.max_bytes).min(service.response_bytes_max),
        // An error must reach the client now.
        bytes_min: if refused { 0 } else { bytes(request.min_bytes) },
        wait_max,
    };
    let results = read(&service, request).await;
    count(&service, &results);
    let mut results = results.into_iter();
    let topics = topics.into_iter().map(|(mut topic, answers)| {
        let answer = |(index, planned): (i32, Result<(), i16>)| match planned {
            Ok(()) => {
                fetched(index, by_id, results.next().expect("there is a result for every partition that was asked"))
            }
            Err(code) => failed(index, code),
        };
        topic.partitions = answers.into_iter().map(answer).collect();
        topic
    });
    let topics: Vec<FetchedTopic> = topics.collect();
    send(reply_to, read_committed, 0, topics)
}

async fn read(service: &Service, request: FetchRequest) -> Vec<Result<Fetched, FetchError>> {
    if request.partitions.is_empty() {
        return Vec::new();
    }
    let keys: Vec<PartitionKey> = request.partitions.iter().map(|partition| partition.key).collect();
    let results = service.rooms.fetch.fetch(request).await;
    for (key, result) in keys.iter().zip(&results) {
        if let Err(error) = result {
            service.rooms.damage.note(key, error);
        }
    }
    results
}

/// The same error for every partition: the log's end can't be seen, say.
fn refused(reply_to: ReplyTo, request: &KafkaFetch, reason: Reason) -> Reply {
    let topics = request.topics.iter().map(|topic| FetchedTopic {
        name: topic.topic.to_string(),
        id: topic.topic_id.into_bytes(),
        partitions: topic.partitions.iter().map(|part| failed(part.partition, reason.kafka())).collect(),
    });
    send(reply_to, request.isolation_level != 0, 0, topics.collect())
}

fn count(service: &Service, results: &[Result<Fetched, FetchError>]) {
    let batches = || results.iter().flatten().flat_map(|fetched| &fetched.batches);
    let records = batches().map(FetchedBatch::records).sum();
    let bytes = batches().map(FetchedBatch::size_bytes).sum();
    service.metrics.fetched(batches().count() as u64, records, bytes);
}

fn send(reply_to: ReplyTo, read_committed: bool, error_code: i16, topics: Vec<FetchedTopic>) -> Reply {
    let ReplyTo { correlation_id, .. } = reply_to;
    let response = FetchResponse { correlation_id, throttle_time_ms: 0, error_code, read_committed, topics };
    match fetch_response(reply_to.version, response) {
        Ok(parts) => Reply::Send(Response::of_parts(parts)),
        Err(error) => reply_to.unencodable(error),
    }
}

fn topic_id(state: &State, by_id: bool, name: &str, id: uuid::Uuid) -> Option<TopicId> {
    if by_id { Some(TopicId::new(id)).filter(|id| state.topic(*id).is_some()) } else { state.topic_id(name) }
}

fn key(state: &State, id: TopicId, index: i32) -> Option<PartitionKey> {
    let key = PartitionKey::new(id, PartitionIndex::new(u32::try_from(index).ok()?));
    state.partition(key).map(|_| key)
}

/// What is read for one partition, or the error that it is answered with.
fn plan(state: &State, id: Option<TopicId>, by_id: bool, part: &KafkaPartition) -> Result<FetchPartition, i16> {
    let missing = if by_id { Reason::TopicIdNotFound } else { Reason::TopicNotFound };
    let id = id.ok_or(missing.kafka())?;
    let key = key(state, id, part.partition).ok_or(Reason::PartitionNotFound.kafka())?;
    if let Some(error) = epoch_error(part.current_leader_epoch) {
        return Err(error.code());
    }
    let offset = u64::try_from(part.fetch_offset).map_err(|_| Reason::OffsetOutOfRange.kafka())?;
    let bytes_max = usize::try_from(part.partition_max_bytes).unwrap_or(0);
    Ok(FetchPartition { key, offset: Offset::new(offset), bytes_max })
}

fn fetched(index: i32, by_id: bool, result: Result<Fetched, FetchError>) -> FetchedPartition {
    match result {
        Ok(fetched) => FetchedPartition {
            index,
            error_code: 0,
            high_watermark: offset(fetched.high_watermark),
            last_stable_offset: offset(fetched.high_watermark),
            log_start_offset: offset(fetched.log_start),
            records: gathered(fetched.chunks()),
        },
        Err(FetchError::UnknownTopicOrPartition) if by_id => failed(index, Reason::TopicIdNotFound.kafka()),
        Err(error) => failed(index, Reason::from(&error).kafka()),
    }
}

fn failed(index: i32, error_code: i16) -> FetchedPartition {
    let (high_watermark, last_stable_offset, log_start_offset) = (-1, -1, -1);
    FetchedPartition { index, error_code, high_watermark, last_stable_offset, log_start_offset, records: Vec::new() }
}

/// The same bytes in fewer pieces: large ones as they are, neighbours that are small in one copy. To gather thousands of small
/// pieces costs the kernel more than to copy them.
fn gathered(chunks: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
    let (mut pieces, mut small) = (Vec::new(), BytesMut::new());
    for chunk in chunks {
        if chunk.len() < COPIED_BELOW_BYTES {
            small.extend_from_slice(&chunk);
            continue;
        }
        if !small.is_empty() {
            pieces.push(small.split().freeze());
        }
        pieces.push(chunk);
    }
    if !small.is_empty() {
        pieces.push(small.freeze());
    }
    pieces
}

fn offset(offset: Offset) -> i64 {
    i64::try_from(offset.get()).expect("offsets have 63 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_keeps_the_bytes_and_copies_only_small_pieces() {
        let large = Bytes::from(vec![9; COPIED_BELOW_BYTES]);
        let small = Bytes::from_static(b"small");
        let chunks = [small.clone(), small.clone(), large.clone(), small.clone(), large.clone(), large.clone(), small];
        let pieces = gathered(chunks.iter().cloned());
        assert_eq!(pieces.concat(), chunks.concat());
        assert_eq!(pieces.len(), 6);
        assert_eq!(pieces.iter().filter(|piece| piece.as_ptr() == large.as_ptr()).count(), 3);
    }
}

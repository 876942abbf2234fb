//! `ProduceService`.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use lakebed_ingest::{Admitted, BatchLimits, admit};
use lakebed_model::{PartitionIndex, PartitionKey};
use lakebed_wire::v1;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use super::records;
use super::status::{invalid, status};
use crate::reason::Reason;
use crate::services::produce_service_server::ProduceService;
use crate::topics::settings::AdmissionSettings;
use crate::topics::{FoundTopic, TopicReference};

/// Most bytes that a compressed batch may need decompressed, as a multiple of what its topic allows compressed.
const INFLATION_MAX: usize = 16;

#[tonic::async_trait]
impl ProduceService for Services {
    type ProduceStreamStream = Pin<Box<dyn Stream<Item = Result<v1::ProduceStreamResponse, Status>> + Send>>;

    async fn produce_stream(
        &self,
        _request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        Err(status(Reason::Unsupported, "ProduceStream is not there yet", []))
    }

    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        let request = request.into_inner();
        let topic = self.find_topic(&request.topic).await?;
        let now_ms = (self.rooms.seams.wall)();
        let (batch, chosen) = match request.payload {
            None => return Err(invalid("a request has records or a kafka_batch")),
            Some(v1::produce_request::Payload::KafkaBatch(batch)) => (batch, None),
            Some(v1::produce_request::Payload::Records(records)) => {
                let batch = records::encode(&records.records, now_ms)?;
                let key = records.records.first().and_then(|record| record.key.as_deref());
                (batch, Some(self.choose_partition(&topic, key)))
            }
        };
        let partition = match (request.partition, chosen) {
            (Some(partition), _) => check_partition(&topic, partition)?,
            (None, Some(chosen)) => chosen,
            (None, None) => return Err(invalid("a kafka_batch needs a partition")),
        };
        let admitted = self.admit(&topic, batch, now_ms).await?;
        let rows = i64::from(admitted.records());
        let bytes = admitted.size_bytes();
        let key = PartitionKey::new(topic.id, PartitionIndex::new(partition));
        let ticket = self.rooms.ingest.produce(vec![(key, admitted)]).await.into_iter().next();
        let ticket = ticket.ok_or_else(|| status(Reason::Internal, "a batch got no ticket", []))?;
        let produced = ticket.await.map_err(|error| status(Reason::from(&error), &error, []))?;
        self.rooms.metrics.produced(bytes);
        let base_offset = wire_offset(produced.base_offset);
        Ok(Response::new(v1::ProduceResponse {
            partition: wire_partition(partition),
            base_offset,
            last_offset: base_offset + rows - 1,
            log_append_time: produced.log_append_time_ms,
            duplicate: produced.duplicate,
        }))
    }
}

impl Services {
    /// The topic of a name.
    pub(super) async fn find_topic(&self, name: &str) -> Result<FoundTopic, Status> {
        let found = self.rooms.topics.find(&TopicReference::Name(name.to_owned())).await;
        found.map_err(|error| status(Reason::from(&error), &error, [("topic", name.to_owned())]))
    }

    async fn admit(&self, topic: &FoundTopic, batch: Bytes, now_ms: i64) -> Result<Admitted, Status> {
        let settings = AdmissionSettings::of(&topic.config);
        let limits = BatchLimits {
            message_bytes_max: settings.max_message_bytes,
            decompressed_bytes_max: settings.max_message_bytes.saturating_mul(INFLATION_MAX),
            timestamp_before_max_ms: settings.timestamp_before_max_ms,
            timestamp_after_max_ms: settings.timestamp_after_max_ms,
            now_ms,
            log_append: settings.log_append_time,
        };
        let admitted = self.rooms.seams.offload.run(move || admit(batch, &limits)).await;
        admitted.map_err(|error| status(Reason::from(&error), &error, [("topic", topic.name.to_string())]))
    }

    /// The partition of a key as Kafka's clients choose it; without a key, they take turns.
    fn choose_partition(&self, topic: &FoundTopic, key: Option<&[u8]>) -> u32 {
        match key {
            Some(key) => lakebed_wire::kafka::partition_for_key(key, topic.partitions),
            None => self.rooms.next_turn() % topic.partitions.max(1),
        }
    }
}

/// A partition that the topic has.
pub(super) fn check_partition(topic: &FoundTopic, partition: i32) -> Result<u32, Status> {
    let exists = u32::try_from(partition).ok().filter(|partition| *partition < topic.partitions);
    exists.ok_or_else(|| {
        let message = format!("topic {} has no partition {partition}; it has {}", topic.name, topic.partitions);
        status(
            Reason::PartitionNotFound,
            message,
            [("topic", topic.name.to_string()), ("partition", partition.to_string())],
        )
    })
}

/// An offset as the API writes it.
pub(super) fn wire_offset(offset: lakebed_model::Offset) -> i64 {
    i64::try_from(offset.get()).expect("offsets have 63 bits")
}

/// A partition as the API writes it.
pub(super) fn wire_partition(partition: u32) -> i32 {
    i32::try_from(partition).expect("topics have at most 100,000 partitions")
}

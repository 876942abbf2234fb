//! `ProduceService`.

use std::pin::Pin;

use futures::Stream;
use lakebed_wire::received::{ProduceRequest, ProduceStreamRequest};
use lakebed_wire::v1;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use super::batch::{Asked, Target, not_produced};
use super::produce_stream;
use super::status::status;
use crate::http::ending::Ending;
use crate::http::messages::Settled;
use crate::reason::Reason;
use crate::services::produce_service_server::ProduceService;

#[tonic::async_trait]
impl ProduceService for Services {
    type ProduceStreamStream = Pin<Box<dyn Stream<Item = Result<v1::ProduceStreamResponse, Status>> + Send>>;

    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        let begun = Instant::now();
        let ProduceRequest { topic, partition, payload, expected_next_offset } = request.into_inner();
        let mut target = Target::new(self.topic_to_produce(&topic).await?);
        let asked = Asked { partition, payload, expected_next_offset };
        let inflating = if asked.is_compressed() { Some(self.rooms.inflating().await) } else { None };
        let prepared = self.prepare(&mut target, asked, &mut 0).await.inspect_err(|status| self.refused(status))?;
        let (key, records, bytes) = (prepared.key, prepared.admitted.records(), prepared.admitted.size_bytes());
        let ticket = self.rooms.ingest.produce(vec![(key, prepared.admitted)]).await.into_iter().next();
        // From here on the ingest buffer accounts for the bytes.
        drop(inflating);
        let ticket = ticket.ok_or_else(|| status(Reason::Internal, "a batch got no ticket", []))?;
        let produced = ticket.await.map_err(|error| not_produced(&error));
        self.rooms.metrics.produce_answered(begun.elapsed());
        let produced = produced.inspect_err(|status| self.refused(status))?;
        self.rooms.metrics.grpc_produced(u64::from(records), bytes);
        let base_offset = wire_offset(produced.base_offset);
        Ok(Response::new(v1::ProduceResponse {
            partition: wire_partition(key.partition.get()),
            base_offset,
            last_offset: base_offset + i64::from(records) - 1,
            log_append_time: produced.log_append_time_ms,
            duplicate: produced.duplicate,
        }))
    }

    async fn produce_stream(
        &self,
        request: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let (ending, settled) = (Ending::of(request.extensions()), Settled::of(request.extensions()));
        Ok(Response::new(produce_stream::open(self.clone(), request.into_inner(), ending, settled)))
    }
}

/// An offset as the API writes it.
pub(super) fn wire_offset(offset: lakebed_model::Offset) -> i64 {
    i64::try_from(offset.get()).expect("offsets have 63 bits")
}

/// A partition as the API writes it.
pub(super) fn wire_partition(partition: u32) -> i32 {
    i32::try_from(partition).expect("topics have at most 100,000 partitions")
}

//! Kafka's protocol: listener, framing, handlers. Kafka's wire words stop here.
//!
//! The way of a request: `frame` (bounded, accounted) -> `request` (guarded, decoded) -> its handler -> `response`, in order, by
//! `connection`. Which requests there are is the table of `wire`; what a refusal is called is the table of [`crate::reason`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use lakebed_log::BarrierError;
use lakebed_model::State;
use lakebed_store::BufferPool;

use crate::metrics::Metrics;
use crate::rooms::Rooms;

mod admin;
mod api_versions;
mod connection;
mod fetch;
mod find_coordinator;
mod frame;
mod groups;
mod in_flight;
mod init_producer_id;
mod leader_epoch;
mod list_offsets;
pub(crate) mod listener;
mod metadata;
mod produce;
mod request;
mod response;
mod topic_admin;

use crate::request_memory::RequestBudgets;
use connection::Started;
use frame::FrameLimits;
use request::{Body, Request};
use response::{Reply, ReplyTo};

/// The id by which clients know this broker. Not 0, which some tools take for "none".
pub(crate) const NODE_ID: i32 = 1;
/// Partitions have one leader epoch for the whole life of a topic id: there is nothing that a change of leader could truncate.
const LEADER_EPOCH: i32 = 0;
/// A frame that has begun must go on within this time.
const STALL_MAX: Duration = Duration::from_secs(30);
/// One connection may have this part of the ingest buffer in flight, so that others always find room.
const CONNECTION_SHARE: usize = 2;
/// Largest request other than Produce: a fetch of 100,000 partitions. Decoding inflates these.
const OTHER_REQUEST_BYTES_MAX: usize = 4 << 20;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// Ours, as the client reached it.
    pub(crate) reached_at: SocketAddr,
    /// The client's.
    pub(crate) peer: SocketAddr,
}

/// What all connections share.
pub(crate) struct Service {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) buffers: BufferPool,
    pub(crate) request_budgets: RequestBudgets,
    pub(crate) frame_limits: FrameLimits,
    /// Host and port that clients are told; `None` is where each reached us.
    advertise: Option<(String, u16)>,
    /// Most bytes of requests that one connection has in flight.
    connection_bytes_max: usize,
    /// Most bytes of one fetch.
    response_bytes_max: usize,
}

impl Service {
    /// A service over the rooms of a broker.
    pub(crate) fn new(rooms: Arc<Rooms>, request_budgets: RequestBudgets) -> Self {
        let config = &rooms.config;
        let budget = config.budget();
        Self {
            metrics: Arc::clone(&rooms.metrics),
            buffers: BufferPool::new(budget.free_buffers_bytes),
            request_budgets,
            frame_limits: FrameLimits {
                produce_bytes_max: config.request_bytes_max,
                other_bytes_max: OTHER_REQUEST_BYTES_MAX.min(config.request_bytes_max),
                idle_max: config.connection_idle_max,
                stall_max: STALL_MAX,
            },
            advertise: config.advertised(),
            connection_bytes_max: budget.ingest_bytes / CONNECTION_SHARE,
            response_bytes_max: budget.response_bytes_max,
            rooms,
        }
    }

    /// Starts a request. What changes something is in its place in the order when this returns.
    async fn start(self: &Arc<Self>, request: Request, ends: Ends) -> Started {
        let (reply_to, reached_at) = (request.reply_to, ends.reached_at);
        match request.body {
            Body::Produce(body) => produce::start(self, reply_to, body).await,
            Body::Fetch(body) => fetch::answer(Arc::clone(self), reply_to, body).boxed(),
            Body::ListOffsets(body) => list_offsets::answer(Arc::clone(self), reply_to, body).boxed(),
            Body::OffsetForLeaderEpoch(body) => leader_epoch::answer(Arc::clone(self), reply_to, body).boxed(),
            Body::Metadata(body) => ready(metadata::answer(self, reply_to, body, reached_at).await),
            Body::CreateTopics(body) => ready(topic_admin::create(self, reply_to, body).await),
            Body::DeleteTopics(body) => ready(topic_admin::delete(self, reply_to, body).await),
            Body::InitProducerId(body) => ready(init_producer_id::answer(self, reply_to, body).await),
            Body::FindCoordinator(body) => ready(find_coordinator::answer(self, reply_to, &body, reached_at)),
            Body::Admin(body) => ready(admin::answer(self, reply_to, body, reached_at).await),
            Body::Group(body) => {
                let host = format!("/{}", ends.peer.ip().to_canonical());
                let sender = groups::Sender { client_id: request.client_id, host };
                groups::start(self, reply_to, *body, sender).await
            }
            Body::ApiVersions(body) => ready(api_versions::answer(reply_to, &body)),
        }
    }

    /// Host and port that a client is told, which reached us at that address.
    fn reached_by_clients(&self, reached_at: SocketAddr) -> (String, u16) {
        self.advertise.clone().unwrap_or_else(|| (reached_at.ip().to_canonical().to_string(), reached_at.port()))
    }

    /// Starts `ApiVersions` of a version that we don't know.
    fn api_versions_too_new(&self, reply_to: ReplyTo) -> Started {
        ready(api_versions::answer_too_new(reply_to))
    }

    /// The durable state; behind a barrier if something that is asked for is missing in it.
    async fn state_where(&self, nothing_missing: impl Fn(&State) -> bool) -> Result<State, BarrierError> {
        let state = self.rooms.log.state();
        if nothing_missing(&state) { Ok(state) } else { self.rooms.log.barrier().await }
    }
}

fn ready(reply: Reply) -> Started {
    std::future::ready(reply).boxed()
}

/// Whether the client's idea of the leader epoch is not ours: the error to answer.
fn epoch_error(claimed: i32) -> Option<kafka_protocol::ResponseError> {
    // A lower one can't be: -1 means that the client has none.
    (claimed > LEADER_EPOCH).then_some(kafka_protocol::ResponseError::UnknownLeaderEpoch)
}

//! Kafka's protocol: listener, framing, handlers. Kafka's wire words stop here.
//!
//! The way of a request: `frame` (bounded, accounted) -> `request` (guarded, decoded) -> its handler -> `response`, in order, by
//! `connection`. Which requests there are is the table of `wire`; what a refusal is called is the table of [`crate::reason`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use kafka_protocol::messages::MetadataRequest;
use lakebed_log::BarrierError;
use lakebed_model::{Node, NodeId, State};
use lakebed_store::BufferPool;

use crate::cluster::{self, NotPassed, leads};
use crate::config::split_address;
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
use request::{Body, Parsed, Request};
use response::{Reply, ReplyTo, Response};

/// The id by which clients know a broker that has its store for itself. Not 0, which some tools take for "none".
pub(crate) const NODE_ID: i32 = 1;
/// Kafka's word for no broker.
const NO_NODE: i32 = -1;
/// How long a client waits for a sequencer to be known that has only just taken over.
const LEADER_KNOWN_MAX: Duration = Duration::from_secs(1);
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

/// Who serves the cluster.
struct Brokers {
    /// Each with its host and port.
    all: Vec<(i32, (String, u16))>,
    /// Who leads all partitions and coordinates all groups; [`NO_NODE`] if that is not known just now.
    leader: i32,
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
    async fn start(self: &Arc<Self>, request: Request, frame: &Bytes, ends: Ends) -> Started {
        let (reply_to, reached_at) = (request.reply_to, ends.reached_at);
        if let Some(answer) = self.passed_on(&request, frame).await {
            return ready(answer);
        }
        match request.body {
            Body::Produce(body) => produce::start(self, reply_to, body).await,
            Body::Fetch(body) => fetch::answer(Arc::clone(self), reply_to, body).boxed(),
            Body::ListOffsets(body) => list_offsets::answer(Arc::clone(self), reply_to, body).boxed(),
            Body::OffsetForLeaderEpoch(body) => leader_epoch::answer(Arc::clone(self), reply_to, body).boxed(),
            Body::Metadata(body) => ready(metadata::answer(self, reply_to, body, reached_at).await),
            Body::CreateTopics(body) => ready(topic_admin::create(self, reply_to, body).await),
            Body::DeleteTopics(body) => ready(topic_admin::delete(self, reply_to, body).await),
            Body::InitProducerId(body) => ready(init_producer_id::answer(self, reply_to, body).await),
            Body::FindCoordinator(body) => ready(find_coordinator::answer(self, reply_to, &body, reached_at).await),
            Body::Admin(body) => ready(admin::answer(self, reply_to, body, reached_at).await),
            Body::Group(body) => {
                let host = format!("/{}", ends.peer.ip().to_canonical());
                let sender = groups::Sender { client_id: request.client_id, host };
                groups::start(self, reply_to, *body, sender).await
            }
            Body::ApiVersions(body) => ready(api_versions::answer(reply_to, &body)),
        }
    }

    /// What the sequencer answers to what only it can answer; `None` where that is this broker, or if it certainly did not get the request: then
    /// the answer of this one says so.
    async fn passed_on(&self, request: &Request, frame: &Bytes) -> Option<Reply> {
        let (log, cluster) = (&self.rooms.log, self.rooms.cluster.as_ref()?);
        if leads(log) || !request.is_for_sequencer(|metadata| self.may_create(metadata)) {
            return None;
        }
        let api = request.reply_to.api.name;
        let state = log.state();
        let passed = tokio::select! {
            biased;
            passed = cluster.pass_on(&state, frame.clone()) => passed,
            // One that hangs would be waited for, and so would all that follows on the connection.
            () = cluster::succeeded(log, &state) => {
                Err(NotPassed { why: "another broker has taken over".to_owned(), may_be_done: true })
            }
        };
        match passed {
            Ok(answer) => {
                // What it has changed is seen by what comes next on the connection.
                if request.changes() {
                    drop(log.barrier().await);
                }
                Some(Reply::Send(Response::of_parts(vec![answer])))
            }
            Err(NotPassed { why, may_be_done }) => {
                tracing::debug!(api, why, may_be_done, "a request could not be passed on to the sequencer");
                // What could be said of a group without the sequencer might be wrong.
                let is_closed = may_be_done || matches!(request.body, Body::Group(_));
                is_closed.then(|| Reply::Close { why: format!("{api} could not be passed on to the sequencer: {why}") })
            }
        }
    }

    /// Whether Metadata asks for topics that are not there, and are to be made.
    fn may_create(&self, request: &MetadataRequest) -> bool {
        let state = self.rooms.log.state();
        let is_missing = |name: &str| state.topic_id(name).is_none();
        let mut named = request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
        self.rooms.config.auto_create_topics && request.allow_auto_topic_creation && named.any(|name| is_missing(name))
    }

    /// Answers a request that another broker has passed on.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) async fn answer_passed(self: &Arc<Self>, frame: &Bytes) -> Result<Bytes, String> {
        let Parsed::Request(request) = request::parse(frame).map_err(|error| error.to_string())? else {
            return Err("it is of a version that is not known here".to_owned());
        };
        if request.is_produce() {
            return Err("producers are not passed on".to_owned());
        }
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let answer = self.start(*request, frame, Ends { reached_at: nowhere, peer: nowhere }).await;
        match answer.await {
            Reply::Send(response) => Ok(response.into_bytes()),
            Reply::Nothing => Err("it has no answer".to_owned()),
            Reply::Close { why } => Err(why),
        }
    }

    /// The number by which clients know this broker.
    fn node_id(&self) -> i32 {
        let member = self.rooms.cluster.as_ref().map(|cluster| cluster.me.nonce);
        member.map_or(NODE_ID, |nonce| self.rooms.log.state().node_of(nonce).map_or(NO_NODE, NodeId::get))
    }

    /// Who serves the cluster, as clients are told. Waits a moment for a sequencer that is new to be known.
    async fn brokers(&self, reached_at: SocketAddr) -> Brokers {
        let reached = self.reached_by_clients(reached_at);
        let Some(cluster) = &self.rooms.cluster else {
            return Brokers { all: vec![(NODE_ID, reached)], leader: NODE_ID };
        };
        // One that has reached another broker is told what that one would tell it.
        let is_passed = reached_at.port() == 0;
        let log = &self.rooms.log;
        let mut commits = log.watch();
        let known = async {
            while cluster::leader(&log.state()).is_none() {
                tokio::select! {
                    biased;
                    _ = log.closed() => return,
                    changed = commits.changed() => if changed.is_err() { return },
                }
            }
        };
        drop(tokio::time::timeout(LEADER_KNOWN_MAX, known).await);
        let state = log.state();
        let address = |node: Node| match node.member.nonce == cluster.me.nonce && !is_passed {
            true => (node.id.get(), reached.clone()),
            false => (node.id.get(), split_address(&node.member.kafka).unwrap_or_default()),
        };
        // One that can't commit is soon none: the others know better.
        let is_stuck = cluster::is_stuck(log) && state.nodes().count() > 1;
        let leader = cluster::leader(&state).filter(|_| !is_stuck).map_or(NO_NODE, |node| node.id.get());
        Brokers { all: state.nodes().map(address).collect(), leader }
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

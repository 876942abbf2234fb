//! What other brokers ask of this one.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use lakebed_log::{Fed, Feed, Log};
use lakebed_model::{Change, CommitNumber, Member, Nonce};
use lakebed_wire::cluster::{
    self as wire, Alive, FollowRequest, FollowResponse, LeaveRequest, LeaveResponse, PassRequest, PassResponse,
    TakeOver, follow_response::Told,
};
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Response, Status};

use super::{Cluster, FollowerStream, is_stuck, leads};
use crate::kafka::Service;
use crate::rooms::Rooms;
use crate::services::cluster::cluster_service_server::ClusterService;

/// How often a sequencer says that it is there.
const ALIVE_EVERY: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Clone)]
pub(crate) struct ForBrokers {
    rooms: Arc<Rooms>,
    cluster: Arc<Cluster>,
    kafka: Arc<Service>,
}

/// What one follower is told.
struct Telling {
    log: Log,
    feed: Feed,
    follower: FollowerStream,
    next_alive: Instant,
}

impl std::fmt::Debug for ForBrokers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForBrokers").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl ForBrokers {
    pub(crate) fn new(cluster: Arc<Cluster>, kafka: Arc<Service>) -> Self {
        Self { rooms: Arc::clone(&kafka.rooms), cluster, kafka }
    }

    fn log_led(&self) -> Result<&Log, Status> {
        let log = &self.rooms.log;
        if leads(log) && log.is_closed().is_none() {
            Ok(log)
        } else {
            Err(Status::failed_precondition("this broker is not the sequencer"))
        }
    }
}

#[tonic::async_trait]
impl ClusterService for ForBrokers {
    type FollowStream = BoxStream<'static, Result<FollowResponse, Status>>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let request = request.into_inner();
        let log = self.log_led()?;
        let identity = log.identity();
        if request.cluster_id != identity.cluster_id.to_string() || request.cell != u32::from(identity.cell.get()) {
            return Err(Status::invalid_argument(format!(
                "this broker serves cell {} of cluster {}: see that all brokers have the same store",
                identity.cell, identity.cluster_id
            )));
        }
        if request.sequencer != log.nonce().get() {
            return Err(Status::failed_precondition("this broker is another sequencer than the one that is named"));
        }
        let member = member(request.member.unwrap_or_default());
        let telling = Telling {
            log: log.clone(),
            feed: log.feed(CommitNumber::new(request.from)),
            follower: self.cluster.follower(member),
            next_alive: Instant::now(),
        };
        let told = stream::unfold(telling, async |mut telling| {
            let told = telling.next().await?;
            Some((Ok(FollowResponse { told: Some(told) }), telling))
        });
        Ok(Response::new(told.boxed()))
    }

    async fn pass(&self, request: Request<PassRequest>) -> Result<Response<PassResponse>, Status> {
        let PassRequest { sequencer, frame } = request.into_inner();
        let log = self.log_led()?;
        if sequencer != log.nonce().get() {
            return Err(Status::failed_precondition("this broker is another sequencer than the one that is named"));
        }
        let answer = self.kafka.answer_passed(&frame).await.map_err(Status::invalid_argument)?;
        Ok(Response::new(PassResponse { answer }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        let member = Nonce::new(request.into_inner().nonce);
        let log = self.log_led()?;
        if log.state().member(member).is_some()
            && let Err(error) = log.change(Change::Leave { member }).await
        {
            return Err(Status::unavailable(error.to_string()));
        }
        Ok(Response::new(LeaveResponse {}))
    }
}

impl Telling {
    /// Waits for what is to be told next; `None` at the end.
    async fn next(&mut self) -> Option<Told> {
        loop {
            tokio::select! {
                biased;
                () = self.follower.take_over.notified() => return Some(Told::TakeOver(TakeOver {})),
                fed = self.feed.next() => return Some(match fed? {
                    Fed::Commit(bytes) => Told::Commit(bytes),
                    Fed::Number(number) => Told::Number(number.get()),
                }),
                () = sleep_until(self.next_alive) => {
                    self.next_alive = Instant::now() + ALIVE_EVERY;
                    if !is_stuck(&self.log) {
                        return Some(Told::Alive(Alive {}));
                    }
                }
            }
        }
    }
}

fn member(member: wire::Member) -> Member {
    let wire::Member { nonce, kafka_address, http_address, zone, version } = member;
    Member { nonce: Nonce::new(nonce), kafka: kafka_address, http: http_address, zone, version }
}

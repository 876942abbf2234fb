//! The brokers of a cluster: who this one is to the others, who follows it, and where the sequencer can be reached.
//!
//! Brokers coordinate through the bucket alone. What they tell each other saves requests and time: commits are pushed to those who follow, and
//! calls that only the sequencer can answer are passed on to it.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lakebed_log::{Log, Role};
use lakebed_model::{Change, Member, Node, Nonce, State};
use lakebed_wire::cluster::PassRequest;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::{Code, ConnectError};

use crate::services::cluster::cluster_service_client::ClusterServiceClient;

pub(crate) mod address;
pub(crate) mod calls;
pub(crate) mod peers;
pub(crate) mod service;

/// A member that has not been heard of for so long is no member any more: clients are not sent to it.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How long the sequencer may take to answer what is passed on to it, and the longest answer.
const PASSED_MAX: Duration = Duration::from_secs(25);
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A sequencer whose commit is under way for longer does not say that it is one: another broker may do better.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// How often members are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A request that has no answer of the sequencer.
#[derive(Debug)]
pub(crate) struct NotPassed {
    /// Why.
    pub(crate) why: String,
    /// Whether it may have been carried out.
    pub(crate) may_be_done: bool,
}

/// A broker among others, for as long as its process lives.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// This broker as it describes itself.
    pub(crate) me: Member,
    followers: Mutex<Followers>,
    /// Somebody has begun to follow.
    came: Notify,
    pub(crate) channels: calls::Channels,
}

/// Who follows this broker.
#[derive(Debug, Default)]
struct Followers {
    streams: BTreeMap<u64, (Member, Arc<Notify>)>,
    begun: u64,
    /// When each that follows no more was heard of last.
    last_seen: BTreeMap<Nonce, Instant>,
}

/// A stream to a follower, for as long as it lives.
#[derive(Debug)]
pub(crate) struct FollowerStream {
    cluster: Arc<Cluster>,
    number: u64,
    /// Woken when this follower is to take over.
    pub(crate) take_over: Arc<Notify>,
}

impl Cluster {
    pub(crate) fn new(me: Member) -> Self {
        Self { me, followers: Mutex::default(), came: Notify::new(), channels: calls::Channels::default() }
    }

    /// A broker begins to follow.
    pub(crate) fn follower(self: &Arc<Self>, member: Member) -> FollowerStream {
        let take_over = Arc::new(Notify::new());
        let mut followers = self.followers();
        followers.begun += 1;
        let number = followers.begun;
        followers.streams.insert(number, (member, Arc::clone(&take_over)));
        drop(followers);
        self.came.notify_one();
        FollowerStream { cluster: Arc::clone(self), number, take_over }
    }

    /// Tells one of those who follow to take over, counted from the one that has followed for longest; `false` if there are not so many.
    pub(crate) fn hand_over(&self, index: usize) -> bool {
        let followers = self.followers();
        let Some((_, take_over)) = followers.streams.values().nth(index) else { return false };
        take_over.notify_one();
        true
    }

    /// Has the sequencer answer a Kafka request; its answer, with its length.
    ///
    /// # Errors
    /// [`NotPassed`]
    pub(crate) async fn pass_on(&self, state: &State, frame: Bytes) -> Result<Bytes, NotPassed> {
        let not_begun = |why: String| NotPassed { why, may_be_done: false };
        let sequencer = state.owner().ok_or_else(|| not_begun("there is none".to_owned()))?;
        let channel = self.channels.to(state.owner_address()).map_err(|error| not_begun(error.to_string()))?;
        let mut client = ClusterServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let passing = client.pass(PassRequest { sequencer: sequencer.get(), frame });
        match tokio::time::timeout(PASSED_MAX, passing).await {
            Ok(Ok(passed)) => Ok(passed.into_inner().answer),
            Ok(Err(status)) => {
                let is_certain = status.code() == Code::FailedPrecondition
                    || peers::causes(&status).any(<dyn Error>::is::<ConnectError>);
                Err(NotPassed { why: status.message().to_owned(), may_be_done: !is_certain })
            }
            Err(_) => Err(NotPassed { why: "it does not answer".to_owned(), may_be_done: true }),
        }
    }

    /// Keeps the members of the cluster while this broker is the sequencer: itself is one, and those that are gone are none. Ends with the log.
    pub(crate) async fn keep_members(self: Arc<Self>, log: Log) {
        let began = Instant::now();
        while log.is_closed().is_none() {
            let state = log.state();
            let following: Vec<Member> = self.followers().streams.values().map(|(member, _)| member.clone()).collect();
            for member in following.into_iter().chain([self.me.clone()]) {
                if state.member(member.nonce) != Some(&member) {
                    self.join(&log, member).await;
                }
            }
            for nonce in self.gone(&state, began) {
                tracing::info!(broker = %nonce, "a broker has not been heard of, and is no member any more");
                if let Err(error) = log.change(Change::Leave { member: nonce }).await {
                    tracing::debug!(%error, "a member stays for now");
                }
            }
            tokio::select! {
                biased;
                _ = log.closed() => return,
                () = self.came.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Takes a broker in.
    async fn join(&self, log: &Log, member: Member) {
        if let Err(error) = log.change(Change::Join(member)).await {
            tracing::warn!(%error, "a broker is no member yet: clients are not sent to it");
        }
    }

    /// The members that have not been heard of for [`GONE_AFTER`].
    fn gone(&self, state: &State, began: Instant) -> Vec<Nonce> {
        let mut followers = self.followers();
        let following: Vec<Nonce> = followers.streams.values().map(|(member, _)| member.nonce).collect();
        let members: Vec<Nonce> = state.nodes().map(|node| node.member.nonce).collect();
        followers.last_seen.retain(|nonce, _| members.contains(nonce));
        let seen = |nonce: &Nonce| followers.last_seen.get(nonce).copied().unwrap_or(began).max(began);
        let is_gone = |nonce: &Nonce| !following.contains(nonce) && seen(nonce).elapsed() > GONE_AFTER;
        members.into_iter().filter(|nonce| *nonce != self.me.nonce && is_gone(nonce)).collect()
    }

    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FollowerStream {
    fn drop(&mut self) {
        let mut followers = self.cluster.followers();
        if let Some((member, _)) = followers.streams.remove(&self.number) {
            followers.last_seen.insert(member.nonce, Instant::now());
        }
    }
}

/// The node that is the sequencer, if it is a member already.
pub(crate) fn leader(state: &State) -> Option<Node> {
    let address = state.owner_address();
    state.nodes().find(|node| node.member.http == address)
}

/// Waits until another broker than in `state` is the sequencer, or the log is closed.
///
/// # Cancel Nothing is lost.
pub(crate) async fn succeeded(log: &Log, state: &State) {
    let mut commits = log.watch();
    while log.state().owner() == state.owner() {
        tokio::select! {
            biased;
            _ = log.closed() => return,
            changed = commits.changed() => if changed.is_err() { return },
        }
    }
}

/// Whether this broker, which leads, does not get its commits into the bucket.
pub(crate) fn is_stuck(log: &Log) -> bool {
    log.counts().oldest_in_flight().is_some_and(|age| age > STUCK_AFTER)
}

/// Whether a log is served by this process, and not only followed.
pub(crate) fn leads(log: &Log) -> bool {
    log.role() == Role::Sequencer
}

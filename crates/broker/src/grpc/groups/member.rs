//! The task of one Join stream: what the member says becomes beats of the group, and what the group decides becomes assignments.
//!
//! 1. One assignment at a time is with the client; what changes meanwhile is told after its acknowledgement, all at once.
//! 2. A partition that the client gives up counts as held until it says that it let go of it.
//! 3. Commits are taken, and answered, in the order in which they came; what is committed before an acknowledgement stands in the log
//!    before anything that the next holder commits.
//! 4. Only the client's own words keep its session alive: what this task asks of itself does not.
//! 5. What waits for a client that does not read is bounded: it is not listened to any more, until its session ends.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, Stream, StreamExt};
use lakebed_model::{Generation, GroupKind, PartitionKey, TopicId};
use lakebed_wire::v1;
use lakebed_wire::v1::join_request::Request;
use lakebed_wire::v1::join_response::Response;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::join::{Connection, Terms, WAITING_MAX, millis, refused};
use super::streams::{Place, Successor, Voice};
use super::{group_status, key};
use crate::groups::assigned::Nudged;
use crate::groups::member::{GroupError, MemberRef};
use crate::groups::reconcile::member::{Beat, Beaten, Departure};
use crate::grpc::Services;
use crate::grpc::produce::wire_partition;
use crate::grpc::status::{as_message, invalid, named, status};
use crate::reason::Reason;

/// Commits of a member that are on their way into the log.
const COMMITS_MAX: usize = 16;
/// What may be sent besides the answers to commits before the client is heard again: an assignment, a heartbeat, the end.
const SPARE: usize = 4;

type Partitions = BTreeSet<PartitionKey>;
type Beating = Pin<Box<dyn Future<Output = Result<Beaten, GroupError>> + Send>>;
type Committed = BoxFuture<'static, v1::JoinCommitResult>;

/// What a client is told.
#[derive(Debug)]
pub(super) enum Said {
    Message(v1::JoinResponse),
    /// The stream ends: with OK, or with a status.
    End(Option<Box<Status>>),
}

/// An assignment that is with the client.
struct Told {
    assignment_id: i64,
    /// What the member has when it has acknowledged.
    after: Partitions,
}

/// Who the member is, and how it hears of what is new.
pub(super) struct Identity {
    pub(super) member_id: String,
    /// It goes on where a stream before broke.
    pub(super) resumed: bool,
    pub(super) voice: Voice,
    pub(super) nudged: Nudged,
}

pub(super) struct Member {
    services: Services,
    said: Terms,
    member_id: String,
    resumed: bool,
    voice: Voice,
    nudged: Nudged,
    epoch: Generation,
    /// What the client may read, and what it has not said yet that it let go of.
    held: Partitions,
    told: Option<Told>,
    /// What the group wants the member to have, if the client was not told yet.
    wanted: Option<Partitions>,
    last_assignment: i64,
    /// Of topics that may be gone when the client is told of them.
    names: BTreeMap<TopicId, String>,
    last_heard: Instant,
    last_sent: Instant,
    /// The client was heard of, or let go of something, since the group was.
    owes_beat: Option<Option<Partitions>>,
    beating: Option<Beating>,
    /// A commit that is on its way into the queue: nothing else is heard meanwhile.
    entering: Option<BoxFuture<'static, Committed>>,
    commits: FuturesOrdered<Committed>,
}

impl Member {
    pub(super) fn new(services: Services, said: Terms, identity: Identity) -> Self {
        let Identity { member_id, resumed, voice, nudged } = identity;
        Self {
            services,
            said,
            member_id,
            resumed,
            voice,
            nudged,
            epoch: Generation::ZERO,
            held: Partitions::new(),
            told: None,
            wanted: None,
            last_assignment: 0,
            names: BTreeMap::new(),
            last_heard: Instant::now(),
            last_sent: Instant::now(),
            owes_beat: None,
            beating: None,
            entering: None,
            commits: FuturesOrdered::new(),
        }
    }

    /// Serves until either side ends the stream.
    pub(super) async fn run(
        mut self,
        (_place, connection): (Place, Connection),
        joined: Beaten,
        requests: impl Stream<Item = Result<v1::JoinRequest, Status>> + Unpin,
        sender: mpsc::Sender<Said>,
    ) {
        let started = v1::JoinStarted {
            member_id: self.member_id.clone(),
            heartbeat_interval: prost_types::Duration::try_from(self.said.heartbeat_interval()).ok(),
            resumed: self.resumed,
        };
        self.send(&sender, Response::Started(started));
        self.epoch = joined.epoch;
        // Also if it has nothing: then it knows.
        self.tell(&sender, joined.assignment.unwrap_or_default());
        let end = match self.serve(&connection, requests, &sender).await {
            Ok(()) => None,
            Err(status) => Some(Box::new(status)),
        };
        // Whoever is gone hears nothing.
        drop(sender.try_send(Said::End(end)));
    }

    /// Serves until the member has left.
    ///
    /// # Errors
    /// With what the stream ends else.
    async fn serve(
        &mut self,
        connection: &Connection,
        mut requests: impl Stream<Item = Result<v1::JoinRequest, Status>> + Unpin,
        sender: &mpsc::Sender<Said>,
    ) -> Result<(), Status> {
        let services = self.services.clone();
        let mut told_to_go = std::pin::pin!(services.told_to_go(&connection.ending));
        let interval = self.said.heartbeat_interval();
        loop {
            self.begin_beat();
            let is_idle = self.beating.is_none() && self.entering.is_none();
            // An acknowledgement is passed on before anything else is heard: commits that go on and on must not hold it up.
            let has_let_go = matches!(self.owes_beat, Some(Some(_)));
            let has_room = sender.capacity() > self.commits.len() + SPARE && self.commits.len() < COMMITS_MAX;
            tokio::select! {
                biased;
                status = &mut told_to_go => return Err(status),
                successor = self.voice.succeeded() => return Err(self.replaced(successor)),
                () = sender.closed() => return Ok(()),
                beaten = until(self.beating.as_mut()) => self.beaten(beaten, sender)?,
                committing = until(self.entering.as_mut()) => {
                    self.entering = None;
                    self.commits.push_back(committing);
                }
                Some(result) = self.commits.next() => self.send(sender, Response::CommitResult(result)),
                () = self.nudged.nudged(), if is_idle => {
                    self.owes_beat.get_or_insert(None);
                }
                request = requests.next(), if is_idle && has_room && !has_let_go => match request {
                    Some(request) => self.hear(request.map_err(named)?, sender)?,
                    None if connection.closed.is_told() => return self.leave(sender).await,
                    // It went away, and may come back.
                    None => return Ok(()),
                },
                () = sleep_until(self.last_sent + interval) => self.heartbeat(sender),
            }
        }
    }

    /// Does what the client says.
    fn hear(&mut self, request: v1::JoinRequest, sender: &mpsc::Sender<Said>) -> Result<(), Status> {
        self.last_heard = Instant::now();
        match request.request {
            Some(Request::Heartbeat(_)) => {
                self.owes_beat.get_or_insert(None);
            }
            Some(Request::Acknowledge(acknowledge)) => {
                let Some(told) = self.told.take_if(|told| told.assignment_id == acknowledge.assignment_id) else {
                    let what = format!("no assignment {} waits to be acknowledged", acknowledge.assignment_id);
                    return Err(invalid("acknowledge.assignment_id", what));
                };
                self.held = told.after;
                self.owes_beat = Some(Some(self.held.clone()));
                if let Some(wanted) = self.wanted.take() {
                    self.want(sender, wanted);
                }
            }
            Some(Request::Commit(commit)) => {
                // It may be all that the member says for long.
                self.owes_beat.get_or_insert(None);
                self.entering = Some(self.commit(commit).boxed());
            }
            Some(Request::Init(_)) => return Err(invalid("init", "a Join stream has one init")),
            None => return Err(invalid("", "a message of a Join stream says nothing that this broker knows")),
        }
        Ok(())
    }

    /// Tells the group that the member is there, if that is due.
    fn begin_beat(&mut self) {
        // What was committed before an acknowledgement is durable before another member gets the partition.
        let waits_for_commits = !self.commits.is_empty() && matches!(self.owes_beat, Some(Some(_)));
        if self.beating.is_some() || self.entering.is_some() || waits_for_commits {
            return;
        }
        let Some(owned) = self.owes_beat.take() else { return };
        // SUBTLE: a beat begins the session anew; one that the client did not cause has only what is left of it.
        let left = self.said.session.saturating_sub(self.last_heard.elapsed());
        let beat = Beat {
            group: self.said.group.clone(),
            kind: GroupKind::Grpc,
            member_id: self.member_id.clone(),
            epoch: self.epoch,
            instance_id: self.said.instance_id.clone(),
            rack_id: None,
            client_id: self.said.client_id.clone(),
            client_host: self.said.client_host.clone(),
            names: None,
            pattern: None,
            assignor: None,
            owned,
            session: millis(left).max(1),
            rebalance: None,
        };
        self.beating = Some(Box::pin(self.services.rooms.groups.beat(beat)));
    }

    /// What the group says.
    fn beaten(&mut self, beaten: Result<Beaten, GroupError>, sender: &mpsc::Sender<Said>) -> Result<(), Status> {
        self.beating = None;
        let beaten = beaten.map_err(|error| match error {
            // Of a group that is gone it is no member.
            GroupError::GroupNotFound => group_status(&GroupError::UnknownMember, &self.said.group),
            other => refused(&self.services, &other, &self.said.group),
        })?;
        let is_new = beaten.epoch != self.epoch;
        self.epoch = beaten.epoch;
        let sent = self.last_assignment;
        if let Some(assignment) = beaten.assignment {
            self.want(sender, assignment);
        }
        if is_new && self.last_assignment == sent {
            self.heartbeat(sender);
        }
        Ok(())
    }

    /// The member is to have these: the client is told now, or when it has acknowledged what it was told before.
    fn want(&mut self, sender: &mpsc::Sender<Said>, wanted: Partitions) {
        if self.told.is_some() {
            self.wanted = Some(wanted);
        } else if wanted != self.held {
            self.tell(sender, wanted);
        }
    }

    fn tell(&mut self, sender: &mpsc::Sender<Said>, after: Partitions) {
        let state = self.services.rooms.log.state();
        for topic in after.iter().map(|key| key.topic) {
            if let Some(found) = state.topic(topic) {
                self.names.entry(topic).or_insert_with(|| found.name.to_string());
            }
        }
        self.last_assignment += 1;
        let assignment = v1::JoinAssignment {
            assignment_id: self.last_assignment,
            member_epoch: i32::try_from(self.epoch.get()).unwrap_or(i32::MAX),
            partitions: self.by_topic(&after),
            taken: self.by_topic(&after.difference(&self.held).copied().collect()),
            given_up: self.by_topic(&self.held.difference(&after).copied().collect()),
        };
        self.held.extend(&after);
        self.names.retain(|topic, _| self.held.range(key(*topic, 0)..).next().is_some_and(|held| held.topic == *topic));
        self.told = Some(Told { assignment_id: self.last_assignment, after });
        self.send(sender, Response::Assignment(assignment));
    }

    /// Partitions by the names of their topics.
    fn by_topic(&self, partitions: &Partitions) -> Vec<v1::TopicPartitions> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for key in partitions {
            if let Some(name) = self.names.get(&key.topic) {
                topics.entry(name).or_default().push(wire_partition(key.partition.get()));
            }
        }
        let one = |(topic, partitions): (&str, Vec<i32>)| v1::TopicPartitions { topic: topic.to_owned(), partitions };
        topics.into_iter().map(one).collect()
    }

    /// Has a commit enter the queue of the log; what is returned then says what came of it.
    #[expect(clippy::async_yields_async, reason = "first it is in the queue, then it is durable")]
    fn commit(&self, commit: v1::JoinCommit) -> impl Future<Output = Committed> + Send + use<> {
        let (services, held) = (self.services.clone(), self.held.clone());
        let from = MemberRef {
            group: self.said.group.clone(),
            member_id: self.member_id.clone(),
            instance_id: self.said.instance_id.clone(),
            generation: i32::try_from(self.epoch.get()).unwrap_or(i32::MAX),
        };
        async move {
            let correlation_id = commit.correlation_id;
            let result = move |error: Option<Status>| v1::JoinCommitResult {
                correlation_id,
                error: error.as_ref().map(as_message),
            };
            let group = from.group.clone();
            let offsets = match services.check_offsets(&commit.offsets, "commit.offsets").await {
                Ok(offsets) => offsets,
                Err(status) => return std::future::ready(result(Some(status))).boxed(),
            };
            if let Some(foreign) = offsets.keys().find(|key| !held.contains(key)) {
                return std::future::ready(result(Some(not_assigned(&services, *foreign)))).boxed();
            }
            match services.rooms.groups.commit(from, offsets.into_iter().collect()).await {
                Err(error) => std::future::ready(result(Some(group_status(&error, &group)))).boxed(),
                Ok(durable) => {
                    async move { result(durable.await.err().map(|error| group_status(&error, &group))) }.boxed()
                }
            }
        }
    }

    /// The client says nothing more: the member goes when what it has committed is answered.
    async fn leave(&mut self, sender: &mpsc::Sender<Said>) -> Result<(), Status> {
        while let Some(result) = self.commits.next().await {
            self.send(sender, Response::CommitResult(result));
        }
        let departure = Departure {
            group: self.said.group.clone(),
            member_id: self.member_id.clone(),
            instance_id: self.said.instance_id.clone(),
            comes_back: self.said.instance_id.is_some(),
        };
        match self.services.rooms.groups.depart(&departure) {
            // Gone already is gone.
            Ok(()) | Err(GroupError::UnknownMember | GroupError::GroupNotFound) => Ok(()),
            Err(error) => Err(group_status(&error, &self.said.group)),
        }
    }

    fn replaced(&self, successor: Successor) -> Status {
        let (reason, why) = match successor {
            Successor::Stream => (Reason::MemberFenced, "another stream has taken the place of this one"),
            Successor::Process => (Reason::InstanceFenced, "another process has joined with the same instance_id"),
        };
        let facts = [("group", self.said.group.to_string()), ("member_id", self.member_id.clone())];
        status(reason, format_args!("group {:?}: {why}", self.said.group.as_str()), facts)
    }

    /// Says that the broker lives, if the client reads at all.
    fn heartbeat(&mut self, sender: &mpsc::Sender<Said>) {
        if sender.capacity() > WAITING_MAX / 2 {
            let member_epoch = i32::try_from(self.epoch.get()).unwrap_or(i32::MAX);
            self.send(sender, Response::Heartbeat(v1::JoinHeartbeat { member_epoch }));
        }
        self.last_sent = Instant::now();
    }

    fn send(&mut self, sender: &mpsc::Sender<Said>, response: Response) {
        let message = v1::JoinResponse { response: Some(response) };
        // There is room: see `serve`. If the client has gone, that is noticed there.
        drop(sender.try_send(Said::Message(message)));
        self.last_sent = Instant::now();
    }
}

fn not_assigned(services: &Services, key: PartitionKey) -> Status {
    let state = services.rooms.log.state();
    let topic = state.topic(key.topic).map(|topic| topic.name.to_string()).unwrap_or_default();
    let message = format!("partition {} of topic {topic} is not the member's", key.partition);
    status(Reason::PartitionNotAssigned, message, [("topic", topic), ("partition", key.partition.to_string())])
}

/// Waits for what may be under way.
async fn until<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

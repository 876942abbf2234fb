//! How a member joins: what its first message must say, and whose place it takes.
//!
//! A dynamic member whose stream broke goes on under its id, in its epoch, with what it had. A static member that comes while the broker
//! still takes the process before for alive takes its place at once; the stream of that one ends.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use lakebed_model::{Generation, GroupId, GroupKind};
use lakebed_wire::v1;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::member::{Identity, Member, Said};
use super::{check_group_at, group_status};
use crate::groups::member::GroupError;
use crate::groups::reconcile::assign::Assignor;
use crate::groups::reconcile::member::{Beat, Beaten, Departure};
use crate::grpc::Services;
use crate::grpc::status::{invalid, named, status};
use crate::http::ending::Ending;
use crate::http::listener::Peer;
use crate::http::messages::Closed;
use crate::reason::Reason;

/// Most topics that a member names.
const TOPICS_MAX: usize = 1000;
/// Longest name of a topic, in bytes; no topic has a longer one.
const TOPIC_BYTES_MAX: usize = 249;
/// Longest id of a member, of an instance or of a client, in bytes.
const ID_BYTES_MAX: usize = 256;
/// The session if none is asked for: as Kafka's consumers.
const SESSION_DEFAULT: Duration = Duration::from_secs(45);
/// The time for giving partitions up if none is asked for: as Kafka's consumers.
const REBALANCE_DEFAULT: Duration = Duration::from_secs(300);
const REBALANCE_MIN: Duration = Duration::from_secs(1);
const REBALANCE_MAX: Duration = Duration::from_secs(3600);
/// Messages that wait for a client: more is not made, and what would be answered with more is not heard.
pub(super) const WAITING_MAX: usize = 64;
/// A member should be heard of at least so often, whatever its session.
const HEARTBEAT_MAX: Duration = Duration::from_secs(15);

/// What a client is sent.
pub(super) type Joined = Pin<Box<dyn Stream<Item = Result<v1::JoinResponse, Status>> + Send>>;

/// What a member says of itself, checked.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) group: GroupId,
    names: Vec<String>,
    pattern: String,
    assignor: Option<Assignor>,
    pub(super) instance_id: Option<String>,
    member_id: Option<String>,
    pub(super) session: Duration,
    rebalance: Duration,
    pub(super) client_id: String,
    pub(super) client_host: String,
}

impl Terms {
    /// How often the member should be heard of.
    pub(super) fn heartbeat_interval(&self) -> Duration {
        (self.session / 3).min(HEARTBEAT_MAX)
    }
}

/// What is known of the connection of a stream.
pub(super) struct Connection {
    pub(super) ending: Ending,
    pub(super) closed: Closed,
    pub(super) peer: Option<Peer>,
}

/// Opens the stream: the first message must say who joins.
pub(super) async fn open(
    services: Services,
    connection: Connection,
    mut requests: Streaming<v1::JoinRequest>,
) -> Result<Joined, Status> {
    let place = services.joined.place()?;
    let opened = async {
        let first = requests.next().await.transpose().map_err(named)?;
        let Some(v1::join_request::Request::Init(init)) = first.and_then(|request| request.request) else {
            return Err(invalid("init", "the first message of a Join stream is its init"));
        };
        let said = check(&services, init, connection.peer)?;
        // Which groups and members there are must not be older than what the client knows.
        services.barrier().await?;
        join(&services, said).await
    };
    let (member, beaten) = tokio::select! {
        biased;
        status = services.told_to_go(&connection.ending) => return Err(status),
        opened = opened => opened?,
    };
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    tokio::spawn(member.run((place, connection), beaten, requests, sender));
    Ok(Box::pin(futures::stream::unfold(Some(receiver), next)))
}

/// What the client gets next.
async fn next(
    receiver: Option<mpsc::Receiver<Said>>,
) -> Option<(Result<v1::JoinResponse, Status>, Option<mpsc::Receiver<Said>>)> {
    let mut receiver = receiver?;
    match receiver.recv().await {
        Some(Said::Message(message)) => Some((Ok(message), Some(receiver))),
        Some(Said::End(end)) => end.map(|status| (Err(*status), None)),
        // A task that broke must not look as if its member had left.
        None => Some((Err(status(Reason::Internal, "the stream broke off", [])), None)),
    }
}

/// Takes the member in, or lets it go on where its stream before broke.
async fn join(services: &Services, said: Terms) -> Result<(Member, Beaten), Status> {
    let groups = &services.rooms.groups;
    let refuse = |error: &GroupError| refused(services, error, &said.group);
    let fresh = || format!("{}-{}", said.instance_id.as_deref().unwrap_or("grpc"), groups.fresh_id().hyphenated());
    let member_id = said.member_id.clone().unwrap_or_else(fresh);
    // From here on it is this stream that is told what is new.
    let voice = services.joined.speak(&said.group, &member_id);
    let nudged = groups.listen(&said.group, &member_id);
    let state = services.rooms.log.state();
    let described = groups.describe_assigned(&said.group, &state).filter(|described| described.kind == GroupKind::Grpc);
    let members = described.iter().flat_map(|described| &described.members);
    let itself = members.clone().find(|member| member.member_id == member_id && member.instance_id == said.instance_id);
    let before = members.clone().find(|member| member.instance_id.is_some() && member.instance_id == said.instance_id);
    let mut beat = Beat {
        group: said.group.clone(),
        kind: GroupKind::Grpc,
        member_id: member_id.clone(),
        epoch: Generation::ZERO,
        instance_id: said.instance_id.clone(),
        rack_id: None,
        client_id: said.client_id.clone(),
        client_host: said.client_host.clone(),
        names: Some(said.names.clone()),
        pattern: Some(said.pattern.clone()),
        assignor: said.assignor,
        owned: Some(BTreeSet::new()),
        session: millis(said.session),
        rebalance: Some(millis(said.rebalance)),
    };
    match (itself, before) {
        (Some(itself), _) if itself.epoch.is_some() => {
            beat.epoch = itself.epoch.unwrap_or_default();
            beat.owned = Some(itself.assigned.clone());
        }
        (_, Some(before)) if before.epoch.is_some() => {
            services.joined.silence(&said.group, &before.member_id);
            let (group, instance_id) = (said.group.clone(), said.instance_id.clone());
            let gone = Departure { group, member_id: before.member_id.clone(), instance_id, comes_back: true };
            // If it has gone meanwhile so much the better.
            drop(groups.depart(&gone));
        }
        _ => {}
    }
    let beaten = match groups.beat(beat.clone()).await {
        // It was put out between the look and the beat.
        Err(GroupError::UnknownMember | GroupError::FencedEpoch | GroupError::GroupNotFound)
            if beat.epoch > Generation::ZERO =>
        {
            (beat.epoch, beat.owned) = (Generation::ZERO, Some(BTreeSet::new()));
            groups.beat(beat.clone()).await
        }
        other => other,
    };
    let beaten = beaten.map_err(|error| refuse(&error))?;
    let resumed = beat.epoch > Generation::ZERO;
    Ok((Member::new(services.clone(), said, Identity { member_id, resumed, voice, nudged }), beaten))
}

/// The status of what a group refuses a member.
pub(super) fn refused(services: &Services, error: &GroupError, group: &GroupId) -> Status {
    match error {
        GroupError::OtherKind => {
            let state = services.rooms.log.state();
            let kind = services.rooms.groups.listed(&state).get(group).and_then(|listed| listed.kind);
            let kind = kind.map_or("unknown", GroupKind::name);
            let message =
                format!("group {:?} has members of kind {kind}: use another group, or stop them", group.as_str());
            status(Reason::GroupKindMismatch, message, [("group", group.to_string()), ("kind", kind.to_owned())])
        }
        GroupError::InvalidPattern { why } => invalid("init.topic_regex", why),
        GroupError::InvalidSessionTimeout => invalid("init.session_timeout", error),
        _ => group_status(error, group),
    }
}

/// Checks the first message.
fn check(services: &Services, init: v1::JoinInit, peer: Option<Peer>) -> Result<Terms, Status> {
    let group = check_group_at(&init.group, "init.group")?;
    if init.topics.is_empty() && init.topic_regex.is_empty() {
        return Err(invalid("init.topics", "say which topics the member wants: topics, or a topic_regex"));
    }
    if init.topics.len() > TOPICS_MAX {
        let what = format!("{} topics: at most {TOPICS_MAX} can be named", init.topics.len());
        return Err(invalid("init.topics", what));
    }
    if let Some(at) = init.topics.iter().position(|name| name.is_empty() || name.len() > TOPIC_BYTES_MAX) {
        let what = format!("a topic has a name of 1 to {TOPIC_BYTES_MAX} bytes");
        return Err(invalid(&format!("init.topics[{at}]"), what));
    }
    let assignor = match init.assignor.as_str() {
        "" => None,
        name => Some(Assignor::named(name).ok_or_else(|| {
            invalid("init.assignor", "there is no such assignor: it is uniform or range, or left out")
        })?),
    };
    for (field, id) in
        [("member_id", &init.member_id), ("instance_id", &init.instance_id), ("client_id", &init.client_id)]
    {
        if id.len() > ID_BYTES_MAX {
            return Err(invalid(&format!("init.{field}"), format_args!("{field} has at most {ID_BYTES_MAX} bytes")));
        }
    }
    let config = &services.rooms.config;
    let (shortest, longest) = (config.group_session_timeout_min, config.group_session_timeout_max);
    let default = SESSION_DEFAULT.clamp(shortest, longest);
    let session = span(init.session_timeout, "session_timeout", default, (shortest, longest))?;
    let bounds = (REBALANCE_MIN, REBALANCE_MAX);
    let rebalance = span(init.rebalance_timeout, "rebalance_timeout", REBALANCE_DEFAULT, bounds)?;
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Terms {
        group,
        names: init.topics,
        pattern: init.topic_regex,
        assignor,
        instance_id: some(init.instance_id),
        member_id: some(init.member_id),
        session,
        rebalance,
        client_id: init.client_id,
        client_host: peer.map_or_else(String::new, |peer| peer.0.to_string()),
    })
}

fn span(
    asked: Option<prost_types::Duration>,
    field: &str,
    default: Duration,
    (shortest, longest): (Duration, Duration),
) -> Result<Duration, Status> {
    let Some(asked) = asked else { return Ok(default) };
    let asked = Duration::try_from(asked).ok().filter(|asked| (shortest..=longest).contains(asked));
    asked.ok_or_else(|| {
        let what = format!("{field} must be {} to {} s", shortest.as_secs_f64(), longest.as_secs_f64());
        invalid(&format!("init.{field}"), what)
    })
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

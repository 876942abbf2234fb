//! ConsumerGroupHeartbeat and ConsumerGroupDescribe (KIP-848): members say what they want and hold, and are told what they may read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment as ShownAssignment, DescribedGroup, Member, TopicPartitions as ShownTopic,
};
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, GroupId as KafkaGroupId, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use lakebed_model::{Generation, GroupKind, PartitionIndex, PartitionKey, State, TopicId};

use super::{Sender, code, group_id, text};
use crate::groups::member::GroupError;
use crate::groups::reconcile::assign::{Assignor, Partitions};
use crate::groups::reconcile::describe::DescribedAssignee;
use crate::groups::reconcile::member::{Beat, Beaten, Departure};
use crate::kafka::connection::Started;
use crate::kafka::response::{Reply, ReplyTo};
use crate::kafka::{Service, ready};

/// The member epoch of a static member that leaves and comes back; that of one that leaves is -1.
const LEAVES_FOR_A_WHILE: i32 = -2;
/// From this version on members choose their ids (KIP-1082).
const OWN_IDS_SINCE: i16 = 1;
/// Kafka's types of members, from version 1 on.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;
const OTHER_MEMBER: i8 = -1;

/// Why a heartbeat is refused.
struct Refused {
    code: i16,
    why: String,
}

impl From<GroupError> for Refused {
    fn from(error: GroupError) -> Self {
        Self { code: code(&error), why: error.to_string() }
    }
}

fn wrong<T>(why: &str) -> Result<T, Refused> {
    Err(Refused { code: ResponseError::InvalidRequest.code(), why: why.to_owned() })
}

/// What a heartbeat asks for.
enum Asked {
    Beat(Beat),
    Depart(Departure),
}

/// Starts a heartbeat: it is in its place in the order when this returns.
pub(super) fn start(
    service: &Arc<Service>,
    reply_to: ReplyTo,
    body: ConsumerGroupHeartbeatRequest,
    sender: Sender,
) -> Started {
    let epoch = body.member_epoch;
    let interval = service.rooms.config.group_consumer_heartbeat_interval;
    match asked(service, reply_to.version, body, sender) {
        Ok(Asked::Beat(beat)) => {
            let answer = service.rooms.groups.beat(beat);
            async move {
                match answer.await {
                    Ok(beaten) => reply_to.send(&told(beaten, interval)),
                    Err(error) => refuse(reply_to, error.into()),
                }
            }
            .boxed()
        }
        Ok(Asked::Depart(departure)) => ready(match service.rooms.groups.depart(&departure) {
            Ok(()) => reply_to.send(
                &ConsumerGroupHeartbeatResponse::default()
                    .with_member_id(Some(text(departure.member_id)))
                    .with_member_epoch(epoch),
            ),
            Err(error) => refuse(reply_to, error.into()),
        }),
        Err(refused) => ready(refuse(reply_to, refused)),
    }
}

fn refuse(reply_to: ReplyTo, refused: Refused) -> Reply {
    let answer = ConsumerGroupHeartbeatResponse::default().with_error_code(refused.code);
    reply_to.send(&answer.with_error_message(Some(text(refused.why))))
}

/// Checks a heartbeat as Kafka does.
fn asked(
    service: &Service,
    version: i16,
    body: ConsumerGroupHeartbeatRequest,
    sender: Sender,
) -> Result<Asked, Refused> {
    check(version, &body)?;
    let group = group_id(&body.group_id)?;
    let instance_id = body.instance_id.map(|instance| instance.to_string());
    if body.member_epoch < 0 {
        let member_id = body.member_id.to_string();
        let comes_back = body.member_epoch == LEAVES_FOR_A_WHILE;
        return Ok(Asked::Depart(Departure { group, member_id, instance_id, comes_back }));
    }
    let assignor = match &body.server_assignor {
        Some(name) => Some(Assignor::named(name).ok_or_else(|| {
            let known = Assignor::ALL.map(Assignor::name).join(", ");
            let why = format!("server assignor {name} is not supported: there are {known}");
            Refused { code: ResponseError::UnsupportedAssignor.code(), why }
        })?),
        None => None,
    };
    let member_id = match body.member_id.as_str() {
        "" => service.rooms.groups.fresh_id().hyphenated().to_string(),
        id => id.to_owned(),
    };
    let owned = body.topic_partitions.map(|topics| {
        let keys = topics.iter().flat_map(|topic| {
            let id = TopicId::new(topic.topic_id);
            // What is no number of a partition is none that anybody was given.
            let index = |index: &i32| PartitionIndex::new(u32::try_from(*index).unwrap_or(u32::MAX));
            topic.partitions.iter().map(move |partition| PartitionKey::new(id, index(partition)))
        });
        keys.collect::<Partitions>()
    });
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Ok(Asked::Beat(Beat {
        kind: GroupKind::Consumer,
        epoch: Generation::new(u32::try_from(body.member_epoch).unwrap_or_default()),
        rack_id: body.rack_id.map(|rack| rack.to_string()),
        client_id: sender.client_id,
        client_host: sender.host,
        names: body.subscribed_topic_names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        pattern: body.subscribed_topic_regex.map(|pattern| pattern.to_string()),
        session: millis(service.rooms.config.group_consumer_session_timeout),
        rebalance: u64::try_from(body.rebalance_timeout_ms).ok(),
        group,
        member_id,
        instance_id,
        assignor,
        owned,
    }))
}

fn check(version: i16, body: &ConsumerGroupHeartbeatRequest) -> Result<(), Refused> {
    let is_empty = |text: &Option<StrBytes>| text.as_ref().is_some_and(|text| text.is_empty());
    let epoch = body.member_epoch;
    if body.member_id.is_empty() && (version >= OWN_IDS_SINCE || epoch != 0) {
        return wrong("the member id is empty");
    }
    if body.group_id.is_empty() {
        return wrong("the group id is empty");
    }
    if is_empty(&body.instance_id) {
        return wrong("the instance id is empty");
    }
    if is_empty(&body.rack_id) {
        return wrong("the rack id is empty");
    }
    match epoch {
        0 if body.rebalance_timeout_ms == -1 => wrong("the rebalance timeout is missing in the first heartbeat"),
        0 if body.topic_partitions.as_ref().is_none_or(|held| !held.is_empty()) => {
            wrong("a member that joins must say that it holds no partitions")
        }
        0 if body.subscribed_topic_names.is_none() && body.subscribed_topic_regex.is_none() => {
            wrong("the subscription is missing in the first heartbeat")
        }
        LEAVES_FOR_A_WHILE if body.instance_id.is_none() => wrong("the instance id is missing"),
        ..LEAVES_FOR_A_WHILE => wrong("the member epoch is none"),
        _ => Ok(()),
    }
}

fn by_topic(partitions: &Partitions) -> BTreeMap<TopicId, Vec<i32>> {
    let mut topics: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
    for key in partitions {
        topics.entry(key.topic).or_default().push(i32::try_from(key.partition.get()).unwrap_or(i32::MAX));
    }
    topics
}

fn told(beaten: Beaten, interval: Duration) -> ConsumerGroupHeartbeatResponse {
    let assignment = beaten.assignment.map(|partitions| {
        let topics = by_topic(&partitions).into_iter();
        let topics =
            topics.map(|(id, indexes)| TopicPartitions::default().with_topic_id(id.uuid()).with_partitions(indexes));
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(beaten.member_id)))
        .with_member_epoch(number(beaten.epoch))
        .with_heartbeat_interval_ms(i32::try_from(interval.as_millis()).unwrap_or(i32::MAX))
        .with_assignment(assignment)
}

fn number(epoch: Generation) -> i32 {
    i32::try_from(epoch.get()).unwrap_or(i32::MAX)
}

pub(super) async fn describe(service: Arc<Service>, reply_to: ReplyTo, body: ConsumerGroupDescribeRequest) -> Reply {
    let state = service.rooms.log.barrier().await.map_err(|error| GroupError::unseen(&error));
    let groups = body.group_ids.iter().map(|id| {
        let found = state.as_ref().map_err(Clone::clone).and_then(|state| one(&service, state, id, reply_to.version));
        found.unwrap_or_else(|error| {
            let why = match error {
                GroupError::GroupNotFound => format!("there is no group {} of consumers", id.as_str()),
                ref other => other.to_string(),
            };
            let group = DescribedGroup::default().with_group_id(id.clone()).with_error_code(code(&error));
            group.with_error_message(Some(text(why)))
        })
    });
    reply_to.send(&ConsumerGroupDescribeResponse::default().with_groups(groups.collect()))
}

fn one(service: &Service, state: &State, asked: &KafkaGroupId, version: i16) -> Result<DescribedGroup, GroupError> {
    if asked.is_empty() {
        return Err(GroupError::InvalidGroupId);
    }
    let found = service.rooms.groups.describe_assigned(&group_id(asked)?, state).ok_or(GroupError::GroupNotFound)?;
    let members = found.members.into_iter().map(|member| shown(state, found.kind, member, version));
    Ok(DescribedGroup::default()
        .with_group_id(asked.clone())
        .with_group_state(text(found.progress.name()))
        .with_group_epoch(number(found.epoch))
        .with_assignment_epoch(number(found.target_epoch))
        .with_assignor_name(text(found.assignor.name()))
        .with_members(members.collect()))
}

fn shown(state: &State, kind: GroupKind, member: DescribedAssignee, version: i16) -> Member {
    let assignment = |partitions: &Partitions| {
        let topics = by_topic(partitions).into_iter().filter_map(|(id, indexes)| {
            let name = state.topic(id)?.name.as_str().to_owned();
            let topic = ShownTopic::default().with_topic_id(id.uuid()).with_partitions(indexes);
            Some(topic.with_topic_name(TopicName(text(name))))
        });
        ShownAssignment::default().with_topic_partitions(topics.collect())
    };
    let answer = Member::default()
        .with_assignment(assignment(&member.assigned))
        .with_target_assignment(assignment(&member.target))
        .with_member_id(text(member.member_id))
        .with_instance_id(member.instance_id.map(text))
        .with_rack_id(member.rack_id.map(text))
        .with_member_epoch(member.epoch.map_or(LEAVES_FOR_A_WHILE, number))
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(member.names.iter().map(|name| TopicName(text(name.as_ref()))).collect())
        // None is an empty one, as in Kafka.
        .with_subscribed_topic_regex(Some(text(member.pattern.as_deref().unwrap_or_default())));
    let member_type = match kind {
        GroupKind::Grpc => OTHER_MEMBER,
        GroupKind::Classic | GroupKind::Consumer if member.joins => CLASSIC_MEMBER,
        GroupKind::Classic | GroupKind::Consumer => CONSUMER_MEMBER,
    };
    if version >= 1 { answer.with_member_type(member_type) } else { answer }
}

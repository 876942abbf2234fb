//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup.

use std::sync::Arc;

use futures::FutureExt;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{Sender, code, code_of, copied, group_id, text};
use crate::groups::member::{GroupError, Join, Joined, MemberRef, Sync, Synced};
use crate::kafka::connection::Started;
use crate::kafka::response::{Reply, ReplyTo};
use crate::kafka::{Service, ready};

/// From this version on a member is given its id before it joins (KIP-394).
const ID_FIRST_SINCE: i16 = 4;
/// From this version on a leader can be told that nothing is to be assigned (KIP-814).
const SKIPS_SINCE: i16 = 9;

fn owned(text: Option<&StrBytes>) -> Option<String> {
    text.map(ToString::to_string)
}

pub(super) fn join(service: &Arc<Service>, reply_to: ReplyTo, body: JoinGroupRequest, sender: Sender) -> Started {
    let group = match group_id(&body.group_id) {
        Ok(group) => group,
        Err(error) => return ready(join_refused(reply_to, &body.member_id, &error)),
    };
    let millis = |ms: i32| u64::try_from(ms).unwrap_or(0);
    let instance_id = owned(body.group_instance_id.as_ref());
    let name = instance_id.as_deref().unwrap_or(&sender.client_id);
    let session = millis(body.session_timeout_ms);
    let asked = Join {
        fresh_id: format!("{name}-{}", service.rooms.groups.fresh_id().hyphenated()),
        member_id: body.member_id.to_string(),
        client_id: sender.client_id,
        client_host: sender.host,
        protocol_type: body.protocol_type.to_string(),
        protocols: body
            .protocols
            .iter()
            .map(|protocol| (protocol.name.to_string(), copied(&protocol.metadata)))
            .collect(),
        session,
        // Before version 1 the session is the time to join, too.
        rebalance: if reply_to.version >= 1 { millis(body.rebalance_timeout_ms) } else { session },
        wants_id_first: reply_to.version >= ID_FIRST_SINCE,
        may_skip_assignment: reply_to.version >= SKIPS_SINCE,
        group,
        instance_id,
    };
    let answer = service.rooms.groups.join(asked);
    async move {
        match answer.await {
            Ok(joined) => join_done(reply_to, joined),
            Err(error) => join_refused(reply_to, &body.member_id, &error),
        }
    }
    .boxed()
}

fn join_done(reply_to: ReplyTo, joined: Joined) -> Reply {
    let version = reply_to.version;
    let members = joined.members.into_iter().map(|member| {
        let answer =
            JoinGroupResponseMember::default().with_member_id(text(member.member_id)).with_metadata(member.metadata);
        if version >= 5 { answer.with_group_instance_id(member.instance_id.map(text)) } else { answer }
    });
    let answer = JoinGroupResponse::default()
        .with_generation_id(i32::try_from(joined.generation.get()).unwrap_or(i32::MAX))
        .with_protocol_name(Some(text(joined.protocol)))
        .with_leader(text(joined.leader))
        .with_member_id(text(joined.member_id))
        .with_members(members.collect());
    let answer = if version >= 7 { answer.with_protocol_type(Some(text(joined.protocol_type))) } else { answer };
    reply_to.send(&if version >= 9 { answer.with_skip_assignment(joined.skip_assignment) } else { answer })
}

fn join_refused(reply_to: ReplyTo, member_id: &StrBytes, error: &GroupError) -> Reply {
    let member_id = match error {
        GroupError::MemberIdRequired { member_id } => text(member_id.clone()),
        _ => member_id.clone(),
    };
    // Null is known from version 7 on.
    let protocol = if reply_to.version >= 7 { None } else { Some(StrBytes::default()) };
    reply_to.send(
        &JoinGroupResponse::default()
            .with_error_code(code(error))
            .with_generation_id(-1)
            .with_protocol_name(protocol)
            .with_member_id(member_id),
    )
}

pub(super) fn sync(service: &Arc<Service>, reply_to: ReplyTo, body: SyncGroupRequest) -> Started {
    let group = match group_id(&body.group_id) {
        Ok(group) => group,
        Err(error) => return ready(sync_answer(reply_to, Err(error))),
    };
    let assignments = body.assignments.iter();
    let asked = Sync {
        member: MemberRef {
            group,
            member_id: body.member_id.to_string(),
            instance_id: owned(body.group_instance_id.as_ref()),
            generation: body.generation_id,
        },
        protocol_type: owned(body.protocol_type.as_ref()),
        protocol: owned(body.protocol_name.as_ref()),
        assignments: assignments.map(|one| (one.member_id.to_string(), copied(&one.assignment))).collect(),
    };
    let answer = service.rooms.groups.sync(asked);
    async move { sync_answer(reply_to, answer.await) }.boxed()
}

fn sync_answer(reply_to: ReplyTo, synced: Result<Synced, GroupError>) -> Reply {
    let answer = SyncGroupResponse::default().with_error_code(code_of(&synced));
    let Ok(synced) = synced else { return reply_to.send(&answer) };
    let answer = answer.with_assignment(synced.assignment);
    reply_to.send(&if reply_to.version >= 5 {
        answer.with_protocol_type(Some(text(synced.protocol_type))).with_protocol_name(Some(text(synced.protocol)))
    } else {
        answer
    })
}

pub(super) fn heartbeat(service: &Arc<Service>, reply_to: ReplyTo, body: &HeartbeatRequest) -> Started {
    let beaten = group_id(&body.group_id).and_then(|group| {
        service.rooms.groups.heartbeat(&MemberRef {
            group,
            member_id: body.member_id.to_string(),
            instance_id: owned(body.group_instance_id.as_ref()),
            generation: body.generation_id,
        })
    });
    ready(reply_to.send(&HeartbeatResponse::default().with_error_code(code_of(&beaten))))
}

pub(super) fn leave(service: &Arc<Service>, reply_to: ReplyTo, body: LeaveGroupRequest) -> Started {
    let many = reply_to.version >= 3;
    let members: Vec<(String, Option<String>)> = if many {
        let all = body.members.iter();
        all.map(|member| (member.member_id.to_string(), owned(member.group_instance_id.as_ref()))).collect()
    } else {
        vec![(body.member_id.to_string(), None)]
    };
    let left = group_id(&body.group_id).and_then(|group| service.rooms.groups.leave(&group, &members));
    let left = match left {
        // Of a group that is not there nobody is a member.
        Err(GroupError::UnknownMember) => Ok(members.iter().map(|_| Err(GroupError::UnknownMember)).collect()),
        other => other,
    };
    let answer = LeaveGroupResponse::default();
    ready(reply_to.send(&match left {
        Err(error) => answer.with_error_code(code(&error)),
        Ok(outcomes) if many => {
            let outcomes = members.into_iter().zip(outcomes).map(|((id, instance), outcome)| {
                MemberResponse::default()
                    .with_member_id(text(id))
                    .with_group_instance_id(instance.map(text))
                    .with_error_code(code_of(&outcome))
            });
            answer.with_members(outcomes.collect())
        }
        Ok(outcomes) => answer.with_error_code(outcomes.first().map_or(0, code_of)),
    }))
}

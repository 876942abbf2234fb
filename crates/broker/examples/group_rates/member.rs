//! A member of a group of the classic protocol, as a consumer is one: it joins, asks for its assignment, sends heartbeats, and joins again
//! when it is told that others do.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use crate::TOPIC;
use crate::wire::Connection;

/// How often members send heartbeats, so how soon they hear of a rebalance. Clients' default is 3 s.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(300);
const SESSION_MS: i32 = 45_000;
const JOIN: i16 = 7;
const SYNC: i16 = 5;
const BEAT: i16 = 4;

pub(crate) struct Member {
    connection: Connection,
    group: GroupId,
    pub(crate) id: StrBytes,
    pub(crate) generation: i32,
}

impl Member {
    pub(crate) async fn connect(address: SocketAddr, group: &str) -> Self {
        let group = GroupId(StrBytes::from_string(group.to_owned()));
        Self { connection: Connection::open(address).await, group, id: StrBytes::default(), generation: -1 }
    }

    /// Joins and asks for its assignment, again for as long as the others do; returns how many members there are, if it leads.
    pub(crate) async fn settle(&mut self) -> Option<usize> {
        loop {
            let joined = self.join().await;
            let leads = joined.leader == joined.member_id;
            let members: Vec<StrBytes> = joined.members.into_iter().map(|member| member.member_id).collect();
            if self.sync(&members).await {
                return leads.then_some(members.len());
            }
        }
    }

    async fn join(&mut self) -> JoinGroupResponse {
        // ConsumerProtocolSubscription, version 0: the topic, and no user data.
        let length = u16::try_from(TOPIC.len()).unwrap().to_be_bytes();
        let metadata = [&[0, 0, 0, 0, 0, 1][..], &length, TOPIC.as_bytes(), &[0xff; 4]].concat();
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(Bytes::from(metadata));
        loop {
            let request = JoinGroupRequest::default()
                .with_group_id(self.group.clone())
                .with_session_timeout_ms(SESSION_MS)
                .with_rebalance_timeout_ms(SESSION_MS)
                .with_member_id(self.id.clone())
                .with_protocol_type(StrBytes::from_static_str("consumer"))
                .with_protocols(vec![protocol.clone()]);
            let answer = self.connection.call(JOIN, &request).await;
            self.id = answer.member_id.clone();
            if answer.error_code == ResponseError::MemberIdRequired.code() {
                continue;
            }
            assert_eq!(answer.error_code, 0, "a member could not join");
            self.generation = answer.generation_id;
            return answer;
        }
    }

    /// Whether it has its assignment now; `false`: the members join anew.
    async fn sync(&mut self, members: &[StrBytes]) -> bool {
        // ConsumerProtocolAssignment, version 0: one partition of the topic each.
        let length = u16::try_from(TOPIC.len()).unwrap().to_be_bytes();
        let assignments = members.iter().enumerate().map(|(index, id)| {
            let partition = u32::try_from(index).unwrap().to_be_bytes();
            let bytes =
                [&[0, 0, 0, 0, 0, 1][..], &length, TOPIC.as_bytes(), &[0, 0, 0, 1], &partition, &[0xff; 4]].concat();
            SyncGroupRequestAssignment::default().with_member_id(id.clone()).with_assignment(Bytes::from(bytes))
        });
        let request = SyncGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_assignments(assignments.collect());
        let answer = self.connection.call(SYNC, &request).await;
        let again = answer.error_code == ResponseError::RebalanceInProgress.code();
        assert!(again || (answer.error_code == 0 && !answer.assignment.is_empty()), "error {}", answer.error_code);
        !again
    }

    /// Whether the group goes on as it is; `false`: the members join anew. And how long the answer took.
    pub(crate) async fn beat(&mut self) -> (bool, Duration) {
        let begun = Instant::now();
        let request = HeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        let answer = self.connection.call(BEAT, &request).await;
        let again = answer.error_code == ResponseError::RebalanceInProgress.code();
        assert!(again || answer.error_code == 0, "error {}", answer.error_code);
        (!again, begun.elapsed())
    }
}

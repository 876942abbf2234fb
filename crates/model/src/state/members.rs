//! Members of the cell: who serves the log, and under which number.
//!
//! 1. A broker that comes at the Kafka address of another takes that one's place and number: the other is gone, for nobody else can have its port.
//!    So a broker that was killed and starts again is the same node to Kafka clients. One that has its HTTP address is gone, too.
//! 2. A number that belonged to another address is never given again.

use imbl::OrdMap;

use super::{Refusal, State};
use crate::ids::{NodeId, Nonce};
use crate::member::{MEMBERS_MAX, Member, Node};

/// See the module.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Members {
    pub(crate) by_id: OrdMap<NodeId, Member>,
    /// The highest number that was ever given; 0 if none was.
    pub(crate) highest: NodeId,
}

impl State {
    pub(crate) fn join(&mut self, member: &Member) -> Result<(), Refusal> {
        if let Some(what) = member.wrong() {
            return Err(Refusal::Malformed { what });
        }
        let own = self.node_of(member.nonce);
        let members = &mut self.members;
        let of_address = members.by_id.iter().find(|(_, known)| known.kafka == member.kafka).map(|(id, _)| *id);
        let of_http = members.by_id.iter().find(|(_, known)| known.http == member.http).map(|(id, _)| *id);
        for gone in [own, of_http].into_iter().flatten().filter(|id| of_address != Some(*id)) {
            members.by_id.remove(&gone);
        }
        let id = match of_address {
            Some(id) => id,
            None if members.by_id.len() >= MEMBERS_MAX => return Err(Refusal::TooManyMembers),
            None => {
                let next = members.highest.get().checked_add(1).ok_or(Refusal::TooManyMembers)?;
                members.highest = NodeId::new(next);
                members.highest
            }
        };
        members.by_id.insert(id, member.clone());
        Ok(())
    }

    pub(crate) fn leave(&mut self, nonce: Nonce) -> Result<(), Refusal> {
        let id = self.node_of(nonce).ok_or(Refusal::UnknownMember { nonce })?;
        self.members.by_id.remove(&id);
        Ok(())
    }

    /// The members, by their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        self.members.by_id.iter().map(|(id, member)| Node { id: *id, member: member.clone() })
    }

    /// The number of a member; `None` if it is none.
    pub fn node_of(&self, nonce: Nonce) -> Option<NodeId> {
        self.members.by_id.iter().find(|(_, member)| member.nonce == nonce).map(|(id, _)| *id)
    }

    /// A member.
    pub fn member(&self, nonce: Nonce) -> Option<&Member> {
        self.members.by_id.values().find(|member| member.nonce == nonce)
    }

    /// The highest number that was ever given to a member; 0 if none was.
    pub fn highest_node(&self) -> NodeId {
        self.members.highest
    }
}

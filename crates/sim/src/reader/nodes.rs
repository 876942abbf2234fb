//! Members of a cell as the reader finds them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{array, number, text};

/// Members by their numbers, each with its nonce, its Kafka address and its HTTP address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Nodes {
    /// The members.
    pub by_id: BTreeMap<u64, (String, String, String)>,
    highest: u64,
}

impl Nodes {
    /// Takes in a member: under the number of its address, or the next.
    pub(crate) fn join(&mut self, entry: &Value) -> Result<(), String> {
        let (nonce, kafka, http) = member(entry)?;
        let of_address = self.by_id.iter().find(|(_, known)| known.1 == kafka).map(|(id, _)| *id);
        self.by_id.retain(|id, known| (known.0 != nonce && known.2 != http) || Some(*id) == of_address);
        self.highest += u64::from(of_address.is_none());
        self.by_id.insert(of_address.unwrap_or(self.highest), (nonce, kafka, http));
        Ok(())
    }

    /// A member is gone.
    pub(crate) fn leave(&mut self, entry: &Value) -> Result<(), String> {
        let (nonce, before) = (text(&entry["member"])?, self.by_id.len());
        self.by_id.retain(|_, known| known.0 != nonce);
        if self.by_id.len() == before { Err(format!("{nonce}, who is no member, leaves")) } else { Ok(()) }
    }

    /// Takes in those of a checkpoint.
    pub(crate) fn restore(&mut self, base: &Value) -> Result<(), String> {
        for node in base.get("nodes").map_or(Ok(&Vec::new()), array)? {
            self.by_id.insert(number(&node[0])?, member(&node[1])?);
        }
        self.highest = base.get("highest_node").map_or(Ok(0), number)?;
        Ok(())
    }
}

fn member(entry: &Value) -> Result<(String, String, String), String> {
    Ok((text(&entry["member"])?, text(&entry["kafka"])?, text(&entry["http"])?))
}

//! What has come since an earlier state of the log.

use imbl::ordmap::DiffItem;

use super::State;
use crate::ids::{Offset, PartitionKey};

impl State {
    /// The partitions whose high watermark is above that of an earlier state of the log, with their high watermarks.
    ///
    /// # Cost What has changed in between; all partitions if the two share nothing.
    pub fn grown_since<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = (PartitionKey, Offset)> + 'a {
        earlier.partitions.diff(&self.partitions).filter_map(|change| match change {
            DiffItem::Add(key, partition) => Some((*key, partition.high_watermark)),
            DiffItem::Update { old: (_, old), new: (key, new) } => {
                (new.high_watermark > old.high_watermark).then_some((*key, new.high_watermark))
            }
            DiffItem::Remove(..) => None,
        })
    }
}

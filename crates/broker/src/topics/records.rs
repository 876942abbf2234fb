//! Deleting records: moving a partition's log start.

use lakebed_log::AppendError;
use lakebed_model::{Change, Offset, PartitionKey, Refusal, State};

use super::{CHANGE_TIME_MAX, TopicError, Topics, Unanswered};

impl Topics {
    /// Deletes the records of a partition below `offset`, or all that there are then; says where the partition begins afterwards. Below the
    /// log start there is nothing to delete, and nothing is committed.
    ///
    /// # Errors
    /// [`TopicError::Append`] with [`Refusal::LogStartOutOfRange`] beyond the high watermark.
    /// # Cancel
    /// It may still happen.
    pub async fn delete_records(&self, key: PartitionKey, offset: Option<Offset>) -> Result<Offset, TopicError> {
        let deleting = self.log.alter(move |state: &State| {
            let bounds = state.partition(key).ok_or(Refusal::UnknownPartition { partition: key })?;
            let offset = offset.unwrap_or(bounds.high_watermark);
            let moved = Change::MoveLogStart { partition: key, offset };
            Ok(if offset <= bounds.log_start { Vec::new() } else { vec![moved] })
        });
        tokio::time::timeout(CHANGE_TIME_MAX, deleting).await.map_err(|_| Unanswered)??;
        let gone = || AppendError::Refused(Refusal::UnknownPartition { partition: key });
        Ok(self.log.state().partition(key).ok_or_else(gone)?.log_start)
    }
}

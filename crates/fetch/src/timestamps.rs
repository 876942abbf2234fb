//! Offsets by timestamp: the state's runs say where to look, the records say where it is.

use std::ops::ControlFlow;
use std::time::Duration;

use lakebed_model::{Offset, Partition, PartitionKey, State};

use crate::fetch::Fetch;
use crate::records::timestamps;
use crate::request::{FetchError, FetchPartition, FetchRequest, Fetched};

/// An offset and the timestamp of its record, in milliseconds.
pub type Stamped = (Offset, i64);

impl Fetch {
    /// The first offset whose record has `timestamp_ms` or later, and that record's timestamp; `None` if there is none.
    ///
    /// It sees what is visible when it is called; who must not go back in time passes a barrier of the log before.
    ///
    /// # Errors
    /// [`FetchError`]
    /// # Cost Reads one run from its begin up to the record, and nothing of the others.
    pub async fn offset_for_timestamp(
        &self,
        key: PartitionKey,
        timestamp_ms: i64,
    ) -> Result<Option<Stamped>, FetchError> {
        let state = self.shared.log.state();
        let partition = existing(&state, key)?;
        for (base, run) in state.runs_from(key, partition.log_start) {
            if run.timestamps.is_none_or(|range| range.last_ms < timestamp_ms) {
                continue;
            }
            // A run of which the first rows are below the log start may turn out to have no such record.
            let offsets = base.max(partition.log_start)..run.end(base);
            let mut found = None;
            self.scan(key, offsets, |stamped| match stamped.1 >= timestamp_ms {
                true => {
                    found = Some(stamped);
                    ControlFlow::Break(())
                }
                false => ControlFlow::Continue(()),
            })
            .await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first visible record at or after `offset`, with its timestamp (-1 for none); `None` if there is none.
    ///
    /// # Errors
    /// [`FetchError`]
    /// # Cost One read.
    pub async fn first_from(&self, key: PartitionKey, offset: Offset) -> Result<Option<Stamped>, FetchError> {
        let end = existing(&self.shared.log.state(), key)?.high_watermark;
        let mut first = None;
        self.scan(key, offset..end, |stamped| {
            first = Some(stamped);
            ControlFlow::Break(())
        })
        .await?;
        Ok(first)
    }

    /// The greatest timestamp of a partition, with the first offset that has it; `None` if no record has one.
    ///
    /// # Errors
    /// [`FetchError`]
    /// # Cost As [`Fetch::offset_for_timestamp`], and a run that begins below the log start.
    pub async fn max_timestamp(&self, key: PartitionKey) -> Result<Option<Stamped>, FetchError> {
        let state = self.shared.log.state();
        let partition = existing(&state, key)?;
        let mut greatest: Option<i64> = None;
        for (base, run) in state.runs_from(key, partition.log_start) {
            if base >= partition.log_start {
                greatest = greatest.max(run.timestamps.map(|range| range.last_ms));
                continue;
            }
            let offsets = partition.log_start..run.end(base);
            self.scan(key, offsets, |(_, timestamp_ms)| {
                greatest = greatest.max((timestamp_ms >= 0).then_some(timestamp_ms));
                ControlFlow::Continue(())
            })
            .await?;
        }
        match greatest {
            Some(timestamp_ms) => self.offset_for_timestamp(key, timestamp_ms).await,
            None => Ok(None),
        }
    }

    /// Shows `see` the visible records of `offsets`, in order, until it breaks.
    async fn scan(
        &self,
        key: PartitionKey,
        offsets: std::ops::Range<Offset>,
        mut see: impl FnMut(Stamped) -> ControlFlow<()>,
    ) -> Result<(), FetchError> {
        let mut offset = offsets.start;
        while offset < offsets.end {
            let fetched = self.read_one(key, offset).await?;
            for batch in &fetched.batches {
                let wanted = |at: &Stamped| at.0 >= offset && at.0 < offsets.end;
                for stamped in timestamps(batch)?.filter(wanted) {
                    if see(stamped).is_break() {
                        return Ok(());
                    }
                }
            }
            if fetched.batches.is_empty() {
                return Ok(());
            }
            offset = fetched.next_offset;
        }
        Ok(())
    }

    async fn read_one(&self, key: PartitionKey, offset: Offset) -> Result<Fetched, FetchError> {
        let bytes_max = self.shared.options.batch_bytes;
        let partitions = vec![FetchPartition { key, offset, bytes_max }];
        let request = FetchRequest { partitions, bytes_max, bytes_min: 0, wait_max: Duration::ZERO };
        self.fetch(request).await.pop().expect("there is an answer for each partition")
    }
}

fn existing(state: &State, key: PartitionKey) -> Result<Partition, FetchError> {
    state.partition(key).ok_or(FetchError::UnknownTopicOrPartition)
}

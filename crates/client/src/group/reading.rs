//! The readers of a member: a stream for each topic, opened where the member or its group left off.

use std::collections::BTreeMap;
use std::sync::Arc;

use lakebed_wire::v1;
use tokio::time::{Instant, sleep};

use crate::backoff::{Backoff, Retry};
use crate::connection::Client;
use crate::consumer::{Consumer, Start};
use crate::error::ClientError;

/// What a member reads of a topic: where each partition goes on, if it was read before.
pub(super) type Wanted = BTreeMap<i32, Option<i64>>;

/// A topic whose reader stands.
pub(super) struct Opened {
    pub(super) topic: Arc<str>,
    /// `None`: the topic is gone, and the group will hear of it.
    pub(super) reader: Option<Consumer>,
    /// What the group had committed of the partitions that were not read before.
    pub(super) committed: BTreeMap<i32, i64>,
}

/// How readers are opened.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    pub(super) client: Client,
    pub(super) group: String,
    pub(super) start: Start,
    pub(super) window_bytes: u64,
    pub(super) retry: Retry,
}

impl Opening {
    /// Opens the readers of some topics, one after the other.
    ///
    /// # Errors
    /// [`ClientError`] that can't pass, or has not passed in the time for it.
    pub(super) async fn open(self, topics: BTreeMap<Arc<str>, Wanted>) -> Result<Vec<Opened>, ClientError> {
        let mut opened = Vec::with_capacity(topics.len());
        for (topic, wanted) in topics {
            opened.push(self.open_patiently(topic, &wanted).await?);
        }
        Ok(opened)
    }

    async fn open_patiently(&self, topic: Arc<str>, wanted: &Wanted) -> Result<Opened, ClientError> {
        let mut backoff = Backoff::new(self.retry);
        let give_up_at = Instant::now() + self.retry.give_up_after;
        loop {
            let error = match self.open_topic(&topic, wanted).await {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            let wait = backoff.next();
            if !error.may_pass() || Instant::now() + wait > give_up_at {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    async fn open_topic(&self, topic: &Arc<str>, wanted: &Wanted) -> Result<Opened, ClientError> {
        let gone = || Opened { topic: Arc::clone(topic), reader: None, committed: BTreeMap::new() };
        let new: Vec<i32> = wanted.iter().filter(|(_, next)| next.is_none()).map(|(partition, _)| *partition).collect();
        let committed = if new.is_empty() {
            BTreeMap::new()
        } else {
            let asked = vec![v1::TopicPartitions { topic: topic.to_string(), partitions: new }];
            match self.client.fetch_offsets(&self.group, asked).await {
                Ok(offsets) => offsets.into_iter().map(|one| (one.partition, one.offset)).collect(),
                Err(error) if is_gone(&error) => return Ok(gone()),
                Err(error) => return Err(error),
            }
        };
        let place = |(partition, next): (&i32, &Option<i64>)| {
            let offset = next.or_else(|| committed.get(partition).copied());
            (*partition, offset.map_or(self.start, Start::Offset))
        };
        let mut places: BTreeMap<i32, Start> = wanted.iter().map(place).collect();
        loop {
            let mut builder = self.client.consumer(topic, self.start).window_bytes(self.window_bytes).retry(self.retry);
            for (partition, start) in &places {
                builder = builder.partition_from(*partition, *start);
            }
            match builder.open().await {
                Ok(reader) => return Ok(Opened { topic: Arc::clone(topic), reader: Some(reader), committed }),
                Err(error) if is_gone(&error) => return Ok(gone()),
                Err(error) => match outside(&error).and_then(|partition| places.get_mut(&partition)) {
                    // Each partition once: then it begins at a place that is there.
                    Some(place) if *place != self.start => *place = self.start,
                    _ => return Err(error),
                },
            }
        }
    }
}

/// Whether what was to be read does not exist.
pub(super) fn is_gone(error: &ClientError) -> bool {
    matches!(error.reason(), "TOPIC_NOT_FOUND" | "PARTITION_NOT_FOUND")
}

/// The partition whose place is not there any more.
pub(super) fn outside(error: &ClientError) -> Option<i32> {
    if error.reason() == "OFFSET_OUT_OF_RANGE" { error.fact("partition")?.parse().ok() } else { None }
}

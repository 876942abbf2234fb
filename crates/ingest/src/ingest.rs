//! The handle of the write path.

use std::sync::Arc;

use lakebed_log::Log;
use lakebed_model::{CommitNumber, PartitionKey};
use lakebed_store::Store;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::admit::Admitted;
use crate::chain::Chain;
use crate::counts::Counts;
use crate::options::Options;
use crate::pipeline::{Arrival, Gatherer, GathererParts, Route, acknowledge, submit_uploaded};
use crate::seal::{Committed, Entry};
use crate::throttle::Throttle;
use crate::ticket::{Obstacle, Ticket};

/// Requests that wait for the gatherer; more wait in [`Ingest::produce`]. Their bytes are bounded by the buffer.
const REQUESTS_MAX: usize = 1024;
/// Flushes whose committed batches wait for whoever listens.
pub(crate) const COMMITTED_MAX: usize = 8;

/// The write path of one cell. A handle; clones share the buffer.
///
/// When the last handle is dropped, what was accepted is still flushed and answered.
#[derive(Clone, Debug)]
pub struct Ingest {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    throttle: Throttle,
    counts: Arc<Counts>,
    arrivals: mpsc::Sender<Vec<Arrival>>,
    room: Arc<Semaphore>,
    buffer_bytes: usize,
    drain: watch::Sender<bool>,
    /// Closes when everything is answered.
    ended: watch::Receiver<()>,
}

impl Ingest {
    /// Starts the write path of a broker that is the sequencer: a flush becomes part of the commit.
    ///
    /// The receiver gets the batches of each flush that were committed, flush by flush, in offset order for each partition, before their
    /// producers are answered. It must be read: answers wait for it. If it is dropped, nothing waits.
    ///
    /// Must be called in a tokio runtime.
    pub fn start(log: Log, options: Options) -> (Self, mpsc::Receiver<Vec<Committed>>) {
        Self::start_on(log, None, options)
    }

    /// Starts the write path of a broker that is not the sequencer: a flush is uploaded to `segments/`, then committed. Several are
    /// uploaded at once; they are committed in order.
    pub fn start_uploading(log: Log, store: Store, options: Options) -> (Self, mpsc::Receiver<Vec<Committed>>) {
        Self::start_on(log, Some(store), options)
    }

    fn start_on(log: Log, store: Option<Store>, options: Options) -> (Self, mpsc::Receiver<Vec<Committed>>) {
        let (arrivals, arrived) = mpsc::channel(REQUESTS_MAX);
        let (committed, listener) = mpsc::channel(COMMITTED_MAX);
        let (submit, submitted) = mpsc::channel(options.flushes_in_flight_max);
        let (drain, draining) = watch::channel(false);
        let (end, ended) = watch::channel(());
        let room = Arc::new(Semaphore::new(options.buffer_bytes));
        let buffer_bytes = options.buffer_bytes;
        let throttle = Throttle::new(log.clone(), options.live_runs_max);
        let chain = Arc::new(Chain::default());
        let counts = Arc::new(Counts::default());
        let route = match store {
            None => Route::Inline(submit),
            Some(store) => {
                let (upload, uploading) = mpsc::channel(options.flushes_in_flight_max);
                tokio::spawn(submit_uploaded(log.clone(), Arc::clone(&chain), uploading, submit));
                Route::Upload(store, upload)
            }
        };
        let acknowledger = acknowledge(log.clone(), Arc::clone(&chain), Arc::clone(&counts), submitted, committed);
        tokio::spawn(async move {
            acknowledger.await;
            drop(end);
        });
        let (gatherer_room, gatherer_counts) = (Arc::clone(&room), Arc::clone(&counts));
        let parts = GathererParts {
            log,
            chain,
            options,
            arrivals: arrived,
            draining,
            room: gatherer_room,
            route,
            counts: gatherer_counts,
        };
        tokio::spawn(Gatherer::new(parts).run());
        let shared = Shared { throttle, counts, arrivals, room, buffer_bytes, drain, ended };
        (Self { shared: Arc::new(shared) }, listener)
    }

    /// Hands batches over, waiting while the buffer is full or merging lags behind; if merging has nothing left to do, they are turned
    /// away instead ([`Obstacle::RunsExhausted`]). Each has a [`Ticket`], in order.
    ///
    /// # Order  Batches of one call, and of calls of which the earlier had returned before the later began, are appended in that order
    /// in each partition.
    /// # Cancel None of the batches was taken, unless together they are larger than the whole buffer: then some may have been.
    pub async fn produce(&self, batches: Vec<(PartitionKey, Admitted)>) -> Vec<Ticket> {
        let passed = self.shared.throttle.pass(self.shared.drain.subscribe()).await;
        let mut tickets = Vec::with_capacity(batches.len());
        let mut together = Together::default();
        for (key, admitted) in batches {
            let (answer, ticket) = Ticket::new();
            tickets.push(ticket);
            let (bytes, buffer_bytes) = (admitted.cost_bytes(), self.shared.buffer_bytes);
            let entry = Entry { key, admitted, answer };
            if let Err(obstacle) = &passed {
                entry.turn_away(obstacle.clone());
                continue;
            }
            if bytes > buffer_bytes {
                entry.turn_away(Obstacle::TooLarge { bytes, buffer_bytes });
                continue;
            }
            // What does not fit at once goes in parts, each when there is room for it.
            if together.bytes + bytes > buffer_bytes {
                self.hand_over(std::mem::take(&mut together)).await;
            }
            together.bytes += bytes;
            together.entries.push((bytes, entry));
        }
        self.hand_over(together).await;
        tickets
    }

    /// Takes no more batches, flushes what was taken at once, and waits until all of it is answered.
    ///
    /// # Cancel The drain goes on.
    pub async fn drain(&self) {
        self.shared.drain.send_replace(true);
        self.ended().await;
    }

    /// Takes note that there was nothing to merge in the state of that number, so that no producer waits for a merge of it.
    pub fn merging_exhausted(&self, at: CommitNumber) {
        self.shared.throttle.merging_exhausted(at);
    }

    /// How often producers were made to wait because merging lagged behind.
    pub fn throttled(&self) -> u64 {
        self.shared.throttle.held()
    }

    /// How many calls of [`Ingest::produce`] wait for merging now.
    pub fn held_now(&self) -> u64 {
        self.shared.throttle.held_now()
    }

    /// Since when producers are made to wait, or refused, because so many runs are live, in milliseconds since 1970; `None` if they
    /// are not.
    pub fn throttled_since_ms(&self) -> Option<i64> {
        self.shared.throttle.closed_since_ms()
    }

    /// Bytes of the whole buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.shared.buffer_bytes
    }

    /// What became of the flushes so far.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Bytes of the buffer that are free.
    pub fn free_bytes(&self) -> usize {
        self.shared.room.available_permits()
    }

    async fn hand_over(&self, together: Together) {
        let turn_away = |entry: Entry| entry.turn_away(Obstacle::ShuttingDown);
        let Together { entries, bytes } = together;
        if entries.is_empty() {
            return;
        }
        let bytes = u32::try_from(bytes).expect("no more than the buffer has, which is below 4 GiB");
        let Ok(mut room) = Arc::clone(&self.shared.room).acquire_many_owned(bytes).await else {
            return entries.into_iter().for_each(|(_, entry)| turn_away(entry));
        };
        let (entered, cause) = (Instant::now(), tracing::Span::current().id());
        let arrivals = entries.into_iter().map(|(bytes, entry)| {
            let room = room.split(bytes).expect("the room of all is that of each together");
            Arrival { entry, room, entered, cause: cause.clone() }
        });
        if let Err(refused) = self.shared.arrivals.send(arrivals.collect()).await {
            refused.0.into_iter().for_each(|arrival| turn_away(arrival.entry));
        }
    }

    /// Waits until the write path has ended, for whatever reason.
    pub async fn ended(&self) {
        let mut ended = self.shared.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

/// Batches that go into the buffer at once.
#[derive(Default)]
struct Together {
    entries: Vec<(usize, Entry)>,
    bytes: usize,
}

//! The tasks behind an [`Ingest`](crate::Ingest): one gathers batches and seals them, one (if segments are uploaded first) submits what is
//! uploaded, one acknowledges. Flushes go through all of them in one order.
//!
//! 1. Flushes are sealed, submitted, committed and acknowledged in the order in which their batches arrived.
//! 2. At most `flushes_in_flight_max` flushes are between their sealing and their acknowledgement; meanwhile batches gather.
//! 3. Whoever listens to committed batches gets those of a flush before any of its producers is answered.
//! 4. When the last handle is gone, or after a drain, everything that was accepted is flushed and answered, then the tasks end.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::BoxFuture;
use lakebed_log::{AppendError, Hold, Log, Pending};
use lakebed_model::{FlushBody, FlushId, FlushProposal, SegmentId};
use lakebed_segment::body::Body;
use lakebed_segment::commit::segment_object;
use lakebed_segment::layout;
use lakebed_store::{Created, Key, Store, TRACE_TARGET};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span};

use crate::chain::Chain;
use crate::counts::Counts;
use crate::options::Options;
use crate::seal::{Committed, Entry, Load, Owed, Sealed};
use crate::spacing::Spacing;
use crate::ticket::{Obstacle, ProduceError};

/// Requests that the span of a flush is linked to at most.
const LINKS_MAX: usize = 32;
/// Messages taken from the queue at once.
const TAKEN_AT_ONCE: usize = 256;

/// One batch with its room in the buffer.
pub(crate) struct Arrival {
    pub(crate) entry: Entry,
    pub(crate) room: OwnedSemaphorePermit,
    /// When it entered the buffer.
    pub(crate) entered: Instant,
    /// The span of the request that brought it, if requests are traced.
    pub(crate) cause: Option<tracing::Id>,
}

/// A place among the flushes in flight.
type Slot = OwnedSemaphorePermit;

/// A flush that was submitted.
pub(crate) struct Submitted {
    id: FlushId,
    /// When it was sealed.
    begun: Instant,
    bytes: u64,
    pending: Pending,
    owed: Owed,
    /// Ends when its producers are answered.
    span: Span,
    _slot: Slot,
    /// Keeps the reclaim boundary below an uploaded segment until its fate is known.
    _hold: Option<Hold>,
}

/// A flush on its way into `segments/`.
pub(crate) struct Uploading {
    upload: BoxFuture<'static, Result<(), String>>,
    begun: Instant,
    bytes: u64,
    proposal: FlushProposal,
    owed: Owed,
    span: Span,
    slot: Slot,
    hold: Hold,
}

/// Where sealed flushes go.
pub(crate) enum Route {
    /// Into the commit itself.
    Inline(mpsc::Sender<Submitted>),
    /// Into `segments/`, then into a commit.
    Upload(Store, mpsc::Sender<Uploading>),
}

/// Owns the buffer and the order of flushes.
pub(crate) struct Gatherer {
    log: Log,
    chain: Arc<Chain>,
    options: Options,
    arrivals: mpsc::Receiver<Vec<Arrival>>,
    draining: watch::Receiver<bool>,
    room: Arc<Semaphore>,
    route: Route,
    counts: Arc<Counts>,
    slots: Arc<Semaphore>,
    spacing: Spacing,
    buffer: VecDeque<Arrival>,
    buffered_bytes: usize,
}

/// What a [`Gatherer`] is made of.
pub(crate) struct GathererParts {
    pub(crate) log: Log,
    pub(crate) chain: Arc<Chain>,
    pub(crate) options: Options,
    pub(crate) arrivals: mpsc::Receiver<Vec<Arrival>>,
    pub(crate) draining: watch::Receiver<bool>,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) route: Route,
    pub(crate) counts: Arc<Counts>,
}

impl Gatherer {
    pub(crate) fn new(parts: GathererParts) -> Self {
        let GathererParts { log, chain, options, arrivals, draining, room, route, counts } = parts;
        let slots = Arc::new(Semaphore::new(options.flushes_in_flight_max));
        let spacing = Spacing::new(options.flush_interval);
        let buffer = VecDeque::new();
        Self { log, chain, options, arrivals, draining, room, route, counts, slots, spacing, buffer, buffered_bytes: 0 }
    }

    /// Runs until no more batches can come and all that came are submitted.
    pub(crate) async fn run(mut self) {
        let mut open = true;
        let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
        while open || !self.buffer.is_empty() {
            let full = self.buffered_bytes >= self.options.flush_bytes;
            let due = self.spacing.due(Instant::now());
            let ready = !self.buffer.is_empty() && (full || !open || due <= Instant::now());
            tokio::select! {
                biased;
                () = asked(&mut self.draining), if !self.arrivals.is_closed() => self.close(),
                slot = Arc::clone(&self.slots).acquire_owned(), if ready => {
                    self.take_waiting(&mut taken);
                    self.flush(slot.expect("nobody closes the slots")).await;
                }
                count = self.arrivals.recv_many(&mut taken, TAKEN_AT_ONCE), if open && !full => {
                    open = count > 0;
                    self.take(&mut taken);
                }
                () = sleep_until(due), if !self.buffer.is_empty() && !ready => {}
            }
        }
    }

    /// Takes no more batches from producers; those that wait for room are turned away.
    fn close(&mut self) {
        self.room.close();
        self.arrivals.close();
    }

    fn take(&mut self, taken: &mut Vec<Vec<Arrival>>) {
        for arrival in taken.drain(..).flatten() {
            self.buffered_bytes += arrival.entry.admitted.size_bytes();
            self.buffer.push_back(arrival);
        }
    }

    /// Takes what has arrived already, as far as it fits into this flush.
    fn take_waiting(&mut self, taken: &mut Vec<Vec<Arrival>>) {
        while self.buffered_bytes < self.options.flush_bytes {
            match self.arrivals.try_recv() {
                Ok(arrivals) => taken.push(arrivals),
                Err(_) => return,
            }
            self.take(taken);
        }
    }

    /// Seals the oldest batches and sends them on their way.
    async fn flush(&mut self, slot: Slot) {
        let begun = Instant::now();
        self.spacing.begin(begun);
        if let Some(oldest) = self.buffer.front() {
            self.counts.flush_age_micros.observe_time(begun - oldest.entered);
        }
        let span = self.span();
        let load = self.cut();
        let seams = self.log.seams();
        let now_ms = (seams.wall)().max(0);
        let heavy = load.is_heavy();
        let buffers = self.log.buffers().clone();
        let seal = move || load.seal(now_ms, &buffers);
        let sealed = if heavy { seams.offload.run(seal).await } else { seal() };
        if let Some(sealed) = sealed {
            self.send(sealed, begun, slot).instrument(span).await;
        }
    }

    /// The span of the flush that is about to be cut, linked to the requests that it answers.
    fn span(&self) -> Span {
        let span = tracing::debug_span!(target: TRACE_TARGET, "flush", otel.name = "flush", id = tracing::field::Empty, bytes = tracing::field::Empty);
        if !span.is_disabled() {
            let causes = self.buffer.iter().filter_map(|arrival| arrival.cause.as_ref());
            for cause in causes.take(LINKS_MAX) {
                span.follows_from(cause.clone());
            }
        }
        span
    }

    /// Takes batches of `flush_bytes` out of the buffer, at least one.
    fn cut(&mut self) -> Load {
        let mut load = Load { entries: Vec::with_capacity(self.buffer.len()), room: None };
        let mut bytes = 0;
        while bytes < self.options.flush_bytes
            && let Some(Arrival { entry, room, .. }) = self.buffer.pop_front()
        {
            bytes += entry.admitted.size_bytes();
            load.entries.push(entry);
            match &mut load.room {
                Some(all) => all.merge(room),
                none => *none = Some(room),
            }
        }
        self.buffered_bytes -= bytes;
        load
    }

    async fn send(&self, sealed: Sealed, begun: Instant, slot: Slot) {
        // The id is minted as late as possible: an id below the reclaim boundary is refused.
        let id = self.log.mint();
        let bytes = sealed.body.bytes() as u64;
        let span = Span::current();
        span.record("id", tracing::field::display(id)).record("bytes", i64::try_from(bytes).unwrap_or(i64::MAX));
        match &self.route {
            Route::Inline(submitted) => {
                let (mut proposal, body, owed) = sealed.propose(id, self.log.nonce(), FlushBody::Inline);
                proposal.previous = self.chain.submit(id);
                let pending = self.log.submit(proposal, Some(body)).await;
                // SUBTLE: if the acknowledger is gone, dropping the answers tells each ticket that its fate is unknown.
                drop(
                    submitted.send(Submitted { id, begun, bytes, pending, owed, span, _slot: slot, _hold: None }).await,
                );
            }
            Route::Upload(store, uploading) => {
                let hold = self.log.hold(SegmentId::from(id));
                let (proposal, body, owed) = sealed.propose(id, self.log.nonce(), FlushBody::Segment);
                let upload = spawn_upload(&self.log, store.clone(), SegmentId::from(id), body);
                drop(uploading.send(Uploading { upload, begun, bytes, proposal, owed, span, slot, hold }).await);
            }
        }
    }
}

/// Waits until a drain is asked for, or nobody can ask for one any more.
async fn asked(draining: &mut watch::Receiver<bool>) {
    drop(draining.wait_for(|draining| *draining).await);
}

/// Starts the upload of a segment; what is returned waits for it.
fn spawn_upload(log: &Log, store: Store, id: SegmentId, body: Body) -> BoxFuture<'static, Result<(), String>> {
    let (identity, nonce) = (log.identity(), log.nonce());
    let upload = async move {
        let key = Key::new(layout::segment_key(identity.cell, id)).expect("keys of the layout are valid");
        let object = store.buffers().freeze(segment_object(&identity, id, nonce, body));
        match store.create(&key, object).await {
            Ok(Created::New | Created::Mine) => Ok(()),
            Ok(Created::Other) => Err(format!("another object stands at {key}")),
            // Unknown too: whatever becomes of the object, it is named by no commit, because it is not submitted.
            Err(error) => Err(error.to_string()),
        }
    };
    let task = tokio::spawn(upload.in_current_span());
    Box::pin(async move { task.await.unwrap_or_else(|error| Err(error.to_string())) })
}

/// Submits uploaded flushes in the order in which they were sealed. One that could not be uploaded is left out.
pub(crate) async fn submit_uploaded(
    log: Log,
    chain: Arc<Chain>,
    mut uploading: mpsc::Receiver<Uploading>,
    submitted: mpsc::Sender<Submitted>,
) {
    while let Some(Uploading { upload, begun, bytes, mut proposal, owed, span, slot, hold }) = uploading.recv().await {
        let id = proposal.id;
        match upload.await {
            Ok(()) => {
                proposal.previous = chain.submit(id);
                let pending = log.submit(proposal, None).instrument(span.clone()).await;
                drop(
                    submitted
                        .send(Submitted { id, begun, bytes, pending, owed, span, _slot: slot, _hold: Some(hold) })
                        .await,
                );
            }
            Err(error) => {
                tracing::warn!(%id, %error, "a segment could not be uploaded");
                owed.fail(&ProduceError::NotDone { why: Obstacle::Upload(error) });
            }
        }
    }
}

/// Answers the producers of each flush, in order, when its fate is known.
pub(crate) async fn acknowledge(
    log: Log,
    chain: Arc<Chain>,
    counts: Arc<Counts>,
    mut submitted: mpsc::Receiver<Submitted>,
    committed: mpsc::Sender<Vec<Committed>>,
) {
    while let Some(Submitted { id, begun, bytes, pending, owed, span, _slot, _hold }) = submitted.recv().await {
        match pending.await {
            Ok(outcome) => {
                chain.committed(id);
                counts.committed(bytes, begun.elapsed());
                let batches = owed.committed(&outcome);
                counts.appended(batches.iter().map(Committed::records).sum());
                if !batches.is_empty() {
                    // Nobody listens: the batches are durable all the same.
                    drop(committed.send(batches).await);
                }
                owed.settle(&outcome, &log.state());
                drop(span);
            }
            Err(error) => {
                chain.refused();
                report(&error);
                owed.fail(&error.into());
            }
        }
    }
}

fn report(error: &AppendError) {
    match error {
        // The process says once why its log closed.
        AppendError::NotDone { .. } | AppendError::Unknown { .. } => {}
        AppendError::Refused(refusal) => tracing::error!(%refusal, "the log refused a whole flush"),
    }
}

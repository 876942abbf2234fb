//! The handle of the read path: plan, then read, then wait if there is too little.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use lakebed_log::Log;
use lakebed_model::{Offset, Partition, PartitionKey, State};
use lakebed_store::Store;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cold::{Cold, Rebuilt};
use crate::counts::CacheCounts;
use crate::objects::ObjectError;
use crate::options::Options;
use crate::plan::{Piece, pieces};
use crate::request::{FetchError, FetchPartition, FetchRequest, Fetched, FetchedBatch};
use crate::tail::{Published, Tail, TailRead};
use crate::waiters::{Waiters, Waiting};

/// How often a partition is planned anew because its objects were gone. Each time another merge has committed meanwhile.
const PLANS_MAX: usize = 8;
/// The tail forgets deleted partitions when it remembers more than twice as many as there are, and more than this.
const PARTITIONS_SPARE: usize = 1024;

/// What is durable is published at once; who publishes and does not within this is not waited for any longer.
const PUBLICATION_MAX: Duration = Duration::from_secs(1);

/// The read path of one cell. A handle; clones share the caches.
#[derive(Clone)]
pub struct Fetch {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) options: Options,
    pub(crate) cold: Cold,
    tail: Mutex<Tail>,
    waiters: Arc<Waiters>,
}

/// Somebody's interest in partitions: whoever reads them again and again watches them once, and reads when it is woken.
#[derive(Debug)]
pub struct Watch {
    waiting: Waiting,
}

impl Watch {
    /// Waits until one of the partitions was published since the watch began, or since the last time that this returned; or until
    /// nobody should wait any more.
    ///
    /// # Cancel What woke it is not lost.
    pub async fn woken(&self) {
        self.waiting.woken().await;
    }
}

/// What one partition of a request comes to.
enum Planned {
    /// Batches of the tail, or nothing yet.
    Ready(Vec<FetchedBatch>),
    /// Rows of objects.
    Cold(Vec<Piece>),
    /// An answer that must not rest on a state that may be old.
    Doubtful(FetchError),
}

/// A planned partition with what the state says of it.
struct Plan {
    partition: Partition,
    visible: Offset,
    planned: Planned,
}

impl std::fmt::Debug for Fetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetch").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Fetch {
    /// A read path with empty caches. Everything that is durable now can be read; what comes later when it is published.
    pub fn new(log: Log, store: Store, options: Options) -> Self {
        let state = log.state();
        let visible = state.topics().flat_map(|(id, topic)| {
            (0..topic.partitions).map(move |index| PartitionKey::new(id, lakebed_model::PartitionIndex::new(index)))
        });
        let visible = visible.filter_map(|key| Some((key, state.partition(key)?.high_watermark)));
        let tail = Tail::new(options.tail_bytes, visible.filter(|(_, visible)| *visible > Offset::ZERO));
        let cold = Cold::new(&log, store, &options);
        let shared = Shared { log, options, cold, tail: Mutex::new(tail), waiters: Arc::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Makes committed batches visible, keeps them in the tail, and wakes those who wait for their partitions.
    ///
    /// The batches are durable, and come in offset order per partition.
    pub fn publish(&self, batches: &[Published]) {
        let mut tail = self.shared.tail();
        tail.publish(batches);
        self.forget_gone(&mut tail);
        drop(tail);
        self.shared.waiters.wake(batches.iter().map(|batch| batch.partition));
    }

    /// Forgets partitions that are no more, if there may be many.
    fn forget_gone(&self, tail: &mut Tail) {
        let remembered = tail.partition_count();
        if remembered > PARTITIONS_SPARE {
            let state = self.shared.log.state();
            if remembered > PARTITIONS_SPARE + 2 * state.partition_count() {
                tail.retain(|key| state.partition(key).is_some());
            }
        }
    }

    /// Makes visible what is durable without being published: another broker has committed it. Wakes those who wait for the partitions.
    pub fn see(&self, durable: impl Iterator<Item = (PartitionKey, Offset)>) {
        let durable: Vec<(PartitionKey, Offset)> = durable.collect();
        let mut tail = self.shared.tail();
        durable.iter().for_each(|(key, offset)| tail.see(*key, *offset));
        self.forget_gone(&mut tail);
        drop(tail);
        self.shared.waiters.wake(durable.iter().map(|(key, _)| *key));
    }

    /// Up to where a partition may be read now.
    pub fn visible(&self, key: PartitionKey) -> Offset {
        self.shared.tail().visible(key)
    }

    /// The index of the first of some places, as offsets of partitions, that has something to read now.
    ///
    /// # Cost One look for each place up to that one.
    pub fn first_readable(&self, places: impl Iterator<Item = (PartitionKey, Offset)>) -> Option<usize> {
        let tail = self.shared.tail();
        places.into_iter().position(|(key, offset)| tail.visible(key) > offset)
    }

    /// Begins to watch partitions.
    pub fn watch(&self, keys: impl Iterator<Item = PartitionKey>) -> Watch {
        Watch { waiting: self.shared.waiters.register(keys) }
    }

    /// Waits until everything of a partition below `offset`, which is durable, can be read; not after [`Fetch::stop_waiting`].
    pub async fn wait_visible(&self, key: PartitionKey, offset: Offset) {
        let watch = self.watch([key].into_iter());
        while self.visible(key) < offset && !self.is_stopped() {
            watch.woken().await;
        }
    }

    /// Reads partitions; the answers are in the order of the request.
    ///
    /// Waits until there are `bytes_min` bytes or an error, at most `wait_max`, and not after [`Fetch::stop_waiting`]. An offset that is durable but not visible yet waits.
    /// What was durable before the call is seen, whatever the call waits for: its producer may know of it.
    ///
    /// # Cancel Nothing is left behind.
    /// # Cost   Nothing but a clone of handles for what is in the tail; otherwise requests for what is in no cache.
    pub async fn fetch(&self, request: FetchRequest) -> Vec<Result<Fetched, FetchError>> {
        let deadline = Instant::now() + request.wait_max;
        self.see_durable(&request).await;
        let answer = self.shared.read(&request).await;
        if is_enough(&answer, &request) || request.wait_max.is_zero() {
            return answer;
        }
        // SUBTLE: registered before it is read again, so that nothing is published between the look and the wait.
        let waiting = self.shared.waiters.register(request.partitions.iter().map(|partition| partition.key));
        loop {
            let answer = self.shared.read(&request).await;
            if is_enough(&answer, &request) || Instant::now() >= deadline || self.is_stopped() {
                return answer;
            }
            tokio::select! {
                biased;
                () = waiting.woken() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Waits until what is durable of the partitions can be read. Between a commit and its publication lie microseconds, in which its
    /// producer may be answered and ask.
    async fn see_durable(&self, request: &FetchRequest) {
        let state = self.shared.log.state();
        let unseen: Vec<(PartitionKey, Offset)> = {
            let tail = self.shared.tail();
            let keys = request.partitions.iter().map(|partition| partition.key);
            let durable = keys.filter_map(|key| Some((key, state.partition(key)?.high_watermark)));
            durable.filter(|(key, durable)| tail.visible(*key) < *durable).collect()
        };
        if !unseen.is_empty() {
            let all = join_all(unseen.into_iter().map(|(key, durable)| self.wait_visible(key, durable)));
            drop(timeout(PUBLICATION_MAX, all).await);
        }
    }

    /// Answers all who wait with what there is, now and from now on: the broker is about to end.
    pub fn stop_waiting(&self) {
        self.shared.waiters.end();
    }

    /// Whether nobody waits any more.
    pub fn is_stopped(&self) -> bool {
        self.shared.waiters.is_ended()
    }

    /// Waits until nobody waits any more.
    pub async fn stopped(&self) {
        self.shared.waiters.ended().await;
    }

    /// What the caches did so far.
    pub fn caches(&self) -> CacheCounts {
        let tail = self.shared.tail().use_so_far();
        let (footers, ranges, batches) = self.shared.cold.use_so_far();
        CacheCounts { tail, footers, ranges, batches }
    }

    /// How many partitions are waited for or watched, each as often as it is.
    pub fn waiting(&self) -> usize {
        self.shared.waiters.count()
    }
}

fn is_enough(answer: &[Result<Fetched, FetchError>], request: &FetchRequest) -> bool {
    let bytes: usize = answer.iter().flatten().map(Fetched::size_bytes).sum();
    bytes >= request.bytes_min.min(request.bytes_max) || answer.iter().any(Result::is_err)
}

impl Shared {
    pub(crate) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, request: &FetchRequest) -> Vec<Result<Fetched, FetchError>> {
        let mut state = self.log.state();
        let mut plans = self.plan(&state, request);
        if plans.iter().any(|plan| matches!(plan.planned, Planned::Doubtful(_))) {
            match self.log.barrier().await {
                Ok(proven) => {
                    state = proven;
                    plans = self.plan(&state, request);
                }
                Err(error) => plans.iter_mut().for_each(|plan| plan.doubt(&error.to_string())),
            }
        }
        let cold = join_all(plans.iter().map(|plan| self.read_cold(&state, plan))).await;
        let mut left_bytes = request.bytes_max;
        let mut is_first = true;
        let mut answers = Vec::with_capacity(plans.len());
        for ((plan, cold), asked) in plans.into_iter().zip(cold).zip(&request.partitions) {
            let batches = match plan.planned {
                Planned::Doubtful(error) => {
                    answers.push(Err(error));
                    continue;
                }
                Planned::Ready(batches) => batches,
                Planned::Cold(_) => match self.settle(cold, asked, request).await {
                    Ok(batches) => batches,
                    Err(error) => {
                        answers.push(Err(error));
                        continue;
                    }
                },
            };
            let batches = limit(batches, asked, &mut left_bytes, &mut is_first);
            answers.push(Ok(answer(batches, asked.offset, plan.partition, plan.visible)));
        }
        answers
    }

    /// Plans all partitions from one state; those in front get the bytes first.
    fn plan(&self, state: &State, request: &FetchRequest) -> Vec<Plan> {
        let mut left_bytes = request.bytes_max;
        let mut plans = Vec::with_capacity(request.partitions.len());
        for (index, asked) in request.partitions.iter().enumerate() {
            let bytes_max = asked.bytes_max.min(left_bytes);
            let is_full = index > 0 && left_bytes == 0;
            let plan = self.plan_one(state, asked, bytes_max, is_full);
            left_bytes = left_bytes.saturating_sub(plan.planned.size_bytes());
            plans.push(plan);
        }
        plans
    }

    fn plan_one(&self, state: &State, asked: &FetchPartition, bytes_max: usize, is_full: bool) -> Plan {
        let Some(partition) = state.partition(asked.key) else {
            let planned = Planned::Doubtful(FetchError::UnknownTopicOrPartition);
            return Plan { partition: Partition::default(), visible: Offset::ZERO, planned };
        };
        let mut tail = self.tail();
        let visible = tail.visible(asked.key).min(partition.high_watermark);
        let planned = if asked.offset < partition.log_start || asked.offset > partition.high_watermark {
            let Partition { log_start, high_watermark } = partition;
            Planned::Doubtful(FetchError::OffsetOutOfRange { offset: asked.offset, log_start, high_watermark })
        } else if asked.offset >= visible || is_full {
            Planned::Ready(Vec::new())
        } else {
            match tail.read(asked.key, asked.offset, bytes_max) {
                // Keys of what is in the tail may have been compacted since: consumers get what the table shows.
                TailRead::Hit(_) if is_cleaned(state, asked) => {
                    drop(tail);
                    self.plan_cold(state, asked.key, asked.offset..visible, bytes_max)
                }
                TailRead::Hit(batches) => Planned::Ready(batches),
                TailRead::Miss { resumes } => {
                    drop(tail);
                    let end = resumes.unwrap_or(visible).min(visible);
                    self.plan_cold(state, asked.key, asked.offset..end, bytes_max)
                }
            }
        };
        Plan { partition, visible, planned }
    }

    fn plan_cold(
        &self,
        state: &State,
        key: PartitionKey,
        offsets: std::ops::Range<Offset>,
        bytes_max: usize,
    ) -> Planned {
        Planned::Cold(pieces(state, key, offsets, bytes_max as u64, self.options.batch_bytes as u64))
    }

    async fn read_cold(&self, state: &State, plan: &Plan) -> Vec<Result<Rebuilt, ObjectError>> {
        match &plan.planned {
            Planned::Cold(pieces) => join_all(pieces.iter().map(|piece| self.cold.batches(state, piece))).await,
            Planned::Ready(_) | Planned::Doubtful(_) => Vec::new(),
        }
    }

    /// What came before the first error, or that error; a piece that is gone or seems damaged is planned again behind a
    /// barrier.
    async fn settle(
        &self,
        mut pieces: Vec<Result<Rebuilt, ObjectError>>,
        asked: &FetchPartition,
        request: &FetchRequest,
    ) -> Result<Vec<FetchedBatch>, FetchError> {
        let mut doubted: Option<String> = None;
        for _ in 0..PLANS_MAX {
            let read = pieces.iter().map_while(|piece| piece.as_ref().ok());
            let batches: Vec<FetchedBatch> = read.flat_map(|rebuilt| rebuilt.iter().cloned()).collect();
            let error = pieces.into_iter().find_map(Result::err);
            let (key, what) = match error {
                _ if !batches.is_empty() => return Ok(batches),
                None => return Ok(Vec::new()),
                Some(ObjectError::Gone { key }) => (key, "it does not exist, but the log names it".to_owned()),
                // SUBTLE: an old plan may meet another object as well as none: a takeover that came late may stand where a
                // commit was reclaimed.
                Some(ObjectError::Damaged { key, what }) => (key, what),
                Some(ObjectError::Unavailable { why }) => return Err(FetchError::Unavailable { why }),
            };
            if doubted.as_ref() == Some(&key) {
                return Err(FetchError::Damaged { object: key, what });
            }
            doubted = Some(key);
            let state = self.log.barrier().await.map_err(|error| FetchError::Unavailable { why: error.to_string() })?;
            let plan = self.plan_one(&state, asked, asked.bytes_max.min(request.bytes_max), false);
            pieces = match plan.planned {
                Planned::Ready(batches) => return Ok(batches),
                Planned::Doubtful(error) => return Err(error),
                Planned::Cold(_) => self.read_cold(&state, &plan).await,
            };
        }
        Err(FetchError::Unavailable { why: format!("its objects were replaced {PLANS_MAX} times while it was read") })
    }
}

impl Plan {
    /// A doubtful answer is no answer if the log can't be read up to its end.
    fn doubt(&mut self, why: &str) {
        if let Planned::Doubtful(error) = &mut self.planned {
            *error = FetchError::Unavailable { why: why.to_owned() };
        }
    }
}

impl Planned {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Ready(batches) => batches.iter().map(FetchedBatch::size_bytes).sum(),
            Self::Cold(pieces) => pieces.iter().map(|piece| piece.bytes as usize).sum(),
            Self::Doubtful(_) => 0,
        }
    }
}

/// Batches up to the limits: one at least of a partition if it fits the request, and one at least of the request.
fn limit(
    mut batches: Vec<FetchedBatch>,
    asked: &FetchPartition,
    left_bytes: &mut usize,
    is_first: &mut bool,
) -> Vec<FetchedBatch> {
    // A piece begins at its run's rows, so batches that end before the wanted offset may come first.
    batches.retain(|batch| batch.last_offset >= asked.offset);
    let mut bytes = 0;
    let mut taken = 0;
    for batch in &batches {
        let with_this = bytes + batch.size_bytes();
        let fits = with_this <= *left_bytes && (taken == 0 || with_this <= asked.bytes_max);
        if !fits && !*is_first {
            break;
        }
        *is_first = false;
        bytes = with_this;
        taken += 1;
    }
    batches.truncate(taken);
    *left_bytes = left_bytes.saturating_sub(bytes);
    batches
}

fn answer(batches: Vec<FetchedBatch>, offset: Offset, partition: Partition, visible: Offset) -> Fetched {
    let next_offset = batches.last().map_or(offset, FetchedBatch::next_offset);
    // A consumer that was told a durable offset may be ahead of what is visible here, for a moment.
    let high_watermark = visible.max(next_offset);
    Fetched { batches, high_watermark, log_start: partition.log_start, next_offset }
}

/// Whether keys were compacted where a fetch begins.
fn is_cleaned(state: &State, asked: &FetchPartition) -> bool {
    state.runs_from(asked.key, asked.offset).next().is_some_and(|(_, run)| run.clean || run.has_gaps())
}

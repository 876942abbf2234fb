//! The store: a root, a backend, and the policy by which it is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::backend::{Backend, Failure, StoreDate};
use crate::buffers::BufferPool;
use crate::counts::{Counters, Counts, Latencies};
use crate::gate::{Gate, Paced};
use crate::health::Trouble;
use crate::hedge::Hedging;
use crate::pace::{Pacing, Priority};
use crate::price::Prices;
use crate::read_only::ReadOnly;
use crate::remedy::Origins;
use crate::retry::{Attempts, Retry, RetryPolicy};
use tokio::time::Instant;

/// Size of a part: above what S3 takes at least (5 MiB), and whole blocks of any disk.
const PART_BYTES: usize = 8 << 20;
/// How the URLs of cloud stores begin.
const CLOUD_SCHEMES: [&str; 3] = ["s3://", "gs://", "az://"];

/// Settings of a [`Store`].
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// How long and how often an operation is tried.
    pub retry: RetryPolicy,
    /// Seed of the jitter between attempts. Different on every broker, fixed in simulation.
    pub seed: u64,
    /// Most bytes of used buffers that lie ready for the next objects. More spares fresh pages when large objects are written.
    pub free_buffers_bytes: usize,
    /// Size of the parts of [objects in parts](Store::create_in_parts). `None`: 8 MiB. S3 takes no less than 5 MiB, and 10,000 parts an object.
    pub part_bytes: Option<usize>,
    /// When slow requests are sent a second time. `None`: as by default to a cloud store; elsewhere never, since a second request would wait for
    /// the same disk.
    pub hedging: Option<Hedging>,
    /// How many requests are under way at once. `None`: as by default to a cloud store; elsewhere as many as come.
    pub pacing: Option<Pacing>,
    /// Where a cloud store's settings come from (`AWS_ACCESS_KEY_ID` and so on). `None`: the process's environment.
    pub variables: Option<Variables>,
}

/// Variables that stand in for the process's environment. What they say is not shown by `Debug`: secrets are among it.
#[derive(Clone, Default)]
pub struct Variables(pub BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// The bucket, or what stands for it. Cloning is cheap; all clones share one connection pool, or one lock, and one [pace](crate::pace).
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    priority: Priority,
    may_hedge: bool,
}

struct Inner {
    url: String,
    backend: Arc<dyn Backend>,
    retry: Retry,
    /// `None`: requests go as they come.
    gate: Option<Arc<Gate>>,
    counters: Counters,
    buffers: BufferPool,
    part_bytes: usize,
    /// Of a cloud store: where its settings come from.
    origins: Option<Origins>,
}

impl Store {
    /// A store over a backend of the caller's, such as [`FaultBackend`](crate::faults::FaultBackend). `url` is what it
    /// is called in messages.
    pub fn new(url: impl Into<String>, backend: Arc<dyn Backend>, options: &StoreOptions) -> Self {
        let url = url.into();
        let is_cloud = CLOUD_SCHEMES.iter().any(|scheme| url.starts_with(scheme));
        let hedging = options.hedging.or_else(|| is_cloud.then(Hedging::default));
        let pacing = options.pacing.or_else(|| is_cloud.then(Pacing::default));
        let gate = pacing.map(|pacing| Arc::new(Gate::new(&pacing, options.retry.clone(), options.seed)));
        let retry = Retry::new(options.retry.clone(), options.seed);
        let buffers = BufferPool::new(options.free_buffers_bytes);
        Self {
            inner: Arc::new(Inner {
                url,
                backend,
                retry,
                gate,
                counters: Counters::new(hedging),
                buffers,
                part_bytes: options.part_bytes.unwrap_or(PART_BYTES).max(1),
                origins: None,
            }),
            priority: Priority::default(),
            may_hedge: true,
        }
    }

    /// The same store for requests of another priority.
    pub fn with_priority(&self, priority: Priority) -> Self {
        Self { priority, ..self.clone() }
    }

    /// The same store for requests that are not hedged. A PUT that lost against its hedge may reach the store a moment later: who deletes right
    /// behind creating, and must not see the object again, asks through this.
    pub fn without_hedges(&self) -> Self {
        Self { may_hedge: false, ..self.clone() }
    }

    /// Whether somebody waits for what is asked, so that it may be hedged.
    pub(crate) fn may_hedge(&self) -> bool {
        self.may_hedge && self.priority < Priority::Compaction
    }

    /// What its requests are for.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// How it is asked now; `None` if requests go as they come.
    pub fn paced(&self) -> Option<Paced> {
        self.inner.gate.as_ref().map(|gate| gate.paced())
    }

    /// The root as a URL, without secrets.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// What was asked so far, and what came of it.
    pub fn counts(&self) -> Counts {
        self.inner.counters.snapshot()
    }

    /// How long its requests took.
    pub fn latencies(&self) -> Latencies {
        self.inner.counters.latencies()
    }

    /// What requests cost here.
    pub fn prices(&self) -> Prices {
        Prices::of(self.url())
    }

    /// What the last requests say is wrong with the store; `None` if they were answered, or nobody has asked lately. Asks nothing.
    pub fn trouble(&self) -> Option<Trouble> {
        self.inner.counters.trouble(Instant::now())
    }

    /// What the store said last of its own clock, with any answer; `None` if it says nothing of it, or has only that of this machine. Asks
    /// nothing.
    pub fn date(&self) -> Option<StoreDate> {
        self.inner.backend.date()
    }

    /// Buffers to write objects into.
    pub fn buffers(&self) -> &BufferPool {
        &self.inner.buffers
    }

    /// Size of the parts of objects in parts; what is no larger is stored at once.
    pub fn part_bytes(&self) -> usize {
        self.inner.part_bytes
    }

    /// The same, before it is cloned, with where its settings come from.
    pub(crate) fn with_origins(mut self, origins: Origins) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("nobody else has it yet");
        inner.origins = Some(origins);
        self
    }

    /// The same, but for what would change something, which is refused.
    pub(crate) fn read_only(mut self) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("nobody else has it yet");
        inner.backend = Arc::new(ReadOnly(Arc::clone(&inner.backend)));
        self
    }

    pub(crate) fn origins(&self) -> Option<&Origins> {
        self.inner.origins.as_ref()
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.inner.backend
    }

    pub(crate) fn retry(&self) -> &Retry {
        &self.inner.retry
    }

    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.inner.gate.as_ref()
    }

    /// Tells now and then that calls get no good answer, while they go on asking.
    pub(crate) fn tell_of_trouble(&self, failure: &Failure, attempts: &Attempts<'_>) {
        if attempts.is_to_be_told() {
            let remedy = self.remedy(&failure.cause).unwrap_or_default();
            tracing::warn!(store = self.url(), cause = %failure.cause, remedy, "the store gives no good answer; asking on");
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.inner.counters
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Store({})", self.inner.url)
    }
}

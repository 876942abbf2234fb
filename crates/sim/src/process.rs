//! A process as the world sees it: it can be paused and killed, and reaches the store and others only through its gate.
//!
//! A dead process neither asks the store for anything nor tells anybody anything; what it had sent goes on without it. A pause holds
//! back everything that goes in or out, for longer than any timeout if need be.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use lakebed_store::backend::{Backend, Body, Failure, Listed, Part, PartId, Span, UploadId};
use lakebed_store::faults::FaultBackend;
use lakebed_store::{Directory, Key, Payload};
use tokio::sync::Notify;

use crate::trace::Trace;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Running,
    Paused,
    Dead,
}

/// Where everything that goes in or out of a process passes.
pub(crate) struct Gate {
    name: String,
    condition: Mutex<Condition>,
    /// SUBTLE: not a watch, which wakes those who wait in an order that it draws by lot.
    changed: Notify,
    /// Store operations until it dies.
    doom: AtomicU64,
    /// A process of the end: nothing happens to it.
    sheltered: AtomicBool,
    /// Whether it can't reach the store.
    cut_off: AtomicBool,
    trace: Trace,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl Gate {
    /// A running process that dies at its `doom`-th crossing, if one is given.
    pub(crate) fn new(name: String, doom: Option<u64>, trace: Trace) -> Arc<Self> {
        let sheltered = AtomicBool::new(false);
        Arc::new(Self {
            name,
            condition: Mutex::new(Condition::Running),
            changed: Notify::new(),
            doom: AtomicU64::new(doom.unwrap_or(u64::MAX)),
            sheltered,
            cut_off: AtomicBool::new(false),
            trace,
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Keeps it from harm.
    pub(crate) fn shelter(&self) {
        self.sheltered.store(true, Ordering::Relaxed);
    }

    /// Kills it. Dead stays dead.
    pub(crate) fn kill(&self) {
        if !self.is_dead() {
            self.trace.note(format_args!("{} dies", self.name));
            self.trace.count("crashes");
            self.change(Condition::Dead);
        }
    }

    /// Ends it: as killing, but by its own will.
    pub(crate) fn exit(&self) {
        if !self.is_dead() {
            self.trace.note(format_args!("{} exits", self.name));
            self.change(Condition::Dead);
        }
    }

    /// Holds everything back.
    pub(crate) fn pause(&self) {
        if self.condition() == Condition::Running {
            self.change(Condition::Paused);
        }
        self.trace.note(format_args!("{} is paused", self.name));
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        if self.condition() == Condition::Paused {
            self.change(Condition::Running);
        }
    }

    /// Cuts it off from the store, or lets it reach the store again.
    pub(crate) fn cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }

    /// Whether it can't reach the store.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Whether it is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.condition() == Condition::Dead
    }

    fn condition(&self) -> Condition {
        *self.condition.lock().expect("no code panics while it holds the condition")
    }

    fn change(&self, condition: Condition) {
        *self.condition.lock().expect("no code panics while it holds the condition") = condition;
        self.changed.notify_waiters();
    }

    async fn wait_until(&self, wanted: impl Fn(Condition) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if wanted(self.condition()) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until it is dead.
    pub(crate) async fn dead(&self) {
        self.wait_until(|condition| condition == Condition::Dead).await;
    }

    /// Passes when it runs; never, when it is dead.
    pub(crate) async fn pass(&self) {
        self.wait_until(|condition| condition == Condition::Running).await;
    }

    /// Passes with a request to the store, or its answer; this is where the doomed die.
    async fn cross(&self) {
        self.pass().await;
        let left = self.doom.load(Ordering::Relaxed);
        if left != u64::MAX && !self.sheltered.load(Ordering::Relaxed) {
            self.doom.store(left.saturating_sub(1), Ordering::Relaxed);
            if left <= 1 {
                self.kill();
                std::future::pending::<()>().await;
            }
        }
    }

    /// What `work` gives; `None` if the process dies first.
    pub(crate) async fn unless_dead<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.dead() => None,
            result = work => Some(result),
        }
    }
}

/// A process's way to the store.
#[derive(Debug)]
pub(crate) struct GatedBackend {
    gate: Arc<Gate>,
    inner: Arc<FaultBackend>,
    /// What this process tried to create, to tell a read-back from other reads.
    tried: Mutex<BTreeSet<Key>>,
}

impl GatedBackend {
    /// The way of `gate`'s process through `inner`.
    pub(crate) fn new(gate: Arc<Gate>, inner: Arc<FaultBackend>) -> Self {
        Self { gate, inner, tried: Mutex::default() }
    }

    async fn through<T>(&self, work: impl Future<Output = T>) -> T {
        self.gate.cross().await;
        let result = work.await;
        self.gate.cross().await;
        result
    }
}

#[async_trait]
impl Backend for GatedBackend {
    async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.tried.lock().expect("no code panics while it holds the keys").insert(key.clone());
        self.through(self.inner.create(key, payload)).await
    }

    async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.through(self.inner.overwrite(key, payload)).await
    }

    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        let own = self.tried.lock().expect("no code panics while it holds the keys").contains(key);
        if own && key.as_str().contains("/log/") && matches!(span, Span::Last(_)) {
            self.gate.trace.count("read-backs");
        }
        let body = self.through(self.inner.get(key, span)).await;
        let word = body.as_ref().map_or("nothing", |_| "bytes");
        self.gate.trace.note(format_args!("  {} gets {word} from {key}", self.gate.name));
        body
    }

    async fn size(&self, key: &Key) -> Result<u64, Failure> {
        self.through(self.inner.size(key)).await
    }

    async fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Listed>, Failure> {
        let listed = self.through(self.inner.list(directory, start_after, limit)).await;
        let count = listed.as_ref().map_or(0, Vec::len);
        self.gate.trace.note(format_args!("  {} lists {count} under {directory}", self.gate.name));
        listed
    }

    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        self.through(self.inner.list_directories(directory)).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Failure> {
        self.through(self.inner.delete(keys)).await
    }

    async fn begin(&self, key: &Key) -> Result<UploadId, Failure> {
        self.through(self.inner.begin(key)).await
    }

    async fn put_part(&self, key: &Key, upload: &UploadId, part: &Part) -> Result<PartId, Failure> {
        self.through(self.inner.put_part(key, upload, part)).await
    }

    async fn complete(&self, key: &Key, upload: &UploadId, parts: &[PartId], size_bytes: u64) -> Result<(), Failure> {
        self.through(self.inner.complete(key, upload, parts, size_bytes)).await
    }

    async fn abort(&self, key: &Key, upload: &UploadId) -> Result<(), Failure> {
        self.through(self.inner.abort(key, upload)).await
    }
}

//! A store in memory whose writes can be held back.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use lakebed_store::backend::{Backend, Body, Failure, FailureKind, Span};
use lakebed_store::{Directory, Key, Listed, MemoryBackend, Payload};
use tokio::sync::watch;

/// Creates wait while it is closed.
#[derive(Debug)]
pub(super) struct Gated {
    inner: MemoryBackend,
    is_open: watch::Sender<bool>,
    held: AtomicUsize,
    /// Creates of keys with this in them are refused.
    pub(super) refused: std::sync::Mutex<Option<&'static str>>,
}

impl Default for Gated {
    fn default() -> Self {
        let (is_open, _) = watch::channel(true);
        Self { inner: MemoryBackend::default(), is_open, held: AtomicUsize::new(0), refused: Default::default() }
    }
}

impl Gated {
    pub(super) fn close(&self) {
        self.is_open.send_replace(false);
    }

    pub(super) fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// How many creates wait now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Backend for Gated {
    async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.held.fetch_add(1, Ordering::Relaxed);
        let opened = self.is_open.subscribe().wait_for(|is_open| *is_open).await.map(|_| ());
        self.held.fetch_sub(1, Ordering::Relaxed);
        opened.expect("the gate outlives its waiters");
        let refused = *self.refused.lock().unwrap();
        if refused.is_some_and(|part| key.as_str().contains(part)) {
            return Err(Failure::new(FailureKind::Refused, "refused by the test"));
        }
        self.inner.create(key, payload).await
    }

    async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.inner.overwrite(key, payload).await
    }

    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        self.inner.get(key, span).await
    }

    async fn size(&self, key: &Key) -> Result<u64, Failure> {
        self.inner.size(key).await
    }

    async fn list(&self, directory: &Directory, after: Option<&Key>, limit: usize) -> Result<Vec<Listed>, Failure> {
        self.inner.list(directory, after, limit).await
    }

    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        self.inner.list_directories(directory).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Failure> {
        self.inner.delete(keys).await
    }
}

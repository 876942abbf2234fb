//! Requests that are applied after they were answered: what a store may do with one whose client has long given up.
//!
//! Whatever else is told to go wrong, they are past it: they wait within the store. Their number is bounded; one more is never applied, which a
//! client can't tell apart from one that is very late.

use std::sync::Mutex;
use std::time::Duration;

use s3s::HttpRequest;
use s3s::service::S3Service;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::objects::Held;

/// Most that wait.
const LATE_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Late {
    waiting: Mutex<Waiting>,
    ended: CancellationToken,
}

/// Those that came since all were last applied.
#[derive(Debug, Default, Clone)]
struct Waiting {
    requests: TaskTracker,
    now: CancellationToken,
}

impl Late {
    /// With what ends all that wait when it is dropped.
    pub(crate) fn new() -> (Self, DropGuard) {
        let ended = CancellationToken::new();
        (Self { waiting: Mutex::default(), ended: ended.clone() }, ended.drop_guard())
    }

    /// Has `service` apply a request after `wait`; `body` is what it holds.
    pub(crate) fn apply_after(&self, wait: Duration, service: S3Service, request: HttpRequest, body: Held) {
        let waiting = self.lock();
        if waiting.requests.len() >= LATE_MAX {
            return;
        }
        let (now, ended) = (waiting.now.clone(), self.ended.clone());
        waiting.requests.spawn(async move {
            let apply = async {
                now.run_until_cancelled(tokio::time::sleep(wait)).await;
                let applied = service.call(request).await;
                drop(body);
                tracing::debug!(status = ?applied.map(|answer| answer.status()), "a late request was applied");
            };
            ended.run_until_cancelled(apply).await;
        });
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().requests.len()
    }

    /// Applies all that wait, in no order. Returns how many those were, when they are applied.
    pub(crate) async fn apply_now(&self) -> usize {
        let waiting = std::mem::take(&mut *self.lock());
        let count = waiting.requests.len();
        waiting.now.cancel();
        waiting.requests.close();
        waiting.requests.wait().await;
        count
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code panics while it holds what waits")
    }
}

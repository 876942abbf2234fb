//! Writing over an object: for hints alone, whose readers can do with an older one.
//!
//! An attempt without an answer may be applied later, over what others have written since. So nothing that must be right may be
//! written like this: what is written here is looked at again by whoever needs it to be new.

use tracing::Instrument;

use crate::backend::{Cause, FailureKind};
use crate::key::Key;
use crate::payload::Payload;
use crate::span;
use crate::store::Store;

/// An overwrite that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot tell that '{key}' was written ({attempts} attempts)")]
pub struct OverwriteError {
    /// What was to be written.
    pub key: Key,
    /// How many PUTs were sent.
    pub attempts: u32,
    /// The last failure. Earlier attempts may have been applied, or may be later.
    pub source: Cause,
}

impl Store {
    /// Stores `payload` at `key`, whatever stands there; repeats the attempt within the bounds of the
    /// [`RetryPolicy`](crate::RetryPolicy).
    ///
    /// # Cost
    /// One PUT when all goes well.
    ///
    /// # Cancel
    /// The object may be written, now or later.
    ///
    /// # Errors
    /// [`OverwriteError`]: it may have been written, or may be later.
    pub async fn overwrite(&self, key: &Key, payload: impl Into<Payload>) -> Result<(), OverwriteError> {
        let payload = payload.into();
        self.overwrite_repeatedly(key, payload).instrument(span::call("store PUT", key.as_str())).await
    }

    async fn overwrite_repeatedly(&self, key: &Key, payload: Payload) -> Result<(), OverwriteError> {
        let mut attempts = self.retry().begin();
        loop {
            // SUBTLE: never hedged. The second of two could be applied over what others have written since the first was answered.
            attempts.begin_one();
            let put = self.backend().overwrite(key, &payload);
            let put = self.ask(&self.counters().put, |()| payload.size_bytes(), put).await;
            let Err(failure) = put else { return Ok(()) };
            self.tell_of_trouble(&failure, &attempts);
            let hopeless = matches!(failure.kind, FailureKind::Refused | FailureKind::Broken | FailureKind::Absent);
            if hopeless || !attempts.wait().await {
                return Err(OverwriteError { key: key.clone(), attempts: attempts.made(), source: failure.cause });
            }
        }
    }
}

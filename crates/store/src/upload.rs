//! Creating a large object in parts, so that no more of it than a few parts is ever in memory.
//!
//! Nobody sees anything of it before its last step, which is a create-if-absent like [`create`](crate::create)'s, with the same outcomes: an
//! answer that is lost is resolved by looking at what stands there, its size and its end. What differs:
//!
//! 1. Where nothing stands although the completion is in doubt, the completion alone is repeated; a store that no longer knows the parts has
//!    completed them or lost them.
//! 2. Parts that were stored and never completed cost money, and are seen by no listing. They are deleted when the upload is dropped, or
//!    fails, by a task of its own, as far as the store answers. What a process leaves behind that dies meanwhile is for the store's own rule (on S3
//!    a lifecycle rule `AbortIncompleteMultipartUpload`; Azure does it by itself after a week); on a local directory for the next start.
//! 3. Google's and Azure's completion knows no condition in the client that is used here. So what stands there is looked at before: of two
//!    rivals at the same time the later one may win. Whoever relies on one winner uses `create`; objects in parts have names with random
//!    bits, which nobody else uses.
//!
//! An object that is no larger than one part is stored by `create`.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tracing::Instrument;

use crate::backend::{Failure, FailureKind, Part, PartId, UploadId};
use crate::create::{COMPARED_BYTES_MAX, CreateError, Created, Expected, Standing, given_up};
use crate::key::Key;
use crate::payload::Payload;
use crate::span;
use crate::store::Store;

/// Most parts that are on their way at once.
const PARTS_AT_ONCE: usize = 4;
/// Most parts that an object may have, by S3 and by Google.
const PARTS_MAX: usize = 10_000;

/// An object that is being created in parts. See the [module](crate::upload).
#[derive(Debug)]
pub struct Upload {
    store: Store,
    key: Key,
    /// What was pushed and is in no part yet.
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    begun: Option<UploadId>,
    parts: Vec<PartId>,
    /// Bytes in parts.
    stored_bytes: u64,
    /// The last bytes that were pushed, to know the object again.
    end: Vec<u8>,
    failed: bool,
}

impl Store {
    /// Begins an object that is created at `key` in parts, if nothing stands there when it is [finished](Upload::finish).
    ///
    /// # Cost
    /// Nothing yet.
    pub fn create_in_parts(&self, key: &Key) -> Upload {
        Upload {
            store: self.clone(),
            key: key.clone(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            begun: None,
            parts: Vec::new(),
            stored_bytes: 0,
            end: Vec::new(),
            failed: false,
        }
    }

    async fn begin_until_done(&self, key: &Key) -> Result<UploadId, CreateError> {
        let mut attempts = self.retry().begin();
        loop {
            attempts.begin_one();
            let begun = self.ask(&self.counters().put, |_| 0, self.backend().begin(key)).await;
            let failure = match begun {
                Ok(upload) => return Ok(upload),
                Err(failure) => failure,
            };
            self.tell_of_trouble(&failure, &attempts);
            if is_hopeless(&failure) || !attempts.wait().await {
                return Err(given_up(key, 0, &attempts, false, failure));
            }
        }
    }

    async fn put_until_done(self, key: Key, upload: UploadId, part: Part) -> Result<PartId, CreateError> {
        let mut attempts = self.retry().begin();
        loop {
            attempts.begin_one();
            let put = self.backend().put_part(&key, &upload, &part);
            let failure = match self.ask(&self.counters().put, |_| part.payload.size_bytes(), put).await {
                Ok(part) => return Ok(part),
                Err(failure) => failure,
            };
            self.tell_of_trouble(&failure, &attempts);
            if is_hopeless(&failure) || !attempts.wait().await {
                return Err(given_up(&key, part.offset + part.payload.size_bytes(), &attempts, false, failure));
            }
        }
    }

    async fn abort_until_done(&self, key: &Key, upload: &UploadId) {
        let mut attempts = self.retry().begin();
        loop {
            attempts.begin_one();
            let aborted = self.backend().abort(key, upload);
            match self.ask(&self.counters().delete, |()| 0, aborted).await {
                Ok(()) => return,
                Err(failure) if is_hopeless(&failure) => return,
                Err(failure) => {
                    if !attempts.wait().await {
                        tracing::debug!(%key, cause = %failure.cause, "parts of an object that was given up are left");
                        return;
                    }
                }
            }
        }
    }
}

/// Whether to ask again is of no use. Absent: there is no such upload, or no bucket.
fn is_hopeless(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::Refused | FailureKind::Absent | FailureKind::Broken)
}

impl Upload {
    /// Bytes that were pushed so far.
    pub fn size_bytes(&self) -> u64 {
        self.stored_bytes + self.pending_bytes as u64
    }

    /// Bytes that are in memory because they fill no part yet.
    pub fn held_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Appends bytes; stores what fills parts, some at a time. What fills none is kept, which is less than two parts.
    ///
    /// # Cost
    /// One PUT a part, and one before the first. Copies what is kept, so that it keeps nothing else in memory.
    ///
    /// # Cancel
    /// The upload is good for nothing, and its parts are deleted when it is dropped.
    ///
    /// # Errors
    /// [`CreateError::NotDone`]: nothing of the object is there, nor will be; what was stored is deleted when this is dropped.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), CreateError> {
        let span = span::call("store PUT", self.key.as_str());
        self.push_parts(bytes).instrument(span).await
    }

    async fn push_parts(&mut self, bytes: Bytes) -> Result<(), CreateError> {
        self.keep_end(&bytes);
        self.pending_bytes += bytes.len();
        self.pending.push_back(bytes);
        let full = self.pending_bytes.saturating_sub(1) / self.store.part_bytes();
        if full == 0 {
            return Ok(());
        }
        // Whatever ends this early, by an error or by not being waited for, leaves parts of which nothing can be made.
        self.failed = true;
        let parts: Vec<Part> = (0..full).map(|_| self.cut(self.store.part_bytes())).collect();
        self.put(parts).await?;
        let rest: Vec<u8> = self.pending.drain(..).flatten().collect();
        self.pending.push_back(rest.into());
        self.failed = false;
        Ok(())
    }

    /// Creates the object, if nothing stands there.
    ///
    /// # Cost
    /// One PUT for what is left, and one to complete it; a small object is one PUT. A DELETE where another object stands.
    ///
    /// # Cancel
    /// The object may be there, or may appear later.
    ///
    /// # Errors
    /// [`CreateError::NotDone`]: nothing of it is there. [`CreateError::Unknown`]: it may be there, or may still appear.
    ///
    /// # Panics
    /// If a push failed or was not waited for: bytes are missing then.
    pub async fn finish(mut self) -> Result<Created, CreateError> {
        assert!(!self.failed, "an upload that has failed is not finished");
        if self.begun.is_none() {
            let payload: Vec<Bytes> = self.pending.drain(..).collect();
            return self.store.create(&self.key, payload).await;
        }
        let span = span::call("store PUT", self.key.as_str());
        let rest = self.cut(self.pending_bytes);
        let finished = async {
            self.put(vec![rest]).await?;
            self.complete_until_known().await
        };
        let created = finished.instrument(span).await?;
        let upload = self.begun.take().expect("parts were stored");
        if created == Created::Other {
            self.store.abort_until_done(&self.key, &upload).await;
        }
        Ok(created)
    }

    /// Gives it up, and deletes what was stored, as far as the store answers. Dropping does the same by a task of its own.
    pub async fn abort(mut self) {
        if let Some(upload) = self.begun.take() {
            self.store.abort_until_done(&self.key, &upload).await;
        }
    }

    /// The next part, of so many bytes of what is pending.
    fn cut(&mut self, size_bytes: usize) -> Part {
        let (mut pieces, mut missing) = (Vec::new(), size_bytes);
        while let Some(mut piece) = self.pending.pop_front() {
            let taken = piece.split_to(missing.min(piece.len()));
            missing -= taken.len();
            pieces.push(taken);
            if missing == 0 {
                self.pending.push_front(piece);
                break;
            }
        }
        self.pending_bytes -= size_bytes;
        let offset = self.stored_bytes;
        self.stored_bytes += size_bytes as u64;
        // Parts have one size, but for the last.
        let index = offset / self.store.part_bytes() as u64;
        Part { index: u32::try_from(index).unwrap_or(u32::MAX), offset, payload: Payload::from(pieces) }
    }

    async fn put(&mut self, parts: Vec<Part>) -> Result<(), CreateError> {
        if self.parts.len() + parts.len() > PARTS_MAX {
            let failure = Failure::new(FailureKind::Refused, format!("an object has at most {PARTS_MAX} parts"));
            return Err(given_up(&self.key, self.size_bytes(), &self.store.retry().begin(), false, failure));
        }
        let upload = match &self.begun {
            Some(upload) => upload.clone(),
            None => self.begun.insert(self.store.begin_until_done(&self.key).await?).clone(),
        };
        let puts: Vec<_> = parts
            .into_iter()
            .map(|part| self.store.clone().put_until_done(self.key.clone(), upload.clone(), part).boxed())
            .collect();
        let stored: Vec<PartId> = futures::stream::iter(puts).buffered(PARTS_AT_ONCE).try_collect().await?;
        self.parts.extend(stored);
        Ok(())
    }

    /// Keeps the last bytes of what was pushed.
    fn keep_end(&mut self, bytes: &[u8]) {
        let max = COMPARED_BYTES_MAX as usize;
        let kept = max.saturating_sub(bytes.len());
        self.end.drain(..self.end.len().saturating_sub(kept));
        self.end.extend_from_slice(&bytes[bytes.len().saturating_sub(max)..]);
    }

    async fn complete_until_known(&self) -> Result<Created, CreateError> {
        let Self { store, key, parts, end, .. } = self;
        let upload = self.begun.as_ref().expect("parts were stored");
        let size_bytes = self.size_bytes();
        let expected = Expected { size_bytes, ends_with: &|tail| end.ends_with(tail) };
        let mut attempts = store.retry().begin();
        let mut doubt = false;
        loop {
            attempts.begin_one();
            let completed = store.backend().complete(key, upload, parts, size_bytes);
            let completed = store.ask(&store.counters().put, |()| 0, completed).await;
            tracing::Span::current().record("attempts", i64::from(attempts.made()));
            let Err(failure) = completed else { return Ok(Created::New) };
            tracing::debug!(%key, kind = ?failure.kind, cause = %failure.cause, "a completion did not succeed");
            // Of parts that are gone an earlier attempt may have made the object.
            let is_gone = failure.kind == FailureKind::Absent;
            let conflict = failure.kind == FailureKind::Exists;
            match failure.kind {
                FailureKind::Exists | FailureKind::Absent => {}
                FailureKind::Refused => return Err(given_up(key, size_bytes, &attempts, doubt, failure)),
                FailureKind::Broken => return Err(given_up(key, size_bytes, &attempts, true, failure)),
                FailureKind::NotSent => store.tell_of_trouble(&failure, &attempts),
                FailureKind::Throttled | FailureKind::Doubt => {
                    store.tell_of_trouble(&failure, &attempts);
                    doubt = true;
                }
            }
            let more = conflict || is_gone || attempts.wait().await;
            let mut unseen = false;
            if conflict || is_gone || doubt {
                match store.read_back(key, &expected).await {
                    Ok(Standing::Mine) => return Ok(Created::Mine),
                    Ok(Standing::Other) => return Ok(Created::Other),
                    Ok(Standing::Absent) => {}
                    Err(_) => unseen = true,
                }
            }
            doubt |= unseen;
            let hopeless = is_gone && !unseen;
            if !more || hopeless || (conflict || is_gone) && !attempts.wait().await {
                return Err(given_up(key, size_bytes, &attempts, doubt, failure));
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(upload) = self.begun.take() else { return };
        let (store, key) = (self.store.clone(), self.key.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { store.abort_until_done(&key, &upload).await });
        }
    }
}

#[cfg(test)]
mod tests;

//! What a kind of store must do: one attempt of each operation, with an honest account of what became of it.
//!
//! 1. One call is one attempt: a backend repeats nothing that writes. Retries, time limits and read-back are the
//!    [`Store`](crate::Store)'s.
//! 2. What a backend can show (by `get`, `size`, `list`, or [`FailureKind::Exists`]) is durable: a reader never sees
//!    an object that a power cut could still take away.
//! 3. An attempt whose future is dropped may still be applied, later.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::key::{Directory, Key};
use crate::payload::Payload;

/// The reason underneath a failure, as the backend gave it.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// One kind of store.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Stores `payload` at `key` if nothing stands there.
    async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure>;

    /// Stores `payload` at `key`, whatever stands there. Readers see the one or the other, whole.
    async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure>;

    /// Reads a part of the object at `key`.
    ///
    /// The body may be shorter than asked for: at the end of the object, or because the connection was cut. It
    /// says which part of the object it is and how large that is, so the caller can tell.
    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure>;

    /// The size in bytes of the object at `key`.
    async fn size(&self, key: &Key) -> Result<u64, Failure>;

    /// The first `limit` objects below `directory` after `start_after`, by key, ascending.
    async fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Listed>, Failure>;

    /// The names of the directories right in `directory` that have objects, ascending.
    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure>;

    /// What the store said last of its own clock; `None` if it has none, or none of its own.
    fn date(&self) -> Option<StoreDate> {
        None
    }

    /// Deletes the objects at `keys`, at most [`DELETE_KEYS_MAX`]; one that is absent counts as deleted.
    async fn delete(&self, keys: &[Key]) -> Result<(), Failure>;

    /// Begins an object that is stored in parts. Nobody sees any of it before it is [completed](Self::complete).
    async fn begin(&self, _key: &Key) -> Result<UploadId, Failure> {
        Err(no_parts())
    }

    /// Stores a part; the same part again, with the same bytes, takes the place of the first.
    async fn put_part(&self, _key: &Key, _upload: &UploadId, _part: &Part) -> Result<PartId, Failure> {
        Err(no_parts())
    }

    /// Makes the object of its parts, `size_bytes` together, if nothing stands at `key`. [`FailureKind::Absent`]: there is no such upload; it
    /// may have been completed before.
    async fn complete(
        &self,
        _key: &Key,
        _upload: &UploadId,
        _parts: &[PartId],
        _size_bytes: u64,
    ) -> Result<(), Failure> {
        Err(no_parts())
    }

    /// Gives up an object in parts, which may be there no more.
    async fn abort(&self, _key: &Key, _upload: &UploadId) -> Result<(), Failure> {
        Err(no_parts())
    }
}

/// What a backend says that stores objects whole alone.
fn no_parts() -> Failure {
    Failure::new(FailureKind::Refused, "this store takes no objects in parts")
}

/// Which object in parts, in the words of its store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UploadId(pub String);

/// Which part, in the words of its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartId(pub String);

/// A part of an object that is stored in parts. All but the last have one size.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which part, from 0 on.
    pub index: u32,
    /// Where in the object it begins.
    pub offset: u64,
    /// Its bytes; never none.
    pub payload: Payload,
}

/// Most keys that one [`Backend::delete`] is given: the limit of S3's DeleteObjects.
pub const DELETE_KEYS_MAX: usize = 1000;

/// Which part of an object to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// All of it.
    All,
    /// Bytes `start..end`, not empty.
    Range(Range<u64>),
    /// The last so many bytes, or all of it if it is smaller; never 0.
    Last(u64),
}

/// A part of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// Size of the whole object in bytes.
    pub object_size_bytes: u64,
}

/// What a store said of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreDate {
    /// Milliseconds since 1970; of a cloud store whole seconds.
    pub ms: i64,
    /// When the answer came that said so.
    pub at: Instant,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// An attempt that did not succeed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What is known about the attempt.
    pub kind: FailureKind,
    /// Why.
    pub cause: Cause,
}

/// What is known about an attempt that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Create: not applied by this attempt, because something stood there or a rival was at it.
    Exists,
    /// Nothing stands there. A bucket that is missing is [`Refused`](Self::Refused) where the store says so.
    Absent,
    /// Not applied, and trying again now would not help: no permission, no space, no bucket, a malformed request.
    Refused,
    /// Not applied, and trying again may help: the request did not reach the store.
    NotSent,
    /// The store asks to be left alone for a while. Whether the attempt was applied is not known.
    Throttled,
    /// Whether the attempt was applied is not known.
    Doubt,
    /// Whether the attempt is applied for good is not known, and no later call can tell: the medium has failed.
    Broken,
}

impl Failure {
    /// A failure with its reason.
    pub fn new(kind: FailureKind, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, cause: Arc::from(cause.into()) }
    }

    /// Its cause with the causes of that, each once, in one line.
    pub fn why(&self) -> String {
        let mut text = self.cause.to_string();
        let mut source = self.cause.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }
}

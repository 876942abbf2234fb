//! Reading, listing and deleting: operations that may simply be repeated.
//!
//! Every reply is checked against the length that it must have: a body cut short is another attempt, never short data.

use std::ops::Range;

use bytes::Bytes;
use tracing::Instrument;

use crate::backend::{Body, Cause, DELETE_KEYS_MAX, Failure, FailureKind, Listed, Span};
use crate::key::{Directory, Key};
use crate::span;
use crate::store::Store;

/// Objects that a cloud store names in one answer to LIST.
const LISTED_PER_REQUEST: u64 = 1000;

/// The end of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suffix {
    /// The last bytes: as many as asked for, or the whole object if it is smaller.
    pub bytes: Bytes,
    /// Size of the whole object in bytes.
    pub object_size_bytes: u64,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Objects by key, ascending.
    pub objects: Vec<Listed>,
    /// Whether there are more behind the last one: ask again, starting after it.
    pub more: bool,
}

/// A read that gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// No object stands there.
    #[error("no object '{key}'")]
    NotFound {
        /// What was asked for.
        key: Key,
    },
    /// The object ends before the range does.
    #[error("object '{key}' has {size_bytes} bytes, not the bytes {}..{} that were asked for", range.start, range.end)]
    OutOfRange {
        /// What was asked for.
        key: Key,
        /// The part of it.
        range: Range<u64>,
        /// The size of the object.
        size_bytes: u64,
    },
    /// The store says no, and would say it again.
    #[error("the store refuses to read '{key}'")]
    Refused {
        /// What was asked for.
        key: Key,
        /// Why.
        source: Cause,
    },
    /// The store gave no good answer in time. Asking again later may help.
    #[error("could not read '{key}' in {attempts} attempts")]
    Unavailable {
        /// What was asked for.
        key: Key,
        /// How many requests were sent.
        attempts: u32,
        /// The last failure.
        source: Cause,
    },
}

/// A listing that gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("could not list '{directory}' in {attempts} attempts")]
pub struct ListError {
    /// What was to be listed.
    pub directory: Directory,
    /// How many requests were sent.
    pub attempts: u32,
    /// The last failure.
    pub source: Cause,
}

/// A delete that may have deleted some of what it was given. It may be repeated.
#[derive(Clone, Debug, thiserror::Error)]
#[error("could not delete the {} objects from '{first}' on in {attempts} attempts", remaining)]
pub struct DeleteError {
    /// The first key that may still stand.
    pub first: Key,
    /// How many may still stand.
    pub remaining: usize,
    /// How many requests were sent for them.
    pub attempts: u32,
    /// The last failure.
    pub source: Cause,
}

impl Store {
    /// The whole object at `key`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get(&self, key: &Key) -> Result<Bytes, ReadError> {
        Ok(self.read(key, Span::All).await?.bytes)
    }

    /// The bytes `range` of the object at `key`. An empty range asks nothing of the store, not even whether the
    /// object is there.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] if the object is smaller; never fewer bytes than asked for.
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, ReadError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let body = self.read(key, Span::Range(range.clone())).await?;
        match body.object_size_bytes < range.end {
            true => Err(ReadError::OutOfRange { key: key.clone(), range, size_bytes: body.object_size_bytes }),
            false => Ok(body.bytes),
        }
    }

    /// The last `length` bytes of the object at `key`, or all of it if it is smaller, and its size.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get_suffix(&self, key: &Key, length: u64) -> Result<Suffix, ReadError> {
        if length == 0 {
            let object_size_bytes = self.size(key).await?;
            return Ok(Suffix { bytes: Bytes::new(), object_size_bytes });
        }
        let Body { bytes, object_size_bytes } = self.read(key, Span::Last(length)).await?;
        Ok(Suffix { bytes, object_size_bytes })
    }

    /// The size in bytes of the object at `key`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn size(&self, key: &Key) -> Result<u64, ReadError> {
        self.repeat(|| self.ask(&self.counters().get, |_| 0, self.backend().size(key)))
            .instrument(span::call("store HEAD", key.as_str()))
            .await
            .map_err(|failed| failed.read(key))
    }

    /// Whether an object stands at `key`.
    ///
    /// # Errors
    /// See [`ReadError`]; never [`ReadError::NotFound`].
    pub async fn exists(&self, key: &Key) -> Result<bool, ReadError> {
        match self.size(key).await {
            Ok(_) => Ok(true),
            Err(ReadError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The first `limit` objects in `directory` and all below it, by key, that come after `start_after`. It has
    /// everything that was created before the call began and was not deleted.
    ///
    /// # Cost
    /// One LIST per thousand objects. On a local directory and Azure it also walks what lies before `start_after`.
    ///
    /// # Errors
    /// [`ListError`] if the store gave no good answer in time.
    pub async fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Listing, ListError> {
        // One more than asked for tells whether there is more.
        let list = || self.backend().list(directory, start_after, limit.saturating_add(1));
        let listed = self
            .repeat(|| self.ask(&self.counters().list, |_| 0, list()))
            .instrument(span::call("store LIST", directory.as_str()))
            .await;
        let mut objects = listed.map_err(|failed| failed.list(directory))?;
        self.counters().list.further(objects.len() as u64 / LISTED_PER_REQUEST);
        let more = objects.len() > limit;
        objects.truncate(limit);
        Ok(Listing { objects, more })
    }

    /// The names of the directories right in `directory` that have objects, ascending.
    ///
    /// # Errors
    /// [`ListError`] if the store gave no good answer in time.
    pub async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, ListError> {
        self.repeat(|| self.ask(&self.counters().list, |_| 0, self.backend().list_directories(directory)))
            .instrument(span::call("store LIST", directory.as_str()))
            .await
            .map_err(|failed| failed.list(directory))
    }

    /// Deletes the objects at `keys`. One that is absent counts as deleted.
    ///
    /// # Cost
    /// One request per thousand keys on S3, one per key elsewhere.
    ///
    /// # Cancel
    /// Some may be deleted, and some later.
    ///
    /// # Errors
    /// [`DeleteError`] with what may still stand; it may be repeated.
    pub async fn delete(&self, keys: &[Key]) -> Result<(), DeleteError> {
        let mut remaining = keys.len();
        for chunk in keys.chunks(DELETE_KEYS_MAX) {
            if let Err(failed) = self
                .repeat(|| self.ask(&self.counters().delete, |()| 0, self.backend().delete(chunk)))
                .instrument(span::call("store DELETE", chunk[0].as_str()))
                .await
            {
                let (attempts, source) = (failed.attempts, failed.failure.cause);
                return Err(DeleteError { first: chunk[0].clone(), remaining, attempts, source });
            }
            remaining -= chunk.len();
        }
        Ok(())
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Body, ReadError> {
        self.repeat(|| self.ask_for_body(key, &span))
            .instrument(span::call("store GET", key.as_str()))
            .await
            .map_err(|failed| failed.read(key))
    }

    /// Repeats `attempt` until it succeeds, or more of it would not help.
    async fn repeat<T, Attempt: Future<Output = Result<T, Failure>>>(
        &self,
        attempt: impl Fn() -> Attempt,
    ) -> Result<T, Failed> {
        let mut attempts = self.retry().begin();
        loop {
            tracing::Span::current().record("attempts", i64::from(attempts.made() + 1));
            attempts.begin_one();
            let failure = match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let definite = matches!(failure.kind, FailureKind::Absent | FailureKind::Refused | FailureKind::Broken);
            if !definite {
                self.tell_of_trouble(&failure, &attempts);
            }
            if definite || !attempts.wait().await {
                return Err(Failed { failure, attempts: attempts.made() });
            }
        }
    }
}

/// The last of the attempts of one call.
struct Failed {
    failure: Failure,
    attempts: u32,
}

impl Failed {
    fn read(self, key: &Key) -> ReadError {
        let key = key.clone();
        match self.failure.kind {
            FailureKind::Absent => ReadError::NotFound { key },
            FailureKind::Refused => ReadError::Refused { key, source: self.failure.cause },
            _ => ReadError::Unavailable { key, attempts: self.attempts, source: self.failure.cause },
        }
    }

    fn list(self, directory: &Directory) -> ListError {
        ListError { directory: directory.clone(), attempts: self.attempts, source: self.failure.cause }
    }
}

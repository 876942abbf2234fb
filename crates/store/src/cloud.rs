//! Objects in a bucket: `s3://`, `gs://` and `az://`, over crate `object_store`.
//!
//! 1. `object_store` repeats nothing: its retries would turn a create of our own into "already exists".
//! 2. What an HTTP status means for a create is decided here, from the status itself (see [`status`]), since
//!    `object_store` reports 409 and 412 alike and keeps the rest to itself.
//!
//! It does not verify that the store keeps its promises (create-if-absent, listing after writing).

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::multipart::{MultipartStore, PartId as CloudPart};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::backend::{Backend, Body, Failure, FailureKind, Listed, Part, PartId, Span, StoreDate, UploadId};
use crate::key::{Directory, Key};
use crate::payload::Payload;

pub(crate) mod profile;
pub(crate) mod settings;
pub(crate) mod status;

use status::{Answered, Dates, NoRole};

/// S3's code for a bucket that is not there: no answer to the question whether an object is.
const NO_SUCH_BUCKET: &str = "NoSuchBucket";

/// A bucket, as its client gives it.
pub(crate) trait Bucket: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Bucket for T {}

/// A bucket, and the prefix that is the root in it.
#[derive(Debug)]
pub(crate) struct CloudBackend {
    bucket: Arc<dyn Bucket>,
    /// Whether an object in parts is completed only if nothing stands at its key: see [`StatusConnector`](status::StatusConnector).
    completes_if_absent: bool,
    root: Directory,
    dates: Arc<Dates>,
}

impl CloudBackend {
    pub(crate) fn new(bucket: Arc<dyn Bucket>, root: Directory, dates: Arc<Dates>) -> Self {
        Self { bucket, completes_if_absent: false, root, dates }
    }

    /// The same of a store whose client asks for a condition when it completes.
    pub(crate) fn completing_if_absent(self) -> Self {
        Self { completes_if_absent: true, ..self }
    }

    fn path(&self, path: &str) -> Path {
        let path = match (self.root.as_str(), path) {
            ("", path) => path.to_owned(),
            (root, "") => root.to_owned(),
            (root, path) => format!("{root}/{path}"),
        };
        Path::parse(path).expect("keys have no characters that a path can't have")
    }

    /// The key of an object that the bucket names; nothing for one that is not ours.
    fn key(&self, path: &Path) -> Option<Key> {
        let key = Key::new(path.as_ref()).ok()?;
        Key::new(self.root.relative(&key)?).ok()
    }

    async fn get_part(&self, path: &Path, range: Option<GetRange>) -> Result<Body, object_store::Error> {
        let options = GetOptions { range, ..GetOptions::default() };
        let reply = self.bucket.get_opts(path, options).await?;
        let object_size_bytes = reply.meta.size;
        Ok(Body { bytes: reply.bytes().await?, object_size_bytes })
    }
}

#[async_trait]
impl Backend for CloudBackend {
    async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        let body: PutPayload = payload.parts().iter().cloned().collect();
        let put = self.bucket.put_opts(&self.path(key.as_str()), body, PutMode::Create.into()).await;
        put.map(|_| ()).map_err(classify)
    }

    async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        let body: PutPayload = payload.parts().iter().cloned().collect();
        let put = self.bucket.put_opts(&self.path(key.as_str()), body, PutMode::Overwrite.into()).await;
        put.map(|_| ()).map_err(classify)
    }

    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        let path = self.path(key.as_str());
        let range = match span {
            Span::All => None,
            Span::Range(range) => Some(GetRange::Bounded(range.clone())),
            Span::Last(length) => Some(GetRange::Suffix(*length)),
        };
        let range_was_asked = range.is_some();
        let error = match self.get_part(&path, range).await {
            Ok(body) => return Ok(body),
            Err(error) => error,
        };
        // No byte of the object is in the range, or so it may be: it is empty, or the range begins behind its end.
        let unsatisfiable = range_was_asked && may_be_unsatisfiable(&error);
        // Azure knows no ranges from the end.
        let unsupported = matches!(error, object_store::Error::NotSupported { .. });
        if !unsatisfiable && !unsupported {
            return Err(classify(error));
        }
        let object_size_bytes = self.size(key).await?;
        match span {
            Span::Last(_) if object_size_bytes == 0 => Ok(Body { bytes: Bytes::new(), object_size_bytes }),
            Span::Range(range) if range.start >= object_size_bytes => {
                Ok(Body { bytes: Bytes::new(), object_size_bytes })
            }
            Span::Last(length) if unsupported => {
                let range = object_size_bytes.saturating_sub(*length)..object_size_bytes;
                self.get_part(&path, Some(GetRange::Bounded(range))).await.map_err(classify)
            }
            _ => Err(classify(error)),
        }
    }

    async fn size(&self, key: &Key) -> Result<u64, Failure> {
        Ok(self.bucket.head(&self.path(key.as_str())).await.map_err(classify)?.size)
    }

    async fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Listed>, Failure> {
        let prefix = self.path(directory.as_str());
        let objects = match start_after {
            Some(key) => self.bucket.list_with_offset(Some(&prefix), &self.path(key.as_str())),
            None => self.bucket.list(Some(&prefix)),
        };
        let ours = objects.try_filter_map(async |object| {
            let listed = self.key(&object.location).map(|key| Listed { key, size_bytes: object.size });
            Ok(listed)
        });
        let listed: Vec<Listed> = ours.take(limit).try_collect().await.map_err(classify)?;
        // Only a listing in order can be cut off and continued.
        match listed.is_sorted_by(|before, after| before.key < after.key) {
            true => Ok(listed),
            false => Err(Failure::new(FailureKind::Refused, "the store does not list by key, in ascending order")),
        }
    }

    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        let listed = self.bucket.list_with_delimiter(Some(&self.path(directory.as_str()))).await.map_err(classify)?;
        let mut names: Vec<String> =
            listed.common_prefixes.iter().filter_map(|path| Some(path.filename()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    fn date(&self) -> Option<StoreDate> {
        self.dates.last()
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Failure> {
        let paths: Vec<_> = keys.iter().map(|key| Ok(self.path(key.as_str()))).collect();
        let mut deleted = self.bucket.delete_stream(futures::stream::iter(paths).boxed());
        while let Some(outcome) = deleted.next().await {
            match outcome {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(classify(error)),
            }
        }
        Ok(())
    }

    async fn begin(&self, key: &Key) -> Result<UploadId, Failure> {
        self.bucket.create_multipart(&self.path(key.as_str())).await.map(UploadId).map_err(classify)
    }

    async fn put_part(&self, key: &Key, upload: &UploadId, part: &Part) -> Result<PartId, Failure> {
        let body: PutPayload = part.payload.parts().iter().cloned().collect();
        let put = self.bucket.put_part(&self.path(key.as_str()), &upload.0, part.index as usize, body).await;
        put.map(|part| PartId(part.content_id)).map_err(classify)
    }

    async fn complete(&self, key: &Key, upload: &UploadId, parts: &[PartId], _: u64) -> Result<(), Failure> {
        if !self.completes_if_absent {
            match self.size(key).await {
                Err(failure) if failure.kind == FailureKind::Absent => {}
                Ok(_) => return Err(Failure::new(FailureKind::Exists, "an object stands there")),
                // Nothing was asked for yet that changes anything.
                Err(failure) if failure.kind == FailureKind::Doubt => {
                    return Err(Failure { kind: FailureKind::NotSent, ..failure });
                }
                Err(failure) => return Err(failure),
            }
        }
        let parts = parts.iter().map(|part| CloudPart { content_id: part.0.clone() }).collect();
        let completed = self.bucket.complete_multipart(&self.path(key.as_str()), &upload.0, parts).await;
        completed.map(drop).map_err(classify)
    }

    async fn abort(&self, key: &Key, upload: &UploadId) -> Result<(), Failure> {
        self.bucket.abort_multipart(&self.path(key.as_str()), &upload.0).await.map_err(classify)
    }
}

/// Whether a GET of a range may have failed because no byte of the object is in it; only then the size is worth a request of its own.
fn may_be_unsatisfiable(error: &object_store::Error) -> bool {
    match answered(error) {
        Some(status) => matches!(status, 200 | 416),
        // Some say so by an answer that the client does not believe (Azurite sends the last byte for the range right behind it).
        None => !matches!(error, object_store::Error::NotFound { .. }) && in_chain::<HttpError>(error).is_none(),
    }
}

/// What an error of `object_store` says about the attempt.
fn classify(error: object_store::Error) -> Failure {
    use object_store::Error as E;
    let kind = match &error {
        _ if in_chain::<NoRole>(&error).is_some() => FailureKind::Refused,
        _ if in_chain::<Answered>(&error).is_some_and(|answered| answered.code == NO_SUCH_BUCKET) => {
            FailureKind::Refused
        }
        _ if let Some(status) = answered(&error) => kind_of_status(status),
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => FailureKind::Exists,
        E::NotFound { .. } => FailureKind::Absent,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => FailureKind::Refused,
        E::NotSupported { .. } | E::NotImplemented { .. } | E::InvalidPath { .. } => FailureKind::Refused,
        _ if in_chain::<HttpError>(&error).is_some_and(|http| http.kind() == HttpErrorKind::Connect) => {
            FailureKind::NotSent
        }
        _ => FailureKind::Doubt,
    };
    Failure::new(kind, error)
}

/// What a status that is no success says about the attempt.
fn kind_of_status(status: u16) -> FailureKind {
    match status {
        304 | 409 | 412 => FailureKind::Exists,
        404 => FailureKind::Absent,
        429 | 503 => FailureKind::Throttled,
        408 | 416 => FailureKind::Doubt,
        501 => FailureKind::Refused,
        300..=499 => FailureKind::Refused,
        _ => FailureKind::Doubt,
    }
}

fn answered(error: &object_store::Error) -> Option<u16> {
    in_chain::<Answered>(error).map(|answered| answered.status)
}

fn in_chain<T: Error + 'static>(error: &object_store::Error) -> Option<&T> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests;

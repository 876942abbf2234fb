//! A backend through which nothing is changed, whoever tries.

use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::{Backend, Body, Failure, FailureKind, Listed, Part, PartId, Span, UploadId};
use crate::key::{Directory, Key};
use crate::payload::Payload;

/// The backend behind it, for reading.
#[derive(Debug)]
pub(crate) struct ReadOnly(pub(crate) Arc<dyn Backend>);

fn refused() -> Failure {
    Failure::new(FailureKind::Refused, "the store is open for reading alone")
}

#[async_trait]
impl Backend for ReadOnly {
    async fn create(&self, _: &Key, _: &Payload) -> Result<(), Failure> {
        Err(refused())
    }

    async fn overwrite(&self, _: &Key, _: &Payload) -> Result<(), Failure> {
        Err(refused())
    }

    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        self.0.get(key, span).await
    }

    async fn size(&self, key: &Key) -> Result<u64, Failure> {
        self.0.size(key).await
    }

    async fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Listed>, Failure> {
        self.0.list(directory, start_after, limit).await
    }

    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        self.0.list_directories(directory).await
    }

    async fn delete(&self, _: &[Key]) -> Result<(), Failure> {
        Err(refused())
    }

    async fn begin(&self, _: &Key) -> Result<UploadId, Failure> {
        Err(refused())
    }

    async fn put_part(&self, _: &Key, _: &UploadId, _: &Part) -> Result<PartId, Failure> {
        Err(refused())
    }

    async fn complete(&self, _: &Key, _: &UploadId, _: &[PartId], _: u64) -> Result<(), Failure> {
        Err(refused())
    }

    async fn abort(&self, _: &Key, _: &UploadId) -> Result<(), Failure> {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use crate::{CreateError, Key, OpenError, Store, StoreOptions};

    #[tokio::test]
    async fn a_directory_that_another_holds_is_read_and_never_written() {
        let directory = tempfile::tempdir().unwrap();
        let (path, options) = (directory.path().join("root"), StoreOptions::default());
        let url = path.display().to_string();
        let missing = Store::open_read_only(&url, &options);
        assert!(matches!(missing, Err(OpenError::NotADirectory { .. })) && !path.exists(), "nothing is made");
        let holder = Store::open(&url, &options).unwrap();
        let key = |name: &str| Key::new(name).unwrap();
        holder.create(&key("a"), &b"it stands"[..]).await.unwrap();
        let reader = Store::open_read_only(&url, &options).unwrap();
        assert_eq!(reader.get(&key("a")).await.unwrap(), "it stands");
        assert!(matches!(reader.create(&key("b"), &b"x"[..]).await, Err(CreateError::NotDone { .. })));
        assert!(reader.overwrite(&key("a"), &b"x"[..]).await.is_err());
        assert!(reader.delete(&[key("a")]).await.is_err());
        let mut upload = reader.create_in_parts(&key("b"));
        assert!(matches!(upload.push(vec![0; 9 << 20].into()).await, Err(CreateError::NotDone { .. })));
        assert_eq!(reader.get(&key("a")).await.unwrap(), "it stands");
        assert!(!reader.exists(&key("b")).await.unwrap());
    }
}

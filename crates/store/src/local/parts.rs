//! Objects in parts: a file below `.staging/` whose parts are written to their places, and that is linked when it is whole.
//!
//! What is never completed nor given up is cleared with the rest of `.staging/`, when the directory is next written by another process.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::{Files, is_absence, refused, unreadable};
use crate::backend::{Failure, FailureKind, Part, PartId, UploadId};
use crate::key::Key;

impl Files {
    pub(super) fn begin(&self, key: &Key) -> Result<UploadId, Failure> {
        self.check_disk()?;
        self.path(key)?;
        self.clear_staging().map_err(refused)?;
        let upload = UploadId(self.staged.fetch_add(1, Ordering::Relaxed).to_string());
        File::create_new(self.staged_file(&upload)).map_err(refused)?;
        Ok(upload)
    }

    /// Writes a part to its place, and makes it durable: what can't be written is known before the object is named.
    pub(super) fn put_part(&self, upload: &UploadId, part: &Part) -> Result<PartId, Failure> {
        self.check_disk()?;
        let written = self.stages.write_part_synced(&self.staged_file(upload), part.offset, &part.payload);
        match written {
            Err(error) if is_absence(&error) => Err(unreadable(error)),
            other => other.map_err(refused).map(|()| PartId(part.index.to_string())),
        }
    }

    pub(super) fn complete(&self, key: &Key, upload: &UploadId, size_bytes: u64) -> Result<(), Failure> {
        self.check_disk()?;
        let (path, staged) = (self.path(key)?, self.staged_file(upload));
        let file = File::open(&staged).map_err(unreadable)?;
        let found = file.metadata().map_err(refused)?.len();
        if found != size_bytes {
            return Err(Failure::new(FailureKind::Refused, format!("{found} bytes of {size_bytes} were written")));
        }
        file.sync_all().map_err(refused)?;
        self.link(&staged, &path)?;
        // What stays behind costs nothing: it is another name of the object until the next start.
        let _ = fs::remove_file(&staged);
        Ok(())
    }

    pub(super) fn abort(&self, upload: &UploadId) -> Result<(), Failure> {
        fs::remove_file(self.staged_file(upload)).map_err(unreadable)
    }

    fn staged_file(&self, upload: &UploadId) -> PathBuf {
        self.staging.join(&upload.0)
    }
}

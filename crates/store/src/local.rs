//! Objects as files of a local directory: `file:///directory`.
//!
//! 1. An object appears whole or not at all: it is written under `.staging/`, at once or in parts, synced, and then linked to its name.
//! 2. A create that has succeeded survives a power cut: the file, its directory, and the directories above are synced.
//! 3. Nothing is shown that a power cut could take away: what is linked but not yet synced is synced before it is shown.
//! 4. One process at a time: the file `lock` holds an exclusive lock of the operating system.
//! 5. After a directory could not be synced, the disk can't be trusted to say what it holds: every further create is
//!    [`FailureKind::Broken`].
//!
//! Deletes are not synced: an object that comes back after a power cut is what it was.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::backend::{Backend, Body, Failure, FailureKind, Listed, Part, PartId, Span, UploadId};
use crate::key::{Directory, Key};
use crate::open::OpenError;
use crate::payload::Payload;

mod durable;
mod parts;
mod walk;
mod write;

use durable::Durable;
use write::Stages;

/// Holds the lock and the process id of its holder.
const LOCK_NAME: &str = "lock";

/// Files that are being written. Keys can't start with a dot.
const STAGING_NAME: &str = ".staging";

/// How often a create makes its directory again that a delete has just removed.
const DIRECTORY_ATTEMPTS_MAX: u32 = 8;

/// A store on a local directory.
#[derive(Debug)]
pub(crate) struct LocalBackend {
    files: Arc<Files>,
}

#[derive(Debug)]
struct Files {
    root: PathBuf,
    staging: PathBuf,
    is_staging_clear: Mutex<bool>,
    staged: AtomicU64,
    stages: Stages,
    durable: Durable,
    broken: AtomicBool,
    /// Held, not used: the lock goes with it. `None`: nothing is written, and what is shown is another's to make durable.
    lock: Option<File>,
}

impl LocalBackend {
    /// Takes the directory, creating it if it is absent. What an earlier process left half written is cleared before the first write,
    /// so that a root which turns out not to be ours to write is left as it was.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        if root.exists() && !root.is_dir() {
            return Err(OpenError::NotADirectory { path: root.to_path_buf() });
        }
        let not_writable = |source| OpenError::NotWritable { directory: root.to_path_buf(), source };
        fs::create_dir_all(root).map_err(not_writable)?;
        let lock = take_lock(root)?;
        durable::sync_with_parents(root).map_err(not_writable)?;
        Ok(Self::of(root, Some(lock)))
    }

    fn of(root: &Path, lock: Option<File>) -> Self {
        let files = Files {
            root: root.to_path_buf(),
            staging: root.join(STAGING_NAME),
            is_staging_clear: Mutex::new(false),
            staged: AtomicU64::new(0),
            stages: Stages::default(),
            durable: Durable::new(root),
            broken: AtomicBool::new(false),
            lock,
        };
        Self { files: Arc::new(files) }
    }

    /// Looks at a directory without taking it: another process may hold it, and writes there meanwhile. Nothing can be written.
    pub(crate) fn look(root: &Path) -> Result<Self, OpenError> {
        if !root.is_dir() {
            return Err(OpenError::NotADirectory { path: root.to_path_buf() });
        }
        Ok(Self::of(root, None))
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let files = self.files.clone();
        let done = tokio::task::spawn_blocking(move || work(&files)).await;
        done.unwrap_or_else(|error| Err(Failure::new(FailureKind::Doubt, error)))
    }
}

#[async_trait]
impl Backend for LocalBackend {
    async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        let (key, payload) = (key.clone(), payload.clone());
        self.off_thread(move |files| files.create(&key, &payload)).await
    }

    async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        let (key, payload) = (key.clone(), payload.clone());
        self.off_thread(move |files| files.overwrite(&key, &payload)).await
    }

    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        let (key, span) = (key.clone(), span.clone());
        self.off_thread(move |files| files.get(&key, &span)).await
    }

    async fn size(&self, key: &Key) -> Result<u64, Failure> {
        let key = key.clone();
        self.off_thread(move |files| Ok(files.open(&key)?.1)).await
    }

    async fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Listed>, Failure> {
        let (directory, start_after) = (directory.clone(), start_after.cloned());
        self.off_thread(move |files| files.list(&directory, start_after.as_ref(), limit)).await
    }

    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        let directory = directory.clone();
        self.off_thread(move |files| files.list_directories(&directory)).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Failure> {
        let keys = keys.to_vec();
        self.off_thread(move |files| keys.iter().try_for_each(|key| files.delete(key))).await
    }

    async fn begin(&self, key: &Key) -> Result<UploadId, Failure> {
        let key = key.clone();
        self.off_thread(move |files| files.begin(&key)).await
    }

    async fn put_part(&self, _: &Key, upload: &UploadId, part: &Part) -> Result<PartId, Failure> {
        let (upload, part) = (upload.clone(), part.clone());
        self.off_thread(move |files| files.put_part(&upload, &part)).await
    }

    async fn complete(&self, key: &Key, upload: &UploadId, _: &[PartId], size_bytes: u64) -> Result<(), Failure> {
        let (key, upload) = (key.clone(), upload.clone());
        self.off_thread(move |files| files.complete(&key, &upload, size_bytes)).await
    }

    async fn abort(&self, _: &Key, upload: &UploadId) -> Result<(), Failure> {
        let upload = upload.clone();
        self.off_thread(move |files| files.abort(&upload)).await
    }
}

impl Files {
    fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.check_disk()?;
        let path = self.path(key)?;
        self.clear_staging().map_err(refused)?;
        let staged = self.staging.join(self.staged.fetch_add(1, Ordering::Relaxed).to_string());
        let written = self.stages.write_synced(&staged, payload);
        let linked = written.map_err(refused).and_then(|()| self.link(&staged, &path));
        // What stays behind costs space until the next start, and is seen by nobody.
        let _ = fs::remove_file(&staged);
        linked
    }

    fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        self.check_disk()?;
        let path = self.path(key)?;
        self.clear_staging().map_err(refused)?;
        let staged = self.staging.join(self.staged.fetch_add(1, Ordering::Relaxed).to_string());
        let written = self.stages.write_synced(&staged, payload);
        let renamed = written.map_err(refused).and_then(|()| self.rename(&staged, &path));
        if renamed.is_err() {
            let _ = fs::remove_file(&staged);
        }
        renamed
    }

    /// Puts the staged file in the place of what has that name.
    fn rename(&self, staged: &Path, path: &Path) -> Result<(), Failure> {
        let directory = path.parent().expect("a key's path is below the root");
        for _ in 0..DIRECTORY_ATTEMPTS_MAX {
            self.durable.enter(directory, true).map_err(refused)?;
            let mark = self.durable.mark_linking(path);
            match fs::rename(staged, path) {
                // A delete removed the directory after we had entered it.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(refused(error)),
                Ok(()) => {
                    let entered = self.durable.enter(directory, true).map_err(|error| self.give_up_disk(error));
                    let settled = entered.and_then(|()| self.settle(directory));
                    if settled.is_err() {
                        mark.keep();
                    }
                    return settled;
                }
            }
        }
        Err(Failure::new(FailureKind::NotSent, "its directory is removed as often as it is made"))
    }

    /// Makes the place for files that are being written, once, without what an earlier process left there.
    fn clear_staging(&self) -> std::io::Result<()> {
        let mut is_clear = self.is_staging_clear.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_clear {
            return Ok(());
        }
        match fs::remove_dir_all(&self.staging) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&self.staging)?,
        }
        *is_clear = true;
        Ok(())
    }

    /// Gives the staged file its name for good.
    fn link(&self, staged: &Path, path: &Path) -> Result<(), Failure> {
        let directory = path.parent().expect("a key's path is below the root");
        for _ in 0..DIRECTORY_ATTEMPTS_MAX {
            self.durable.enter(directory, true).map_err(refused)?;
            let mark = self.durable.mark_linking(path);
            match fs::hard_link(staged, path) {
                // A delete removed the directory after we had entered it.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                // Whatever stands there may have been linked by a create that nobody waits for any more: what is
                // said to exist must be there after a power cut too.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    self.settle(directory)?;
                    return Err(Failure::new(FailureKind::Exists, error));
                }
                Err(error) => return Err(refused(error)),
                // The directory may have been removed and made again between entering and linking.
                Ok(()) => {
                    let entered = self.durable.enter(directory, true).map_err(|error| self.give_up_disk(error));
                    let settled = entered.and_then(|()| self.settle(directory));
                    if settled.is_err() {
                        mark.keep();
                    }
                    return settled;
                }
            }
        }
        Err(Failure::new(FailureKind::NotSent, "its directory is removed as often as it is made"))
    }

    /// Makes the names in `directory` durable.
    fn settle(&self, directory: &Path) -> Result<(), Failure> {
        durable::sync(directory).map_err(|error| self.give_up_disk(error))?;
        // A disk reports a lost write once, perhaps to another thread.
        self.check_disk()
    }

    /// Makes sure that `path`, which was just seen, is durable before it is shown.
    fn show(&self, path: &Path) -> Result<(), Failure> {
        if self.lock.is_none() {
            return Ok(());
        }
        let directory = path.parent().expect("an object's path is below the root");
        match self.durable.enter(directory, false) {
            // It was deleted after it had been seen, and its directory with it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| self.give_up_disk(error))?,
        }
        match self.durable.is_linking(path) {
            true => self.check_disk().and_then(|()| self.settle(directory)),
            false => Ok(()),
        }
    }

    fn check_disk(&self) -> Result<(), Failure> {
        match self.broken.load(Ordering::Acquire) {
            true => Err(broken("a directory could not be synced earlier: check the disk, then start again")),
            false => Ok(()),
        }
    }

    fn give_up_disk(&self, error: std::io::Error) -> Failure {
        self.broken.store(true, Ordering::Release);
        tracing::error!(directory = %self.root.display(), %error, "a directory could not be synced: no more is written");
        broken(error)
    }

    fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        let (mut file, size) = self.open(key)?;
        let (start, end) = match span {
            Span::All => (0, size),
            Span::Range(range) => (range.start.min(size), range.end.min(size)),
            Span::Last(length) => (size.saturating_sub(*length), size),
        };
        let length =
            usize::try_from(end.saturating_sub(start)).map_err(|error| Failure::new(FailureKind::Refused, error))?;
        let mut bytes = Vec::with_capacity(length);
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.take(length as u64).read_to_end(&mut bytes));
        read.map_err(doubt)?;
        Ok(Body { bytes: bytes.into(), object_size_bytes: size })
    }

    /// The file of an object, and its size.
    fn open(&self, key: &Key) -> Result<(File, u64), Failure> {
        let path = self.path(key)?;
        let file = File::open(&path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(Failure::new(FailureKind::Absent, "a directory stands there"));
        }
        self.show(&path)?;
        Ok((file, metadata.len()))
    }

    fn delete(&self, key: &Key) -> Result<(), Failure> {
        let path = self.path(key)?;
        match fs::remove_file(&path) {
            Err(error) if !is_absence(&error) => return Err(unreadable(error)),
            _ => {}
        }
        self.durable.leave(&self.root, path.parent().expect("a key's path is below the root"));
        Ok(())
    }

    fn path(&self, key: &Key) -> Result<PathBuf, Failure> {
        match key.as_str() == LOCK_NAME || key.as_str().starts_with("lock/") {
            true => Err(Failure::new(FailureKind::Refused, "'lock' is the lock of the directory")),
            false => Ok(self.root.join(key.as_str())),
        }
    }
}

fn take_lock(root: &Path) -> Result<File, OpenError> {
    let not_writable = |source| OpenError::NotWritable { directory: root.to_path_buf(), source };
    let path = root.join(LOCK_NAME);
    let mut options = File::options();
    let mut lock = options.read(true).write(true).create(true).truncate(false).open(path).map_err(not_writable)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(source)) => return Err(not_writable(source)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let holder = lock.take(16).read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
            return Err(OpenError::InUse { directory: root.to_path_buf(), holder });
        }
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(not_writable)?;
    Ok(lock)
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn unreadable(error: std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Failure::new(FailureKind::Absent, error),
        ErrorKind::PermissionDenied => refused(error),
        _ => doubt(error),
    }
}

/// Before the link nothing is stored, whatever went wrong.
fn refused(error: std::io::Error) -> Failure {
    Failure::new(FailureKind::Refused, error)
}

fn doubt(error: std::io::Error) -> Failure {
    Failure::new(FailureKind::Doubt, error)
}

fn broken(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(FailureKind::Broken, cause)
}

#[cfg(test)]
mod tests;

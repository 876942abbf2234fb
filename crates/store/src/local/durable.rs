//! Which directories and names of a local store would survive a power cut.
//!
//! A directory is *entered* once it and every directory from the root down to it are known to be on disk, with all the
//! names that they had then. A name is *linking* from before it can be seen until its directory has been synced.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Directories that are remembered as entered; beyond, all are forgotten and cost one more sync each.
const ENTERED_MAX: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Durable {
    root: PathBuf,
    entered: Mutex<BTreeSet<PathBuf>>,
    linking: Mutex<BTreeMap<PathBuf, u32>>,
}

/// A name that is being linked, until this is dropped.
pub(crate) struct Linking<'a> {
    durable: &'a Durable,
    path: &'a Path,
}

impl Durable {
    pub(crate) fn new(root: &Path) -> Self {
        let entered = BTreeSet::from([root.to_path_buf()]);
        Self { root: root.to_path_buf(), entered: Mutex::new(entered), linking: Mutex::default() }
    }

    /// Makes sure that `directory` and its names are on disk; creates it and those above it if `create`.
    pub(crate) fn enter(&self, directory: &Path, create: bool) -> io::Result<()> {
        // Held over the syncs, which are rare: nobody may find a directory half entered, or remove one meanwhile.
        let mut entered = self.entered();
        self.enter_below(&mut entered, directory, create)
    }

    fn enter_below(&self, entered: &mut BTreeSet<PathBuf>, directory: &Path, create: bool) -> io::Result<()> {
        if entered.contains(directory) {
            return Ok(());
        }
        if directory != self.root
            && let Some(parent) = directory.parent()
        {
            self.enter_below(entered, parent, create)?;
            if create {
                match fs::create_dir(directory) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
            }
            sync(parent)?;
        }
        sync(directory)?;
        if entered.len() >= ENTERED_MAX {
            entered.clear();
        }
        entered.insert(directory.to_path_buf());
        Ok(())
    }

    /// Removes `directory` and those above it as far as they are empty.
    pub(crate) fn leave(&self, root: &Path, directory: &Path) {
        let mut entered = self.entered();
        for directory in directory.ancestors().take_while(|directory| *directory != root) {
            if fs::remove_dir(directory).is_err() {
                return;
            }
            entered.remove(directory);
        }
    }

    /// Marks `path` as about to be linked.
    pub(crate) fn mark_linking<'a>(&'a self, path: &'a Path) -> Linking<'a> {
        *self.linking().entry(path.to_path_buf()).or_default() += 1;
        Linking { durable: self, path }
    }

    /// Whether `path` has been linked, or is about to be, and is not yet on disk.
    pub(crate) fn is_linking(&self, path: &Path) -> bool {
        self.linking().contains_key(path)
    }

    fn entered(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.entered.lock().expect("no code panics while it enters a directory")
    }

    fn linking(&self) -> MutexGuard<'_, BTreeMap<PathBuf, u32>> {
        self.linking.lock().expect("no code panics while it marks a name")
    }
}

impl Linking<'_> {
    /// Leaves the name marked for good: it was linked, and could not be synced.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Linking<'_> {
    fn drop(&mut self) {
        let mut linking = self.durable.linking();
        if let Some(count) = linking.get_mut(self.path) {
            *count -= 1;
            if *count == 0 {
                linking.remove(self.path);
            }
        }
    }
}

/// Makes the names in `directory` durable.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes `directory` durable with all that are above it, as far as they may be read.
pub(crate) fn sync_with_parents(directory: &Path) -> io::Result<()> {
    sync(directory)?;
    for parent in directory.ancestors().skip(1) {
        match sync(parent) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

//! Listing a local store in the order of its keys.
//!
//! Byte order of keys is not the order of a plain walk: `a-b` comes before `a/c`. So a directory takes part in the
//! order of its siblings as its name with a slash.

use std::cmp::Ordering as Order;
use std::fs;
use std::path::Path;

use super::{Files, LOCK_NAME, is_absence, unreadable};
use crate::backend::{Failure, Listed};
use crate::key::{Directory, Key};

/// What is wanted of a walk.
struct Walk<'a> {
    start_after: Option<&'a Key>,
    limit: usize,
    listed: Vec<Listed>,
}

impl Files {
    pub(super) fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Listed>, Failure> {
        let mut walk = Walk { start_after, limit, listed: Vec::new() };
        self.walk(directory, &mut walk)?;
        Ok(walk.listed)
    }

    pub(super) fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        let mut names = Vec::new();
        for name in self.names(directory)? {
            let Some(name) = name.strip_suffix('/') else { continue };
            let Ok(below) = directory.directory(name) else { continue };
            // A crash can leave an empty directory, which no other store would show.
            let mut walk = Walk { start_after: None, limit: 1, listed: Vec::new() };
            self.walk(&below, &mut walk)?;
            if !walk.listed.is_empty() {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn walk(&self, directory: &Directory, walk: &mut Walk<'_>) -> Result<(), Failure> {
        for name in self.names(directory)? {
            if walk.listed.len() >= walk.limit {
                return Ok(());
            }
            if let Some(name) = name.strip_suffix('/') {
                let Ok(below) = directory.directory(name) else { continue };
                if walk.start_after.is_none_or(|after| may_come_after(&below, after)) {
                    self.walk(&below, walk)?;
                }
                continue;
            }
            let Ok(key) = directory.key(&name) else { continue };
            if walk.start_after.is_some_and(|after| key <= *after) {
                continue;
            }
            let path = self.root.join(key.as_str());
            match fs::metadata(&path) {
                Err(error) if is_absence(&error) => {}
                Err(error) => return Err(unreadable(error)),
                Ok(metadata) => {
                    self.show(&path)?;
                    walk.listed.push(Listed { key, size_bytes: metadata.len() });
                }
            }
        }
        Ok(())
    }

    /// The names in a directory in the order of keys; those of directories end with a slash. What is not ours is left
    /// out.
    fn names(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        let path: &Path = &self.root.join(directory.as_str());
        let entries = match fs::read_dir(path) {
            Err(error) if is_absence(&error) => return Ok(Vec::new()),
            other => other.map_err(unreadable)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            let Ok(mut name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type().map_err(unreadable)?;
            if name.starts_with('.') || directory.is_root() && name == LOCK_NAME {
                continue;
            }
            if kind.is_dir() {
                name.push('/');
            } else if !kind.is_file() {
                continue;
            }
            names.push(name);
        }
        names.sort();
        Ok(names)
    }
}

/// Whether a key in `directory` can sort after `after`.
fn may_come_after(directory: &Directory, after: &Key) -> bool {
    let first = [directory.as_str().as_bytes(), b"/"].concat();
    let beginning = &after.as_str().as_bytes()[..first.len().min(after.as_str().len())];
    first.as_slice().cmp(beginning) != Order::Less
}

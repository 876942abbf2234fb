//! Names of objects under a root: [`Key`] for one object, [`Directory`] for the keys that share a beginning.
//!
//! 1. A key is portable: it means the same on a local directory and on every cloud, without escaping.
//! 2. Keys order as their bytes do, which is the order in which every store lists.
//!
//! Nothing here knows the layout of the bucket; that belongs to the crates that write there.

use std::fmt;

/// Longest key, in bytes: S3 allows 1024 with the root's own prefix in it.
pub const KEY_BYTES_MAX: usize = 900;

/// Longest name between two slashes, in bytes: the limit of common file systems.
pub const NAME_BYTES_MAX: usize = 255;

/// The path of one object under the root, such as `cells/0/log/0000000001-ab/000000000000.parquet`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// A beginning that keys share, up to a slash: the root, or a path such as `cells/0/log`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Directory(String);

/// Why a text is not a [`Key`] or [`Directory`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is nothing in it.
    #[error("a key is empty")]
    Empty,
    /// It is longer than [`KEY_BYTES_MAX`].
    #[error("key of {bytes} bytes is longer than {KEY_BYTES_MAX}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// One of its names is empty, too long, starts with a dot, or has a character that not every store keeps.
    #[error(
        "key '{key}' has the name '{name}': names are 1 to {NAME_BYTES_MAX} letters, digits, spaces or any of !$&'()+,-.=@_ and start with no dot"
    )]
    Name {
        /// The whole text.
        key: String,
        /// The offending name.
        name: String,
    },
}

impl Key {
    /// Checks and wraps a path such as `a/b/c.parquet`.
    ///
    /// # Errors
    /// [`KeyError`] if the path is not portable; see there for the rule.
    pub fn new(path: impl Into<String>) -> Result<Self, KeyError> {
        let path = path.into();
        check(&path)?;
        Ok(Self(path))
    }

    /// The path, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last slash.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// The directory that this key is in.
    pub fn directory(&self) -> Directory {
        Directory(self.0.rsplit_once('/').map_or(String::new(), |(directory, _)| directory.to_owned()))
    }
}

impl Directory {
    /// The directory of everything.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// Checks and wraps a path such as `cells/0/log`; the empty path is the root.
    ///
    /// # Errors
    /// [`KeyError`] if the path is not portable.
    pub fn new(path: impl Into<String>) -> Result<Self, KeyError> {
        let path = path.into();
        if !path.is_empty() {
            check(&path)?;
        }
        Ok(Self(path))
    }

    /// The key `name` in this directory; `name` may have slashes.
    ///
    /// # Errors
    /// [`KeyError`] if the result is not portable.
    pub fn key(&self, name: &str) -> Result<Key, KeyError> {
        Key::new(self.path_of(name))
    }

    /// The directory `name` in this directory; `name` may have slashes.
    ///
    /// # Errors
    /// [`KeyError`] if the result is not portable.
    pub fn directory(&self, name: &str) -> Result<Directory, KeyError> {
        let path = self.path_of(name);
        check(&path)?;
        Ok(Self(path))
    }

    /// The path, with neither a leading nor a trailing slash; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the directory of everything.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `key` is in this directory or in one below it.
    pub fn contains(&self, key: &Key) -> bool {
        self.relative(key).is_some()
    }

    /// The path of `key` from here, if it is below.
    pub fn relative<'a>(&self, key: &'a Key) -> Option<&'a str> {
        match self.0.is_empty() {
            true => Some(&key.0),
            false => key.0.strip_prefix(&*self.0)?.strip_prefix('/'),
        }
    }

    fn path_of(&self, name: &str) -> String {
        match self.0.is_empty() {
            true => name.to_owned(),
            false => format!("{}/{name}", self.0),
        }
    }
}

fn check(path: &str) -> Result<(), KeyError> {
    if path.is_empty() {
        return Err(KeyError::Empty);
    }
    if path.len() > KEY_BYTES_MAX {
        return Err(KeyError::TooLong { bytes: path.len() });
    }
    for name in path.split('/') {
        let portable = |byte: u8| byte.is_ascii_alphanumeric() || b" !$&'()+,-.=@_".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.bytes().all(portable) {
            return Err(KeyError::Name { key: path.to_owned(), name: name.to_owned() });
        }
    }
    Ok(())
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_empty() {
            true => formatter.write_str("(root)"),
            false => formatter.write_str(&self.0),
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_some_store_would_change_is_refused() {
        for path in ["", "/a", "a/", "a//b", ".", "a/..", "a/.hidden", "a%2fb", "a#1", "ä", "a\\b", "a\nb", "a*", "~"]
        {
            assert!(Key::new(path).is_err(), "{path:?} was taken");
        }
        assert!(Key::new("a".repeat(NAME_BYTES_MAX)).is_ok());
        assert!(Key::new("a".repeat(NAME_BYTES_MAX + 1)).is_err());
        assert_eq!(Key::new("a/".repeat(460) + "a"), Err(KeyError::TooLong { bytes: 921 }));
    }

    #[test]
    fn a_directory_contains_whole_names_only() {
        let directory = Directory::new("a/b").unwrap();
        assert!(directory.contains(&Key::new("a/b/c/d").unwrap()));
        assert!(!directory.contains(&Key::new("a/bc").unwrap()));
        assert!(!directory.contains(&Key::new("a/b").unwrap()));
        assert!(Directory::root().contains(&Key::new("x").unwrap()));
        assert_eq!(directory.key("c").unwrap().directory(), directory);
        assert_eq!(directory.key("c").unwrap().name(), "c");
    }
}

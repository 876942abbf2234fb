//! From a URL to a store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use crate::cloud::{CloudBackend, settings};
use crate::key::Directory;
use crate::local::LocalBackend;
use crate::memory::MemoryBackend;
use crate::redact::redact_url;
use crate::remedy::Origins;
use crate::store::{Store, StoreOptions};

/// A store that can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one of a store.
    #[error(
        "'{url}' is not a store: {reason}; use memory://, file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process, or another store of this one, holds the directory.
    #[error("directory '{}' is in use by another Lakebed{}: stop that one, or choose another directory", directory.display(), holder.map(|id| format!(" (process {id})")).unwrap_or_default())]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process that holds it, as it says itself.
        holder: Option<u32>,
    },
    /// There is something else at the path.
    #[error("'{}' is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory can't be made ready for writing.
    #[error("cannot write in directory '{}'", directory.display())]
    NotWritable {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The settings of a cloud store are incomplete or wrong.
    #[error("cannot set up '{url}'")]
    Settings {
        /// The URL, without secrets.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Store {
    /// Opens the store at `url` for reading alone: whatever would change something is refused. A local directory is neither created nor
    /// locked, so that it can be looked at while a broker holds it; it then shows what a power cut could still take away.
    ///
    /// # Errors
    /// See [`OpenError`]; a local directory must exist.
    pub fn open_read_only(url: &str, options: &StoreOptions) -> Result<Store, OpenError> {
        let opened = open(url, options, LocalBackend::look)?;
        Ok(opened.read_only())
    }

    /// Opens the store at `url`: `memory://`, `file:///directory` or a plain path, `s3://bucket/prefix`,
    /// `gs://bucket/prefix`, `az://container/prefix`.
    ///
    /// A local directory is created if it is absent, and held by an exclusive lock until the last clone of the store is
    /// dropped. Nothing is asked of a cloud store yet.
    ///
    /// # Errors
    /// See [`OpenError`]; each is one clear line.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Store, OpenError> {
        open(url, options, LocalBackend::open)
    }
}

/// How a directory becomes a backend.
type Local = fn(&Path) -> Result<LocalBackend, OpenError>;

fn open(url: &str, options: &StoreOptions, local_backend: Local) -> Result<Store, OpenError> {
    let invalid = |reason: &str| OpenError::Url { url: redact_url(url).into_owned(), reason: reason.to_owned() };
    if !url.contains("://") {
        return match url {
            "" => Err(invalid("it is empty")),
            path => local(Path::new(path), options, local_backend),
        };
    }
    let parsed = Url::parse(url).map_err(|error| invalid(&error.to_string()))?;
    match parsed.scheme() {
        "memory" => Ok(Store::new("memory://", Arc::new(MemoryBackend::default()), options)),
        "file" => {
            let path = parsed.to_file_path().map_err(|()| invalid("it needs an absolute path, as in file:///data"))?;
            local(&path, options, local_backend)
        }
        "s3" | "gs" | "az" => cloud(&parsed, options),
        scheme => Err(invalid(&format!("unknown scheme '{scheme}'"))),
    }
}

fn cloud(url: &Url, options: &StoreOptions) -> Result<Store, OpenError> {
    let invalid = |reason: String| OpenError::Url { url: redact_url(url.as_str()).into_owned(), reason };
    if !url.username().is_empty() || url.password().is_some() {
        let reason = "it has credentials in it, which belong into the environment".to_owned();
        return Err(invalid(reason));
    }
    if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
        return Err(invalid("it has more than a bucket and a prefix".to_owned()));
    }
    let bucket =
        url.host_str().filter(|bucket| !bucket.is_empty()).ok_or_else(|| invalid("it names no bucket".to_owned()))?;
    let root = Directory::new(url.path().trim_matches('/')).map_err(|error| invalid(error.to_string()))?;
    let variables = options.variables.as_ref().map_or_else(settings::environment, |variables| variables.0.clone());
    let dates = Arc::default();
    let opened = match url.scheme() {
        "s3" => settings::s3(bucket, &variables, &dates),
        "gs" => settings::gcs(bucket, &variables, &dates),
        _ => settings::azure(bucket, &variables, &dates),
    };
    let wrong = |source| OpenError::Settings { url: url.to_string(), source };
    let opened = opened.map_err(wrong)?;
    let origins = match url.scheme() {
        "s3" => settings::s3_origins(bucket, &variables).map_err(wrong)?,
        "gs" => Origins::of_variables("GOOGLE_APPLICATION_CREDENTIALS and the other GOOGLE_ variables"),
        _ => Origins::of_variables("the AZURE_ variables"),
    };
    let backend = CloudBackend::new(opened, root, dates);
    let backend = Arc::new(if url.scheme() == "s3" { backend.completing_if_absent() } else { backend });
    let store = Store::new(url.as_str().trim_end_matches('/'), backend, options);
    Ok(store.with_origins(origins))
}

fn local(path: &Path, options: &StoreOptions, local_backend: Local) -> Result<Store, OpenError> {
    let directory =
        std::path::absolute(path).map_err(|source| OpenError::NotWritable { directory: path.to_path_buf(), source })?;
    let backend = local_backend(&directory)?;
    // A path that is not UTF-8 has no URL that gives it back.
    let url = Url::from_file_path(&directory).map_or_else(|()| format!("file://{}", directory.display()), String::from);
    Ok(Store::new(url, Arc::new(backend), options))
}

//! The Iceberg REST catalog, read-only, as a function from requests to answers (Apache Iceberg's `rest-catalog-open-api.yaml`).
//!
//! 1. Nothing is changed through it: every call that would is refused with the reason, and its body is not looked at.
//! 2. `loadTable` shows all that was acknowledged before the request arrived, unless the client or the settings say otherwise: see
//!    [`Tables::load`].
//! 3. A listing in pages goes by name: tables that come or go between two pages neither double nor hide another.
//!
//! It hands out no credentials but those of the settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri};
use lakebed_store::{ListError, ReadError};
use serde_json::{Value, json};

use crate::shown::TableName;

mod answer;
mod paging;
mod path;
#[cfg(test)]
mod tests;

use answer::{Answer, Refused};
use path::Target;

/// What is below this belongs to the catalog.
pub const PREFIX: &str = "/iceberg";

/// The header by which a client says whether `loadTable` first makes everything acknowledged visible: `true` or `false`.
pub const REFRESH_HEADER: &str = "x-lakebed-refresh";

/// The calls that are answered, as `config` lists them.
const ENDPOINTS: [&str; 6] = [
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
];

/// The namespace that is there without tables too.
const DEFAULT_NAMESPACE: &str = "default";

/// Tables, as the catalog asks for them.
#[async_trait]
pub trait Tables: Send + Sync + 'static {
    /// The tables that can be loaded, by name, ascending.
    ///
    /// # Errors
    /// [`CatalogError`]
    async fn tables(&self) -> Result<Vec<TableName>, CatalogError>;

    /// A table's newest version; `None` if there is no such table. If `fresh`, everything that was acknowledged before the call is
    /// visible in it.
    ///
    /// # Errors
    /// [`CatalogError`]
    async fn load(&self, name: &TableName, fresh: bool) -> Result<Option<Loaded>, CatalogError>;

    /// Whether there is such a table.
    ///
    /// # Errors
    /// [`CatalogError`]
    async fn exists(&self, name: &TableName) -> Result<bool, CatalogError> {
        Ok(self.tables().await?.binary_search(name).is_ok())
    }
}

/// A version of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The URI of its metadata. No other version of any table has it.
    pub metadata_location: String,
    /// That metadata, as it stands there.
    pub metadata: Bytes,
}

/// Why the catalog can't answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Not now; later perhaps.
    #[error("{0}")]
    Unavailable(String),
    /// Something is damaged, or a bug.
    #[error("{0}")]
    Broken(String),
}

impl From<ReadError> for CatalogError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound { .. } | ReadError::OutOfRange { .. } => Self::Broken(told(&error)),
            _ => Self::Unavailable(told(&error)),
        }
    }
}

impl From<ListError> for CatalogError {
    fn from(error: ListError) -> Self {
        Self::Unavailable(told(&error))
    }
}

/// An error with its causes, in one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Settings of a [`Catalog`].
#[derive(Debug, Clone)]
pub struct CatalogOptions {
    /// Whether `loadTable` makes everything acknowledged visible if the client does not say. Default true. False: loading is faster and
    /// costs no requests, and shows what was published last.
    pub refresh: bool,
    /// What clients are told with each table, such as `s3.endpoint`, or credentials for a read-only user. Default nothing: clients
    /// bring their own.
    pub config: BTreeMap<String, String>,
    /// The prefix that clients are told to use, one part of a path. Default none.
    pub prefix: Option<String>,
}

impl Default for CatalogOptions {
    fn default() -> Self {
        Self { refresh: true, config: BTreeMap::new(), prefix: None }
    }
}

/// The catalog.
#[derive(Clone)]
pub struct Catalog {
    tables: Arc<dyn Tables>,
    options: CatalogOptions,
}

impl Catalog {
    /// A catalog of `tables`.
    pub fn new(tables: Arc<dyn Tables>, options: CatalogOptions) -> Self {
        Self { tables, options }
    }

    /// Answers a request whose path begins with [`PREFIX`].
    ///
    /// # Cost
    /// What [`Tables`] does for it.
    pub async fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response<Bytes> {
        let answer = match self.try_answer(method, uri, headers).await {
            Ok(answer) => answer,
            Err(refused) => refused.answer(),
        };
        answer.into_response(method)
    }

    async fn try_answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Answer, Refused> {
        let query = path::query(uri)?;
        let target = Target::of(uri.path(), self.options.prefix.as_deref())?;
        target.check_method(method)?;
        match target {
            Target::Config => Ok(Answer::json(&self.config())),
            Target::Namespaces => self.namespaces(&query).await,
            Target::Namespace(namespace) => self.namespace(method, &namespace).await,
            Target::Tables(namespace) => self.list(&namespace, &query).await,
            Target::Table(namespace, table) if method == Method::HEAD => match self.find(&namespace, &table) {
                Ok(name) if self.tables.exists(&name).await? => Ok(Answer::no_content()),
                _ => Err(Refused::no_table(&namespace, &table)),
            },
            Target::Table(namespace, table) => self.load(&namespace, &table, &query, headers).await,
            // Nobody reads them.
            Target::Metrics => Ok(Answer::no_content()),
            Target::Views(namespace) => {
                self.check_namespace(&namespace).await?;
                Ok(Answer::json(&json!({ "identifiers": [] })))
            }
            Target::View(name) => Err(Refused::no_view(&name)),
            Target::ReadOnly => unreachable!("its methods are refused"),
        }
    }

    fn config(&self) -> Value {
        let prefix = self.options.prefix.as_ref().map(|prefix| ("prefix", prefix.clone()));
        let overrides: BTreeMap<&str, String> = prefix.into_iter().collect();
        // Endpoints are spelled with the prefix in its place, whether there is one or not.
        json!({ "defaults": {}, "overrides": overrides, "endpoints": ENDPOINTS })
    }

    async fn all_namespaces(&self) -> Result<Vec<String>, Refused> {
        let mut names: Vec<String> = self.tables.tables().await?.into_iter().map(|name| name.namespace).collect();
        names.push(DEFAULT_NAMESPACE.to_owned());
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn namespaces(&self, query: &path::Query) -> Result<Answer, Refused> {
        let mut names = self.all_namespaces().await?;
        if let Some(parent) = query.get("parent").filter(|parent| !parent.is_empty()) {
            // Namespaces have one level.
            if !names.contains(parent) {
                return Err(Refused::no_namespace(parent));
            }
            names.clear();
        }
        let page = paging::page(names, query)?;
        let namespaces: Vec<[String; 1]> = page.names.into_iter().map(|name| [name]).collect();
        Ok(Answer::json(&json!({ "namespaces": namespaces, "next-page-token": page.next_token })))
    }

    async fn namespace(&self, method: &Method, namespace: &str) -> Result<Answer, Refused> {
        self.check_namespace(namespace).await?;
        match method == Method::HEAD {
            true => Ok(Answer::no_content()),
            false => Ok(Answer::json(&json!({ "namespace": [namespace], "properties": {} }))),
        }
    }

    async fn check_namespace(&self, namespace: &str) -> Result<(), Refused> {
        match namespace == DEFAULT_NAMESPACE || self.all_namespaces().await?.iter().any(|name| name == namespace) {
            true => Ok(()),
            false => Err(Refused::no_namespace(namespace)),
        }
    }

    async fn list(&self, namespace: &str, query: &path::Query) -> Result<Answer, Refused> {
        let all = self.tables.tables().await?;
        let names: Vec<String> =
            all.into_iter().filter(|name| name.namespace == namespace).map(|name| name.table).collect();
        if names.is_empty() && namespace != DEFAULT_NAMESPACE {
            return Err(Refused::no_namespace(namespace));
        }
        let page = paging::page(names, query)?;
        let identifiers: Vec<Value> =
            page.names.into_iter().map(|name| json!({ "namespace": [namespace], "name": name })).collect();
        Ok(Answer::json(&json!({ "identifiers": identifiers, "next-page-token": page.next_token })))
    }

    async fn load(
        &self,
        namespace: &str,
        table: &str,
        query: &path::Query,
        headers: &HeaderMap,
    ) -> Result<Answer, Refused> {
        let fresh = self.wants_fresh(query, headers)?;
        let only_refs = match query.get("snapshots").map(String::as_str) {
            None | Some("all") => false,
            Some("refs") => true,
            Some(other) => return Err(Refused::bad(format!("snapshots is '{other}': use all or refs"))),
        };
        let loaded = match self.find(namespace, table) {
            Ok(name) => self.tables.load(&name, fresh).await?,
            Err(_) => None,
        };
        // SUBTLE: not that the namespace is missing, though it may be. Java's clients ask for `default.orders.files` as the table `files`
        // of a namespace `default.orders` first, and look for metadata tables only if the *table* is said to be missing.
        let Some(loaded) = loaded else { return Err(Refused::no_table(namespace, table)) };
        let tag = answer::entity_tag(&loaded.metadata_location, only_refs, &self.options.config);
        if answer::has_tag(headers, &tag) {
            return Ok(Answer::not_modified(tag));
        }
        Ok(Answer::table(loaded, only_refs, &self.options.config, tag)?)
    }

    /// Whether the client, or else the settings, want everything acknowledged to be visible.
    fn wants_fresh(&self, query: &path::Query, headers: &HeaderMap) -> Result<bool, Refused> {
        let header = headers.get(REFRESH_HEADER).map(|value| value.to_str().unwrap_or("(not text)"));
        match header.or(query.get("refresh").map(String::as_str)) {
            None => Ok(self.options.refresh),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(Refused::bad(format!("refresh is '{other}': use true or false"))),
        }
    }

    /// A name that no table can have names none.
    fn find(&self, namespace: &str, table: &str) -> Result<TableName, Refused> {
        TableName::new(namespace, table).ok_or_else(|| Refused::no_table(namespace, table))
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What clients are told may be secret.
        formatter.debug_struct("Catalog").field("refresh", &self.options.refresh).finish_non_exhaustive()
    }
}

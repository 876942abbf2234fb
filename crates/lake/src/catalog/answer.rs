//! Answers and refusals, as the specification spells them.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{CatalogError, Loaded};

/// An answer before it is one of HTTP.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    body: Bytes,
    tag: Option<String>,
    allow: Option<&'static str>,
}

/// A request that is not answered as the client wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl Answer {
    pub(super) fn json(value: &Value) -> Self {
        Self::of(StatusCode::OK, value.to_string().into())
    }

    pub(super) fn no_content() -> Self {
        Self::of(StatusCode::NO_CONTENT, Bytes::new())
    }

    pub(super) fn not_modified(tag: String) -> Self {
        Self { tag: Some(tag), ..Self::of(StatusCode::NOT_MODIFIED, Bytes::new()) }
    }

    /// A loaded table; with `only_refs`, without the snapshots that no branch or tag names.
    pub(super) fn table(
        loaded: Loaded,
        only_refs: bool,
        config: &BTreeMap<String, String>,
        tag: String,
    ) -> Result<Self, CatalogError> {
        let Loaded { metadata_location, mut metadata } = loaded;
        if only_refs {
            let mut parsed: Value = serde_json::from_slice(&metadata).map_err(|error| {
                CatalogError::Broken(format!("the metadata {metadata_location} can't be read: {error}"))
            })?;
            keep_referenced(&mut parsed);
            metadata = parsed.to_string().into();
        }
        // The metadata goes as it stands, without being parsed.
        let mut body = Vec::with_capacity(metadata.len() + 1024);
        body.extend_from_slice(
            format!("{{\"metadata-location\":{},\"metadata\":", json!(metadata_location)).as_bytes(),
        );
        body.extend_from_slice(&metadata);
        body.extend_from_slice(format!(",\"config\":{}}}", json!(config)).as_bytes());
        Ok(Self { tag: Some(tag), ..Self::of(StatusCode::OK, body.into()) })
    }

    fn of(status: StatusCode, body: Bytes) -> Self {
        Self { status, body, tag: None, allow: None }
    }

    pub(super) fn into_response(self, method: &Method) -> Response<Bytes> {
        let has_body = !self.body.is_empty() && method != Method::HEAD;
        let mut response = Response::new(if has_body { self.body } else { Bytes::new() });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(tag) = self.tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
            headers.insert(ETAG, tag);
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

fn keep_referenced(metadata: &mut Value) {
    let refs = metadata["refs"].as_object().into_iter().flatten();
    let ids: Vec<Value> = refs.map(|(_, reference)| reference["snapshot-id"].clone()).collect();
    if let Some(snapshots) = metadata["snapshots"].as_array_mut() {
        snapshots.retain(|snapshot| ids.contains(&snapshot["snapshot-id"]));
    }
}

/// What stands for the answer to a load: it changes when the answer does.
pub(super) fn entity_tag(metadata_location: &str, only_refs: bool, config: &BTreeMap<String, String>) -> String {
    let said = json!([metadata_location, only_refs, config]).to_string();
    format!("\"{}\"", Uuid::new_v5(&Uuid::NAMESPACE_URL, said.as_bytes()).simple())
}

/// Whether the client has the answer with that tag already (RFC 9110, 13.1.2: tags are compared weakly).
pub(super) fn has_tag(headers: &HeaderMap, tag: &str) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(',')).map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

impl Refused {
    fn new(status: StatusCode, kind: &'static str, message: String) -> Self {
        Self { status, kind, message }
    }

    pub(super) fn bad(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestException", message)
    }

    pub(super) fn no_namespace(namespace: &str) -> Self {
        let message = format!("Namespace does not exist: {namespace}");
        Self::new(StatusCode::NOT_FOUND, "NoSuchNamespaceException", message)
    }

    pub(super) fn no_table(namespace: &str, table: &str) -> Self {
        let message = format!(
            "Table does not exist: {namespace}.{table} (each topic is a table, from its first published version on)"
        );
        Self::new(StatusCode::NOT_FOUND, "NoSuchTableException", message)
    }

    pub(super) fn no_view(name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NoSuchViewException",
            format!("View does not exist: {name} (there are no views)"),
        )
    }

    pub(super) fn no_endpoint(path: &str) -> Self {
        let message = format!("nothing is at {path}: the catalog is below {}/v1, as its config says", super::PREFIX);
        Self::new(StatusCode::NOT_FOUND, "NotFoundException", message)
    }

    pub(super) fn read_only(method: &Method) -> Self {
        let message = format!(
            "{method} is not supported: this catalog is read-only; tables are topics, written by producers and administered by Kafka or gRPC"
        );
        Self::new(StatusCode::NOT_ACCEPTABLE, "UnsupportedOperationException", message)
    }

    pub(super) fn bad_method(method: &Method) -> Self {
        let message = format!("{method} asks for nothing here: use GET or HEAD");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UnsupportedOperationException", message)
    }

    pub(super) fn answer(self) -> Answer {
        let error = json!({ "message": self.message, "type": self.kind, "code": self.status.as_u16() });
        let allow = (self.status == StatusCode::METHOD_NOT_ALLOWED).then_some("GET, HEAD");
        Answer { allow, ..Answer::of(self.status, json!({ "error": error }).to_string().into()) }
    }
}

impl From<CatalogError> for Refused {
    fn from(error: CatalogError) -> Self {
        let (status, kind) = match error {
            CatalogError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException"),
            CatalogError::Broken(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        };
        Self::new(status, kind, error.to_string())
    }
}

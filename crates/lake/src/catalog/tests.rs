//! Requests to a catalog of a few tables.

use std::sync::Mutex;

use http::HeaderValue;
use http::StatusCode;

use super::*;

/// Tables in memory, and what was asked of them.
#[derive(Default)]
struct Fixed {
    names: Vec<TableName>,
    failure: Option<CatalogError>,
    loads: Mutex<Vec<(String, bool)>>,
}

#[async_trait]
impl Tables for Fixed {
    async fn tables(&self) -> Result<Vec<TableName>, CatalogError> {
        self.failure.clone().map_or_else(|| Ok(self.names.clone()), Err)
    }

    async fn load(&self, name: &TableName, fresh: bool) -> Result<Option<Loaded>, CatalogError> {
        self.loads.lock().unwrap().push((name.to_string(), fresh));
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let metadata = r#"{"format-version":2,"refs":{"main":{"snapshot-id":9223372036854775807}},"snapshots":[{"snapshot-id":1},{"snapshot-id":9223372036854775807}]}"#;
        let loaded = Loaded { metadata_location: format!("s3://b/{name}/v7.metadata.json"), metadata: metadata.into() };
        Ok(self.names.contains(name).then_some(loaded))
    }
}

struct World {
    tables: Arc<Fixed>,
    catalog: Catalog,
}

fn world_with(options: CatalogOptions) -> World {
    let names = [("default", "a"), ("default", "b_c"), ("default", "orders"), ("other", "x")];
    let names = names.map(|(namespace, table)| TableName::new(namespace, table).unwrap()).to_vec();
    let tables = Arc::new(Fixed { names, ..Fixed::default() });
    World { catalog: Catalog::new(tables.clone(), options), tables }
}

fn world() -> World {
    world_with(CatalogOptions::default())
}

impl World {
    async fn ask(&self, method: &str, path: &str, headers: &[(&'static str, &str)]) -> (StatusCode, Value, HeaderMap) {
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            sent.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let uri: Uri = format!("/iceberg/v1/{path}").parse().unwrap();
        let response = self.catalog.answer(&method.parse().unwrap(), &uri, &sent).await;
        let (parts, body) = response.into_parts();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (parts.status, body, parts.headers)
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, body, _) = self.ask("GET", path, &[]).await;
        (status, body)
    }

    async fn error(&self, method: &str, path: &str) -> (u16, String) {
        let (status, body, _) = self.ask(method, path, &[]).await;
        assert_eq!(body["error"]["code"], status.as_u16(), "{body}");
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
        (status.as_u16(), body["error"]["type"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn the_configuration_lists_what_is_answered() {
    let (status, body) = world().get("config?warehouse=anything").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&body["defaults"], &body["overrides"]), (&json!({}), &json!({})));
    let world = world_with(CatalogOptions { prefix: Some("main".to_owned()), ..CatalogOptions::default() });
    let (_, body) = world.get("config").await;
    assert_eq!(body["overrides"]["prefix"], "main");
    for endpoint in body["endpoints"].as_array().unwrap() {
        let (method, path) = endpoint.as_str().unwrap().split_once(' ').unwrap();
        let path = path.replace("{prefix}", "main").replace("{namespace}", "default").replace("{table}", "orders");
        let (status, _, _) = world.ask(method, path.strip_prefix("/v1/").unwrap(), &[]).await;
        assert!(status.is_success(), "{endpoint}: {status}");
    }
}

#[tokio::test]
async fn namespaces_and_tables_are_listed_in_pages_if_asked() {
    let world = world();
    assert_eq!(world.get("namespaces").await.1["namespaces"], json!([["default"], ["other"]]));
    assert_eq!(world.get("namespaces?parent=default").await.1["namespaces"], json!([]));
    assert_eq!(world.get("namespaces/other").await.1, json!({ "namespace": ["other"], "properties": {} }));
    let (_, first) = world.get("namespaces/default/tables?pageToken=&pageSize=2").await;
    assert_eq!(first["identifiers"][1], json!({ "namespace": ["default"], "name": "b_c" }));
    let token = first["next-page-token"].as_str().unwrap();
    let (_, second) = world.get(&format!("namespaces/default/tables?pageToken={token}&pageSize=2")).await;
    assert_eq!(
        second,
        json!({ "identifiers": [{ "namespace": ["default"], "name": "orders" }], "next-page-token": null })
    );
    let (_, page) = world.get("namespaces?pageToken=&pageSize=1").await;
    assert_eq!(page["namespaces"], json!([["default"]]));
    assert!(page["next-page-token"].is_string());
    assert_eq!(world.get("namespaces/default/views").await.1, json!({ "identifiers": [] }));
}

#[tokio::test]
async fn no_tables_are_a_catalog_too() {
    let catalog = Catalog::new(Arc::new(Fixed::default()), CatalogOptions::default());
    let world = World { tables: Arc::default(), catalog };
    assert_eq!(world.get("namespaces").await.1["namespaces"], json!([["default"]]));
    assert_eq!(world.get("namespaces/default/tables").await.1["identifiers"], json!([]));
    assert_eq!(world.error("GET", "namespaces/other/tables").await.0, 404);
}

#[tokio::test]
async fn a_table_is_loaded_as_it_stands() {
    let config = BTreeMap::from([("s3.endpoint".to_owned(), "http://127.0.0.1:1".to_owned())]);
    let world = world_with(CatalogOptions { config, ..CatalogOptions::default() });
    let (status, body, headers) = world.ask("GET", "namespaces/default/tables/b%5Fc", &[]).await;
    assert_eq!((status, &body["metadata-location"]), (StatusCode::OK, &json!("s3://b/default.b_c/v7.metadata.json")));
    assert_eq!(body["metadata"]["snapshots"].as_array().unwrap().len(), 2);
    assert_eq!(body["config"]["s3.endpoint"], "http://127.0.0.1:1");
    let tag = headers["etag"].to_str().unwrap().to_owned();
    let (_, refs, other) = world.ask("GET", "namespaces/default/tables/b_c?snapshots=refs", &[]).await;
    assert_eq!(refs["metadata"]["snapshots"], json!([{ "snapshot-id": i64::MAX }]));
    assert_ne!(other["etag"].to_str().unwrap(), tag);
    for matching in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let (status, body, headers) =
            world.ask("GET", "namespaces/default/tables/b_c", &[("if-none-match", &matching)]).await;
        assert_eq!((status, body, headers["etag"].to_str().unwrap()), (StatusCode::NOT_MODIFIED, Value::Null, &*tag));
    }
    let (status, _, _) = world.ask("GET", "namespaces/default/tables/orders", &[("if-none-match", &tag)]).await;
    assert_eq!(status, StatusCode::OK, "another table");
}

#[tokio::test]
async fn the_client_says_whether_a_load_is_fresh_and_else_the_settings() {
    for (refresh, header, query, expected) in [
        (true, None, "", true),
        (false, None, "", false),
        (true, Some("false"), "", false),
        (false, Some("true"), "", true),
        (true, None, "?refresh=false", false),
        (true, Some("true"), "?refresh=false", true),
    ] {
        let world = world_with(CatalogOptions { refresh, ..CatalogOptions::default() });
        let headers: Vec<(&'static str, &str)> = header.map(|value| ("x-lakebed-refresh", value)).into_iter().collect();
        world.ask("GET", &format!("namespaces/default/tables/a{query}"), &headers).await;
        assert_eq!(*world.tables.loads.lock().unwrap(), [("default.a".to_owned(), expected)]);
    }
    let (status, _, _) = world().ask("GET", "namespaces/default/tables/a", &[("x-lakebed-refresh", "maybe")]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn existence_is_told_without_a_body() {
    let world = world();
    for (path, expected) in [
        ("namespaces/default", 204),
        ("namespaces/nothing", 404),
        ("namespaces/default/tables/orders", 204),
        ("namespaces/default/tables/nothing", 404),
        ("namespaces/nothing/tables/orders", 404),
    ] {
        let (status, body, _) = world.ask("HEAD", path, &[]).await;
        assert_eq!((status.as_u16(), body), (expected, Value::Null), "{path}");
    }
    assert!(world.tables.loads.lock().unwrap().is_empty(), "nothing is refreshed for that");
}

#[tokio::test]
async fn what_is_missing_or_wrong_has_the_error_of_the_specification() {
    let world = world();
    for (path, status, kind) in [
        ("namespaces/default/tables/nothing", 404, "NoSuchTableException"),
        ("namespaces/default/tables/a%2Fb", 404, "NoSuchTableException"),
        ("namespaces/default/tables/%E2%82%AC", 404, "NoSuchTableException"),
        ("namespaces/nothing/tables/a", 404, "NoSuchTableException"),
        ("namespaces/default%1Forders/tables/files", 404, "NoSuchTableException"),
        ("namespaces/default%1Fa/tables", 404, "NoSuchNamespaceException"),
        ("namespaces/a%1Fb", 404, "NoSuchNamespaceException"),
        ("namespaces?parent=nothing", 404, "NoSuchNamespaceException"),
        ("namespaces/default/views/v", 404, "NoSuchViewException"),
        ("nothing", 404, "NotFoundException"),
        ("namespaces/default/tables?pageSize=0", 400, "BadRequestException"),
        ("namespaces/default/tables?pageToken=x", 400, "BadRequestException"),
        ("namespaces/default/tables/a?snapshots=some", 400, "BadRequestException"),
        ("namespaces/%FF", 400, "BadRequestException"),
    ] {
        assert_eq!(world.error("GET", path).await, (status, kind.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn every_call_that_would_change_something_is_refused() {
    let world = world();
    for (method, path) in [
        ("POST", "namespaces"),
        ("DELETE", "namespaces/default"),
        ("POST", "namespaces/default/properties"),
        ("POST", "namespaces/default/tables"),
        ("POST", "namespaces/default/register"),
        ("POST", "namespaces/default/tables/a"),
        ("DELETE", "namespaces/default/tables/a"),
        ("POST", "tables/rename"),
        ("POST", "views/rename"),
        ("POST", "transactions/commit"),
        ("POST", "namespaces/default/views"),
        ("PUT", "config"),
        ("POST", "oauth/tokens"),
    ] {
        assert_eq!(
            world.error(method, path).await,
            (406, "UnsupportedOperationException".to_owned()),
            "{method} {path}"
        );
    }
    assert_eq!(world.error("OPTIONS", "namespaces").await.0, 405);
    assert_eq!(world.error("GET", "tables/rename").await.0, 405);
    let (status, _, _) = world.ask("POST", "namespaces/default/tables/a/metrics", &[]).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "a report of a scan is taken and dropped");
}

#[tokio::test]
async fn trouble_behind_the_catalog_is_told() {
    for (failure, status) in [
        (CatalogError::Unavailable("the store is away".to_owned()), 503),
        (CatalogError::Broken("damage".to_owned()), 500),
    ] {
        let mut tables = Fixed { failure: Some(failure), ..Fixed::default() };
        tables.names.push(TableName::new("default", "a").unwrap());
        let world =
            World { catalog: Catalog::new(Arc::new(tables), CatalogOptions::default()), tables: Arc::default() };
        for path in ["namespaces", "namespaces/default/tables", "namespaces/default/tables/a"] {
            assert_eq!(world.error("GET", path).await.0, status, "{path}");
        }
        assert_eq!(world.ask("HEAD", "namespaces/default/tables/a", &[]).await.0.as_u16(), status);
    }
}

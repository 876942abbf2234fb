//! What every kind of store must do, run on each of them: see `suite`.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod faulty;
mod suite;

use std::io::Write;

use lakebed_store::{Directory, Key, Store, StoreOptions};

fn open(url: &str) -> Store {
    Store::open(url, &StoreOptions::default()).unwrap()
}

/// Runs the suite on a store that is expected to work. Requests are counted, and what was deleted is to stay so: a hedge that is given up may come
/// later than both.
async fn conforms(store: &Store) {
    let store = &store.without_hedges();
    suite::run(store, 64).await;
    suite::requests_are_counted(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    conforms(&open("memory://")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_directory_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("with space, # and %");
    let store = open(path.to_str().unwrap());
    conforms(&store).await;
    let url = store.url().to_owned();
    drop(store);
    let again = open(&url);
    assert!(again.exists(&Key::new("big/a").unwrap()).await.unwrap(), "{url} is another place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_server_conforms() {
    if std::env::var("LAKEBED_TEST_S3_ENDPOINT").is_err() {
        say("NOT RUN: an_s3_server_conforms, for LAKEBED_TEST_S3_ENDPOINT is not set; tests/with-moto sets it");
        return;
    }
    let bucket = std::env::var("LAKEBED_TEST_S3_BUCKET").expect("the endpoint comes with a bucket");
    // The bucket may have been used before.
    let root = format!("conformance-{}", std::process::id());
    conforms(&open(&format!("s3://{bucket}/{root}/below/"))).await;
    let whole = open(&format!("s3://{bucket}"));
    assert!(whole.exists(&Key::new(format!("{root}/below/big/a")).unwrap()).await.unwrap());
    assert_eq!(whole.list_directories(&Directory::new(root).unwrap()).await.unwrap(), ["below"]);
}

/// A server that stands for Google's or Azure's, if its variables say that there is one: `AZURE_STORAGE_USE_EMULATOR=true` for Azurite,
/// `STORAGE_EMULATOR_HOST` for one of GCS that takes uploads of the XML API with `x-goog-if-generation-match` (fake-gcs-server does not).
async fn conforms_if_there_is(scheme: &str, variable: &str) {
    let Ok(bucket) = std::env::var(variable) else {
        return say(&format!("NOT RUN: the suite on {scheme}://, for {variable} names no bucket of an emulator"));
    };
    let root = format!("conformance-{}", std::process::id());
    conforms(&open(&format!("{scheme}://{bucket}/{root}/below/"))).await;
    let whole = open(&format!("{scheme}://{bucket}"));
    assert!(whole.exists(&Key::new(format!("{root}/below/big/a")).unwrap()).await.unwrap());
    assert_eq!(whole.list_directories(&Directory::new(root).unwrap()).await.unwrap(), ["below"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gcs_server_conforms() {
    conforms_if_there_is("gs", "LAKEBED_TEST_GCS_BUCKET").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_azure_server_conforms() {
    conforms_if_there_is("az", "LAKEBED_TEST_AZURE_CONTAINER").await;
}

/// Prints past the capture of the test harness.
fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

#[test]
fn what_is_no_store_is_refused_with_the_remedy() {
    for url in [
        "",
        "ftp://host/x",
        "s4://bucket",
        "file://relative/path",
        "s3://",
        "://",
        "s3://bucket/a//b",
        "s3://id:secret@bucket",
        "s3://bucket?x=1",
    ] {
        let error = Store::open(url, &StoreOptions::default()).unwrap_err().to_string();
        assert!(error.contains("memory://") && !error.contains('\n'), "{url}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

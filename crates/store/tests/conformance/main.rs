//! What every kind of store must do, run on each of them: see `suite`.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod faulty;
mod suite;

use lakebed_store::{Store, StoreOptions};

fn open(url: &str) -> Store {
    Store::open(url, &StoreOptions::default()).unwrap()
}

/// Runs the suite on a store that is expected to work.
async fn conforms(store: &Store) {
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
    let url = format!("file://{}", directory.path().join("with space").display());
    conforms(&open(&url)).await;
    assert_eq!(open(&url).url(), url);
}

#[test]
fn what_is_no_store_is_refused_with_the_remedy() {
    for url in ["", "ftp://host/x", "s4://bucket", "file://relative/path", "s3://", "://"] {
        let error = Store::open(url, &StoreOptions::default()).unwrap_err().to_string();
        assert!(error.contains("memory://") && !error.contains('\n'), "{url}: {error}");
    }
}

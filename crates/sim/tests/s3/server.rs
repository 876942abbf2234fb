//! What the server keeps when it is not told otherwise.

use std::sync::Arc;

use lakebed_sim::s3::bill::{Operation, OperationCounts};
use lakebed_sim::s3::{Options, S3Server, ServerError};
use lakebed_store::{Key, RetryPolicy, Store, StoreOptions};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use tokio::io::AsyncReadExt;

use super::{impatient, open, patient, suite, told, variables};

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms() {
    let server = S3Server::start(Options::default()).await.unwrap();
    let options = StoreOptions { variables: Some(variables(&server, &[])), ..StoreOptions::default() };
    // What the server has counted is compared, and what was deleted is to stay so: a hedge that is given up may come later than both.
    let store = Store::open("s3://test/below/root/", &options).unwrap().without_hedges();
    suite::run(&store, 64).await;
    suite::requests_are_counted(&store).await;
    let (ours, its) = (store.counts(), server.counts().operations);
    let puts = [Operation::Put, Operation::Begin, Operation::Part, Operation::Complete].map(|kind| &its[&kind]);
    let sum = |of: fn(&OperationCounts) -> u64| puts.iter().map(|counts| of(counts)).sum::<u64>();
    assert_eq!(sum(|counts| counts.requests), ours.put.requests());
    assert_eq!(sum(|counts| counts.succeeded), ours.put.succeeded);
    assert_eq!(sum(|counts| counts.declined), ours.put.declined, "what stood there already");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_replace_the_same_version_one_does() {
    let server = S3Server::start(Options::default()).await.unwrap();
    let client = AmazonS3Builder::new()
        .with_endpoint(format!("http://{}", server.address()))
        .with_allow_http(true)
        .with_bucket_name("test")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_region("us-east-1");
    let client: Arc<dyn ObjectStore> = Arc::new(client.build().unwrap());
    let path = Path::from("versions");
    let absent = UpdateVersion { e_tag: Some("none".to_owned()), version: None };
    let refused = client.put_opts(&path, "x".into(), PutMode::Update(absent).into()).await;
    assert!(matches!(refused, Err(Error::Precondition { .. })), "nothing stands there: {refused:?}");
    let mut version = client.put(&path, "0".into()).await.unwrap();
    for round in 0..8 {
        let rivals = (0..16).map(|_| {
            let (client, path) = (Arc::clone(&client), path.clone());
            let seen = UpdateVersion::from(version.clone());
            tokio::spawn(async move { client.put_opts(&path, "1".into(), PutMode::Update(seen).into()).await })
        });
        let mut winners = Vec::new();
        for rival in rivals.collect::<Vec<_>>() {
            match rival.await.unwrap() {
                Ok(stored) => winners.push(stored),
                Err(error) => assert!(matches!(error, Error::Precondition { .. }), "{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        version = winners.remove(0);
    }
}

#[tokio::test]
async fn who_has_another_key_is_refused() {
    let server = S3Server::start(Options::default()).await.unwrap();
    for (other, expected) in [
        (("AWS_ACCESS_KEY_ID", "other"), "InvalidAccessKeyId"),
        (("AWS_SECRET_ACCESS_KEY", "other"), "SignatureDoesNotMatch"),
        (("AWS_SKIP_SIGNATURE", "true"), "AccessDenied"),
    ] {
        let store = open(&server, &[other], RetryPolicy::default());
        let refused = store.create(&key("a"), "1").await.unwrap_err();
        assert!(told(&refused).contains(expected), "{other:?}: {}", told(&refused));
        assert!(!impatient(&server).exists(&key("a")).await.unwrap(), "it was stored");
    }
}

#[tokio::test]
async fn it_binds_loopback_addresses_only() {
    let everywhere = Options { listen: "0.0.0.0:0".parse().unwrap(), ..Options::default() };
    assert!(matches!(S3Server::start(everywhere).await, Err(ServerError::NotLoopback { .. })));
    let everywhere = Options { control: "0.0.0.0:0".parse().unwrap(), ..Options::default() };
    assert!(matches!(S3Server::start(everywhere).await, Err(ServerError::NotLoopback { .. })));
}

#[tokio::test]
async fn it_holds_no_more_than_it_may_and_has_room_again_after_deletes() {
    let server = S3Server::start(Options { memory_bytes_max: 1 << 20, ..Options::default() }).await.unwrap();
    let store = patient(&server);
    let half = vec![0; 500_000];
    store.create(&key("a"), half.clone()).await.unwrap();
    store.create(&key("b"), half.clone()).await.unwrap();
    let full = store.create(&key("c"), half.clone()).await.unwrap_err();
    assert!(told(&full).contains("QuotaExceeded"), "{}", told(&full));
    assert!(!store.exists(&key("c")).await.unwrap());
    store.delete(&[key("a")]).await.unwrap();
    store.create(&key("c"), half).await.unwrap();
}

#[tokio::test]
async fn its_connections_end_with_it() {
    let server = S3Server::start(Options::default()).await.unwrap();
    let mut connection = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    impatient(&server).create(&key("a"), "1").await.unwrap();
    drop(server);
    // The end or a reset, whichever comes first.
    assert!(!matches!(connection.read(&mut [0; 1]).await, Ok(1..)));
}

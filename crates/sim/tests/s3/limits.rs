//! How fast it serves, and how much: profiles, and limits for each prefix.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lakebed_sim::s3::conduct::{Clock, Conduct, Limits, Profile};
use lakebed_sim::s3::{Options, S3Server, ServerError};
use lakebed_store::{CreateError, Key, ReadError, Store};
use serde_json::json;

use super::{impatient, patient, told};

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

/// How many of five PUTs of new keys in `directory` are done, the others being told to slow down.
async fn created(store: &Store, directory: &str, round: u64) -> usize {
    let mut done = 0;
    for number in 0..5 {
        match store.create(&key(&format!("{directory}/{round}/{number}")), "1").await {
            Ok(_) => done += 1,
            Err(error @ CreateError::Unknown { .. }) => assert!(told(&error).contains("503"), "{}", told(&error)),
            Err(error) => panic!("{}", told(&error)),
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_prefix_is_served_so_many_requests_in_a_second() {
    let ms = Arc::new(AtomicU64::new(0));
    let limits = Some(Limits { writes_per_second: 2, reads_per_second: 1_000, prefix_parts: Some(2) });
    let conduct = Conduct { limits, ..Conduct::default() };
    let options = Options { conduct: conduct.clone(), clock: Clock::Manual(Arc::clone(&ms)), ..Options::default() };
    let server = S3Server::start(options).await.unwrap();
    let store = impatient(&server);
    assert_eq!(created(&store, "a", 0).await, 2);
    assert_eq!(created(&store, "b", 0).await, 2, "another prefix: root/b");
    assert_eq!(created(&store, "a", 1).await, 0);
    server.set_conduct(conduct).await.unwrap();
    assert_eq!(created(&store, "a", 2).await, 0, "the same limits go on");
    ms.fetch_add(500, Ordering::Relaxed);
    assert_eq!(created(&store, "a", 3).await, 1, "half a second later");
    assert_eq!(store.get(&key("a/0/0")).await.unwrap(), "1", "reads are counted apart");
    let reads = Some(Limits { reads_per_second: 0, ..Limits::default() });
    server.set_conduct(Conduct { limits: reads, ..Conduct::default() }).await.unwrap();
    assert!(matches!(store.get(&key("a/0/0")).await, Err(ReadError::Unavailable { .. })));
    assert_eq!(created(&store, "a", 4).await, 5, "writes are counted apart");
    server.set_conduct(Conduct::default()).await.unwrap();
    assert_eq!(store.get(&key("a/0/0")).await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_is_one_latency_and_its_answers_are_right() {
    let conduct = Conduct { profile: Profile::Express, ..Conduct::default() };
    let server = S3Server::start(Options { conduct: conduct.clone(), ..Options::default() }).await.unwrap();
    let store = patient(&server);
    let body: Vec<u8> = (0..1_000_000u32).map(|byte| byte as u8).collect();
    store.create(&key("a"), body.clone()).await.unwrap();
    assert!(store.get(&key("a")).await.unwrap() == body);
    let two = json!({ "profile": "standard", "latency": { "median_ms": 1 } });
    let refused = server.set_conduct(serde_json::from_value(two).unwrap()).await;
    assert!(matches!(refused, Err(ServerError::Conduct(_))), "{refused:?}");
}

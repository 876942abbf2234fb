//! Clients that are told apart: one is cut off while others go on, and what it gave up is done later.

use std::net::IpAddr;

use lakebed_sim::s3::conduct::{Conduct, Fault, Rule};
use lakebed_sim::s3::{Options, S3Server};
use lakebed_store::{CreateError, Created, Key, ReadError, RetryPolicy, Store};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{impatient, open, patient, told};

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

/// A server with the clients `test` and `other`.
async fn server() -> S3Server {
    let access_keys = vec!["test".to_owned(), "other".to_owned()];
    S3Server::start(Options { access_keys, ..Options::default() }).await.unwrap()
}

/// The client with another access key.
fn other(server: &S3Server) -> Store {
    open(server, &[("AWS_ACCESS_KEY_ID", "other")], RetryPolicy { attempts_max: 1, ..RetryPolicy::default() })
}

async fn rules(server: &S3Server, rules: Value) {
    server.set_conduct(serde_json::from_value(json!({ "rules": rules })).unwrap()).await.unwrap();
}

async fn heal(server: &S3Server) {
    server.set_conduct(Conduct::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_hears_nothing_until_it_is_healed_and_others_go_on() {
    let server = server().await;
    let (here, there) = (impatient(&server), other(&server));
    there.create(&key("before"), "1").await.unwrap();
    rules(&server, json!([{ "fault": "silence", "access_key": "other" }])).await;
    let cut_off = tokio::spawn({
        let there = there.clone();
        async move { there.create(&key("during"), vec![1; 1 << 20]).await }
    });
    while server.met()[0] == 0 {
        tokio::task::yield_now().await;
    }
    here.create(&key("during"), "here").await.unwrap();
    rules(
        &server,
        json!([{ "fault": "slow_down", "key_contains": "none" }, { "fault": "silence", "access_key": "other" }]),
    )
    .await;
    assert_eq!(here.get(&key("before")).await.unwrap(), "1");
    assert!(!cut_off.is_finished(), "another conduct that cuts it off leaves it in silence");
    heal(&server).await;
    let lost = cut_off.await.unwrap();
    assert!(matches!(lost, Ok(Created::Other) | Err(CreateError::Unknown { .. })), "{lost:?}");
    assert_eq!(there.get(&key("during")).await.unwrap(), "here", "nothing of it was done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_be_cut_off_with_its_connections_or_on_the_way_back_alone() {
    let server = server().await;
    let (here, there) = (impatient(&server), other(&server));
    rules(&server, json!([{ "fault": "cut_connection", "access_key": "other" }])).await;
    assert!(matches!(there.create(&key("cut"), "1").await, Err(CreateError::Unknown { .. })));
    assert!(matches!(there.get(&key("cut")).await, Err(ReadError::Unavailable { .. })));
    assert!(!here.exists(&key("cut")).await.unwrap());

    rules(&server, json!([{ "fault": "silence", "access_key": "other", "operation": "put", "applied": true }])).await;
    let unheard = tokio::spawn(async move { there.create(&key("unheard"), "1").await });
    while !here.exists(&key("unheard")).await.unwrap() {
        tokio::task::yield_now().await;
    }
    assert!(!unheard.is_finished());
    heal(&server).await;
    assert_eq!(unheard.await.unwrap().unwrap(), Created::Mine, "it looks, and finds its own");
}

/// The status of a request without a signature from `address`, if there is an answer.
async fn ask(server: &S3Server, address: &str) -> Option<String> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
    let mut stream: TcpStream = socket.connect(server.address()).await.unwrap();
    stream.write_all(b"GET /test/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    // A connection that is cut ends with or without an error.
    let _ = stream.read_to_string(&mut answer).await;
    answer.get(9..12).map(ToOwned::to_owned)
}

#[tokio::test]
async fn clients_are_told_apart_by_their_address_too() {
    let server = server().await;
    rules(&server, json!([{ "fault": "cut_connection", "address": "127.0.0.2" }])).await;
    assert_eq!(ask(&server, "127.0.0.2").await, None);
    assert_eq!(ask(&server, "127.0.0.3").await.as_deref(), Some("403"), "it is heard, and has no signature");
    heal(&server).await;
    assert_eq!(ask(&server, "127.0.0.2").await.as_deref(), Some("403"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_are_left_in_silence_keep_nobody_out() {
    let server = server().await;
    rules(&server, json!([{ "fault": "silence", "address": "127.0.0.2" }])).await;
    let mut asking = tokio::task::JoinSet::new();
    let socket = |server: &S3Server| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::from([127, 0, 0, 2]), 0).into()).unwrap();
        let connecting = socket.connect(server.address());
        async move {
            let mut stream = connecting.await.unwrap();
            stream.write_all(b"GET /test/a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
        }
    };
    for _ in 0..600 {
        asking.spawn(socket(&server));
    }
    for _ in 0..600 - 512 {
        asking.join_next().await.unwrap().unwrap();
    }
    let here = impatient(&server);
    here.create(&key("a"), "1").await.unwrap();
    asking.shutdown().await;
    assert_eq!(here.get(&key("a")).await.unwrap(), "1");
}

/// The first PUT of `path` is answered wrongly, and applied when it is told.
fn late(fault: Fault, path: &str) -> Conduct {
    let rule = Rule {
        fault,
        operation: Some(lakebed_sim::s3::bill::Operation::Put),
        key_contains: path.to_owned(),
        access_key: None,
        address: None,
        applied: false,
        applied_after_ms: Some(600_000),
        probability: 1.0,
        skip: 0,
        times: Some(1),
    };
    Conduct { rules: vec![rule], ..Conduct::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_was_given_up_is_applied_late_unless_another_was_first() {
    let server = server().await;
    let store = impatient(&server);
    let body: Vec<u8> = (0..3_000_000u32).map(|byte| byte as u8).collect();
    for fault in [Fault::InternalError, Fault::SlowDown, Fault::CutConnection] {
        let (alone, raced) = (key(&format!("{fault:?}/alone")), key(&format!("{fault:?}/raced")));
        for target in [&alone, &raced] {
            server.set_conduct(late(fault, target.as_str())).await.unwrap();
            let unknown = store.create(target, body.clone()).await.unwrap_err();
            assert!(matches!(unknown, CreateError::Unknown { .. }), "{target}: {}", told(&unknown));
            assert!(!store.exists(target).await.unwrap(), "{target}");
        }
        store.create(&raced, "first").await.unwrap();
        assert_eq!(server.late(), 2);
        assert_eq!(server.apply_late().await, 2);
        assert_eq!(server.late(), 0);
        assert!(store.get(&alone).await.unwrap() == body);
        assert_eq!(store.get(&raced).await.unwrap(), "first", "its condition is looked at when it is applied");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_put_comes_by_itself_and_one_that_is_tried_again_meets_its_own() {
    let server = server().await;
    let conduct = late(Fault::InternalError, "a");
    let soon = Conduct { rules: vec![Rule { applied_after_ms: Some(1), ..conduct.rules[0].clone() }], ..conduct };
    server.set_conduct(soon).await.unwrap();
    let created = patient(&server).create(&key("a"), "1").await.unwrap();
    assert!(matches!(created, Created::New | Created::Mine), "whichever of the two was first: {created:?}");
    while server.late() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(impatient(&server).get(&key("a")).await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_to_be_applied_counts_as_memory() {
    let server = S3Server::start(Options { memory_bytes_max: 1 << 20, ..Options::default() }).await.unwrap();
    let store = impatient(&server);
    server.set_conduct(late(Fault::InternalError, "")).await.unwrap();
    store.create(&key("a"), vec![0; 400_000]).await.unwrap_err();
    server.set_conduct(late(Fault::InternalError, "")).await.unwrap();
    let full = store.create(&key("b"), vec![0; 700_000]).await.unwrap_err();
    assert!(told(&full).contains("QuotaExceeded"), "{}", told(&full));
    assert_eq!(server.apply_late().await, 1);
    assert_eq!(store.get(&key("a")).await.unwrap().len(), 400_000);
    store.create(&key("b"), vec![0; 600_000]).await.unwrap();
}

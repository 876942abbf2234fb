//! Each thing that the server can be told to do wrong, as the store sees it.

use std::io::{Read, Write};

use lakebed_sim::s3::conduct::{Conduct, Fault, Outage, Rule, Weakness};
use lakebed_sim::s3::{Options, S3Server};
use lakebed_store::{CreateError, Created, Directory, Key, ReadError};
use serde_json::{Value, json};

use super::{impatient, patient, told};

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

async fn server() -> S3Server {
    S3Server::start(Options::default()).await.unwrap()
}

fn conduct(value: Value) -> Conduct {
    serde_json::from_value(value).unwrap()
}

/// A rule for the first request of a kind.
fn once(operation: &str, fault: Value, applied: bool) -> Conduct {
    conduct(json!({ "rules": [{ "operation": operation, "fault": fault, "applied": applied, "times": 1 }] }))
}

#[tokio::test]
async fn a_put_that_was_not_applied_is_told_apart_from_one_that_was() {
    let server = server().await;
    let store = impatient(&server);
    for (fault, status) in [("internal_error", "500"), ("slow_down", "503"), ("cut_connection", "")] {
        for applied in [false, true] {
            server.set_conduct(once("put", json!(fault), applied)).await.unwrap();
            let target = key(&format!("{fault}/{applied}"));
            match store.create(&target, "1").await {
                Ok(Created::Mine) => assert!(applied, "{target}"),
                Err(error @ CreateError::Unknown { .. }) if !applied => {
                    assert!(told(&error).contains(status), "{}", told(&error));
                }
                other => panic!("{target}: {other:?}"),
            }
            assert_eq!(store.exists(&target).await.unwrap(), applied, "{target}");
        }
    }
}

#[tokio::test]
async fn a_conflict_is_no_object_and_a_store_in_trouble_is_asked_again() {
    let server = server().await;
    let store = patient(&server);
    for (fault, times) in [("conflict", 3), ("slow_down", 3), ("internal_error", 3), ("cut_connection", 3)] {
        server
            .set_conduct(conduct(json!({ "rules": [{ "fault": fault, "operation": "put", "times": times }] })))
            .await
            .unwrap();
        assert_eq!(store.create(&key(fault), "1").await.unwrap(), Created::New, "{fault}");
        assert_eq!(store.get(&key(fault)).await.unwrap(), "1");
    }
    assert_eq!(server.counts().total.unanswered, 3);
}

#[tokio::test]
async fn a_body_that_is_cut_is_never_served_short() {
    let server = server().await;
    let body: Vec<u8> = (0..200_000u32).map(|byte| byte as u8).collect();
    patient(&server).create(&key("a"), body.clone()).await.unwrap();
    for bytes in [0, 1, 100_000, 199_999] {
        server.set_conduct(once("get", json!({ "cut_body": { "bytes": bytes } }), false)).await.unwrap();
        let cut = impatient(&server).get(&key("a")).await;
        assert!(
            matches!(cut, Err(ReadError::Unavailable { .. })),
            "cut after {bytes}: {:?}",
            cut.map(|body| body.len())
        );
        server.set_conduct(once("get", json!({ "cut_body": { "bytes": bytes } }), false)).await.unwrap();
        assert!(patient(&server).get(&key("a")).await.unwrap() == body);
    }
    server.set_conduct(once("get", json!({ "slow_body": { "bytes": 50_000, "every_ms": 1 } }), false)).await.unwrap();
    assert!(impatient(&server).get(&key("a")).await.unwrap() == body, "a slow body comes whole");
}

#[tokio::test]
async fn an_outage_is_over_with_the_first_request_after_it() {
    let server = server().await;
    let store = impatient(&server);
    for outage in [Outage::Refused, Outage::Reset, Outage::Unavailable] {
        let target = key(&format!("{outage:?}"));
        store.create(&target, "1").await.unwrap();
        server.set_conduct(Conduct { outage, ..Conduct::default() }).await.unwrap();
        let failed = store.create(&key("during"), "1").await.unwrap_err();
        match outage {
            Outage::Refused => assert!(matches!(failed, CreateError::NotDone { .. }), "{outage:?}: {failed:?}"),
            _ => assert!(matches!(failed, CreateError::Unknown { .. }), "{outage:?}: {failed:?}"),
        }
        assert!(matches!(store.get(&target).await, Err(ReadError::Unavailable { .. })), "{outage:?}");
        server.set_conduct(Conduct::default()).await.unwrap();
        assert_eq!(store.get(&target).await.unwrap(), "1", "{outage:?}");
        assert!(!store.exists(&key("during")).await.unwrap(), "{outage:?}");
    }
}

#[tokio::test]
async fn a_clock_that_is_off_by_more_than_15_minutes_is_refused() {
    let server = server().await;
    let store = impatient(&server);
    for (clock_shift_seconds, refused) in [(880, false), (-880, false), (920, true), (-920, true), (1 << 30, true)] {
        server.set_conduct(Conduct { clock_shift_seconds, ..Conduct::default() }).await.unwrap();
        let target = key(&format!("at{clock_shift_seconds}"));
        match store.create(&target, "1").await {
            Ok(Created::New) => assert!(!refused, "{clock_shift_seconds}"),
            Err(error @ CreateError::NotDone { .. }) => {
                assert!(refused && told(&error).contains("RequestTimeTooSkewed"), "{}", told(&error));
            }
            other => panic!("{clock_shift_seconds}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_weakness_is_what_its_name_says() {
    let server = server().await;
    let store = impatient(&server);
    let root = Directory::root();
    let weak = async |weakness| server.set_conduct(Conduct { weakness, ..Conduct::default() }).await.unwrap();

    weak(Weakness::IgnoresConditions).await;
    assert_eq!(store.create(&key("ignored"), "1").await.unwrap(), Created::New);
    assert_eq!(store.create(&key("ignored"), "2").await.unwrap(), Created::New);

    weak(Weakness::RacesConditions).await;
    let rival = |value: &'static str| {
        let store = store.clone();
        tokio::spawn(async move { store.create(&key("raced"), value).await.unwrap() })
    };
    let (one, other) = (rival("1"), rival("2"));
    assert_eq!((one.await.unwrap(), other.await.unwrap()), (Created::New, Created::New));
    assert_eq!(store.create(&key("raced"), "3").await.unwrap(), Created::Other, "what stands there is seen");

    weak(Weakness::RefusesConditions).await;
    let refused = store.create(&key("refused"), "1").await.unwrap_err();
    assert!(matches!(refused, CreateError::NotDone { .. }) && told(&refused).contains("501"), "{}", told(&refused));

    weak(Weakness::ReadsLate).await;
    store.create(&key("late"), "1").await.unwrap();
    assert!(matches!(store.get(&key("late")).await, Err(ReadError::NotFound { .. })));
    assert_eq!(store.get(&key("late")).await.unwrap(), "1");

    weak(Weakness::ListsLate).await;
    assert!(!store.list(&root, None, 99).await.unwrap().objects.iter().any(|object| object.key == key("late")));

    weak(Weakness::ListsDeleted).await;
    store.delete(&[key("late")]).await.unwrap();
    assert!(store.list(&root, None, 99).await.unwrap().objects.iter().any(|object| object.key == key("late")));
    assert!(!store.exists(&key("late")).await.unwrap());

    weak(Weakness::ShiftsRanges).await;
    store.create(&key("range"), "0123456789").await.unwrap();
    assert_eq!(store.get_range(&key("range"), 5..7).await.unwrap(), "01");
}

#[tokio::test]
async fn a_request_takes_its_latency_and_its_bytes() {
    let server = server().await;
    let store = impatient(&server);
    let latency = json!({ "latency": { "median_ms": 40.0, "bytes_per_second": 1_000_000 } });
    server.set_conduct(conduct(latency)).await.unwrap();
    let begun = tokio::time::Instant::now();
    store.create(&key("a"), vec![0; 100_000]).await.unwrap();
    assert!(begun.elapsed().as_millis() >= 140, "{:?}", begun.elapsed());
    let begun = tokio::time::Instant::now();
    store.get(&key("a")).await.unwrap();
    assert!(begun.elapsed().as_millis() >= 140, "{:?}", begun.elapsed());
}

/// A request to the control endpoint, as any program can send it.
fn control(server: &S3Server, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = std::net::TcpStream::connect(server.control_address()).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_told_over_http_and_tells_what_it_did() {
    let server = server().await;
    let store = patient(&server);
    let wanted = json!({ "rules": [{ "fault": "slow_down", "operation": "put", "times": 2 }] });
    let (status, _) = control(&server, "PUT", "/conduct", &wanted.to_string());
    assert_eq!(status, 200);
    store.create(&key("a"), "1").await.unwrap();
    let (_, now) = control(&server, "GET", "/conduct", "");
    assert_eq!(now["met"], json!([2]));
    let rule = Rule {
        fault: Fault::SlowDown,
        operation: Some(lakebed_sim::s3::bill::Operation::Put),
        key_contains: String::new(),
        access_key: None,
        address: None,
        applied: false,
        applied_after_ms: None,
        probability: 1.0,
        skip: 0,
        times: Some(2),
    };
    assert_eq!(serde_json::from_value::<Conduct>(now["conduct"].clone()).unwrap().rules, [rule]);
    let (_, counts) = control(&server, "GET", "/counts", "");
    assert_eq!(
        (&counts["operations"]["put"]["requests"], &counts["operations"]["put"]["failed"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(control(&server, "DELETE", "/counts", "").1, counts);
    assert_eq!(control(&server, "GET", "/counts", "").1["total"]["requests"], 0);
    for (wrong, said) in [
        ("{\"outrage\":1}", "outrage"),
        ("nonsense", "expected"),
        ("{\"rules\":[{\"fault\":\"conflict\",\"probability\":7}]}", "probability"),
    ] {
        let (status, answer) = control(&server, "PUT", "/conduct", wrong);
        assert!(status == 400 && answer["error"].as_str().unwrap().contains(said), "{wrong}: {answer}");
        assert_eq!(control(&server, "GET", "/conduct", "").1, now, "{wrong} changed something");
    }
    assert_eq!(control(&server, "GET", "/elsewhere", "").0, 404);
    let (status, _) = control(&server, "PUT", "/conduct", r#"{"outage":"refused"}"#);
    assert_eq!(status, 200, "no outage touches the control endpoint");
    assert!(impatient(&server).get(&key("a")).await.is_err());
    assert_eq!(control(&server, "PUT", "/conduct", "{}").0, 200);
    assert_eq!(store.get(&key("a")).await.unwrap(), "1");
}

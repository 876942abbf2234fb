//! Connections of the HTTP port: their limits, their age, and their end.

use std::time::Duration;

use lakebed_broker::{Broker, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::client::Running;
use crate::http::get;

/// What a client of HTTP/2 says first: the preface, and settings that change nothing.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn health(broker: &Running) -> HealthClient<Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", broker.http)).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

fn whole_broker() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

/// The end of a watch of health: the last message, and the status.
async fn watched_to_the_end(client: &mut HealthClient<Channel>) -> (ServingStatus, Status) {
    let mut watch = client.watch(whole_broker()).await.unwrap().into_inner();
    let mut last = ServingStatus::Unknown;
    loop {
        match watch.message().await {
            Ok(Some(message)) => last = message.status(),
            Ok(None) => panic!("the watch ended with OK after {last:?}"),
            Err(status) => return (last, status),
        }
    }
}

/// Whether a call was still in this client when the connection ended: hyper gives it back, and tonic's channel does not repeat it as
/// gRPC's other clients do.
fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return error.is_canceled();
        }
        source = error.source();
    }
    false
}

#[tokio::test]
async fn no_call_that_was_sent_fails_when_connections_come_of_age() {
    let age = Duration::from_millis(20);
    let broker =
        Running::start(Config { connection_age_max: age, connection_age_grace: age, ..Config::default() }).await;
    let mut client = health(&broker).await;
    let accepted = async || {
        let page = get(&broker, "/metrics").await;
        let line = page.lines().find(|line| line.starts_with("lakebed_http_connections_accepted_total "));
        line.unwrap().rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let (mut calls, mut pages) = (0, 0);
    // Each look at the page is a connection, too.
    while accepted().await < 5 + pages {
        pages += 1;
        for _ in 0..100 {
            match client.check(whole_broker()).await {
                Ok(_) => calls += 1,
                Err(status) => assert!(never_sent(&status), "{status:?}"),
            }
        }
    }
    assert!(calls > 0);
    broker.stop().await;
}

#[tokio::test]
async fn a_stream_is_told_that_its_connection_has_come_of_age() {
    let age = Duration::from_millis(20);
    let broker =
        Running::start(Config { connection_age_max: age, connection_age_grace: age, ..Config::default() }).await;
    let (last, status) = watched_to_the_end(&mut health(&broker).await).await;
    assert_eq!((last, status.code()), (ServingStatus::Serving, Code::Unavailable));
    assert!(status.message().contains("its age"), "{status}");
    broker.stop().await;
}

#[tokio::test]
async fn a_watch_of_health_ends_with_the_broker_and_says_first_that_it_does_not_serve() {
    let broker = Running::in_memory().await;
    let mut client = health(&broker).await;
    let mut watch = client.watch(whole_broker()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stopping = tokio::spawn(broker.stop());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let status = watch.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("shutting down"), "{status}");
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_connection_too_many_is_closed() {
    let broker = Running::start(Config { connections_per_address_max: 1, ..Config::default() }).await;
    let mut first = health(&broker).await;
    first.check(whole_broker()).await.unwrap();
    let mut second = TcpStream::connect(broker.http).await.unwrap();
    let mut answer = Vec::new();
    // Closed or reset, as it comes.
    drop(second.write_all(HELLO).await);
    drop(second.read_to_end(&mut answer).await);
    assert_eq!(answer, b"");
    first.check(whole_broker()).await.unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_silent_is_given_up() {
    let broker = Broker::start(Config::default()).await.unwrap();
    let http = broker.http_address();
    let broker = Running::run(broker);
    // Nothing; half of the preface of HTTP/2; half a head of HTTP/1.1; a hello, and no answer to pings.
    let sent: [&[u8]; 4] = [b"", &HELLO[..13], b"GET /livez HTTP/1.1\r\nHost: x", HELLO];
    let mut silent = Vec::new();
    for hello in sent {
        let mut stream = TcpStream::connect(http).await.unwrap();
        stream.write_all(hello).await.unwrap();
        silent.push(stream);
    }
    get(&broker, "/livez").await;
    // From here on time passes whenever nothing else happens.
    tokio::time::pause();
    for (mut stream, hello) in silent.into_iter().zip(sent) {
        let ended = tokio::time::timeout(Duration::from_secs(45), stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "it is still open after {:?}", String::from_utf8_lossy(hello));
    }
    tokio::time::resume();
    broker.stop().await;
}

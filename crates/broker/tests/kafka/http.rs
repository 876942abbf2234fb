//! Health and metrics.

use lakebed_segment::batch::Codec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Running, batch};

pub(crate) async fn get(broker: &Running, path: &str) -> String {
    get_from(broker.http, path).await
}

pub(crate) async fn get_from(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_broker_that_serves_is_live_and_ready() {
    let broker = Running::in_memory().await;
    for path in ["/livez", "/readyz"] {
        assert!(get(&broker, path).await.starts_with("HTTP/1.1 200 "), "{path}");
    }
    assert!(get(&broker, "/readyz").await.ends_with("{\"ready\":true}"));
    assert!(get(&broker, "/nothing").await.starts_with("HTTP/1.1 404 "));
    broker.stop().await;
}

#[tokio::test]
async fn metrics_count_what_was_done() {
    let broker = Running::in_memory().await;
    let mut client = broker.client().await;
    client.topic("t").await;
    let batch = batch(Codec::None, &[b"one"]);
    client.produce("t", 0, batch.clone()).await;
    client.fetch("t", 0, 0).await;
    let text = get(&broker, "/metrics").await;
    let described = lakebed_broker::metrics::METRICS;
    for metric in described {
        let name = metric.full_name();
        let family = name.strip_suffix("_total").unwrap_or(&name);
        assert!(text.contains(&format!("# TYPE {family} ")), "{name} is described and not on the page");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE ")).count(), described.len());
    for expected in [
        "lakebed_kafka_requests_total{request=\"Produce\",version=\"9\"} 1".to_owned(),
        "lakebed_kafka_request_latency_seconds_count{request=\"Produce\"} 1".to_owned(),
        "lakebed_kafka_connections 1.0".to_owned(),
        format!("lakebed_kafka_request_bytes_total{{direction=\"produce\"}} {}", batch.len()),
        format!("lakebed_kafka_request_bytes_total{{direction=\"fetch\"}} {}", batch.len()),
        "lakebed_kafka_records_produced_total 1".to_owned(),
        "lakebed_kafka_records_fetched_total 1".to_owned(),
        "lakebed_log_live_runs 1.0".to_owned(),
        "lakebed_flush_size_bytes_count 1".to_owned(),
        "lakebed_cluster_partitions 4.0".to_owned(),
        "lakebed_cache_hits_total{cache=\"tail\"} 1".to_owned(),
        "lakebed_store_requests_total{op=\"put\",outcome=\"succeeded\"}".to_owned(),
        "lakebed_store_cost_dollars_total{op=\"put\"} 0.0".to_owned(),
        "lakebed_ready 1.0".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected} is not in\n{text}");
    }
    broker.stop().await;
}

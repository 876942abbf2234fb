//! The process that is measured: a broker.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lakebed_broker::topics::NewTopic;
use lakebed_broker::{Broker, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::TOPIC;

/// Connections of a loader come from one address.
const CONNECTIONS_MAX: usize = 10_000;

/// Serves until this process is killed by the one that measures; prints where.
pub(crate) async fn serve(interval_ms: u64, partitions: u32) {
    let config = Config {
        flush_interval: Some(Duration::from_millis(interval_ms)),
        group_initial_rebalance_delay: Duration::ZERO,
        connections_max: CONNECTIONS_MAX,
        connections_per_address_max: CONNECTIONS_MAX,
        ..Config::default()
    };
    let broker = Broker::start(config).await.unwrap();
    let new = NewTopic { name: TOPIC.to_owned(), partitions: Some(partitions), config: Default::default() };
    broker.rooms().topics.create(new, false).await.unwrap();
    println!("{} {}", broker.kafka_address(), broker.http_address());
    broker.run_until(std::future::pending()).await.unwrap();
}

/// A server process; killed when it is dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) kafka: SocketAddr,
    http: SocketAddr,
}

impl Server {
    /// Starts a broker on memory with a topic of so many partitions.
    pub(crate) fn spawn(interval_ms: u64, partitions: u32) -> Self {
        let program = std::env::current_exe().unwrap();
        let arguments = ["serve".to_owned(), interval_ms.to_string(), partitions.to_string()];
        let mut process = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (kafka, http) = line.trim().split_once(' ').unwrap();
        Self { process, kafka: kafka.parse().unwrap(), http: http.parse().unwrap() }
    }

    /// What its page of metrics says of a metric, named with its labels; a counter is not there before it has counted something.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: measured\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        let values = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.map(|value| value.parse().unwrap()).next()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

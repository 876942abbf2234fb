//! Producers that behave well, alone and beside clients that mean harm.
//!
//! The hostile clients run with the lowest priority: on a machine of their own they would take no processor time from the broker but by
//! what they send.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::fetching::{batch, produce};
use crate::percentile_ms;
use crate::server::Server;
use crate::wire::Connection;

const PRODUCERS: usize = 4;
/// Each of them sends a record so often.
const EVERY: Duration = Duration::from_millis(10);
/// More frames than can be sent meanwhile.
const FRAMES: u64 = u32::MAX as u64;

/// The hostile clients; killed when they are dropped.
struct Hostile(Child);

impl Hostile {
    fn spawn(server: &Server) -> Self {
        let examples = std::env::current_exe().unwrap();
        let program = examples.parent().and_then(Path::parent).unwrap().join("hostile-client");
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/request");
        let arguments = ["--address", &server.kafka.to_string(), "--seed", "1", "--frames", &FRAMES.to_string()];
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(program).arg("--corpus").arg(corpus).args(arguments);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// Whether it is still at work.
    fn goes_on(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        drop(self.0.kill());
        self.0.wait().unwrap();
    }
}

/// From when each record was due until it was acknowledged: a broker that stalls is charged for all that had to wait.
async fn producers(server: &Server, time: Duration) -> Vec<Duration> {
    let mut running = JoinSet::new();
    for _ in 0..PRODUCERS {
        let mut connection = Connection::open(server.kafka).await;
        running.spawn(async move {
            let (begun, mut ticks, batch) = (Instant::now(), interval(EVERY), batch(1));
            let mut took = Vec::new();
            while begun.elapsed() < time {
                let due = ticks.tick().await;
                produce(&mut connection, batch.clone()).await;
                took.push(due.elapsed());
            }
            took
        });
    }
    running.join_all().await.into_iter().flatten().collect()
}

pub(crate) async fn measure(time: Duration) -> Value {
    let server = Server::spawn(0, 1);
    let alone = percentile_ms(producers(&server, time).await, 99);
    let malformed = "lakebed_kafka_connections_closed_total{cause=\"malformed\"}";
    let mut hostile = Hostile::spawn(&server);
    // It has begun when the broker has turned something away.
    while server.metric(malformed).await.unwrap_or(0.0) < 100.0 {
        assert!(hostile.goes_on(), "the hostile clients have ended");
    }
    let before = server.metric(malformed).await.unwrap_or(0.0);
    let beside = percentile_ms(producers(&server, time).await, 99);
    let closed = server.metric(malformed).await.unwrap_or(0.0) - before;
    assert!(hostile.goes_on(), "the hostile clients have ended");
    json!({
        "alone_p99_ms": alone, "beside_p99_ms": beside, "ratio": beside / alone,
        "hostile_connections_per_s": closed / time.as_secs_f64(),
    })
}

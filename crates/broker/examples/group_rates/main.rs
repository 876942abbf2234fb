//! What consumer groups cost: many of them, a rebalance of a large one, commits of offsets, reading in a group beside reading without, and
//! well-behaved clients beside hostile ones. Every byte goes over the wire; the members are many connections of one process.
//!
//! Each measurement has a server process of its own, without an initial delay of rebalances. Commits of offsets are measured with the flush
//! interval of buckets, 250 ms, all else on memory; the rest with that of memory.
//!
//! `cargo run --release -p lakebed-broker --example group_rates [SECONDS]` measures everything once, and prints one line of JSON.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement prints, and may stop where it is surprised"
)]

mod bystanders;
mod commits;
mod fetching;
mod member;
mod rebalances;
mod server;
mod wire;

use std::time::Duration;

use serde_json::json;

use server::Server;

const TOPIC: &str = "grouped";
/// The spacing of flushes on a bucket, in milliseconds.
const BUCKET_INTERVAL_MS: u64 = 250;

/// The `part` of some durations that is reached by so many hundredths of them, in milliseconds.
fn percentile_ms(mut of: Vec<Duration>, percent: usize) -> f64 {
    assert!(!of.is_empty(), "nothing was measured");
    of.sort_unstable();
    of[(of.len() * percent / 100).min(of.len() - 1)].as_secs_f64() * 1e3
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, interval_ms, partitions] = &arguments[..]
        && verb == "serve"
    {
        return server::serve(interval_ms.parse().unwrap(), partitions.parse().unwrap()).await;
    }
    let time = Duration::from_secs_f64(arguments.first().map_or(3.0, |seconds| seconds.parse().unwrap()));
    let many = rebalances::many_groups(&Server::spawn(0, 10)).await;
    let large = rebalances::one_large_group(&Server::spawn(0, 100)).await;
    let commits = commits::measure(&Server::spawn(BUCKET_INTERVAL_MS, 10), time).await;
    let fetched = fetching::measure(time).await;
    let bystanders = bystanders::measure(time).await;
    println!(
        "{}",
        json!({ "many": many, "large": large, "commits": commits, "fetch": fetched, "bystanders": bystanders })
    );
}

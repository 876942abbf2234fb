//! What hedges do to the slow requests of a bucket, and what they cost: GET and PUT on the S3 server of our own, with the latency of a lognormal
//! distribution as S3 Standard has it for small objects, without and with a few that hang. Each is asked the same, with hedges and without.
//!
//! Prints a table in Markdown, as it stands in `docs/performance.md`.
//!
//! `cargo run -p lakebed-sim --example hedging -- [CALLS]`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measurement prints what a clock says"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use lakebed_sim::s3::conduct::{Conduct, Fault, Latency, Rule};
use lakebed_sim::s3::{Options, S3Server};
use lakebed_store::price::S3;
use lakebed_store::{Hedging, Key, OperationCounts, Priority, Store, StoreOptions, Variables};

/// Calls that are made before any is measured: a broker has made them in its first minute.
const CALLS_BEFORE: usize = 500;
const CALLS_AT_ONCE: usize = 24;
const OBJECT_BYTES: usize = 64 << 10;

/// What is asked, and of which server.
struct Case {
    name: &'static str,
    is_put: bool,
    hangs: bool,
}

const CASES: [Case; 4] = [
    Case { name: "GET of 64 KiB", is_put: false, hangs: false },
    Case { name: "PUT of 64 KiB, if absent", is_put: true, hangs: false },
    Case { name: "GET; one in 200 hangs for a second", is_put: false, hangs: true },
    Case { name: "PUT; one in 200 hangs for a second", is_put: true, hangs: true },
];

#[tokio::main]
async fn main() {
    let calls: usize = std::env::args().nth(1).map_or(10_000, |text| text.parse().expect("a number of calls"));
    println!("| what | hedged | p50 | p90 | p99 | p99.9 | requests for each call | dollars for a million calls |");
    println!("|---|---|---|---|---|---|---|---|");
    for case in &CASES {
        for hedging in [Hedging { percent_max: 0, ..Hedging::default() }, Hedging::default()] {
            let (times, counts) = measure(case, hedging, calls).await;
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
            let price = if case.is_put { S3.put } else { S3.get };
            println!(
                "| {} | {} | {:.0} ms | {:.0} ms | {:.0} ms | {:.0} ms | {:.3} | {:.3} |",
                case.name,
                if hedging.percent_max == 0 { "no" } else { "yes" },
                at(0.5),
                at(0.9),
                at(0.99),
                at(0.999),
                counts.requests() as f64 / calls as f64,
                counts.billed() as f64 / calls as f64 * price as f64 / 1e3,
            );
        }
    }
}

/// How long the calls took, ascending, and what they asked for.
async fn measure(case: &Case, hedging: Hedging, calls: usize) -> (Vec<Duration>, OperationCounts) {
    let server = S3Server::start(Options { seed: 7, ..Options::default() }).await.unwrap();
    let store = open(&server, hedging);
    store.create(&key("read"), vec![7; OBJECT_BYTES]).await.unwrap();
    let delay = Rule {
        fault: Fault::Delay { ms: 1000 },
        operation: None,
        key_contains: String::new(),
        access_key: None,
        address: None,
        applied_after_ms: None,
        applied: true,
        probability: 0.005,
        skip: 0,
        times: None,
    };
    let rules = if case.hangs { vec![delay] } else { Vec::new() };
    let latency = Some(Latency { median_ms: 45.0, sigma: 0.52, bytes_per_second: None });
    server.set_conduct(Conduct { latency, rules, ..Conduct::default() }).await.unwrap();
    call(&store, case, 0..CALLS_BEFORE).await;
    let before = counts(&store, case);
    let mut times = call(&store, case, CALLS_BEFORE..CALLS_BEFORE + calls).await;
    times.sort();
    (times, since(before, counts(&store, case)))
}

async fn call(store: &Store, case: &Case, numbers: std::ops::Range<usize>) -> Vec<Duration> {
    let call = async |number: usize| {
        let begun = Instant::now();
        if case.is_put {
            // The end tells one writer's object from another's.
            let body = [vec![7; OBJECT_BYTES - 8], number.to_be_bytes().to_vec()].concat();
            store.create(&key(&format!("written/{number}")), body).await.unwrap();
        } else {
            store.get_range(&key("read"), 0..OBJECT_BYTES as u64).await.unwrap();
        }
        begun.elapsed()
    };
    stream::iter(numbers).map(call).buffer_unordered(CALLS_AT_ONCE).collect().await
}

fn open(server: &S3Server, hedging: Hedging) -> Store {
    let endpoint = format!("http://{}", server.address());
    let variables = [
        ("AWS_ENDPOINT_URL_S3", &*endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let variables = Some(Variables(BTreeMap::from(variables)));
    let options = StoreOptions { seed: 7, hedging: Some(hedging), variables, ..StoreOptions::default() };
    Store::open("s3://test/root", &options).unwrap().with_priority(Priority::Produce)
}

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

/// Of a read-back, which a hedged PUT may need, the GET is left out: it costs a twelfth of the PUT.
fn counts(store: &Store, case: &Case) -> OperationCounts {
    if case.is_put { store.counts().put } else { store.counts().get }
}

fn since(before: OperationCounts, now: OperationCounts) -> OperationCounts {
    OperationCounts {
        succeeded: now.succeeded - before.succeeded,
        declined: now.declined - before.declined,
        throttled: now.throttled - before.throttled,
        timed_out: now.timed_out - before.timed_out,
        refused: now.refused - before.refused,
        failed: now.failed - before.failed,
        cancelled: now.cancelled - before.cancelled,
        ..OperationCounts::default()
    }
}

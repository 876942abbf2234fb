//! `lakebed check storage`: whether a store keeps what the log needs.

mod policy;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lakebed_broker::check::{CheckOptions, Checked, Recorded, check_storage};
use serde::Serialize;
use serde_json::Value;

use crate::args::{CheckArgs, CheckVerb, StorageArgs};
use crate::failure::{Exit, Failure, chain};
use crate::output::{Output, table};

/// What was found, as it is printed.
#[derive(Debug, Serialize)]
struct Found {
    store: String,
    verdict: &'static str,
    promises: Vec<Promise>,
    latencies: Vec<Latency>,
    requests: u64,
    recorded: &'static str,
    policy: Option<Value>,
}

#[derive(Debug, Serialize)]
struct Promise {
    promise: &'static str,
    kept: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Latency {
    operation: &'static str,
    p50_ms: f64,
    p99_ms: f64,
}

pub(crate) async fn run(args: CheckArgs, output: Output) -> Result<(), Failure> {
    let CheckVerb::Storage(args) = args.verb;
    if args.policy {
        let needed = policy::needed(&args.url).ok_or_else(|| {
            Failure::usage(format!("'{}' is no bucket: only s3://, gs:// and az:// have a policy", args.url))
        })?;
        return output.one(&needed, || policy::text(&needed));
    }
    storage(args, output).await
}

async fn storage(args: StorageArgs, output: Output) -> Result<(), Failure> {
    let options = CheckOptions {
        rounds: args.rounds,
        large_bytes: args.large as u64,
        nonce: rand::random(),
        ..CheckOptions::default()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let record = (!args.no_record).then_some((now, env!("CARGO_PKG_VERSION")));
    let checked = check_storage(&args.url, &options, record).await.map_err(|error| {
        let failure = Failure::new("the store could not be checked").cause(chain(&error));
        let failure = failure.code("STORE_NOT_CHECKED", Exit::Failed);
        match error.remedy() {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        }
    })?;
    let found = Found::new(&checked);
    output.one(&found, || found.text())?;
    if found.policy.is_some() && output.is_table() {
        let needed = policy::needed(&args.url).expect("it was there before");
        output.notice(format!("\nThe store must allow:\n{}", policy::text(&needed).trim_end()));
        if let Some(rule) = policy::rule(&args.url) {
            output.notice(format!("\n{rule}"));
        }
    }
    if checked.report.passed() {
        if checked.recorded == Recorded::StillFailed {
            return Err(Failure::new("the store passed, but an earlier check failed and stays recorded")
                .code("STORE_FAILED_BEFORE", Exit::Conflict)
                .remedy("a store that races is lucky now and then; delete lakebed-check.json below the root if the store was mended"));
        }
        return Ok(());
    }
    let broken: Vec<&str> = checked.report.broken().map(|finding| finding.promise.name()).collect();
    Err(Failure::new(format!("the store {} does not keep what the log needs", checked.url))
        .cause(broken.join(", "))
        .remedy("use another store: records would be lost on this one, and brokers refuse it")
        .code("STORE_UNSAFE", Exit::Failed))
}

impl Found {
    fn new(checked: &Checked) -> Self {
        let report = &checked.report;
        let promise = |finding: &lakebed_broker::check::Finding| Promise {
            promise: finding.promise.name(),
            kept: finding.kept,
            detail: finding.detail.clone(),
        };
        let latency = |latency: &lakebed_broker::check::Latency| Latency {
            operation: latency.operation,
            p50_ms: milliseconds(latency.p50),
            p99_ms: milliseconds(latency.p99),
        };
        Self {
            store: checked.url.clone(),
            verdict: if report.passed() { "passed" } else { "failed" },
            promises: report.findings.iter().map(promise).collect(),
            latencies: report.latencies.iter().map(latency).collect(),
            requests: report.requests,
            recorded: checked.recorded.name(),
            policy: policy::needed(&checked.url),
        }
    }

    fn text(&self) -> String {
        let rows = self.promises.iter().map(|promise| {
            let outcome = if promise.kept { "pass" } else { "FAIL" };
            [promise.promise.to_owned(), outcome.to_owned(), promise.detail.clone()]
        });
        let mut text = table(["promise", "outcome", "what was seen"], rows);
        if !self.latencies.is_empty() {
            let rows = self.latencies.iter().map(|latency| {
                [latency.operation.to_owned(), format!("{:.1}", latency.p50_ms), format!("{:.1}", latency.p99_ms)]
            });
            text += "\n";
            text += &table(["operation", "p50 ms", "p99 ms"], rows);
        }
        let recorded = match self.recorded {
            "now" => "recorded beside the root",
            "before" => "recorded beside the root by an earlier check",
            "still_failed" => "an earlier check failed, and stays recorded",
            "impossible" => "the store takes no record of it",
            _ => "not recorded",
        };
        text + &format!("\n{} {} ({} requests; {recorded})\n", self.store, self.verdict, self.requests)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

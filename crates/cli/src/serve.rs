//! `lakebed dev` and `lakebed serve`.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use lakebed_broker::{Broker, Config};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{DevArgs, ListenArgs, ServeArgs};
use crate::failure::Failure;
use crate::output::Output;

/// Partitions of topics that `dev` makes.
const DEV_PARTITIONS: u32 = 4;

pub(crate) async fn dev(args: DevArgs, output: Output) -> Result<(), Failure> {
    let config =
        Config { auto_create_topics: true, default_partitions: DEV_PARTITIONS, ..config(args.store, args.listen) };
    run(config, "dev", output).await
}

pub(crate) async fn serve(args: ServeArgs, output: Output) -> Result<(), Failure> {
    let auto_create_topics = args.auto_create_topics;
    let config = Config { auto_create_topics, default_partitions: 1, ..config(args.store, args.listen) };
    run(config, "serve", output).await
}

fn config(store: String, listen: ListenArgs) -> Config {
    Config {
        store,
        kafka_listen: listen.kafka_listen,
        http_listen: listen.listen,
        advertise: listen.advertise,
        memory_bytes: listen.memory,
        flush_interval: listen.flush_interval_ms.map(Duration::from_millis),
        tail: !listen.no_tail,
        ..Config::default()
    }
}

async fn run(config: Config, verb: &str, output: Output) -> Result<(), Failure> {
    start_logging();
    let broker = Broker::start(config).await.map_err(|error| start_failure(&error, verb))?;
    // Before anybody knows that it runs, and may ask it to stop.
    let asked_to_stop = stop_signal();
    announce(&broker, output);
    let stopped = broker.run_until(asked_to_stop).await;
    stopped.map_err(|error| Failure::new("the broker has stopped").cause(error))
}

fn start_failure(error: &lakebed_broker::StartError, verb: &str) -> Failure {
    let failure = Failure::new("the broker can't start").cause(chain(error));
    match error.remedy() {
        Some(remedy) => failure.remedy(remedy),
        None => failure.remedy(format!("see the settings with `lakebed {verb} --help`")),
    }
}

/// An error with its sources, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// Text on a terminal, JSON elsewhere, always on stderr; `RUST_LOG` says what.
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() { builder.init() } else { builder.json().init() }
}

/// Says that the broker serves: a banner on a terminal, one JSON line elsewhere.
fn announce(broker: &Broker, output: Output) {
    let (kafka, http, store) = (broker.kafka_address(), broker.http_address(), broker.store_url());
    let mut stdout = std::io::stdout().lock();
    let text = if stdout.is_terminal() && output.is_table() {
        banner(&kafka.to_string(), &http.to_string(), store)
    } else {
        let version = env!("CARGO_PKG_VERSION");
        let ready = serde_json::json!({
            "event": "ready", "kafka": kafka.to_string(), "http": http.to_string(), "store": store, "version": version,
        });
        format!("{ready}\n")
    };
    // Nobody may be listening; the broker serves all the same.
    drop(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
}

fn banner(kafka: &str, http: &str, store: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let durable = if store.starts_with("memory:") { "lost on exit" } else { "survives restart" };
    let server = if http == crate::server::DEFAULT { String::new() } else { format!(" --server {http}") };
    let path = store.strip_prefix("file://").unwrap_or(store).trim_end_matches('/');
    format!(
        "lakebed {version}\n  data   {store}  ({durable})\n  Kafka  {kafka}\n  gRPC   {http}\n  HTTP   http://{http}/readyz\n\nTry:\n  \
         echo hello | kcat -P -b {kafka} -t greetings\n  \
         lakebed consume greetings --from start --count 1{server}\n  \
         duckdb -c \"SELECT decode(value) FROM read_parquet('{path}/cells/**/*.parquet')\"\n\n"
    )
}

/// Waits for SIGINT or SIGTERM, from the call on.
fn stop_signal() -> impl Future<Output = ()> {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async move {
        match signals {
            (Ok(mut interrupt), Ok(mut terminate)) => {
                tokio::select! {
                    biased;
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            // Without handlers the process ends at the signal by itself.
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_addresses_data_and_three_commands() {
        let text = banner("127.0.0.1:9092", "127.0.0.1:7070", "file:///tmp/lakebed-data");
        assert!(text.lines().count() <= 14, "{text}");
        for part in [
            "127.0.0.1:9092",
            "127.0.0.1:7070",
            "file:///tmp/lakebed-data",
            "survives restart",
            "kcat -P",
            "lakebed consume",
            "duckdb -c",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("--server"), "the default needs no flag");
        assert!(banner("k", "h:1", "memory://").contains("lost on exit"));
        assert!(banner("k", "h:1", "memory://").contains("--server h:1"));
    }
}

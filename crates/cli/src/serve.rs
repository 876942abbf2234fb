//! `lakebed dev` and `lakebed serve`.

use std::io::{IsTerminal, Write};

use lakebed_broker::Broker;
use lakebed_broker::config::{Mode, Setting};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{DevArgs, SettingArgs};
use crate::config::{self, Loaded};
use crate::failure::{Exit, Failure, chain};
use crate::logging::Logging;
use crate::output::Output;
use crate::profile::Profiles;

pub(crate) async fn dev(args: DevArgs, output: Output) -> Result<(), Failure> {
    run(Mode::Dev, &args.settings, output).await
}

pub(crate) async fn serve(args: SettingArgs, output: Output) -> Result<(), Failure> {
    run(Mode::Serve, &args, output).await
}

async fn run(mode: Mode, settings: &SettingArgs, output: Output) -> Result<(), Failure> {
    let loaded = config::load(mode, &settings.sources());
    if !loaded.problems.is_empty() {
        return Err(config::invalid(&loaded.problems));
    }
    let logging = Logging::start(&loaded.config)?;
    let broker = Broker::start(loaded.config.clone()).await.map_err(|error| start_failure(&error, &loaded))?;
    // Before anybody knows that it runs, and may ask it to stop.
    let asked_to_stop = stop_signal();
    let profiles = if mode == Mode::Dev { write_profile(&broker) } else { None };
    announce(&broker, output, profiles.is_some());
    let stopped = broker.run_until(asked_to_stop).await;
    if let Some(profiles) = profiles {
        profiles.remove_dev();
    }
    logging.end().await;
    stopped.map_err(|error| Failure::new("the broker has stopped").cause(error).code("BROKER_STOPPED", Exit::Failed))
}

/// Writes down where the broker is, so that client verbs find it. Without that it serves all the same.
fn write_profile(broker: &Broker) -> Option<Profiles> {
    let Some(profiles) = Profiles::of_user() else {
        tracing::warn!("no profile is written, for neither HOME nor {} is set", crate::profile::DIRECTORY_VARIABLE);
        return None;
    };
    match profiles.write_dev(broker.http_address(), broker.kafka_address(), broker.store_url()) {
        Ok(()) => Some(profiles),
        Err(error) => {
            tracing::warn!(%error, ?profiles, "the profile can't be written: client verbs need --server");
            None
        }
    }
}

/// Why it does not start, with the value that did it and where that came from.
pub(crate) fn start_failure(error: &lakebed_broker::StartError, loaded: &Loaded) -> Failure {
    let failure = Failure::new("the broker can't start").cause(chain(error)).code(error.code(), Exit::Failed);
    let failure = match error.setting().and_then(Setting::named) {
        Some(setting) => {
            let (value, origin) = (setting.value(&loaded.config).to_string(), loaded.origin(setting.name));
            let facts = serde_json::json!({ "setting": setting.name, "value": value, "origin": origin });
            failure.problems(vec![(format!("{} = {value:?}, {}", setting.name, origin.told()), facts)])
        }
        None => failure,
    };
    match error.remedy() {
        Some(remedy) => failure.remedy(remedy),
        None => failure.remedy("see the settings with `lakebed config show --origin`"),
    }
}

/// Says that the broker serves: a banner on a terminal, one JSON line elsewhere.
fn announce(broker: &Broker, output: Output, has_profile: bool) {
    let (kafka, http, store) = (broker.kafka_address(), broker.http_address(), broker.store_url());
    let mut stdout = std::io::stdout().lock();
    let text = if stdout.is_terminal() && output.is_table() {
        banner(&kafka.to_string(), &http.to_string(), store, has_profile)
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

fn banner(kafka: &str, http: &str, store: &str, has_profile: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let durable = if store.starts_with("memory:") { "lost on exit" } else { "survives restart" };
    let server =
        if has_profile || http == crate::server::DEFAULT { String::new() } else { format!(" --server {http}") };
    let path = store.strip_prefix("file://").unwrap_or(store).trim_end_matches('/');
    format!(
        "lakebed {version}\n  data   {store}  ({durable})\n  Kafka  {kafka}\n  gRPC   {http}\n  HTTP   http://{http}/readyz\n\nTry:\n  \
         echo hello | kcat -P -b {kafka} -t greetings\n  \
         lakebed consume greetings --from start --count 1{server}\n  \
         duckdb -c \"SELECT decode(value) FROM read_parquet('{path}/cells/**/*.parquet')\"\n\n"
    )
}

/// Waits for SIGINT or SIGTERM, from the call on.
pub(crate) fn stop_signal() -> impl Future<Output = ()> {
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
        let text = banner("127.0.0.1:9092", "127.0.0.1:7070", "file:///tmp/lakebed-data", false);
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
        assert!(banner("k", "h:1", "memory://", false).contains("lost on exit"));
        assert!(banner("k", "h:1", "memory://", false).contains("--server h:1"));
        assert!(!banner("k", "h:1", "memory://", true).contains("--server"), "client verbs find it by its profile");
    }
}

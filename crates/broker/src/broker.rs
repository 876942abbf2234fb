//! A broker from its start to its end.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lakebed_log::{Closed, Log, Offload, Seams};
use lakebed_store::{Store, StoreOptions};
use tokio::net::TcpListener;

use crate::check::{self, UnsafeError};
use crate::config::{Config, Wrong};
use crate::grpc;
use crate::rooms::Rooms;

mod expiring;
mod ground;
mod merging;
mod parts;
mod quiet;
mod term;

use ground::Ground;
use term::Term;

/// How long what was accepted may take to become durable when the broker stops: less than the 30 s that supervisors give it.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(20);
/// How long connections may take to end after what was accepted is durable.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// A broker that serves.
#[derive(Debug)]
pub struct Broker {
    ground: Ground,
    term: Term,
}

/// Why a broker does not start. Nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings are wrong.
    #[error("the configuration is wrong: {}", problems.iter().map(|wrong| format!("{} {}", wrong.setting, wrong.what)).collect::<Vec<_>>().join("; "))]
    Config {
        /// All that is wrong.
        problems: Vec<Wrong>,
    },
    /// The store can't be opened.
    #[error("the store {url} can't be opened")]
    Store {
        /// The store.
        url: String,
        /// Why.
        source: lakebed_store::OpenError,
    },
    /// The store is not one that the log can rest on.
    #[error(transparent)]
    Unsafe(#[from] UnsafeError),
    /// The log can't be opened.
    #[error("the log in {url} can't be opened")]
    Log {
        /// The store.
        url: String,
        /// Why.
        source: lakebed_log::OpenError,
        /// What a person can do about it, where the store says it.
        remedy: Option<String>,
    },
    /// A port can't be bound.
    #[error("{purpose} can't listen on {address}")]
    Listen {
        /// Which listener.
        purpose: &'static str,
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}

impl StartError {
    /// The setting whose value could not be used, where it is one.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Config { .. } => None,
            Self::Store { .. } | Self::Unsafe(_) | Self::Log { .. } => Some("store"),
            Self::Listen { purpose: "Kafka", .. } => Some("kafka_listen"),
            Self::Listen { .. } => Some("listen"),
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "CONFIG_INVALID",
            Self::Store { source: lakebed_store::OpenError::InUse { .. }, .. } => "STORE_IN_USE",
            Self::Store { .. } => "STORE_NOT_OPENED",
            Self::Unsafe(UnsafeError::Broken { .. }) => "STORE_UNSAFE",
            Self::Unsafe(_) => "STORE_NOT_ASKED",
            Self::Log { source: lakebed_log::OpenError::Rootless { .. }, .. } => "ROOT_LOST",
            Self::Log { .. } => "LOG_NOT_OPENED",
            Self::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => "ADDRESS_IN_USE",
            Self::Listen { .. } => "NOT_LISTENING",
        }
    }

    /// What a person can do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Config { .. } => None,
            Self::Store { source: lakebed_store::OpenError::InUse { .. }, .. } => {
                Some("stop the other process, or choose another directory with --store".to_owned())
            }
            Self::Store { .. } => {
                Some("check the URL of the store, its credentials, and that they allow to write there".to_owned())
            }
            Self::Unsafe(error) => error.remedy(),
            Self::Log { remedy: Some(remedy), .. } => Some(remedy.clone()),
            Self::Log { url, source: lakebed_log::OpenError::Rootless { left }, .. } => Some(without_root(url, left)),
            Self::Log { .. } => Some("nothing in the store was touched; look at the object that is named".to_owned()),
            Self::Listen { purpose, source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                let flag = if *purpose == "Kafka" { "--kafka-listen" } else { "--listen" };
                Some(format!(
                    "another process has that port: choose another with {flag} ADDR, or port 0 for a free one"
                ))
            }
            Self::Listen { purpose, .. } => {
                let flag = if *purpose == "Kafka" { "--kafka-listen" } else { "--listen" };
                Some(format!("give an address of this machine with {flag} ADDR"))
            }
        }
    }
}

/// What can be done where the log has lost its root.
fn without_root(url: &str, left: &lakebed_log::Left) -> String {
    let whole = "put lakebed.json back from a backup or an earlier version of the object";
    let anew = "to begin an empty cluster all the same, choose another root with --store, or move";
    match left {
        lakebed_log::Left { recovery: true, .. } => {
            format!("run `lakebed recover {url}` again: it begins anew what was interrupted")
        }
        lakebed_log::Left { log: Some(_), table: Some(_), .. } => format!(
            "{whole}; if it is lost, move cells/ elsewhere, keep it, and run `lakebed recover {url}`, which makes a cluster of the tables (docs/recovery.md); \
             {anew} both cells/ and tables/ away"
        ),
        lakebed_log::Left { table: Some(_), .. } => format!(
            "put lakebed.json and cells/ back from a backup; if they are lost, run `lakebed recover {url}`, which makes a cluster of the tables \
             (docs/recovery.md); {anew} tables/ away"
        ),
        lakebed_log::Left { .. } => format!("{whole}; {anew} cells/ away"),
    }
}

/// How a broker ended without having been asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The log closed: this broker commits nothing more.
    #[error("{0}")]
    LogClosed(Closed),
    /// The log closed, and can't be opened again.
    #[error("the log can't be opened again: {0}")]
    Reopen(lakebed_log::OpenError),
    /// A part of the broker ended that must not.
    #[error("the {part} ended: {why}")]
    PartEnded {
        /// Which part.
        part: &'static str,
        /// What is known of it.
        why: String,
    },
    /// The store took nothing more while the broker was stopping.
    #[error(
        "what producers had sent could not be made durable within {} s of stopping, so its fate is unknown to them: see what the store says",
        DRAIN_MAX.as_secs()
    )]
    NotDrained,
}

impl Broker {
    /// Opens the store and the log, and serves.
    ///
    /// # Errors
    /// [`StartError`]; the log may have been taken over.
    /// # Cost
    /// The requests of opening a log; see [`Log::open`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let problems = config.validate();
        if !problems.is_empty() {
            return Err(StartError::Config { problems });
        }
        let url = config.store.to_string();
        let free_buffers_bytes = config.budget().free_bodies_bytes;
        let options = StoreOptions { seed: seams().seed, free_buffers_bytes, ..StoreOptions::default() };
        let store = Store::open(config.store.expose(), &options).map_err(|source| StartError::Store { url, source })?;
        Self::start_on(store, config).await
    }

    /// As [`Broker::start`], on a store that is open already; `config.store` only says what kind it is.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start_on(store: Store, config: Config) -> Result<Self, StartError> {
        // Before the log is taken over: a broker that can't serve must not fence one that does.
        let kafka = bind("Kafka", &config.kafka_listen).await?;
        let http = bind("HTTP", &config.http_listen).await?;
        let mut ground = Ground::new(store, config, kafka, http);
        match ground.config.accept_unsafe_store {
            false => check::refuse_unsafe(&ground.store, seams().seed).await?,
            true => tracing::warn!(
                store = ground.store.url(),
                "whether the store keeps what the log needs is not asked, as told"
            ),
        }
        let log = ground.open(None).await.map_err(|source| {
            let remedy = ground.store.remedy(&source);
            StartError::Log { url: ground.store.url().to_owned(), source, remedy }
        })?;
        let term = Term::begin(&ground, log).await;
        let (kafka, http) = (ground.kafka_address, ground.http_address);
        tracing::info!(%kafka, %http, store = ground.store.url(), "the broker serves");
        Ok(Self { ground, term })
    }

    /// Where Kafka clients connect.
    pub fn kafka_address(&self) -> SocketAddr {
        self.ground.kafka_address
    }

    /// Where gRPC and HTTP clients connect.
    pub fn http_address(&self) -> SocketAddr {
        self.ground.http_address
    }

    /// The root of the log as a URL, without secrets.
    pub fn store_url(&self) -> &str {
        self.ground.store.url()
    }

    /// The rooms that the listeners work with now.
    pub fn rooms(&self) -> &Arc<Rooms> {
        &self.term.rooms
    }

    /// Serves until `asked_to_stop` resolves, then stops in order: no more requests are read, what was accepted becomes durable and
    /// is answered, and another broker takes over if there is one.
    ///
    /// # Errors
    /// [`RunError`] if it ended before that.
    pub async fn run_until(mut self, asked_to_stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let mut asked_to_stop = pin!(asked_to_stop);
        let outcome = loop {
            let ended = tokio::select! {
                biased;
                ended = self.term.ended() => ended,
                () = &mut asked_to_stop => break Ok(()),
            };
            let RunError::LogClosed(closed) = &ended else { break Err(ended) };
            if !self.ground.goes_on_after(closed) {
                break Err(ended);
            }
            tracing::info!(why = %closed, "this broker's part in the log changes");
            let log = self.term.rooms.log.clone();
            let reopened = tokio::select! {
                biased;
                () = &mut asked_to_stop => break Ok(()),
                reopened = self.ground.reopen(&log) => reopened,
            };
            match reopened {
                Ok(log) => self = self.change(log).await,
                Err(error) => break Err(RunError::Reopen(error)),
            }
        };
        self.stop(outcome).await
    }

    /// Ends a term, and begins the next.
    async fn change(self, log: Log) -> Self {
        let Self { ground, term } = self;
        term.end().await;
        let term = Term::begin(&ground, log).await;
        Self { ground, term }
    }

    async fn stop(self, mut outcome: Result<(), RunError>) -> Result<(), RunError> {
        let Self { ground, term: Term { rooms, lifetime, health, parts } } = self;
        rooms.readiness.drain((rooms.seams.wall)());
        grpc::stop_serving(&health).await;
        lifetime.shutdown.cancel();
        lifetime.clients.close();
        // Readers that wait for records would wait on.
        rooms.fetch.stop_waiting();
        rooms.groups.stop();
        if outcome.is_ok() {
            match tokio::time::timeout(DRAIN_MAX, rooms.ingest.drain()).await {
                Ok(()) => {
                    // It would take this broker in again.
                    parts.keeping_members.abort();
                    ground.leave(&rooms.log).await;
                }
                Err(_) => outcome = Err(RunError::NotDrained),
            }
        }
        term::close(&lifetime, CLOSE_MAX).await;
        parts.stop().await;
        outcome
    }
}

async fn bind(purpose: &'static str, address: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen {
        purpose,
        address: address.to_owned(),
        source,
    })
}

/// The spacing of flushes that suits what a write costs there.
fn default_flush_interval(url: &str) -> Duration {
    match url.split(':').next() {
        Some("memory") => Duration::ZERO,
        Some("file") => Duration::from_millis(2),
        _ => Duration::from_millis(250),
    }
}

/// The one place where the clock and randomness of the machine come in.
#[allow(clippy::disallowed_methods)]
fn seams() -> Seams {
    let wall = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    };
    Seams { wall: Arc::new(wall), seed: rand::random(), offload: Offload::Blocking }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spacing_of_flushes_goes_by_the_kind_of_store() {
        for (url, expected_ms) in
            [("memory://", 0), ("file:///data", 2), ("s3://bucket/root", 250), ("gs://bucket", 250)]
        {
            assert_eq!(default_flush_interval(url), Duration::from_millis(expected_ms), "{url}");
        }
    }

    #[tokio::test]
    async fn a_part_that_ends_ends_the_broker_and_is_named() {
        type Ends = fn(&Broker);
        let parts: [(&str, Ends); 8] = [
            ("Kafka listener", |broker| broker.term.parts.listening.abort()),
            ("hand-over to readers", |broker| broker.term.parts.publishing.abort()),
            ("merging", |broker| broker.term.parts.merging.abort()),
            ("publication of tables", |broker| broker.term.parts.tabling.abort()),
            ("retention", |broker| broker.term.parts.retaining.abort()),
            ("look for a takeover", |broker| broker.term.parts.probing.abort()),
            ("HTTP listener", |broker| broker.term.parts.listening_http.abort()),
            ("expiry of producers", |broker| broker.term.parts.expiring.abort()),
        ];
        for (name, end) in parts {
            let broker = Broker::start(Config::default()).await.unwrap();
            end(&broker);
            let told = broker.run_until(std::future::pending()).await.unwrap_err();
            assert!(matches!(told, RunError::PartEnded { part, .. } if part == name), "{name}: {told}");
            assert_eq!(told.to_string().lines().count(), 1, "{told}");
        }
    }
}

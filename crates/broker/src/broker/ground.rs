//! What a broker stands on through all its terms: its ports, its store, its counts, and the way to the log.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lakebed_log::{BarrierError, Closed, Following, Joined, Known, Log, OpenError, Peers, ReplayError, nonce_of};
use lakebed_model::{Change, Member, Nonce};
use lakebed_store::{Priority, Store};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::seams;
use crate::cluster::address::advertised;
use crate::cluster::peers::GrpcPeers;
use crate::cluster::{Cluster, leads};
use crate::config::Config;
use crate::metrics::Metrics;

/// After the log could not be opened for what may pass.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How long a broker that joins waits, beyond `takeover_after`, until it hears the sequencer or takes over; then it serves readers meanwhile.
const SETTLE_MAX: Duration = Duration::from_secs(4);
/// How long the farewell may take in all, and each broker that is asked to take over.
const LEAVE_MAX: Duration = Duration::from_secs(4);
const HAND_OVER_MAX: Duration = Duration::from_millis(1500);
/// How often it is looked whether it has taken over.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A takeover that was tried longer ago has landed, or is known not to be the last.
const NONCES_MAX: usize = 1024;
/// Takeovers within this time make a broker more patient with the next.
const LATELY: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) kafka: Arc<TcpListener>,
    pub(super) http: Arc<TcpListener>,
    pub(super) kafka_address: SocketAddr,
    pub(super) http_address: SocketAddr,
    pub(super) metrics: Arc<Metrics>,
    pub(super) started: Instant,
    /// The other brokers; none where the store is this process's alone.
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) peers: Option<Arc<GrpcPeers>>,
    /// When this broker has taken over lately.
    takeovers: Vec<Instant>,
    /// Under which nonces it has tried to, the last of them.
    nonces: VecDeque<Nonce>,
    /// Whether it has joined the log before.
    has_joined: bool,
}

impl Ground {
    pub(super) fn new(store: Store, config: Config, kafka: TcpListener, http: TcpListener) -> Self {
        let address = |listener: &TcpListener| listener.local_addr().expect("a bound listener has an address");
        let (kafka_address, http_address) = (address(&kafka), address(&http));
        let me = is_shared(store.url()).then(|| Member {
            nonce: Nonce::new(seams().seed),
            kafka: advertised(config.advertise.as_deref(), kafka_address),
            http: advertised(config.advertise_http.as_deref(), http_address),
            zone: config.zone.clone().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        Self {
            config,
            store,
            kafka: Arc::new(kafka),
            http: Arc::new(http),
            kafka_address,
            http_address,
            metrics: Arc::new(Metrics::new()),
            started: Instant::now(),
            cluster: me.clone().map(|me| Arc::new(Cluster::new(me))),
            peers: me.map(|me| Arc::new(GrpcPeers::new(me))),
            takeovers: Vec::new(),
            nonces: VecDeque::new(),
            has_joined: false,
        }
    }

    /// Where Kafka clients connect, as they are told.
    pub(super) fn kafka_advertised(&self) -> String {
        self.config.advertise.clone().unwrap_or_else(|| self.kafka_address.to_string())
    }

    /// Opens the log: as the sequencer if there is none, or if nobody else may serve the store; else as a follower.
    ///
    /// # Errors
    /// [`OpenError`]; the log may have been taken over.
    pub(super) async fn open(&mut self, mut known: Option<Known>) -> Result<Log, OpenError> {
        let options = self.options();
        let Some(peers) = self.peers.clone() else {
            return Log::open(self.store.with_priority(Priority::Produce), options, seams()).await;
        };
        loop {
            let following = Following {
                peers: Arc::clone(&peers) as Arc<dyn Peers>,
                takeover_after: self.config.takeover_after,
                takeovers: self.takeovers_lately(),
            };
            let joined = Log::join(
                self.store.with_priority(Priority::Produce),
                options.clone(),
                seams(),
                following,
                known.take(),
            )
            .await?;
            let has_joined = std::mem::replace(&mut self.has_joined, true);
            let alone = match joined {
                Joined::Follows(log) => {
                    // The sequencer that the log names may be gone, as after the end of a broker that was alone: then this is no follower yet.
                    let patience = SETTLE_MAX + self.config.takeover_after;
                    drop(tokio::time::timeout(patience, log.heard()).await);
                    if log.is_closed() != Some(Closed::Successor) {
                        return Ok(log);
                    }
                    log.known()
                }
                // When a broker starts, that is what it was before. Later it is another that runs.
                Joined::Alone { namesake: Some(namesake), .. } if has_joined && !self.nonces.contains(&namesake) => {
                    return Err(OpenError::SameAddress { address: options.address });
                }
                Joined::Alone { known, .. } => known,
            };
            match self.succeed(alone).await? {
                Ok(log) => return Ok(log),
                Err(other) => known = Some(other),
            }
        }
    }

    fn options(&self) -> lakebed_log::Options {
        let address = self.cluster.as_ref().map_or_else(String::new, |cluster| cluster.me.http.clone());
        lakebed_log::Options { address, ..lakebed_log::Options::default() }
    }

    /// Takes over, unless somebody else has since.
    async fn succeed(&mut self, known: Known) -> Result<Result<Log, Known>, OpenError> {
        let seams = seams();
        self.nonces.push_back(nonce_of(&seams));
        if self.nonces.len() > NONCES_MAX {
            self.nonces.pop_front();
        }
        let succeeded = Log::succeed(self.store.with_priority(Priority::Produce), self.options(), seams, known).await?;
        if succeeded.is_ok() {
            self.takeovers.push(Instant::now());
        }
        Ok(succeeded)
    }

    fn takeovers_lately(&mut self) -> u32 {
        self.takeovers.retain(|at| at.elapsed() < LATELY);
        u32::try_from(self.takeovers.len()).unwrap_or(u32::MAX)
    }

    /// Says farewell when what was accepted is durable: a sequencer hands over to one who follows it, and waits until that is done.
    pub(super) async fn leave(&self, log: &Log) {
        if tokio::time::timeout(LEAVE_MAX, self.say_farewell(log)).await.is_err() {
            tracing::warn!("no other broker has taken over in time; one will when this one is gone");
        }
    }

    async fn say_farewell(&self, log: &Log) {
        let Some((cluster, peers)) = self.cluster.as_ref().zip(self.peers.as_ref()) else { return };
        if !leads(log) {
            return peers.leave(log.state().owner_address()).await;
        }
        if let Err(error) = log.change(Change::Leave { member: cluster.me.nonce }).await {
            tracing::debug!(%error, "this broker stays a member until it is missed");
        }
        let mut asked = 0;
        while cluster.hand_over(asked) {
            if tokio::time::timeout(HAND_OVER_MAX, fenced(log)).await.is_ok() {
                tracing::info!("the log is handed over to a broker that followed");
                return;
            }
            asked += 1;
        }
    }

    /// Whether a broker goes on after its log was closed so: as a follower, or as the sequencer.
    pub(super) fn goes_on_after(&self, closed: &Closed) -> bool {
        self.cluster.is_some() && matches!(closed, Closed::Fenced { .. } | Closed::Successor)
    }

    /// Opens the log after a term that has ended, however often that fails for what may pass.
    ///
    /// # Errors
    /// [`OpenError`] that does not pass.
    pub(super) async fn reopen(&mut self, before: &Log) -> Result<Log, OpenError> {
        let mut is_successor = before.is_closed() == Some(Closed::Successor);
        let mut told = false;
        loop {
            let opened = match std::mem::take(&mut is_successor) {
                true => match self.succeed(before.known()).await {
                    Ok(Ok(log)) => Ok(log),
                    Ok(Err(known)) => self.open(Some(known)).await,
                    Err(error) => Err(error),
                },
                false => self.open(Some(before.known())).await,
            };
            match opened {
                Err(error) if may_pass(&error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "the log can't be opened, and is tried again");
                    }
                    tokio::time::sleep(REST_AFTER_FAILURE).await;
                }
                opened => return opened,
            }
        }
    }
}

/// Waits until another broker has taken over.
async fn fenced(log: &Log) {
    while log.is_closed().is_none() && !matches!(log.barrier().await, Err(BarrierError::Closed { .. })) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether several processes can serve a store of that URL.
fn is_shared(url: &str) -> bool {
    !matches!(url.split(':').next(), Some("memory" | "file"))
}

fn may_pass(error: &OpenError) -> bool {
    match error {
        OpenError::Write { .. } | OpenError::Read { .. } | OpenError::List { .. } | OpenError::Crowded { .. } => true,
        OpenError::Replay(error) => {
            matches!(error, ReplayError::Read(_) | ReplayError::List(_) | ReplayError::Outrun { .. })
        }
        OpenError::SameAddress { .. }
        | OpenError::Root { .. }
        | OpenError::NoSuchCell { .. }
        | OpenError::Rootless { .. }
        | OpenError::Takeover { .. } => false,
    }
}

//! An S3 server for tests and measurements: real HTTP on loopback, everything in memory, and misconduct on demand.
//!
//! 1. As it starts it keeps what S3 promises: conditional writes are decided and applied in one step, what was answered is read and listed
//!    at once, signatures (version 4) and the clock of a request are checked.
//! 2. What it does otherwise is what its [`Conduct`] says, which can be changed while it runs (by [`S3Server::set_conduct`] or
//!    over HTTP, see [`control`]): how long requests take, how many are served, who is cut off, what is applied late or never.
//!    Chance is drawn from a seed, in the order in which requests arrive.
//! 3. Memory is bounded: objects and bodies on their way together by [`Options::memory_bytes_max`]; connections, requests that are applied late
//!    and prefixes that are counted by their number.
//! 4. It binds loopback addresses only.
//!
//! Unlike the worlds of this crate it runs in real time, for clients that are other processes. It has no versions,
//! access rules, tags or regions.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;
use tokio_util::task::AbortOnDropHandle;

pub mod bill;
pub mod conduct;
pub mod control;

mod access;
mod body;
mod errors;
mod front;
mod late;
mod latency;
mod limits;
mod listener;
mod objects;
mod protocol;
mod uploads;

use bill::Bill;
use conduct::{Clock, Conduct, Demeanour, Problem};
use front::Front;
use late::Late;
use listener::Change;
use objects::Objects;

/// Changes of conduct that wait to be put into force.
const CHANGES_MAX: usize = 16;

/// How a server is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Loopback address of the S3 endpoint; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Loopback address of the control endpoint; port 0 takes a free one.
    pub control: SocketAddr,
    /// Buckets that exist from the start.
    pub buckets: Vec<String>,
    /// The access keys that are known: one for each client that is to be told apart.
    pub access_keys: Vec<String>,
    /// The secret of each of them.
    pub secret_key: String,
    /// Bytes of objects and of bodies on their way that are held at most (1 GiB). A PUT beyond is answered 403 `QuotaExceeded`.
    pub memory_bytes_max: usize,
    /// Seed of latencies and of what is done with a probability.
    pub seed: u64,
    /// How it behaves at first.
    pub conduct: Conduct,
    /// By what its limits are kept.
    pub clock: Clock,
    /// Serve this directory with crate `s3s-fs` instead of memory: it looks whether a key is free and writes in two steps, so that of
    /// several rivals more than one creates. The real store that a check must refuse.
    pub filesystem: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: free,
            control: free,
            buckets: vec!["test".to_owned()],
            access_keys: vec!["test".to_owned()],
            secret_key: "test".to_owned(),
            memory_bytes_max: 1 << 30,
            seed: 0,
            conduct: Conduct::default(),
            clock: Clock::default(),
            filesystem: None,
        }
    }
}

/// Why a server does not start, or does not behave as it is told.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address is not on loopback: it has a well-known password and serves everyone.
    #[error("{address} is not a loopback address")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// A port can't be bound.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The conduct can't be followed.
    #[error(transparent)]
    Conduct(#[from] Problem),
    /// The directory can't be served.
    #[error("can't serve '{}': {reason}", directory.display())]
    Filesystem {
        /// The directory.
        directory: PathBuf,
        /// Why.
        reason: String,
    },
    /// The server has ended.
    #[error("the server has ended")]
    Ended,
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    control_address: SocketAddr,
    handle: Handle,
    /// `None`: it serves a directory.
    objects: Option<Arc<Objects>>,
    _serving: AbortOnDropHandle<()>,
    _controlling: AbortOnDropHandle<()>,
    _late: DropGuard,
}

/// What tells the server how to behave, and asks it what it did.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    demeanour: Arc<Demeanour>,
    bill: Arc<Bill>,
    late: Arc<Late>,
    changes: mpsc::Sender<Change>,
}

impl Handle {
    /// Returns when `conduct` is in force: of an outage, when all connections have ended.
    pub(crate) async fn set_conduct(&self, conduct: Conduct) -> Result<(), ServerError> {
        let (done, in_force) = oneshot::channel();
        let outage = conduct.outage;
        self.demeanour.set(conduct)?;
        self.changes.send(Change { outage, done }).await.map_err(|_| ServerError::Ended)?;
        in_force.await.map_err(|_| ServerError::Ended)
    }
}

impl S3Server {
    /// Starts a server in the current runtime.
    ///
    /// # Errors
    /// [`ServerError`]; nothing is served.
    pub async fn start(options: Options) -> Result<Self, ServerError> {
        let listener = bind(options.listen).await?;
        let control = bind(options.control).await?;
        let (address, control_address) = (local(&listener), local(&control));
        let demeanour = Arc::new(Demeanour::new(options.seed, options.clock.clone()));
        let objects = Arc::new(Objects::new(options.memory_bytes_max, Arc::clone(&demeanour)));
        let service = match &options.filesystem {
            None => {
                for bucket in &options.buckets {
                    objects.create_bucket(bucket);
                }
                access::guarded(protocol::Protocol::new(Arc::clone(&objects)), &options)
            }
            Some(directory) => {
                let unusable = |reason: String| ServerError::Filesystem { directory: directory.clone(), reason };
                for bucket in &options.buckets {
                    std::fs::create_dir_all(directory.join(bucket)).map_err(|error| unusable(error.to_string()))?;
                }
                let files = s3s_fs::FileSystem::new(directory).map_err(|error| unusable(format!("{error:?}")))?;
                access::guarded(files, &options)
            }
        };
        let (changes, changing) = mpsc::channel(CHANGES_MAX);
        let (late, _late) = Late::new();
        let handle = Handle { demeanour, bill: Arc::new(Bill::default()), late: Arc::new(late), changes };
        let front = Arc::new(Front::new(service, &handle, Arc::clone(&objects)));
        let serving = AbortOnDropHandle::new(tokio::spawn(listener::serve(listener, front, changing)));
        let controlling = AbortOnDropHandle::new(tokio::spawn(control::serve(control, handle.clone())));
        let objects = options.filesystem.is_none().then_some(objects);
        let server =
            Self { address, control_address, handle, objects, _serving: serving, _controlling: controlling, _late };
        server.set_conduct(options.conduct).await?;
        Ok(server)
    }

    /// Where S3 clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where [`control`] is served.
    pub fn control_address(&self) -> SocketAddr {
        self.control_address
    }

    /// Changes the conduct; returns when it is in force: of an outage, when all connections have ended.
    ///
    /// # Errors
    /// [`ServerError::Conduct`] if it can't be followed; the server behaves as before.
    pub async fn set_conduct(&self, conduct: Conduct) -> Result<(), ServerError> {
        self.handle.set_conduct(conduct).await
    }

    /// How many requests each rule of the conduct has met.
    pub fn met(&self) -> Vec<u64> {
        self.handle.demeanour.get().1
    }

    /// How many requests were answered and are still to be applied.
    pub fn late(&self) -> usize {
        self.handle.late.waiting()
    }

    /// Applies those that were answered before, whatever their time. Returns how many they were.
    pub async fn apply_late(&self) -> usize {
        self.handle.late.apply_now().await
    }

    /// How many objects in parts were begun, and neither completed nor given up.
    pub fn uploads_open(&self) -> usize {
        self.objects.as_ref().map_or(0, |objects| objects.uploads_open())
    }

    /// What was asked of it so far.
    pub fn counts(&self) -> bill::Counts {
        self.handle.bill.counts()
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    if !address.ip().is_loopback() {
        return Err(ServerError::NotLoopback { address });
    }
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
}

fn local(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("a bound listener has an address")
}

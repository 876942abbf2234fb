//! A backend that fails as real stores do: for tests and simulation.
//!
//! A plan decides for each request whether it is applied, when, and what the caller hears. Requests that were sent are
//! owned by the wrapper: they are applied at their time whether or not the caller still waits, as on a network.
//!
//! 1. Deterministic: with a deterministic plan and inner backend, a paused clock and a single thread, equal runs are
//!    equal. It has no chance and no clock of its own, and spawns only on the current runtime.
//! 2. It never invents an outcome that no store has: what it shows is what the inner backend holds.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Backend, Body, Failure, FailureKind, Listed, Part, PartId, Span, UploadId};
use crate::key::{Directory, Key};
use crate::payload::Payload;

/// One request to the store.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// PUT-if-absent.
    Create {
        /// Where.
        key: &'a Key,
        /// What.
        payload: &'a Payload,
    },
    /// PUT over what stands there.
    Overwrite {
        /// Where.
        key: &'a Key,
        /// What.
        payload: &'a Payload,
    },
    /// GET of a part; a read-back too.
    Get {
        /// Of which object.
        key: &'a Key,
        /// Of which part.
        span: &'a Span,
    },
    /// HEAD.
    Size {
        /// Of which object.
        key: &'a Key,
    },
    /// LIST of all below a directory.
    List {
        /// Which directory.
        directory: &'a Directory,
    },
    /// LIST of the directories right in one.
    ListDirectories {
        /// Which directory.
        directory: &'a Directory,
    },
    /// DELETE.
    Delete {
        /// Of which objects.
        keys: &'a [Key],
    },
    /// An object in parts is begun.
    Begin {
        /// Where.
        key: &'a Key,
    },
    /// PUT of a part.
    PutPart {
        /// Of which object.
        key: &'a Key,
        /// Which.
        part: &'a Part,
    },
    /// An object is made of its parts, if absent.
    Complete {
        /// Where.
        key: &'a Key,
    },
    /// An object in parts is given up.
    Abort {
        /// Which.
        key: &'a Key,
    },
}

/// What is to become of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From the call until the request reaches the store. What is applied is applied then.
    pub before: Duration,
    /// From there until the caller hears of it.
    pub after: Duration,
    /// What it is.
    pub outcome: Outcome,
}

/// Whether a request is applied, and what the caller hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied, and the caller gets the store's own answer.
    Answered,
    /// Applied, but the caller hears of an error.
    AppliedWith(Symptom),
    /// Not applied, and the caller hears of an error.
    LostWith(Symptom),
    /// The caller hears of an error, and the request is applied so long after that. A read is never applied.
    LateWith(Symptom, Duration),
    /// A body ends after so many bytes; a request without one is answered.
    CutBody(u64),
}

/// What the caller hears of a request that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// 503 SlowDown or 429.
    SlowDown,
    /// 500, 502, 504.
    ServerError,
    /// The connection is cut.
    Cut,
    /// Nothing, ever: the caller's own time limit decides.
    Silence,
    /// 409 ConditionalRequestConflict, or a 412 to an inner retry: an object is said to be in the way. Create and completion only.
    Conflict,
    /// The request never left. Only with [`Outcome::LostWith`].
    NotSent,
    /// 403 or no space. Only with [`Outcome::LostWith`].
    Refused,
}

/// A plan of faults. Implemented by closures too.
pub trait Faults: Send + 'static {
    /// Decides what becomes of the next request.
    fn decide(&mut self, operation: &Operation<'_>) -> Fault;
}

/// How often each kind of fault has come about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Requests that were applied, though the caller heard of an error.
    pub applied_with_error: u64,
    /// Requests that were not applied.
    pub lost: u64,
    /// Requests that are still to be applied late.
    pub late_pending: u64,
    /// Creates, and completions of objects in parts, that came late and stored an object.
    pub late_creates_won: u64,
    /// Those that came late and did not: an object stood in their place, or the parts were given up.
    pub late_creates_declined: u64,
    /// Bodies that were cut.
    pub bodies_cut: u64,
}

/// A backend with faults.
pub struct FaultBackend {
    inner: Arc<dyn Backend>,
    faults: Mutex<Box<dyn Faults>>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    applied_with_error: AtomicU64,
    lost: AtomicU64,
    late_begun: AtomicU64,
    late_ended: AtomicU64,
    late_creates_won: AtomicU64,
    late_creates_declined: AtomicU64,
    bodies_cut: AtomicU64,
}

/// A request that no longer needs its caller.
#[derive(Clone, Debug)]
enum Change {
    Create(Key, Payload),
    Overwrite(Key, Payload),
    Delete(Vec<Key>),
    Begin(Key),
    PutPart(Key, UploadId, Part),
    Complete(Key, UploadId, Vec<PartId>, u64),
    Abort(Key, UploadId),
}

/// What a request that was applied gave.
enum Given {
    Nothing,
    Upload(UploadId),
    Part(PartId),
}

impl<F: FnMut(&Operation<'_>) -> Fault + Send + 'static> Faults for F {
    fn decide(&mut self, operation: &Operation<'_>) -> Fault {
        self(operation)
    }
}

impl Fault {
    /// No fault at all.
    pub const NONE: Fault = Fault::at_once(Outcome::Answered);

    /// An outcome without latency.
    pub const fn at_once(outcome: Outcome) -> Self {
        Self { before: Duration::ZERO, after: Duration::ZERO, outcome }
    }
}

impl FaultBackend {
    /// Wraps `inner` with a plan.
    pub fn new(inner: Arc<dyn Backend>, faults: impl Faults) -> Self {
        Self { inner, faults: Mutex::new(Box::new(faults)), counters: Arc::default() }
    }

    /// What came about so far.
    pub fn counts(&self) -> FaultCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        FaultCounts {
            applied_with_error: read(&counters.applied_with_error),
            lost: read(&counters.lost),
            late_pending: read(&counters.late_begun) - read(&counters.late_ended),
            late_creates_won: read(&counters.late_creates_won),
            late_creates_declined: read(&counters.late_creates_declined),
            bodies_cut: read(&counters.bodies_cut),
        }
    }

    fn decide(&self, operation: Operation<'_>) -> Fault {
        let fault = self.faults.lock().expect("no plan panics").decide(&operation);
        let dishonest = match fault.outcome {
            Outcome::AppliedWith(symptom) | Outcome::LateWith(symptom, _) => {
                matches!(symptom, Symptom::NotSent | Symptom::Refused)
            }
            _ => false,
        };
        assert!(!dishonest, "no store applies what it refuses or has not got: {fault:?} for {operation:?}");
        fault
    }

    async fn change(&self, change: Change, fault: Fault) -> Result<Given, Failure> {
        match fault.outcome {
            Outcome::Answered | Outcome::CutBody(_) => {
                let answer = self.apply_after(fault.before, change).await;
                pause(fault.after).await;
                answer
            }
            Outcome::AppliedWith(symptom) => {
                count(&self.counters.applied_with_error);
                // The store's own answer is lost on the way.
                let _ = self.apply_after(fault.before, change).await;
                pause(fault.after).await;
                Err(symptom.heard().await)
            }
            Outcome::LostWith(symptom) => {
                count(&self.counters.lost);
                pause(fault.before + fault.after).await;
                Err(symptom.heard().await)
            }
            Outcome::LateWith(symptom, late) => {
                self.apply_late(fault.before + fault.after + late, change);
                pause(fault.before + fault.after).await;
                Err(symptom.heard().await)
            }
        }
    }

    /// Applies a change when it reaches the store, even if the caller is gone by then.
    async fn apply_after(&self, delay: Duration, change: Change) -> Result<Given, Failure> {
        if delay.is_zero() {
            return apply(&*self.inner, &change).await;
        }
        let inner = self.inner.clone();
        let applied = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            apply(&*inner, &change).await
        });
        applied.await.unwrap_or_else(|error| Err(Failure::new(FailureKind::Doubt, error)))
    }

    fn apply_late(&self, delay: Duration, change: Change) {
        let (inner, counters) = (self.inner.clone(), self.counters.clone());
        count(&counters.late_begun);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let outcome = apply(&*inner, &change).await;
            if let Change::Create(..) | Change::Complete(..) = change {
                count(if outcome.is_ok() { &counters.late_creates_won } else { &counters.late_creates_declined });
            }
            count(&counters.late_ended);
        });
    }

    async fn read<T>(&self, fault: Fault, read: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        pause(fault.before).await;
        let answer = match fault.outcome {
            Outcome::Answered | Outcome::CutBody(_) => read.await,
            Outcome::AppliedWith(symptom) | Outcome::LostWith(symptom) | Outcome::LateWith(symptom, _) => {
                count(&self.counters.lost);
                Err(symptom.heard().await)
            }
        };
        pause(fault.after).await;
        answer
    }
}

#[async_trait]
impl Backend for FaultBackend {
    async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        let fault = self.decide(Operation::Create { key, payload });
        self.change(Change::Create(key.clone(), payload.clone()), fault).await.map(drop)
    }

    async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
        let fault = self.decide(Operation::Overwrite { key, payload });
        self.change(Change::Overwrite(key.clone(), payload.clone()), fault).await.map(drop)
    }

    async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        let fault = self.decide(Operation::Get { key, span });
        let mut body = self.read(fault, self.inner.get(key, span)).await?;
        if let Outcome::CutBody(kept) = fault.outcome
            && kept < body.bytes.len() as u64
        {
            count(&self.counters.bodies_cut);
            body.bytes.truncate(kept as usize);
        }
        Ok(body)
    }

    async fn size(&self, key: &Key) -> Result<u64, Failure> {
        let fault = self.decide(Operation::Size { key });
        self.read(fault, self.inner.size(key)).await
    }

    async fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Listed>, Failure> {
        let fault = self.decide(Operation::List { directory });
        self.read(fault, self.inner.list(directory, start_after, limit)).await
    }

    async fn list_directories(&self, directory: &Directory) -> Result<Vec<String>, Failure> {
        let fault = self.decide(Operation::ListDirectories { directory });
        self.read(fault, self.inner.list_directories(directory)).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Failure> {
        let fault = self.decide(Operation::Delete { keys });
        self.change(Change::Delete(keys.to_vec()), fault).await.map(drop)
    }

    async fn begin(&self, key: &Key) -> Result<UploadId, Failure> {
        let fault = self.decide(Operation::Begin { key });
        match self.change(Change::Begin(key.clone()), fault).await? {
            Given::Upload(upload) => Ok(upload),
            Given::Nothing | Given::Part(_) => unreachable!("what was begun has an id"),
        }
    }

    async fn put_part(&self, key: &Key, upload: &UploadId, part: &Part) -> Result<PartId, Failure> {
        let fault = self.decide(Operation::PutPart { key, part });
        match self.change(Change::PutPart(key.clone(), upload.clone(), part.clone()), fault).await? {
            Given::Part(part) => Ok(part),
            Given::Nothing | Given::Upload(_) => unreachable!("a part that was stored has an id"),
        }
    }

    async fn complete(&self, key: &Key, upload: &UploadId, parts: &[PartId], size_bytes: u64) -> Result<(), Failure> {
        let fault = self.decide(Operation::Complete { key });
        let change = Change::Complete(key.clone(), upload.clone(), parts.to_vec(), size_bytes);
        self.change(change, fault).await.map(drop)
    }

    async fn abort(&self, key: &Key, upload: &UploadId) -> Result<(), Failure> {
        let fault = self.decide(Operation::Abort { key });
        self.change(Change::Abort(key.clone(), upload.clone()), fault).await.map(drop)
    }
}

impl Symptom {
    /// What reaches the caller; with [`Symptom::Silence`], nothing does.
    async fn heard(self) -> Failure {
        let (kind, cause) = match self {
            Symptom::SlowDown => (FailureKind::Throttled, "503 SlowDown"),
            Symptom::ServerError => (FailureKind::Doubt, "500 InternalError"),
            Symptom::Cut => (FailureKind::Doubt, "the connection was cut"),
            Symptom::Silence => std::future::pending().await,
            Symptom::Conflict => (FailureKind::Exists, "409 ConditionalRequestConflict"),
            Symptom::NotSent => (FailureKind::NotSent, "the connection was refused"),
            Symptom::Refused => (FailureKind::Refused, "403 AccessDenied"),
        };
        Failure::new(kind, cause)
    }
}

impl fmt::Debug for FaultBackend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FaultBackend").field("inner", &self.inner).field("counts", &self.counts()).finish()
    }
}

async fn apply(inner: &dyn Backend, change: &Change) -> Result<Given, Failure> {
    let nothing = |()| Given::Nothing;
    match change {
        Change::Create(key, payload) => inner.create(key, payload).await.map(nothing),
        Change::Overwrite(key, payload) => inner.overwrite(key, payload).await.map(nothing),
        Change::Delete(keys) => inner.delete(keys).await.map(nothing),
        Change::Begin(key) => inner.begin(key).await.map(Given::Upload),
        Change::PutPart(key, upload, part) => inner.put_part(key, upload, part).await.map(Given::Part),
        Change::Complete(key, upload, parts, size_bytes) => {
            inner.complete(key, upload, parts, *size_bytes).await.map(nothing)
        }
        Change::Abort(key, upload) => inner.abort(key, upload).await.map(nothing),
    }
}

/// A pause of nothing does not even yield, so that plans without latency keep the order of the callers.
async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

//! Every row of the tables above, by a script of faults: what the caller is told, and what really stands there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::backend::{Backend, Body};
use crate::faults::{Fault, FaultBackend, Operation, Outcome, Symptom};
use crate::{MemoryBackend, RetryPolicy, StoreOptions};
use Outcome::{Answered, AppliedWith, LateWith, LostWith};
use Symptom::{Conflict, Cut, NotSent, Refused, ServerError, Silence, SlowDown};

const SYMPTOMS_OF_DOUBT: [Symptom; 4] = [SlowDown, ServerError, Cut, Silence];

struct World {
    store: Store,
    memory: Arc<MemoryBackend>,
    faults: Arc<FaultBackend>,
}

/// A store whose requests of each kind meet the scripted outcomes in order, and the last of them from then on.
fn world(creates: &[Outcome], gets: &[Outcome]) -> World {
    let mut scripts = [VecDeque::from(creates.to_vec()), VecDeque::from(gets.to_vec())];
    let plan = move |operation: &Operation<'_>| {
        let script = match operation {
            Operation::Create { .. } => &mut scripts[0],
            _ => &mut scripts[1],
        };
        let outcome = if script.len() > 1 { script.pop_front().unwrap() } else { script[0] };
        Fault::at_once(outcome)
    };
    let memory = Arc::new(MemoryBackend::default());
    let faults = Arc::new(FaultBackend::new(memory.clone(), plan));
    let retry = RetryPolicy { attempts_max: 5, ..RetryPolicy::default() };
    let store = Store::new("test", faults.clone(), &StoreOptions { retry, seed: 1, ..StoreOptions::default() });
    World { store, memory, faults }
}

impl World {
    async fn create(&self, body: &'static str) -> Result<Created, CreateError> {
        self.store.create(&key(), body).await
    }

    /// Somebody else's object, past all faults.
    async fn rival(&self) {
        self.memory.create(&key(), &"rival".into()).await.unwrap();
    }

    async fn stands(&self) -> Option<Vec<u8>> {
        self.memory.get(&key(), &Span::All).await.ok().map(|body| body.bytes.to_vec())
    }
}

fn key() -> Key {
    Key::new("a/b").unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_applied_create_without_answer_is_found_to_be_ours() {
    for symptom in SYMPTOMS_OF_DOUBT.into_iter().chain([Conflict]) {
        let world = world(&[AppliedWith(symptom)], &[Answered]);
        assert_eq!(world.create("ours").await.unwrap(), Created::Mine, "{symptom:?}");
        assert_eq!(world.store.counts().put.requests(), 1, "{symptom:?}: the read-back made a second PUT needless");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_create_is_sent_again() {
    for symptom in SYMPTOMS_OF_DOUBT.into_iter().chain([Conflict, NotSent]) {
        let world = world(&[LostWith(symptom), LostWith(symptom), Answered], &[Answered]);
        assert_eq!(world.create("ours").await.unwrap(), Created::New, "{symptom:?}");
        assert_eq!(world.stands().await.unwrap(), b"ours");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rival_is_told_from_ourselves_in_every_doubt() {
    for symptom in SYMPTOMS_OF_DOUBT.into_iter().chain([Conflict]) {
        for outcome in [AppliedWith(symptom), LostWith(symptom)] {
            let world = world(&[outcome], &[Answered]);
            world.rival().await;
            assert_eq!(world.create("ours!").await.unwrap(), Created::Other, "{outcome:?}");
            assert_eq!(world.stands().await.unwrap(), b"rival");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn doubt_that_reads_back_absent_stays_unknown() {
    for symptom in SYMPTOMS_OF_DOUBT {
        let world = world(&[LateWith(symptom, Duration::from_secs(3600))], &[Answered]);
        assert!(matches!(world.create("ours").await, Err(CreateError::Unknown { attempts: 1..=5, .. })), "{symptom:?}");
        assert_eq!(world.stands().await, None);
        tokio::time::sleep(Duration::from_secs(7200)).await;
        assert_eq!(world.stands().await.unwrap(), b"ours", "{symptom:?}: it was applied after we had given up");
        assert_eq!(world.faults.counts().late_creates_won, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_doubtful_attempt_among_definite_failures_leaves_it_unknown() {
    for last in [NotSent, Refused, Conflict] {
        let world = world(&[LostWith(Cut), LostWith(last)], &[Answered]);
        assert!(matches!(world.create("ours").await, Err(CreateError::Unknown { .. })), "{last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn definite_failures_are_not_done() {
    for (symptom, attempts_expected) in [(NotSent, 5), (Refused, 1), (Conflict, 5)] {
        let world = world(&[LostWith(symptom)], &[Answered]);
        match world.create("ours").await {
            Err(CreateError::NotDone { attempts, size_bytes: 4, .. }) => assert_eq!(attempts, attempts_expected),
            other => panic!("{symptom:?}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_cannot_be_read_back_is_unknown() {
    let world = world(&[AppliedWith(Conflict)], &[LostWith(SlowDown)]);
    assert!(matches!(world.create("ours").await, Err(CreateError::Unknown { attempts: 5, .. })));
    assert_eq!(world.stands().await.unwrap(), b"ours");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_create_is_resolved_by_repeating_it() {
    let world = world(
        &[AppliedWith(Cut), LostWith(Cut), LostWith(Cut), LostWith(Cut), LostWith(Cut), Answered],
        &[LostWith(Cut), LostWith(Cut), LostWith(Cut), LostWith(Cut), LostWith(Cut), Answered],
    );
    assert!(matches!(world.create("ours").await, Err(CreateError::Unknown { .. })));
    assert_eq!(world.create("ours").await.unwrap(), Created::Mine);
}

#[tokio::test(start_paused = true)]
async fn a_body_cut_short_is_no_proof_of_a_rival() {
    let world = world(&[AppliedWith(Cut), Answered], &[Outcome::CutBody(2), Answered]);
    assert_eq!(world.create("ours").await.unwrap(), Created::Mine);
}

#[tokio::test(start_paused = true)]
async fn a_late_create_never_replaces_what_was_answered() {
    let world = world(&[LateWith(Silence, Duration::from_millis(100)), Answered], &[Answered]);
    let ours = world.create("ours");
    assert_eq!(ours.await.unwrap(), Created::Mine, "it landed while we waited for the answer");
    let late = Duration::from_secs(3);
    let (first, second) = (self::world(&[LateWith(Cut, late), Answered], &[Answered]), "ours");
    assert_eq!(first.create(second).await.unwrap(), Created::New);
    tokio::time::sleep(2 * late).await;
    assert_eq!(first.faults.counts().late_creates_declined, 1);
    assert_eq!(first.stands().await.unwrap(), b"ours");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_create_is_still_applied() {
    let memory = Arc::new(MemoryBackend::default());
    let slow = Fault { before: Duration::from_secs(1), after: Duration::from_secs(1), outcome: Answered };
    let faults = Arc::new(FaultBackend::new(memory.clone(), move |_: &Operation<'_>| slow));
    let store = Store::new("test", faults, &StoreOptions::default());
    let (key, body) = (key(), "ours");
    assert!(tokio::time::timeout(Duration::from_millis(500), store.create(&key, body)).await.is_err());
    assert!(memory.size(&key).await.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(memory.size(&key).await.unwrap(), 4);
    assert_eq!(store.counts().put.cancelled, 1, "a request that nobody waited for is counted");
}

#[tokio::test(start_paused = true)]
async fn a_create_ends_within_its_time_and_waits_longer_each_time() {
    let world = world(&[LostWith(Silence)], &[LostWith(Silence)]);
    let begin = tokio::time::Instant::now();
    assert!(matches!(world.create("ours").await, Err(CreateError::Unknown { .. })));
    let policy = RetryPolicy::default();
    let bound = policy.time_max + 2 * policy.attempt_time_max + policy.wait_max;
    assert!(begin.elapsed() <= bound, "it took {:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn waits_are_the_same_for_the_same_seed() {
    let mut times = Vec::new();
    for _ in 0..2 {
        let world = world(&[LostWith(NotSent)], &[Answered]);
        let begin = tokio::time::Instant::now();
        world.create("ours").await.unwrap_err();
        times.push(begin.elapsed());
    }
    assert_eq!(times[0], times[1]);
    assert!(times[0] >= Duration::from_millis(180), "four waits around 25, 50, 100 and 200 ms: {:?}", times[0]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_failed_is_unknown_at_once_and_not_read_back() {
    #[derive(Debug)]
    struct Failed(MemoryBackend);
    #[async_trait::async_trait]
    impl Backend for Failed {
        async fn create(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
            self.0.create(key, payload).await?;
            Err(Failure::new(FailureKind::Broken, "fsync: input/output error"))
        }
        async fn overwrite(&self, key: &Key, payload: &Payload) -> Result<(), Failure> {
            self.0.overwrite(key, payload).await
        }
        async fn get(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
            self.0.get(key, span).await
        }
        async fn size(&self, key: &Key) -> Result<u64, Failure> {
            self.0.size(key).await
        }
        async fn list(
            &self,
            directory: &crate::Directory,
            start_after: Option<&Key>,
            limit: usize,
        ) -> Result<Vec<crate::Listed>, Failure> {
            self.0.list(directory, start_after, limit).await
        }
        async fn list_directories(&self, directory: &crate::Directory) -> Result<Vec<String>, Failure> {
            self.0.list_directories(directory).await
        }
        async fn delete(&self, keys: &[Key]) -> Result<(), Failure> {
            self.0.delete(keys).await
        }
    }
    let store = Store::new("test", Arc::new(Failed(MemoryBackend::default())), &StoreOptions::default());
    assert!(matches!(store.create(&key(), "ours").await, Err(CreateError::Unknown { attempts: 1, .. })));
    assert_eq!(store.counts().get.requests(), 0, "what can be seen may not be on disk");
}

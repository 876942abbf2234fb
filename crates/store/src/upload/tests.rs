//! What becomes of an object in parts by what goes wrong at each step: what the caller is told, what stands there, what is left behind.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::backend::{Backend, Span};
use crate::faults::{Fault, FaultBackend, Operation, Outcome, Symptom};
use crate::{MemoryBackend, RetryPolicy, StoreOptions};
use Outcome::{Answered, AppliedWith, LateWith, LostWith};
use Symptom::{Conflict, Cut, NotSent, Refused, ServerError, Silence, SlowDown};

const SYMPTOMS_OF_DOUBT: [Symptom; 4] = [SlowDown, ServerError, Cut, Silence];
const PART_BYTES: usize = 1000;

struct World {
    store: Store,
    memory: Arc<MemoryBackend>,
    faults: Arc<FaultBackend>,
}

/// The kind of a request, by which scripts are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Begin,
    Part,
    Complete,
    Abort,
    Create,
    Other,
}

/// A store whose requests of each kind meet the scripted outcomes in order, and the last of them from then on; others are answered.
fn world(scripts: &[(Kind, &[Outcome])]) -> World {
    let mut scripts: BTreeMap<Kind, VecDeque<Outcome>> =
        scripts.iter().map(|(kind, outcomes)| (*kind, outcomes.iter().copied().collect())).collect();
    let plan = move |operation: &Operation<'_>| {
        let kind = match operation {
            Operation::Begin { .. } => Kind::Begin,
            Operation::PutPart { .. } => Kind::Part,
            Operation::Complete { .. } => Kind::Complete,
            Operation::Abort { .. } => Kind::Abort,
            Operation::Create { .. } => Kind::Create,
            _ => Kind::Other,
        };
        let script = scripts.entry(kind).or_default();
        let outcome = if script.len() > 1 { script.pop_front() } else { script.front().copied() };
        Fault::at_once(outcome.unwrap_or(Answered))
    };
    let memory = Arc::new(MemoryBackend::default());
    let faults = Arc::new(FaultBackend::new(memory.clone(), plan));
    let retry = RetryPolicy { attempts_max: 5, ..RetryPolicy::default() };
    let options = StoreOptions { retry, seed: 1, part_bytes: Some(PART_BYTES), ..StoreOptions::default() };
    World { store: Store::new("test", faults.clone(), &options), memory, faults }
}

fn key() -> Key {
    Key::new("a/b").unwrap()
}

fn body(size: usize) -> Bytes {
    (0..size).map(|index| (index % 251 + index / 251) as u8).collect()
}

impl World {
    /// Creates an object of four parts, the last of them short.
    async fn create(&self) -> Result<Created, CreateError> {
        let body = body(3 * PART_BYTES + 7);
        let mut upload = self.store.create_in_parts(&key());
        for piece in body.chunks(1700) {
            upload.push(body.slice_ref(piece)).await?;
        }
        upload.finish().await
    }

    async fn rival(&self) {
        self.memory.create(&key(), &"rival".into()).await.unwrap();
    }

    async fn stands(&self) -> Option<Bytes> {
        self.memory.get(&key(), &Span::All).await.ok().map(|body| body.bytes)
    }

    /// How many uploads are open once everybody has done what was left to do.
    async fn left(&self) -> usize {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        self.memory.uploads_open()
    }
}

#[tokio::test(start_paused = true)]
async fn pieces_of_any_size_make_parts_of_one_size_and_what_is_small_is_one_put() {
    for size in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 5 * PART_BYTES + 1] {
        for piece in [1, 7, 999, 1000, 1001, 2500, 10_000] {
            let world = world(&[]);
            let mut upload = world.store.create_in_parts(&key());
            let body = body(size);
            for piece in body.chunks(piece) {
                upload.push(body.slice_ref(piece)).await.unwrap();
                assert!(upload.pending_bytes <= PART_BYTES, "no more than a part is kept");
                assert!(upload.pending.iter().map(Bytes::len).sum::<usize>() == upload.pending_bytes);
            }
            assert_eq!(upload.size_bytes(), size as u64);
            assert_eq!(upload.finish().await.unwrap(), Created::New);
            assert!(world.stands().await.unwrap() == body, "{size} bytes in pieces of {piece}");
            let puts = if size <= PART_BYTES { 1 } else { size.div_ceil(PART_BYTES) as u64 + 2 };
            let counts = world.store.counts();
            assert_eq!((counts.requests(), counts.put.succeeded, counts.put.bytes), (puts, puts, size as u64));
            assert_eq!(world.left().await, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_at_a_step_and_may_go_well_later_is_done_again() {
    for kind in [Kind::Begin, Kind::Part, Kind::Complete] {
        for symptom in SYMPTOMS_OF_DOUBT.into_iter().chain([NotSent]) {
            let world = world(&[(kind, &[LostWith(symptom), LostWith(symptom), Answered])]);
            assert_eq!(world.create().await.unwrap(), Created::New, "{kind:?} {symptom:?}");
            assert!(world.stands().await.unwrap() == body(3 * PART_BYTES + 7));
            assert_eq!(world.left().await, 0, "{kind:?} {symptom:?}");
        }
    }
    // A conflict without a rival is transient.
    let world = world(&[(Kind::Complete, &[LostWith(Conflict), Answered])]);
    assert_eq!(world.create().await.unwrap(), Created::New);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_was_done_without_an_answer_does_no_harm() {
    for kind in [Kind::Begin, Kind::Part] {
        for symptom in SYMPTOMS_OF_DOUBT {
            let world = world(&[(kind, &[AppliedWith(symptom), Answered])]);
            assert_eq!(world.create().await.unwrap(), Created::New, "{kind:?} {symptom:?}");
            // Of what was begun without an answer nobody knows the id: the store's own rule deletes it.
            assert_eq!(world.left().await, usize::from(kind == Kind::Begin), "{kind:?} {symptom:?}");
        }
    }
    for symptom in SYMPTOMS_OF_DOUBT.into_iter().chain([Conflict]) {
        let world = world(&[(Kind::Complete, &[AppliedWith(symptom)])]);
        assert_eq!(world.create().await.unwrap(), Created::Mine, "{symptom:?}");
        assert!(world.stands().await.unwrap() == body(3 * PART_BYTES + 7));
        assert_eq!(world.left().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_was_done_and_looked_for_in_vain_is_found_when_its_parts_are_gone() {
    let world = world(&[(Kind::Complete, &[AppliedWith(Cut), Answered]), (Kind::Other, &[LostWith(Cut), Answered])]);
    assert_eq!(world.create().await.unwrap(), Created::Mine);
}

#[tokio::test(start_paused = true)]
async fn a_rival_is_told_from_ourselves_and_left_alone() {
    for outcome in [Answered, AppliedWith(Cut), LostWith(ServerError), LostWith(Conflict)] {
        let world = world(&[(Kind::Complete, &[outcome, Answered])]);
        world.rival().await;
        assert_eq!(world.create().await.unwrap(), Created::Other, "{outcome:?}");
        assert_eq!(world.stands().await.unwrap(), "rival");
        assert_eq!(world.left().await, 0, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn definite_failures_are_not_done_and_leave_nothing() {
    for kind in [Kind::Begin, Kind::Part, Kind::Complete] {
        for symptom in [Refused, NotSent] {
            let world = world(&[(kind, &[LostWith(symptom)])]);
            let error = world.create().await.unwrap_err();
            assert!(matches!(error, CreateError::NotDone { .. }), "{kind:?} {symptom:?}: {error:?}");
            assert_eq!(world.stands().await, None);
            assert_eq!(world.left().await, 0, "{kind:?} {symptom:?}");
        }
    }
    for symptom in SYMPTOMS_OF_DOUBT {
        let world = world(&[(Kind::Part, &[Answered, Answered, LostWith(symptom)])]);
        let error = world.create().await.unwrap_err();
        assert!(matches!(error, CreateError::NotDone { .. }), "a part shows nothing: {error:?}");
        assert_eq!(world.left().await, 0, "{symptom:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_completion_in_doubt_stays_unknown() {
    for symptom in SYMPTOMS_OF_DOUBT {
        let world = world(&[(Kind::Complete, &[LostWith(symptom)])]);
        assert!(matches!(world.create().await, Err(CreateError::Unknown { .. })), "{symptom:?}");
        assert_eq!(world.left().await, 0);
    }
    let late = Duration::from_millis(100);
    let world =
        world(&[(Kind::Complete, &[LateWith(Cut, late), LostWith(Refused)]), (Kind::Abort, &[LostWith(Silence)])]);
    assert!(matches!(world.create().await, Err(CreateError::Unknown { .. })));
    assert_eq!(world.left().await, 0, "it was completed after we had given up");
    assert!(world.stands().await.unwrap() == body(3 * PART_BYTES + 7));
    assert_eq!(world.faults.counts().late_creates_won, 1);
}

#[tokio::test(start_paused = true)]
async fn parts_that_the_store_has_lost_are_not_done() {
    let world = world(&[]);
    let body = body(2 * PART_BYTES);
    for is_completed in [false, true] {
        let mut upload = world.store.create_in_parts(&key());
        upload.push(body.slice(..PART_BYTES + 1)).await.unwrap();
        world.memory.abort(&key(), upload.begun.as_ref().unwrap()).await.unwrap();
        let ended = match is_completed {
            true => upload.finish().await.map(drop),
            false => upload.push(body.slice(PART_BYTES + 1..)).await,
        };
        // With nothing more than a part to push, it is the completion that finds out.
        let error = if let Err(error) = ended { error } else { continue };
        assert!(matches!(error, CreateError::NotDone { attempts: 1, .. }), "{error:?}");
        assert_eq!(world.stands().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_or_given_up_is_deleted_also_when_the_store_hesitates() {
    let world = world(&[(Kind::Abort, &[LostWith(SlowDown), AppliedWith(Cut), Answered])]);
    let begun = async || {
        let mut upload = world.store.create_in_parts(&key());
        upload.push(body(PART_BYTES + 1)).await.unwrap();
        upload
    };
    drop(begun().await);
    assert_eq!(world.memory.uploads_open(), 1, "by a task of its own");
    assert_eq!(world.left().await, 0);
    let upload = begun().await;
    upload.abort().await;
    assert_eq!(world.memory.uploads_open(), 0);
    assert_eq!(world.stands().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_push_that_is_not_waited_for_leaves_nothing() {
    let memory = Arc::new(MemoryBackend::default());
    let slow = Fault { before: Duration::from_secs(1), after: Duration::from_secs(1), outcome: Answered };
    let faults = Arc::new(FaultBackend::new(memory.clone(), move |_: &Operation<'_>| slow));
    let options = StoreOptions { part_bytes: Some(PART_BYTES), ..StoreOptions::default() };
    let store = Store::new("test", faults, &options);
    for seconds in [1, 3, 5] {
        let mut upload = store.create_in_parts(&key());
        let push = upload.push(body(10 * PART_BYTES));
        assert!(tokio::time::timeout(Duration::from_secs(seconds), push).await.is_err());
        drop(upload);
        tokio::time::sleep(Duration::from_secs(60)).await;
        // An upload whose beginning nobody has heard of stays.
        assert_eq!(memory.uploads_open(), 1, "after {seconds} s");
    }
    assert!(memory.size(&key()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn no_more_parts_are_on_their_way_at_once_than_may_be() {
    let memory = Arc::new(MemoryBackend::default());
    let slow = Fault { before: Duration::from_secs(1), after: Duration::ZERO, outcome: Answered };
    let faults = Arc::new(FaultBackend::new(memory.clone(), move |_: &Operation<'_>| slow));
    let options = StoreOptions { part_bytes: Some(PART_BYTES), ..StoreOptions::default() };
    let store = Store::new("test", faults, &options);
    let begun = tokio::time::Instant::now();
    let mut upload = store.create_in_parts(&key());
    upload.push(body(12 * PART_BYTES + 1)).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 1 + 12 / PARTS_AT_ONCE as u64, "one to begin, and the parts four at a time");
    assert_eq!(upload.finish().await.unwrap(), Created::New);
}

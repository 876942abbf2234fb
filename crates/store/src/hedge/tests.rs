//! When a second request is sent, which answer counts, and that no pair of answers makes a create say what is not so.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::time::sleep;

use super::*;
use crate::backend::Backend;

use crate::faults::{Fault, FaultBackend, Operation, Outcome, Symptom};
use crate::{CreateError, Created, Key, MemoryBackend, Pacing, Priority, ReadError, RetryPolicy, StoreOptions};

const EAGER: Hedging = Hedging { percent_max: 100, delay_min: Duration::from_millis(5), learned_min: 8 };
/// What requests take that nothing is wrong with.
const USUAL: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(1);

/// A store over memory whose requests meet what is in `faults`, in order; behind its end nothing is wrong.
struct World {
    store: Store,
    memory: Arc<MemoryBackend>,
    sent: Arc<AtomicU32>,
}

fn usual() -> Fault {
    taking(USUAL, Outcome::Answered)
}

fn taking(time: Duration, outcome: Outcome) -> Fault {
    Fault { before: time / 2, after: time / 2, outcome }
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

impl World {
    /// One that has learned what is usual, of PUT and GET, and meets the faults after that.
    async fn new(faults: &[Fault], options: StoreOptions) -> Self {
        let (memory, sent) = (Arc::new(MemoryBackend::default()), Arc::new(AtomicU32::new(0)));
        let (faults, counted) = (faults.to_vec(), Arc::clone(&sent));
        let learning = 2 * EAGER.learned_min as u32;
        let plan = move |_: &Operation<'_>| {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            let met = number.checked_sub(learning).and_then(|number| faults.get(number as usize));
            met.copied().unwrap_or_else(usual)
        };
        let backend = Arc::new(FaultBackend::new(memory.clone(), plan));
        let store = Store::new("test", backend, &StoreOptions { seed: 1, ..options });
        for number in 0..EAGER.learned_min {
            let key = key(&format!("learning/{number}"));
            store.create(&key, "ours").await.unwrap();
            store.get_range(&key, 0..4).await.unwrap();
        }
        Self { store, memory, sent }
    }

    async fn eager(faults: &[Fault]) -> Self {
        Self::new(faults, StoreOptions { hedging: Some(EAGER), ..StoreOptions::default() }).await
    }

    fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed) - 2 * EAGER.learned_min as u32
    }

    async fn read(&self) -> Result<Duration, ReadError> {
        let begun = Instant::now();
        self.store.get_range(&key("learning/0"), 0..4).await.map(|_| begun.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_slow_is_sent_again_after_the_delay_and_the_first_answer_counts() {
    let slow = taking(LONG, Outcome::Answered);
    let world = World::eager(&[slow]).await;
    assert_eq!(world.read().await.unwrap(), 2 * USUAL, "the second is sent when the first takes longer than usual");
    let get = world.store.counts().get;
    assert_eq!((get.hedges, get.hedges_won, get.cancelled), (1, 1, 1), "the first counts as cancelled: {get:?}");
    assert_eq!(get.billed(), 8 + 2, "and is paid for");

    let world = World::eager(&[taking(USUAL * 2, Outcome::Answered), slow]).await;
    assert_eq!(world.read().await.unwrap(), 2 * USUAL, "the first is back before the second");
    let get = world.store.counts().get;
    assert_eq!((get.hedges, get.hedges_won, get.cancelled), (1, 0, 1));

    let world = World::eager(&[]).await;
    assert_eq!(world.read().await.unwrap(), USUAL);
    assert_eq!(world.store.counts().get.hedges, 0, "what is not slow is not sent again");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_hedged_before_it_is_known_what_is_slow_nor_what_is_large_or_nobody_waits_for() {
    let slow = taking(LONG, Outcome::Answered);
    let unlearned = Hedging { learned_min: 9, ..EAGER };
    let world = World::new(&[slow], StoreOptions { hedging: Some(unlearned), ..StoreOptions::default() }).await;
    assert_eq!(world.read().await.unwrap(), LONG);

    let world = World::eager(&[slow; 4]).await;
    let background = world.store.with_priority(Priority::Compaction);
    world.store.without_hedges().get_range(&key("learning/0"), 0..4).await.unwrap();
    background.create(&key("merged"), "ours").await.unwrap();
    world.store.create(&key("large"), vec![7; (10 << 20) + 1]).await.unwrap();
    world.store.overwrite(&key("hint"), "1").await.unwrap();
    assert_eq!(world.sent(), 4);
    let other_class = world.store.get_range(&key("large"), 0..1 << 20).await;
    assert!(other_class.is_ok() && world.sent() == 5);
    assert_eq!(world.store.counts().get.hedges + world.store.counts().put.hedges, 0);

    let world = World::new(&[slow], StoreOptions::default()).await;
    assert_eq!(world.read().await.unwrap(), LONG, "what is no cloud store has no hedges unless it is told");
}

#[tokio::test(start_paused = true)]
async fn hedges_are_a_few_percent_of_requests_however_slow_all_are() {
    let hedging = Hedging { percent_max: 5, ..EAGER };
    let slow: Vec<Fault> = (1..1_500).map(|number| taking(USUAL / 2 * number, Outcome::Answered)).collect();
    let world = World::new(&slow, StoreOptions { hedging: Some(hedging), ..StoreOptions::default() }).await;
    for _ in 0..1_000 {
        world.read().await.unwrap();
    }
    let get = world.store.counts().get;
    assert!(get.hedges * 20 <= get.requests() - get.hedges, "{get:?}");
    assert!(get.hedges >= 40, "what may be spent is spent: {get:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_spent_is_saved_for_a_few_only() {
    let hedges = Hedges::new(Hedging { percent_max: 5, ..Hedging::default() });
    assert!(!hedges.spend(), "nothing is given on credit");
    (0..100_000).for_each(|_| hedges.earn());
    assert_eq!((0..100).filter(|_| hedges.spend()).count() as u64, SAVED_MAX);
}

#[tokio::test(start_paused = true)]
async fn what_is_slow_follows_what_requests_take() {
    let mut times = Times::default();
    (0..63).for_each(|ms| times.learn(Duration::from_millis(ms), 64));
    assert_eq!(times.slow, None);
    (63..2_000).for_each(|ms| times.learn(Duration::from_millis(ms % 100), 64));
    let slow = times.slow.unwrap().as_millis();
    assert!((90..=97).contains(&slow), "the 95th of a hundred: {slow}");
    (0..300).for_each(|_| times.learn(Duration::from_millis(500), 64));
    assert_eq!(times.slow, Some(Duration::from_millis(500)));
    assert_eq!(times.last.len(), TIMES_KEPT);
}

#[tokio::test(start_paused = true)]
async fn a_read_fails_only_when_both_have_failed_and_knows_at_once_that_nothing_is_there() {
    let late_failure = taking(USUAL * 3, Outcome::LostWith(Symptom::ServerError));
    let world = World::eager(&[late_failure, taking(USUAL * 4, Outcome::Answered)]).await;
    assert_eq!(world.read().await.unwrap(), USUAL * 5, "the second is waited for");
    assert_eq!(world.sent(), 2);

    let world = World::eager(&[taking(USUAL * 5, Outcome::Answered), late_failure]).await;
    assert_eq!(world.read().await.unwrap(), USUAL * 5, "so is the first");

    let world = World::eager(&[late_failure, late_failure]).await;
    assert!(world.read().await.unwrap() > USUAL * 5);
    assert_eq!(world.sent(), 3, "then it is tried again");

    let world = World::eager(&[taking(LONG, Outcome::Answered)]).await;
    let begun = Instant::now();
    assert!(matches!(world.store.get_range(&key("nothing"), 0..4).await, Err(ReadError::NotFound { .. })));
    assert_eq!(begun.elapsed(), USUAL * 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_busy_or_throttles_gets_no_hedges() {
    let pacing = Some(Pacing { requests_first: 2, requests_max: 2 });
    let options = StoreOptions { hedging: Some(EAGER), pacing, ..StoreOptions::default() };
    let world = World::new(&[taking(LONG, Outcome::Answered); 2], options).await;
    let place = key("a");
    let (one, other) = tokio::join!(world.read(), world.store.create(&place, "ours"));
    assert_eq!((one.unwrap(), other.unwrap()), (LONG, Created::New));
    assert_eq!(world.sent(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_two_puts_land_says_new_or_mine() {
    // The first is applied long before its answer comes: the second finds it there, and reads it back.
    let applied = Fault { before: USUAL / 2, after: LONG, outcome: Outcome::Answered };
    let world = World::eager(&[applied]).await;
    let begun = Instant::now();
    assert_eq!(world.store.create(&key("a"), "ours").await.unwrap(), Created::Mine);
    assert_eq!(begun.elapsed(), USUAL * 3, "the usual, a PUT and a GET");
    let put = world.store.counts().put;
    assert_eq!((put.hedges, put.hedges_won, put.declined, put.cancelled), (1, 1, 1, 1));

    // The first is slow on its way there: the second is applied, and the first is declined when it comes.
    let on_its_way = Fault { before: LONG, after: USUAL / 2, outcome: Outcome::Answered };
    let world = World::eager(&[on_its_way]).await;
    assert_eq!(world.store.create(&key("a"), "ours").await.unwrap(), Created::New);
    sleep(2 * LONG).await;
    assert_eq!(world.memory.size(&key("a")).await.unwrap(), 4);
}

/// What a PUT can meet: every outcome of a store, sooner and later than the other PUT's.
fn fates() -> Vec<Fault> {
    let symptoms = [Symptom::SlowDown, Symptom::ServerError, Symptom::Cut, Symptom::Silence, Symptom::Conflict];
    let late = Duration::from_secs(600);
    let doubtful = symptoms.into_iter().flat_map(|symptom| {
        let late_too = (symptom != Symptom::Conflict).then_some(Outcome::LateWith(symptom, late));
        [Some(Outcome::AppliedWith(symptom)), Some(Outcome::LostWith(symptom)), late_too].into_iter().flatten()
    });
    let definite = [Symptom::NotSent, Symptom::Refused].map(Outcome::LostWith);
    let outcomes: Vec<Outcome> = doubtful.chain(definite).chain([Outcome::Answered]).collect();
    let times = [USUAL * 2, USUAL * 6];
    times.into_iter().flat_map(|time| outcomes.iter().map(move |outcome| taking(time, *outcome))).collect()
}

/// Creates an object whose two PUTs meet these fates, against a rival that comes at some time; looks whether what is said of it is so, then and
/// ever after.
async fn tell_the_truth(first: Fault, second: Fault, rival_at: Option<Duration>, attempts_max: u32) -> &'static str {
    let retry = RetryPolicy { attempts_max, ..RetryPolicy::default() };
    let faults: Vec<Fault> = [first, second].into_iter().collect();
    let options = StoreOptions { hedging: Some(EAGER), retry, ..StoreOptions::default() };
    let world = World::new(&faults, options).await;
    let case = format!("{first:?}, {second:?}, rival {rival_at:?}, {attempts_max} attempts");
    let (memory, place) = (world.memory.clone(), key("a"));
    let rival = async {
        if let Some(at) = rival_at {
            sleep(at).await;
            let _ = memory.create(&place, &"rival".into()).await;
        }
    };
    let (created, ()) = tokio::join!(world.store.create(&place, "ours"), rival);
    let stands = async || memory.get(&place, &Span::All).await.ok().map(|body| body.bytes);
    let now = stands().await;
    sleep(Duration::from_secs(3600)).await;
    let later = stands().await;
    assert!(now.is_none() || now == later, "{case}");
    let ours = later.as_ref().is_some_and(|bytes| bytes == "ours");
    match created {
        Ok(Created::New | Created::Mine) => assert!(ours && now.is_some(), "{case}: {later:?}"),
        Ok(Created::Other) => assert!(!ours && now.is_some(), "{case}: {later:?}"),
        Err(CreateError::NotDone { .. }) => assert!(!ours, "{case}: it was applied"),
        Err(CreateError::Unknown { .. }) => {}
    }
    match created {
        Ok(Created::New) => "new",
        Ok(Created::Mine) => "mine",
        Ok(Created::Other) => "other",
        Err(CreateError::NotDone { .. }) => "not done",
        Err(CreateError::Unknown { .. }) => "unknown",
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_tells_the_truth_whatever_becomes_of_its_two_puts() {
    let mut told = std::collections::BTreeMap::new();
    let rivals = [None, Some(Duration::ZERO), Some(USUAL + USUAL / 4), Some(USUAL * 2 + USUAL / 4), Some(USUAL * 5)];
    for first in fates() {
        for second in fates() {
            for rival_at in rivals {
                for attempts_max in [1, 3] {
                    *told.entry(tell_the_truth(first, second, rival_at, attempts_max).await).or_insert(0) += 1;
                }
            }
        }
    }
    assert_eq!(told.len(), 5, "every answer was given: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hedged_create_that_is_dropped_gives_its_places_back_and_may_land() {
    let pacing = Some(Pacing::default());
    let slow = taking(LONG, Outcome::Answered);
    for dropped_after in [USUAL / 4, USUAL * 2, USUAL * 10] {
        let options = StoreOptions { hedging: Some(EAGER), pacing, ..StoreOptions::default() };
        let world = World::new(&[slow, slow, slow], options).await;
        assert!(timeout(dropped_after, world.store.create(&key("a"), "ours")).await.is_err());
        assert_eq!(world.store.paced().unwrap().under_way, 0);
        assert_eq!(u64::from(world.sent()), world.store.counts().put.cancelled);
        sleep(2 * LONG).await;
        assert_eq!(world.memory.size(&key("a")).await.unwrap(), 4, "what was sent is applied");
    }
}

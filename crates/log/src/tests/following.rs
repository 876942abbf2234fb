//! Brokers that follow: what they fold, what they answer, and when they take over.

use std::collections::BTreeMap as Map;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream;
use lakebed_model::{CommitNumber, Member};
use lakebed_segment::commit::decode_commit;
use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome as Fate, Symptom};
use tokio::time::{Instant, timeout};

use super::*;
use crate::{Fed, Follow, Following, Joined, PeerError, Peers, Role, Tidings, Told};

const TAKEOVER_AFTER: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(30);

/// What a network does with an address.
#[derive(Debug, Clone)]
enum At {
    /// A sequencer answers there.
    Running(Log),
    /// Connections come about, and nothing is heard.
    Silent,
    /// Nothing arrives there.
    Unreachable,
    /// A process that is no sequencer.
    Other,
}

/// Who is where. An address of nobody refuses.
#[derive(Debug, Default)]
struct Network {
    at: Arc<Mutex<Map<String, At>>>,
    /// Told to whoever follows next, before anything else.
    first: Mutex<Vec<Told>>,
}

impl Network {
    fn put(&self, address: &str, at: At) {
        self.at.lock().unwrap().insert(address.to_owned(), at);
    }

    fn kill(&self, address: &str) {
        if let Some(At::Running(log)) = self.at.lock().unwrap().remove(address) {
            log.abort();
        }
    }
}

/// What the sequencer at an address says next; nothing while it can't be heard.
async fn said(at: &Mutex<Map<String, At>>, address: &str, feed: &mut crate::Feed) -> Result<Told, PeerError> {
    let gone = || PeerError::Unreachable { address: address.to_owned(), why: "the connection has ended".to_owned() };
    loop {
        let now = at.lock().unwrap().get(address).cloned();
        match now {
            Some(At::Running(_)) => {}
            Some(At::Silent) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            _ => return Err(gone()),
        }
        return match timeout(Duration::from_millis(250), feed.next()).await {
            Err(_) => Ok(Told::Alive),
            Ok(None) => Err(gone()),
            Ok(Some(Fed::Number(number))) => Ok(Told::Number(number)),
            Ok(Some(Fed::Commit(bytes))) => Ok(Told::Commit(Box::new(decode_commit(&bytes).unwrap()))),
        };
    }
}

impl Peers for Network {
    fn follow(&self, follow: Follow) -> BoxFuture<'static, Result<Tidings, PeerError>> {
        let (at, address) = (Arc::clone(&self.at), follow.address.clone());
        let first = std::mem::take(&mut *self.first.lock().unwrap());
        Box::pin(async move {
            let found = at.lock().unwrap().get(&address).cloned();
            let log = match found {
                None => return Err(PeerError::Gone { address }),
                Some(At::Other) => return Err(PeerError::NotSequencer { address }),
                Some(At::Unreachable | At::Silent) => {
                    tokio::time::sleep(LONG).await;
                    return Err(PeerError::Unreachable { address, why: "timed out".to_owned() });
                }
                Some(At::Running(log)) if log.nonce() != follow.sequencer || log.is_closed().is_some() => {
                    return Err(PeerError::NotSequencer { address });
                }
                Some(At::Running(log)) => log,
            };
            let feed = log.feed(follow.from);
            let rest = stream::unfold((at, address, feed), async |(at, address, mut feed)| {
                let told = said(&at, &address, &mut feed).await;
                Some((told, (at, address, feed)))
            });
            Ok(stream::iter(first.into_iter().map(Ok)).chain(rest).boxed())
        })
    }
}

fn at(address: &str) -> Options {
    Options { address: address.to_owned(), ..Options::default() }
}

fn following(network: &Arc<Network>, takeovers: u32) -> Following {
    Following { peers: Arc::clone(network) as Arc<dyn Peers>, takeover_after: TAKEOVER_AFTER, takeovers }
}

async fn join(store: &Store, network: &Arc<Network>, address: &str, seed: u64) -> Joined {
    Log::join(store.clone(), at(address), seams(seed), following(network, 0), None).await.unwrap()
}

async fn follow(store: &Store, network: &Arc<Network>, address: &str, seed: u64) -> Log {
    match join(store, network, address, seed).await {
        Joined::Follows(log) => log,
        Joined::Alone { .. } => panic!("there is somebody to follow"),
    }
}

async fn succeed(store: &Store, network: &Network, address: &str, seed: u64, known: crate::Known) -> Log {
    let log = Log::succeed(store.clone(), at(address), seams(seed), known).await.unwrap().expect("nobody else has");
    network.put(address, At::Running(log.clone()));
    log
}

/// A sequencer at address "a", with a topic.
async fn lead(store: &Store, network: &Arc<Network>) -> Log {
    let Joined::Alone { known, namesake: None } = join(store, network, "a", 1).await else { panic!("nobody is there") };
    let log = succeed(store, network, "a", 1, known).await;
    create_topic(&log).await;
    log
}

async fn reaches(log: &Log, number: CommitNumber) {
    let mut commits = log.watch();
    timeout(LONG, commits.wait_for(|now| *now >= number)).await.expect("it comes").unwrap();
}

/// After how long a follower is to take over; `None` if it is not.
async fn successor_after(log: &Log) -> Option<Duration> {
    let begun = Instant::now();
    let closed = timeout(LONG, log.closed()).await.ok()?;
    assert_eq!(closed, Closed::Successor);
    Some(begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_follower_folds_what_is_pushed_and_reads_nothing_for_it() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    let follower = follow(&store, &network, "b", 2).await;
    assert_eq!((leader.role(), follower.role()), (Role::Sequencer, Role::Follower));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = store.counts().requests();
    let mut puts = 0;
    for value in ["x", "y", "z"] {
        append(&leader, &[value]).await.unwrap();
        puts += 1;
    }
    reaches(&follower, leader.state().number()).await;
    assert_eq!(follower.state(), leader.state());
    assert_eq!(store.counts().requests(), asked + puts, "nothing was read");
    assert_eq!(leader.followers(), 1);
    drop(follower);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(leader.followers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_very_large_commit_is_read_and_what_comes_after_it_is_pushed_again() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    let follower = follow(&store, &network, "b", 2).await;
    let mut feed = leader.feed(leader.state().number());
    let config = Map::from([("large".to_owned(), "x".repeat(5 << 20))]);
    leader.change(Change::AlterTopic { id: partition().topic, config }).await.unwrap();
    assert_eq!(feed.next().await, Some(Fed::Number(leader.state().number())));
    append(&leader, &["x"]).await.unwrap();
    assert!(matches!(feed.next().await, Some(Fed::Commit(_))));
    reaches(&follower, leader.state().number()).await;
    assert_eq!(follower.state(), leader.state());
}

#[tokio::test(start_paused = true)]
async fn a_follower_commits_nothing_and_says_who_does() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    let follower = follow(&store, &network, "b", 2).await;
    let refused = AppendError::NotDone { why: Closed::Follows { sequencer: "a".to_owned() } };
    assert_eq!(append(&follower, &["x"]).await, Err(refused.clone()));
    assert_eq!(follower.change(Change::DeleteTopic { id: partition().topic }).await, Err(refused));
    assert_eq!(leader.barrier().await.unwrap().partition(partition()).unwrap().high_watermark, Offset::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_twice_late_or_wrong_does_no_harm() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    let mut feed = leader.feed(leader.state().number());
    let mut commits = Vec::new();
    for value in ["x", "y", "z"] {
        append(&leader, &[value]).await.unwrap();
        let Some(Fed::Commit(bytes)) = feed.next().await else { panic!("it is told") };
        commits.push(Told::Commit(Box::new(decode_commit(&bytes).unwrap())));
    }
    let Told::Commit(mut wrong) = commits[0].clone() else { unreachable!() };
    (wrong.number, wrong.writer) = (leader.state().number(), Nonce::new(99));
    // Known already, with a gap, from nobody, and far beyond.
    let told = [commits[0].clone(), commits[2].clone(), Told::Commit(wrong), Told::Number(CommitNumber::new(7777))];
    *network.first.lock().unwrap() = told.into();
    let follower = follow(&store, &network, "b", 2).await;
    append(&leader, &["last"]).await.unwrap();
    reaches(&follower, leader.state().number()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(follower.state(), leader.state());
    assert_eq!(follower.is_closed(), None);
}

#[tokio::test(start_paused = true)]
async fn a_barrier_sees_what_was_durable_before_it_though_nothing_was_told() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    let follower = follow(&store, &network, "b", 2).await;
    network.put("a", At::Silent);
    for round in 1..4 {
        append(&leader, &["x"]).await.unwrap();
        let seen = follower.barrier().await.unwrap();
        assert_eq!(seen.partition(partition()).unwrap().high_watermark, Offset::new(round));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_that_is_gone_is_succeeded_at_once_by_one_and_followed_by_the_others() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    append(&leader, &["x"]).await.unwrap();
    for (process, address) in [(10, "a"), (20, "b"), (30, "c")] {
        let (kafka, http) = (format!("k{address}"), address.to_owned());
        let member = Member { nonce: Nonce::new(process), kafka, http, zone: String::new(), version: String::new() };
        leader.change(Change::Join(member)).await.unwrap();
    }
    let (b, c) = (follow(&store, &network, "b", 2).await, follow(&store, &network, "c", 3).await);
    reaches(&c, leader.state().number()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    network.kill("a");
    let after = successor_after(&b).await.expect("the first of the members takes over");
    assert!(after < Duration::from_millis(500), "{after:?}");
    let next = succeed(&store, &network, "b", 2, b.known()).await;
    assert_eq!(append(&next, &["y"]).await, Ok(Outcome::Appended(Offset::new(1))));
    reaches(&c, next.state().number()).await;
    assert_eq!(timeout(LONG, c.closed()).await.ok(), None, "it follows the new one");
    assert_eq!(c.state(), next.state());
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_that_hangs_is_succeeded_after_a_while_and_learns_it() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    let follower = follow(&store, &network, "b", 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    network.put("a", At::Silent);
    let after = successor_after(&follower).await.expect("it takes over");
    assert!(after > TAKEOVER_AFTER / 2 && after < 3 * TAKEOVER_AFTER, "{after:?}");
    let next = succeed(&store, &network, "b", 2, follower.known()).await;
    assert!(matches!(append(&leader, &["late"]).await, Err(AppendError::NotDone { why: Closed::Fenced { .. } })));
    network.put("a", At::Other);
    let again = follow(&store, &network, "a", 4).await;
    append(&next, &["x"]).await.unwrap();
    reaches(&again, next.state().number()).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_from_a_sequencer_that_works_leaves_it_in_peace_and_reads() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    let follower = follow(&store, &network, "b", 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    network.put("a", At::Unreachable);
    for _ in 0..120 {
        append(&leader, &["x"]).await.unwrap();
        tokio::time::sleep(TAKEOVER_AFTER / 4).await;
        assert_eq!(follower.is_closed(), None);
    }
    assert!(follower.counts().sequencer_lost().is_some_and(|lost| lost > Duration::from_secs(20)));
    assert!(leader.state().number().get() - follower.state().number().get() < 10, "it is not far behind");
    network.put("a", At::Running(leader.clone()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(follower.counts().sequencer_lost(), None);
    network.put("a", At::Unreachable);
    assert!(successor_after(&follower).await.is_some(), "now nothing moves");
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_told_to_takes_over_at_once() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    *network.first.lock().unwrap() = vec![Told::TakeOver];
    let follower = follow(&store, &network, "b", 2).await;
    assert!(successor_after(&follower).await.unwrap() < Duration::from_millis(10));
    // The other was faster.
    let other = follow(&store, &network, "c", 3).await;
    let next = succeed(&store, &network, "b", 2, follower.known()).await;
    let late = Log::succeed(store.clone(), at("c"), seams(3), other.known()).await.unwrap();
    assert!(late.is_err(), "somebody else has taken over since");
    assert!(matches!(leader.barrier().await, Err(BarrierError::Closed { why: Closed::Fenced { .. } })));
    assert!(append(&next, &["x"]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_address_that_never_answered_is_not_that_of_a_dead_process_for_who_has_taken_over_before() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    network.kill("a");
    drop(leader);
    let mut before = Duration::ZERO;
    for takeovers in [0, 1, 3, 5] {
        let joined = Log::join(store.clone(), at("b"), seams(2), following(&network, takeovers), None).await.unwrap();
        let Joined::Follows(log) = joined else { panic!("somebody was there") };
        let after = successor_after(&log).await.expect("in the end it takes over");
        assert!(after > before, "{takeovers}: {after:?} after {before:?}");
        before = after;
    }
    assert!(before > 8 * TAKEOVER_AFTER, "{before:?}");
}

#[tokio::test(start_paused = true)]
async fn who_has_the_address_of_the_sequencer_is_alone() {
    let (store, network) = (store(), Arc::new(Network::default()));
    let leader = lead(&store, &network).await;
    let Joined::Alone { namesake, .. } = join(&store, &network, "a", 9).await else { panic!("it has that address") };
    assert_eq!(namesake, Some(leader.nonce()));
    assert_eq!(crate::nonce_of(&seams(1)), leader.nonce());
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_over_while_the_log_can_t_be_read() {
    let out = Arc::new(AtomicBool::new(false));
    let is_out = Arc::clone(&out);
    let faults = move |_: &Operation<'_>| match is_out.load(Ordering::Relaxed) {
        true => Fault::at_once(Fate::LostWith(Symptom::Refused)),
        false => Fault::NONE,
    };
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    let store = Store::new("memory://", Arc::new(backend), &StoreOptions::default());
    let network = Arc::new(Network::default());
    let _leader = lead(&store, &network).await;
    let follower = follow(&store, &network, "b", 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    out.store(true, Ordering::Relaxed);
    network.kill("a");
    assert_eq!(successor_after(&follower).await, None);
    out.store(false, Ordering::Relaxed);
    assert!(successor_after(&follower).await.is_some());
}

/// Without its rest it would ask the clock again and again, and the clock of this test would stand.
#[tokio::test(start_paused = true)]
async fn who_is_to_decide_rests_until_the_log_is_read() {
    const SLOW: Duration = Duration::from_secs(2);
    let is_slow = Arc::new(AtomicBool::new(false));
    let slow = Arc::clone(&is_slow);
    let faults = move |_: &Operation<'_>| match slow.load(Ordering::Relaxed) {
        true => Fault { before: SLOW, after: Duration::ZERO, outcome: Fate::Answered },
        false => Fault::NONE,
    };
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    let store = Store::new("memory://", Arc::new(backend), &StoreOptions::default());
    let network = Arc::new(Network::default());
    let leader = lead(&store, &network).await;
    let follower = follow(&store, &network, "b", 2).await;
    reaches(&follower, leader.state().number()).await;
    network.put("a", At::Silent);
    leader.abort();
    is_slow.store(true, Ordering::Relaxed);
    // It begins to read before it has anything to decide.
    let reading = tokio::spawn({
        let follower = follower.clone();
        async move { follower.barrier().await.is_ok() }
    });
    let after = successor_after(&follower).await.expect("nothing is heard, and the log stands still");
    assert!(after >= 2 * SLOW, "after {after:?}: what it decides by is read once it waits");
    drop(reading.await);
}

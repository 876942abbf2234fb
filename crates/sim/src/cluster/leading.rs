//! What a sequencer does for the other brokers: it tells those who follow it what has become durable, and keeps the members.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use lakebed_log::{Fed, Feed, Follow, Log, Told};
use lakebed_model::{Change, Member, Nonce};
use lakebed_segment::commit::decode_commit;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::{Cut, Message, Station, journey, unreachable};
use crate::climate::{chance, within};
use crate::world::World;

/// How often it says that it is there, and when it does not although it is: as the server does.
const ALIVE_EVERY: Duration = Duration::from_millis(250);
const COMMIT_TIME_MAX: Duration = Duration::from_secs(5);
/// A member that is not heard of for so long is none any more. Worlds are short.
const GONE_AFTER: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A process that believes to be the sequencer, to those who follow it.
pub(crate) struct Leading {
    log: Log,
    me: Nonce,
    began: Instant,
    streams: Vec<Stream>,
    /// When each that follows no more was heard of last.
    last_seen: BTreeMap<Nonce, Instant>,
}

/// The end of a stream where the sequencer speaks.
struct Stream {
    to: usize,
    member: Member,
    feed: Feed,
    told: mpsc::Sender<Message>,
    next_alive: Instant,
    last_arrives: Instant,
    takes_over: bool,
}

impl Leading {
    /// With nobody who follows.
    pub(crate) fn new(log: Log, me: Nonce) -> Self {
        Self { log, me, began: Instant::now(), streams: Vec::new(), last_seen: BTreeMap::new() }
    }

    /// Lets a broker follow, if it means this sequencer.
    pub(super) fn admit(&mut self, follow: &Follow, from: (usize, Member), told: mpsc::Sender<Message>) -> bool {
        let log = &self.log;
        if log.is_closed().is_some() || follow.sequencer != log.nonce() || follow.identity != log.identity() {
            return false;
        }
        let ((to, member), now) = (from, Instant::now());
        let feed = log.feed(follow.from);
        self.streams.push(Stream { to, member, feed, told, next_alive: now, last_arrives: now, takes_over: false });
        true
    }

    /// Has one of those who follow take over, counted from the one that has followed for longest; `false` if there are not so many.
    pub(crate) fn hand_over(&mut self, index: usize) -> bool {
        self.streams.get_mut(index).map(|stream| stream.takes_over = true).is_some()
    }

    /// A member leaves: what the sequencer is to commit for that.
    pub(crate) fn farewell(&self, member: Nonce) -> Option<(Log, Change)> {
        let is_member = self.log.state().member(member).is_some();
        is_member.then(|| (self.log.clone(), Change::Leave { member }))
    }

    /// Tells everybody what there is to tell.
    fn tell(&mut self, world: &World, slot: usize, rng: &mut StdRng) {
        let stuck = self.log.counts().oldest_in_flight().is_some_and(|age| age >= COMMIT_TIME_MAX);
        for mut stream in std::mem::take(&mut self.streams) {
            if stream.tell(world, slot, stuck, rng) {
                self.streams.push(stream);
            } else {
                self.last_seen.insert(stream.member.nonce, Instant::now());
            }
        }
    }

    /// What is to change for the members to be those that are heard of.
    fn changes(&mut self, me: &Member) -> Vec<Change> {
        let state = self.log.state();
        let following = self.streams.iter().map(|stream| &stream.member);
        let new = following.chain([me]).filter(|member| state.member(member.nonce) != Some(member));
        let mut changes: Vec<Change> = new.cloned().map(Change::Join).collect();
        for node in state.nodes() {
            let nonce = node.member.nonce;
            let is_here = nonce == self.me || self.streams.iter().any(|stream| stream.member.nonce == nonce);
            let seen = self.last_seen.get(&nonce).copied().unwrap_or(self.began);
            if !is_here && seen.elapsed() > GONE_AFTER {
                changes.push(Change::Leave { member: nonce });
            }
        }
        changes
    }
}

impl Stream {
    /// Tells what there is to tell; whether the stream goes on.
    fn tell(&mut self, world: &World, slot: usize, stuck: bool, rng: &mut StdRng) -> bool {
        if self.told.is_closed() {
            return false;
        }
        if world.cluster.cut(slot, self.to) == Some(Cut::Broken) {
            let message = Message { arrives: Instant::now(), told: Err(unreachable(slot, "the connection broke")) };
            self.told.try_send(message).ok();
            return false;
        }
        if std::mem::take(&mut self.takes_over) {
            world.trace.count("hand-overs");
            self.send(world, rng, Told::TakeOver);
        }
        loop {
            let told = match self.feed.next().now_or_never() {
                Some(Some(Fed::Commit(bytes))) => {
                    world.trace.count("commits pushed");
                    Told::Commit(Box::new(decode_commit(&bytes).expect("what was encoded just now can be decoded")))
                }
                Some(Some(Fed::Number(number))) => Told::Number(number),
                Some(None) => return false,
                None => break,
            };
            self.send(world, rng, told);
        }
        if Instant::now() >= self.next_alive {
            self.next_alive = Instant::now() + ALIVE_EVERY;
            if !stuck {
                self.send(world, rng, Told::Alive);
            }
        }
        !self.told.is_closed()
    }

    /// Sends something, once, twice or not at all.
    fn send(&mut self, world: &World, rng: &mut StdRng, told: Told) {
        let copies = if chance(rng, world.climate.message_trouble) { 2 } else { 1 };
        for _ in 0..copies {
            let Some(journey) = journey(world, rng) else {
                world.trace.count("messages to followers lost");
                continue;
            };
            self.last_arrives = self.last_arrives.max(Instant::now() + journey);
            let message = Message { arrives: self.last_arrives, told: Ok(told.clone()) };
            // A stream that is full loses what comes, as one that is cut would.
            self.told.try_send(message).ok();
        }
    }
}

/// Tells those who follow a process what becomes durable in its log, for as long as it is polled.
pub(crate) async fn tell(world: &World, station: &Station, mut rng: StdRng) {
    loop {
        sleep(Duration::from_millis(within(&mut rng, (1, 1 + world.climate.message_ms.1 / 4)))).await;
        station.gate.pass().await;
        station.leading(|leading| leading.tell(world, station.slot, &mut rng));
    }
}

/// Keeps the members while a process is the sequencer, as the server does.
pub(crate) async fn keep_members(world: Arc<World>, station: Arc<Station>, log: Log, me: Member) {
    while log.is_closed().is_none() {
        station.gate.pass().await;
        for change in station.leading(|leading| leading.changes(&me)).unwrap_or_default() {
            let name = if matches!(change, Change::Join(_)) { "members joined" } else { "members gone" };
            if log.change(change).await.is_ok() {
                world.trace.count(name);
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

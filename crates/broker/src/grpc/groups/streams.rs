//! The Join streams of a broker: how many there may be, and which one speaks for a member.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lakebed_model::GroupId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::Status;

use crate::grpc::status::status;
use crate::reason::Reason;

/// What a stream may hold: its task, and what waits for its client.
const STREAM_BYTES: usize = 16 << 10;
/// Streams that there may be even with little memory.
const STREAMS_MIN: usize = 64;

/// Why another stream takes the place of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Successor {
    /// The same member, on another stream.
    Stream,
    /// Another process, with the same instance id.
    Process,
}

/// All Join streams. A handle; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    places: Arc<Semaphore>,
    places_max: usize,
    speakers: Arc<Mutex<Speakers>>,
}

#[derive(Debug, Default)]
struct Speakers {
    by_member: BTreeMap<(GroupId, String), (u64, oneshot::Sender<Successor>)>,
    last: u64,
}

/// The right to a stream.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "it is held, not looked at")] OwnedSemaphorePermit);

/// That a stream speaks for a member, until another one does.
#[derive(Debug)]
pub(super) struct Voice {
    speakers: Arc<Mutex<Speakers>>,
    member: (GroupId, String),
    number: u64,
    succeeded: oneshot::Receiver<Successor>,
}

impl Streams {
    /// Streams that take so many bytes together.
    pub(crate) fn new(bytes: usize) -> Self {
        let places_max = (bytes / STREAM_BYTES).max(STREAMS_MIN);
        Self { places: Arc::new(Semaphore::new(places_max)), places_max, speakers: Arc::default() }
    }

    /// A place for a new stream.
    ///
    /// # Errors
    /// OVERLOADED if there are as many streams as there may be.
    pub(super) fn place(&self) -> Result<Place, Status> {
        Arc::clone(&self.places).try_acquire_owned().map(Place).map_err(|_| {
            let message = format!(
                "there are {} Join streams, as many as this broker's memory allows: close some, or give it more memory",
                self.places_max
            );
            status(Reason::Overloaded, message, [])
        })
    }

    /// Speaks for a member from now on; a stream that did so before is told.
    pub(super) fn speak(&self, group: &GroupId, member_id: &str) -> Voice {
        let (told, succeeded) = oneshot::channel();
        let member = (group.clone(), member_id.to_owned());
        let mut speakers = lock(&self.speakers);
        speakers.last += 1;
        let number = speakers.last;
        if let Some((_, older)) = speakers.by_member.insert(member.clone(), (number, told)) {
            older.send(Successor::Stream).ok();
        }
        drop(speakers);
        Voice { speakers: Arc::clone(&self.speakers), member, number, succeeded }
    }

    /// Tells the stream of a member, if there is one, that another process is in its place.
    pub(super) fn silence(&self, group: &GroupId, member_id: &str) {
        let member = (group.clone(), member_id.to_owned());
        if let Some((_, older)) = lock(&self.speakers).by_member.remove(&member) {
            older.send(Successor::Process).ok();
        }
    }
}

impl Voice {
    /// Waits until another stream speaks for the member.
    ///
    /// # Cancel Safe.
    pub(super) async fn succeeded(&mut self) -> Successor {
        // It is kept until it is told or this is dropped.
        (&mut self.succeeded).await.unwrap_or(Successor::Stream)
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        let mut speakers = lock(&self.speakers);
        if speakers.by_member.get(&self.member).is_some_and(|(number, _)| *number == self.number) {
            speakers.by_member.remove(&self.member);
        }
    }
}

fn lock(speakers: &Mutex<Speakers>) -> MutexGuard<'_, Speakers> {
    speakers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_last_stream_speaks_for_a_member_and_the_others_are_told() {
        let streams = Streams::new(0);
        let group = GroupId::new("g").unwrap();
        let mut first = streams.speak(&group, "a");
        let mut other = streams.speak(&group, "b");
        let mut second = streams.speak(&group, "a");
        assert_eq!(first.succeeded().await, Successor::Stream);
        drop(first);
        assert!(second.succeeded().now_or_never().is_none(), "it is the one that speaks");
        streams.silence(&group, "a");
        assert_eq!(second.succeeded().await, Successor::Process);
        assert!(other.succeeded().now_or_never().is_none());
        drop((second, other));
        assert!(lock(&streams.speakers).by_member.is_empty(), "nothing is left of them");
    }

    #[tokio::test]
    async fn there_are_only_so_many_streams() {
        let streams = Streams::new(0);
        let places: Vec<_> = (0..STREAMS_MIN).map(|_| streams.place().unwrap()).collect();
        assert_eq!(streams.place().unwrap_err().code(), tonic::Code::ResourceExhausted);
        drop(places);
        assert!(streams.place().is_ok());
    }
}

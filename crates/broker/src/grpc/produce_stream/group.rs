//! Batches of one stream that are handed over together, from their messages to their answers.
//!
//! 1. Small batches of one partition become one batch of the log: what a batch costs on its way to the store and to its consumers is
//!    then paid once for many messages. Each message is answered with its own offsets, as if it had come alone.
//! 2. Within a partition the order is that of the messages. Messages that are joined share their fate; what expects an offset, and
//!    what comes as a batch of Kafka's, is never joined.
//! 3. Messages that can't be joined because of one of them are prepared one by one: only that one is refused.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use lakebed_ingest::{Admitted, ProduceError, Produced, Ticket};
use lakebed_model::{PartitionIndex, PartitionKey};
use tokio::time::Instant;
use tonic::Status;

use crate::grpc::Services;
use crate::grpc::batch::{Asked, Prepared, Target, join};

/// Bytes of the messages that are joined to one batch: where a batch costs little beside its records.
const JOINED_BYTES_MAX: usize = 64 * 1024;
/// A message of so many bytes goes alone: it gains little.
const ALONE_BYTES_MIN: usize = 8 * 1024;

/// A batch that was read.
pub(super) struct Read {
    pub(super) correlation_id: u64,
    pub(super) asked: Asked,
    /// What it counts in the window.
    pub(super) bytes: usize,
}

/// A message of the group that was handed over.
struct Handed {
    correlation_id: u64,
    /// What it counts in the window.
    bytes: usize,
    place: Result<Place, Box<Status>>,
}

/// Where the records of a message are.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Which of the tickets is that of its batch.
    ticket: usize,
    /// How many records of that batch come before.
    rows_before: u32,
    partition: PartitionIndex,
    records: u32,
    batch_bytes: usize,
}

/// What a ticket says, and how long it took.
enum Waiting {
    For(Ticket),
    Told(Result<Produced, ProduceError>, Duration),
}

/// A group that was handed over.
pub(super) struct Group {
    begun: Instant,
    tickets: Vec<Waiting>,
    owed: VecDeque<Handed>,
}

/// The answer to a message.
pub(super) struct Told {
    pub(super) correlation_id: u64,
    /// What it counts in the window.
    pub(super) bytes: usize,
    /// Since its group was begun.
    pub(super) elapsed: Duration,
    pub(super) answer: Answer,
}

pub(super) enum Answer {
    /// It is durable; the base offset is its own.
    Durable { produced: Produced, partition: PartitionIndex, records: u32, batch_bytes: usize },
    /// It was handed over, and is not acknowledged.
    NotProduced(ProduceError),
    /// It was not handed over.
    Refused(Box<Status>),
}

/// A batch of the log in the making.
enum Part {
    Alone(Box<Prepared>),
    Joined { partition: u32, messages: Vec<Bytes>, bytes: usize },
}

/// A message on its way: how it is refused, or which part it belongs to, as which of its messages.
type Sorted = Result<(usize, usize), Box<Status>>;

impl Group {
    /// How many of its messages were refused.
    pub(super) fn refused(&self) -> usize {
        self.owed.iter().filter(|one| one.place.is_err()).count()
    }

    /// The next answer; `None` when all are given.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Told>> {
        let Some(next) = self.owed.front() else { return Poll::Ready(None) };
        if let Ok(place) = &next.place
            && let Waiting::For(ticket) = &mut self.tickets[place.ticket]
        {
            let told = ready!(ticket.poll_unpin(context));
            self.tickets[place.ticket] = Waiting::Told(told, self.begun.elapsed());
        }
        let Handed { correlation_id, bytes, place } = self.owed.pop_front().expect("it was looked at");
        let (answer, elapsed) = match place {
            Err(refused) => (Answer::Refused(refused), self.begun.elapsed()),
            Ok(place) => match &self.tickets[place.ticket] {
                Waiting::Told(told, elapsed) => (place.answer(told), *elapsed),
                Waiting::For(_) => unreachable!("the ticket was polled"),
            },
        };
        Poll::Ready(Some(Told { correlation_id, bytes, elapsed, answer }))
    }
}

impl Place {
    fn answer(self, told: &Result<Produced, ProduceError>) -> Answer {
        let Self { rows_before, partition, records, batch_bytes, .. } = self;
        match told {
            Err(error) => Answer::NotProduced(error.clone()),
            Ok(produced) => {
                let base_offset = produced.base_offset.checked_add(u64::from(rows_before));
                let base_offset = base_offset.expect("the last offset of its batch has 63 bits");
                Answer::Durable { produced: Produced { base_offset, ..*produced }, partition, records, batch_bytes }
            }
        }
    }
}

/// Verifies a group of batches and hands it over. `partition` is where batches go that name none.
///
/// # Cancel See [`lakebed_ingest::Ingest::produce`].
pub(super) async fn hand_over(
    services: Services,
    mut target: Target,
    partition: Option<i32>,
    read: Vec<Read>,
) -> (Target, Group) {
    let begun = Instant::now();
    // Held until the ingest buffer counts what is decompressed.
    let inflating = match read.iter().any(|read| read.asked.is_compressed()) {
        true => Some(services.rooms.inflating().await),
        false => None,
    };
    let gone = target.refresh(&services.rooms.log.state()).err();
    let mut sorting = Sorting::default();
    let mut sorted = Vec::with_capacity(read.len());
    for Read { correlation_id, mut asked, bytes } in read {
        asked.partition = asked.partition.or(partition);
        let one = match &gone {
            Some(gone) => Err(Box::new(gone.clone())),
            None => sorting.sort(&services, &mut target, asked).await,
        };
        sorted.push((correlation_id, bytes, one));
    }
    let mut batches = Vec::with_capacity(sorting.parts.len());
    let mut places = Vec::with_capacity(sorting.parts.len());
    for part in sorting.parts {
        places.push(part.place(&services, &mut target, &mut batches).await);
    }
    let tickets = if batches.is_empty() { Vec::new() } else { services.rooms.ingest.produce(batches).await };
    drop(inflating);
    let owed = sorted.into_iter().map(|(correlation_id, bytes, one)| {
        let place = one.and_then(|(part, message)| places[part][message].clone());
        Handed { correlation_id, bytes, place }
    });
    let group = Group { begun, owed: owed.collect(), tickets: tickets.into_iter().map(Waiting::For).collect() };
    (target, group)
}

/// The parts of a group, in the order of their beginnings.
#[derive(Default)]
struct Sorting {
    parts: Vec<Part>,
    /// The part of each partition that more may be joined to: there is none of that partition after it.
    open: BTreeMap<u32, usize>,
    inflated_bytes: usize,
}

impl Sorting {
    async fn sort(&mut self, services: &Services, target: &mut Target, asked: Asked) -> Sorted {
        if let Some((partition, records)) = services.joinable(target, &asked, ALONE_BYTES_MIN) {
            return Ok(self.join(partition, records, target.message_bytes_max()));
        }
        let prepared = services.prepare(target, asked, &mut self.inflated_bytes).await.map_err(Box::new)?;
        self.open.remove(&prepared.key.partition.get());
        self.parts.push(Part::Alone(Box::new(prepared)));
        Ok((self.parts.len() - 1, 0))
    }

    fn join(&mut self, partition: u32, records: Bytes, message_bytes_max: usize) -> (usize, usize) {
        // Half of what the topic allows: in a batch, records can be larger than in their messages.
        let bytes_max = JOINED_BYTES_MAX.min(message_bytes_max / 2);
        if let Some(part) = self.open.get(&partition)
            && let Part::Joined { messages, bytes, .. } = &mut self.parts[*part]
            && *bytes + records.len() <= bytes_max
        {
            *bytes += records.len();
            messages.push(records);
            return (*part, messages.len() - 1);
        }
        let (part, bytes) = (self.parts.len(), records.len());
        self.open.insert(partition, part);
        self.parts.push(Part::Joined { partition, messages: vec![records], bytes });
        (part, 0)
    }
}

impl Part {
    /// Adds its batches to those that are handed over, and tells the place of each of its messages.
    async fn place(
        self,
        services: &Services,
        target: &mut Target,
        batches: &mut Vec<(PartitionKey, Admitted)>,
    ) -> Vec<Result<Place, Box<Status>>> {
        let (partition, messages) = match self {
            Self::Alone(prepared) => return vec![Ok(alone(*prepared, batches))],
            Self::Joined { partition, messages, .. } => (partition, messages),
        };
        if let Some((admitted, sizes)) = join(&messages, &services.limits(target, 0)) {
            let (ticket, partition) = (batches.len(), PartitionIndex::new(partition));
            batches.push((PartitionKey::new(target.topic.id, partition), admitted));
            let places = sizes.into_iter().scan(0, |rows, (records, batch_bytes)| {
                let rows_before = std::mem::replace(rows, *rows + records);
                Some(Ok(Place { ticket, rows_before, partition, records, batch_bytes }))
            });
            return places.collect();
        }
        let mut places = Vec::with_capacity(messages.len());
        for records in messages {
            let prepared = services.prepare(target, Asked::of_records(partition, records), &mut 0).await;
            places.push(prepared.map(|prepared| alone(prepared, batches)).map_err(Box::new));
        }
        places
    }
}

/// Hands over one message as a batch of its own.
fn alone(Prepared { key, admitted }: Prepared, batches: &mut Vec<(PartitionKey, Admitted)>) -> Place {
    let (ticket, records, batch_bytes) = (batches.len(), admitted.records(), admitted.size_bytes());
    batches.push((key, admitted));
    Place { ticket, rows_before: 0, partition: key.partition, records, batch_bytes }
}

#[cfg(test)]
mod tests;

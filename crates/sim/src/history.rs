//! What clients know: what they sent, what they were answered, what they saw. The checker judges the log by it.

use std::collections::{BTreeMap, BTreeSet};

use lakebed_model::{PartitionKey, Place, State, TopicId};

use crate::groups::GroupHistory;
use crate::trace::Trace;

/// A record as its producer made it. Its value is unique in its world.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    /// The key; `None` for null.
    pub key: Option<String>,
    /// The value.
    pub value: String,
    /// Milliseconds since 1970; -1 for none.
    pub timestamp_ms: i64,
}

/// What the producer of a batch knows about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// In the log, its first record at this offset.
    Acked(u64),
    /// Not in the log, and it never will be.
    NotDone,
    /// Perhaps in the log.
    Unknown,
}

/// A batch that was sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// Who sent it.
    pub writer: usize,
    /// Batches of one lane to one partition are in the log in the order in which they were sent.
    pub lane: u64,
    /// Where it goes.
    pub partition: PartitionKey,
    /// Its records.
    pub rows: Vec<Row>,
    /// The offset that its first record must get.
    pub expected: Option<u64>,
    /// What became of it.
    pub fate: Fate,
}

/// A batch's place in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentId(usize);

/// What is known of a topic by those who administer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicFate {
    /// What became of its creation; the offset is meaningless.
    pub created: Fate,
    /// What became of its deletion, if that was tried.
    pub deleted: Option<Fate>,
    /// When that was tried first, in simulated milliseconds.
    pub deleted_ms: Option<u64>,
}

/// See the module.
pub(crate) struct History {
    trace: Trace,
    /// Every batch in the order in which they were sent.
    pub sent: Vec<Sent>,
    /// What stands at each offset that anybody was told about or has read.
    pub seen: BTreeMap<(PartitionKey, u64), String>,
    /// Where each partition ends at least, by what was acknowledged.
    pub acked_end: BTreeMap<PartitionKey, u64>,
    /// Where each partition ends at least, by any high watermark that anybody saw.
    pub seen_end: BTreeMap<PartitionKey, u64>,
    /// Topics by their ids.
    pub topics: BTreeMap<TopicId, TopicFate>,
    /// The highest log start of each partition that anybody tried to move it to.
    pub tried_start: BTreeMap<PartitionKey, u64>,
    /// The highest log start of each partition that was acknowledged.
    pub acked_start: BTreeMap<PartitionKey, u64>,
    /// The numbers that brokers gave for producer ids.
    pub producer_ids: BTreeSet<u64>,
    /// Producer ids, by partition, of which every batch was sent once and acknowledged, and that are used no more.
    pub retired_producers: BTreeSet<(PartitionKey, i64)>,
    /// What clients of groups know.
    pub groups: GroupHistory,
    /// How many partitions topics have at least, by what was acknowledged.
    pub partitions: BTreeMap<TopicId, u32>,
    /// Where the next commit stands, by how many there are before it, as any broker's durable state had it.
    pub places: BTreeMap<u64, Place>,
}

impl History {
    /// An empty history.
    pub(crate) fn new(trace: Trace) -> Self {
        Self {
            trace,
            sent: Vec::new(),
            seen: BTreeMap::new(),
            acked_end: BTreeMap::new(),
            seen_end: BTreeMap::new(),
            topics: BTreeMap::new(),
            tried_start: BTreeMap::new(),
            acked_start: BTreeMap::new(),
            producer_ids: BTreeSet::new(),
            retired_producers: BTreeSet::new(),
            groups: GroupHistory::default(),
            partitions: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// A batch is about to be sent; until more is known it is unknown.
    pub(crate) fn send(&mut self, writer: usize, lane: u64, partition: PartitionKey, rows: Vec<Row>) -> SentId {
        self.send_expecting(writer, lane, partition, rows, None)
    }

    /// The same, of a batch that expects an offset.
    pub(crate) fn send_expecting(
        &mut self,
        writer: usize,
        lane: u64,
        partition: PartitionKey,
        rows: Vec<Row>,
        expected: Option<u64>,
    ) -> SentId {
        self.sent.push(Sent { writer, lane, partition, rows, expected, fate: Fate::Unknown });
        SentId(self.sent.len() - 1)
    }

    /// Its fate is known.
    pub(crate) fn settle(&mut self, id: SentId, fate: Fate) {
        let sent = &mut self.sent[id.0];
        sent.fate = fate;
        self.trace.note(format_args!("writer {} batch {} is {fate:?}", sent.writer, id.0));
        match fate {
            Fate::Acked(base) => {
                self.trace.count("batches acknowledged");
                let (partition, rows) = (sent.partition, sent.rows.clone());
                let end = base + rows.len() as u64;
                let known = self.acked_end.entry(partition).or_default();
                *known = end.max(*known);
                for (offset, row) in (base..end).zip(rows) {
                    self.observe("a producer", partition, offset, &row.value);
                }
            }
            Fate::NotDone => self.trace.count("batches not done"),
            Fate::Unknown => self.trace.count("batches unknown"),
        }
    }

    /// Somebody saw a value at an offset.
    pub(crate) fn observe(&mut self, who: &str, partition: PartitionKey, offset: u64, value: &str) {
        match self.seen.get(&(partition, offset)) {
            Some(known) if known != value => {
                let what = format!("{partition} at {offset}: {known:?}, but {who} has {value:?}");
                self.trace.anomaly("inconsistent-offsets", what);
            }
            Some(_) => {}
            None => {
                self.seen.insert((partition, offset), value.to_owned());
            }
        }
    }

    /// A broker has a durable state: all of them are states of one log.
    pub(crate) fn observe_state(&mut self, who: &str, state: &State) {
        let (number, place) = (state.number().get(), state.place());
        let known = *self.places.entry(number).or_insert(place);
        if known != place {
            self.trace.anomaly("forked-log", format!("commit {number} stands at {known}, but {who} has it at {place}"));
        }
    }

    /// Somebody saw a high watermark.
    pub(crate) fn observe_end(&mut self, partition: PartitionKey, end: u64) {
        let known = self.seen_end.entry(partition).or_default();
        *known = end.max(*known);
    }
}

//! `ListSegments`: which rows of which objects are the records of a topic.
//!
//! 1. Pages together tell of every offset once: a page ends at an offset, and the next begins there, whatever was merged meanwhile. A
//!    run that a merge has made across that offset is cut there.
//! 2. All that is told is in the state, but the sizes of objects: those are looked up with a LIST or a few for the page, never with a
//!    request each, and are left out where that would not do.

use std::collections::BTreeMap;

use lakebed_model::{ObjectId, Offset, PartitionIndex, PartitionKey, Run, State, TopicId};
use lakebed_segment::layout;
use lakebed_store::Key;
use lakebed_wire::v1;
use tonic::Status;

use super::Services;
use super::batch::check_partition;
use super::produce::{wire_offset, wire_partition};
use super::status::{status, violation};
use crate::reason::Reason;
use crate::topics::{FoundTopic, TopicReference, find};

/// Segments of one page if the request says nothing, and at most.
const PAGE_SIZE_DEFAULT: usize = 100;
const PAGE_SIZE_MAX: usize = 1000;
/// Runs and partitions that are looked at for one page; one that finds little by then ends there.
const STEPS_MAX: usize = 100_000;
/// Directories of which a page's objects are looked up, with one LIST of [`LISTED_MAX`] each.
const DIRECTORIES_MAX: usize = 4;
const LISTED_MAX: usize = 1000;
/// The first byte of a page token.
const TOKEN_VERSION: u8 = 1;
/// Version, topic, partition, offset.
const TOKEN_BYTES: usize = 1 + 16 + 4 + 8;

/// What is asked for.
#[derive(Debug, Clone)]
struct Wanted {
    topic: TopicId,
    partitions: std::ops::Range<u32>,
    from: Offset,
    to: Offset,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    size: usize,
}

/// Where a page begins, or the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    partition: u32,
    offset: Offset,
}

/// A run of the topic, without what lies outside of the log or of the page.
#[derive(Debug, Clone, Copy)]
struct Found {
    partition: u32,
    base: Offset,
    run: Run,
}

impl Services {
    /// A page of segments.
    ///
    /// # Cost
    /// A barrier, and at most [`DIRECTORIES_MAX`] LISTs.
    pub(super) async fn segments(&self, request: v1::ListSegmentsRequest) -> Result<v1::ListSegmentsResponse, Status> {
        let state = self.rooms.log.barrier().await.map_err(|error| status(Reason::from(&error), &error, []))?;
        let name = request.topic.clone();
        let topic = find(&state, &TopicReference::Name(name.clone())).ok_or_else(|| {
            status(Reason::TopicNotFound, format_args!("topic {name:?} does not exist"), [("topic", name.clone())])
        })?;
        let wanted = wanted(&request, &topic)?;
        let begin = match request.page_token.as_str() {
            "" => Position { partition: wanted.partitions.start, offset: Offset::ZERO },
            token => Position::of_token(token, topic.id, &wanted.partitions)?,
        };
        let (page, state) = {
            let (state, wanted) = (state, wanted.clone());
            self.rooms.seams.offload.run(move || (collect(&state, &wanted, begin), state)).await
        };
        let (found, next) = page;
        let cell = self.rooms.log.identity().cell;
        let keys: Vec<String> = found
            .iter()
            .filter_map(|found| match found.run.object {
                ObjectId::Segment(id) => Some(layout::segment_key(cell, id)),
                ObjectId::Commit(number) => Some(layout::commit_key(cell, state.place_of(number)?)),
                ObjectId::Table(id) => Some(layout::table_file_key(&topic.name.table_name(), id)),
            })
            .collect();
        if keys.len() != found.len() {
            return Err(status(Reason::Internal, "an object of the topic has no place", []));
        }
        let sizes = self.sizes(&keys).await;
        // All of `memory://` belongs to the scheme.
        let url = self.rooms.store.url();
        let root = url.strip_suffix('/').filter(|root| !root.ends_with(":/")).unwrap_or(url);
        let segments = found.iter().zip(&keys).map(|(found, key)| v1::Segment {
            uri: format!("{root}/{key}"),
            partition: wire_partition(found.partition),
            base_offset: wire_offset(found.base),
            last_offset: wire_offset(found.base) + wire_count(found.run.span) - 1,
            row_count: wire_count(found.run.rows),
            first_row: wire_count(found.run.first_row),
            object_bytes: sizes.get(key.as_str()).map(|bytes| wire_count(*bytes)),
            min_timestamp: found.run.timestamps.map(|range| range.first_ms),
            max_timestamp: found.run.timestamps.map(|range| range.last_ms),
        });
        let next_page_token = next.map_or(String::new(), |next| next.token(topic.id));
        Ok(v1::ListSegmentsResponse { segments: segments.collect(), next_page_token })
    }

    /// The sizes of objects as far as a few LISTs tell them.
    async fn sizes(&self, keys: &[String]) -> BTreeMap<String, u64> {
        let mut wanted: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for key in keys {
            if let Some((directory, _)) = key.rsplit_once('/') {
                wanted.entry(directory.to_owned()).or_default().push(key);
            }
        }
        let mut sizes = BTreeMap::new();
        for (_, mut keys) in wanted.into_iter().take(DIRECTORIES_MAX) {
            keys.sort_unstable();
            // What precedes the first key is that key without its last letter.
            let before = keys[0].strip_suffix(".parquet").and_then(|stem| Key::new(stem).ok());
            let Ok(directory) = Key::new(keys[0]).map(|key| key.directory()) else { continue };
            match self.rooms.store.list(&directory, before.as_ref(), LISTED_MAX).await {
                Ok(listing) => {
                    let listed = listing.objects.into_iter();
                    let ours = listed.filter(|object| keys.binary_search(&object.key.as_str()).is_ok());
                    sizes.extend(ours.map(|object| (object.key.as_str().to_owned(), object.size_bytes)));
                }
                Err(error) => tracing::debug!(%error, "sizes of objects are left out"),
            }
        }
        sizes
    }
}

fn wanted(request: &v1::ListSegmentsRequest, topic: &FoundTopic) -> Result<Wanted, Status> {
    let wrong = |field: &str, what: &str| violation(Reason::InvalidRequest, field, format_args!("{field} {what}"), []);
    let partitions = match request.partition {
        None => 0..topic.partitions,
        Some(partition) => {
            let partition = check_partition(topic, partition)?;
            partition..partition + 1
        }
    };
    let offset = |field: &str, offset: Option<i64>, absent: Offset| match offset.map(u64::try_from) {
        None => Ok(absent),
        Some(Ok(offset)) => Ok(Offset::new(offset)),
        Some(Err(_)) => Err(wrong(field, "must not be negative")),
    };
    let size = match usize::try_from(request.page_size) {
        Err(_) => return Err(wrong("page_size", "must not be negative")),
        Ok(0) => PAGE_SIZE_DEFAULT,
        Ok(size) => size.min(PAGE_SIZE_MAX),
    };
    Ok(Wanted {
        topic: topic.id,
        partitions,
        from: offset("from_offset", request.from_offset, Offset::ZERO)?,
        to: offset("to_offset", request.to_offset, Offset::new(u64::MAX))?,
        from_ms: request.from_timestamp,
        to_ms: request.to_timestamp,
        size,
    })
}

/// The runs of a page, and where the next one begins if there may be more.
fn collect(state: &State, wanted: &Wanted, begin: Position) -> (Vec<Found>, Option<Position>) {
    let mut found = Vec::new();
    let mut steps = 0;
    for partition in begin.partition..wanted.partitions.end {
        let key = PartitionKey::new(wanted.topic, PartitionIndex::new(partition));
        let Some(bounds) = state.partition(key) else { continue };
        let page_start = if partition == begin.partition { begin.offset } else { Offset::ZERO };
        let start = page_start.max(bounds.log_start);
        steps += 1;
        for (base, run) in state.runs_from(key, start.max(wanted.from)) {
            let (base, run) = cut(base, run, start);
            if base >= wanted.to {
                break;
            }
            if found.len() >= wanted.size || steps >= STEPS_MAX {
                return (found, Some(Position { partition, offset: base }));
            }
            steps += 1;
            if wanted.may_hold(&run) {
                found.push(Found { partition, base, run });
            }
        }
    }
    (found, None)
}

/// The run without what lies before `start`.
fn cut(base: Offset, mut run: Run, start: Offset) -> (Offset, Run) {
    if base >= start {
        return (base, run);
    }
    let before = start.since(base);
    // Which rows of a run with gaps lie before it, only its object knows: all are told of.
    if !run.has_gaps() {
        run.rows -= before;
        run.first_row += before;
    }
    run.span -= before;
    (start, run)
}

impl Wanted {
    /// Whether a run may have records of the wanted times.
    fn may_hold(&self, run: &Run) -> bool {
        match run.timestamps {
            Some(range) => {
                self.from_ms.is_none_or(|from| range.last_ms >= from) && self.to_ms.is_none_or(|to| range.first_ms < to)
            }
            None => self.from_ms.is_none() && self.to_ms.is_none(),
        }
    }
}

impl Position {
    fn token(self, topic: TopicId) -> String {
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.push(TOKEN_VERSION);
        bytes.extend_from_slice(topic.uuid().as_bytes());
        bytes.extend_from_slice(&self.partition.to_be_bytes());
        bytes.extend_from_slice(&self.offset.get().to_be_bytes());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn of_token(token: &str, topic: TopicId, partitions: &std::ops::Range<u32>) -> Result<Self, Status> {
        const UNKNOWN: &str = "page_token is not one of this call: begin without one";
        let wrong = |what: &str| violation(Reason::InvalidRequest, "page_token", what, []);
        let digits = token.as_bytes();
        let hexadecimal = digits.len() == 2 * TOKEN_BYTES && digits.iter().all(u8::is_ascii_hexdigit);
        let byte = |index: usize| u8::from_str_radix(token.get(2 * index..2 * index + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = if hexadecimal { (0..TOKEN_BYTES).map(byte).collect() } else { None };
        let bytes = bytes.filter(|bytes| bytes[0] == TOKEN_VERSION).ok_or_else(|| wrong(UNKNOWN))?;
        if bytes[1..17] != topic.uuid().as_bytes()[..] {
            return Err(wrong("page_token is of another topic, which had this name before: begin without one"));
        }
        let (partition, offset) = bytes[17..].split_at(4);
        let partition = u32::from_be_bytes(partition.try_into().expect("four bytes"));
        let offset = Offset::new(u64::from_be_bytes(offset.try_into().expect("eight bytes")));
        if partitions.contains(&partition) { Ok(Self { partition, offset }) } else { Err(wrong(UNKNOWN)) }
    }
}

/// A count as the API writes it.
fn wire_count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use lakebed_model::commit::{BatchFacts, Merge, MergedRun};
    use lakebed_model::ids::SegmentId;
    use lakebed_model::{Change, Draft, FlushBody, FlushProposal, Nonce, ProposedRun, RowsHash, TopicName};

    use super::*;

    const TOPIC: TopicId = TopicId::new(uuid::Uuid::from_u128(7));

    /// Partitions 0 and 1 with `runs` runs of 10 rows each.
    fn with_runs(runs: u128) -> State {
        let directory = lakebed_model::ids::Directory { epoch: lakebed_model::ids::Epoch::ZERO, nonce: Nonce::new(1) };
        let mut draft = Draft::after(&State::new(directory));
        let name = TopicName::new("t").unwrap();
        draft.change(Change::CreateTopic { id: TOPIC, name, partitions: 2, config: BTreeMap::new() }).unwrap();
        for (partition, number) in (0..2).flat_map(|partition| (1..=runs).map(move |number| (partition, number))) {
            let id = lakebed_model::FlushId::new(ulid(u128::from(partition) * 1000 + number));
            let facts = BatchFacts {
                rows: 10,
                bytes: 10,
                timestamps: None,
                hash: RowsHash::default(),
                producer: None,
                expected_next_offset: None,
            };
            let key = PartitionKey::new(TOPIC, PartitionIndex::new(partition));
            let run = ProposedRun { partition: key, first_row: 0, batches: vec![facts] };
            let proposal = FlushProposal {
                id,
                broker: Nonce::new(1),
                previous: None,
                body: FlushBody::Segment,
                ingest_time_ms: 0,
                runs: vec![run],
            };
            draft.flush(&proposal).unwrap();
        }
        draft.state().clone()
    }

    fn ulid(number: u128) -> ulid::Ulid {
        ulid::Ulid(number)
    }

    #[test]
    fn pages_tell_of_every_offset_once_though_runs_are_merged_between_them() {
        let before = with_runs(4);
        let key = PartitionKey::new(TOPIC, PartitionIndex::ZERO);
        let run = MergedRun {
            partition: key,
            base_offset: Offset::new(10),
            rows: 20,
            first_row: 0,
            hash: RowsHash::default(),
        };
        let mut draft = Draft::after(&before);
        let merge = Merge { segment: SegmentId::new(ulid(9999)), runs: vec![run] };
        draft.change(Change::Merge(merge)).unwrap();
        let after = draft.state().clone();
        for size in 1..=8 {
            let wanted = Wanted {
                topic: TOPIC,
                partitions: 0..2,
                from: Offset::ZERO,
                to: Offset::new(u64::MAX),
                from_ms: None,
                to_ms: None,
                size,
            };
            let mut next = Some(Position { partition: 0, offset: Offset::ZERO });
            let (mut told, mut pages) = (Vec::new(), 0);
            while let Some(position) = next {
                let (found, then) = collect(if pages == 0 { &before } else { &after }, &wanted, position);
                assert!(found.len() <= size);
                for Found { partition, base, run } in found {
                    // Each flush has an object of its own; the merged one begins with offset 10.
                    let merged = run.object == ObjectId::Segment(SegmentId::new(ulid(9999)));
                    let expected = if merged { base.get() - 10 } else { base.get() % 10 };
                    assert_eq!(run.first_row, expected);
                    told.extend((base.get()..base.get() + run.rows).map(|offset| (partition, offset)));
                }
                (next, pages) = (then, pages + 1);
            }
            let all: Vec<_> = (0..2).flat_map(|partition| (0..40).map(move |offset| (partition, offset))).collect();
            assert_eq!(told, all, "pages of {size}");
        }
    }

    #[test]
    fn a_run_that_was_merged_across_the_end_of_a_page_is_cut_there() {
        let run = Run {
            rows: 10,
            span: 10,
            clean: false,
            object: ObjectId::Segment(SegmentId::MIN),
            first_row: 100,
            bytes: 1,
            timestamps: None,
            hash: RowsHash::default(),
        };
        let (base, rest) = cut(Offset::new(50), run, Offset::new(53));
        assert_eq!((base, rest.rows, rest.first_row), (Offset::new(53), 7, 103));
        let (base, whole) = cut(Offset::new(50), run, Offset::new(50));
        assert_eq!((base, whole.rows, whole.first_row), (Offset::new(50), 10, 100));
        let (base, rest) = cut(Offset::new(50), Run { span: 30, ..run }, Offset::new(53));
        assert_eq!((base, rest.span, rest.rows, rest.first_row), (Offset::new(53), 27, 10, 100), "with gaps");
    }

    #[test]
    fn a_token_is_taken_back_and_no_other_is() {
        let topic = TopicId::new(uuid::Uuid::from_u128(7));
        let position = Position { partition: 3, offset: Offset::new(1 << 40) };
        let token = position.token(topic);
        assert_eq!(Position::of_token(&token, topic, &(0..4)).unwrap(), position);
        assert!(Position::of_token(&token, topic, &(0..3)).is_err(), "a partition that is not asked for");
        let other = TopicId::new(uuid::Uuid::from_u128(8));
        assert!(Position::of_token(&token, other, &(0..4)).is_err(), "another topic");
        let multibyte = "é".repeat(TOKEN_BYTES);
        for wrong in ["x", &token[2..], &format!("02{}", &token[2..]), &format!("{token}00"), &multibyte] {
            assert!(Position::of_token(wrong, topic, &(0..4)).is_err(), "{wrong}");
        }
    }
}

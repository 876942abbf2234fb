//! Objects of every kind with fixed content: what the golden files hold and what other readers are shown.

use std::collections::BTreeMap;

use bytes::Bytes;
use lakebed_model::{
    BatchFacts, BatchRefusal, Cell, Commit, CommitNumber, Directory, Entry, Flush, FlushBody, FlushId, FlushRun, Mint,
    Nonce, Offset, Outcome, PartitionIndex, PartitionKey, Place, ProducerEpoch, ProducerId, ProducerStamp, SegmentId,
    Sequence, State, Takeover, TopicId, TopicName,
};
use lakebed_model::{
    CleanedFile, CleanedRun, CompactedFile, Compaction, KeyCompaction, MergedRun, RowsHash, TableFileId, TimestampRange,
};
use lakebed_model::{CommitOffsets, CommittedOffset, DeleteOffsets, Generation, GroupId, GroupKind, StartGeneration};
use lakebed_model::{Draft, FlushProposal, Member, ProposedRun, Snapshot, TrimRun};
use lakebed_segment::batch::{Codec, Encoder, Fields, Limits, Record, Rows, TimestampType, decode};
use lakebed_segment::body::{Body, seal};
use lakebed_segment::checkpoint::{Checkpoint, encode};
use lakebed_segment::commit::{Identity, commit_object, segment_object};
use lakebed_segment::footer::{Footer, Parsed};
use lakebed_segment::root::Root;
use lakebed_segment::row_hash::facts;
use lakebed_segment::rows::BodyBatch;
use lakebed_segment::table::{ParsedTable, TableFileName, TableFooter, TableSettings, TableWriter, ValueFormat};
use lakebed_segment::verdict::{Broken, Verdict};
use uuid::Uuid;

/// A record as a test writes it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rec {
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record without headers.
pub fn rec(timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Rec {
    Rec { timestamp_ms, key: key.map(<[u8]>::to_vec), value: value.map(<[u8]>::to_vec), headers: Vec::new() }
}

/// The rows of a batch, as the edge decodes them.
pub fn rows_of(records: &[Rec]) -> Rows {
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 1024);
    for (offset, record) in records.iter().enumerate() {
        let fields = Record {
            offset: offset as i64,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
        };
        let headers = record.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref()));
        encoder.push(fields, headers).unwrap();
    }
    let limits = Limits { max_decompressed_bytes: 1 << 30 };
    decode(encoder.finish().unwrap(), &limits).unwrap().rows
}

pub const INGEST_TIME_MS: i64 = 1_764_000_000_123;

pub fn identity() -> Identity {
    Identity { cluster_id: Uuid::from_u128(0x0123_4567_89ab_4cde_8f01_2345_6789_abcd), cell: Cell::new(0) }
}

pub fn topic(number: u128) -> TopicId {
    TopicId::new(Uuid::from_u128(0xa000_0000_0000_4000_8000_0000_0000_0000 + number))
}

pub fn partition(topic_number: u128, index: u32) -> PartitionKey {
    PartitionKey::new(topic(topic_number), PartitionIndex::new(index))
}

pub fn directory(epoch: u32, nonce: u64) -> Directory {
    format!("{epoch:010}-{nonce:016x}").parse().unwrap()
}

/// Records with everything that is easy to get wrong.
pub fn tricky_records() -> Vec<Rec> {
    let mut with_headers = rec(1_764_000_000_000, Some(b"k1"), Some(b"{\"a\":1}"));
    with_headers.headers = vec![
        ("trace".to_owned(), Some(b"first".to_vec())),
        ("trace".to_owned(), Some(b"second".to_vec())),
        ("empty".to_owned(), Some(Vec::new())),
        ("null".to_owned(), None),
        (String::new(), Some(vec![0xff, 0x00])),
    ];
    let mut null_header = rec(-1, None, Some(b""));
    null_header.headers = vec![("only".to_owned(), None)];
    vec![
        with_headers,
        rec(-1, None, None),
        rec(0, Some(b""), Some(b"")),
        null_header,
        rec(1_764_000_000_999, Some(&[0, 159, 146, 150]), Some("grüße".as_bytes())),
    ]
}

/// A commit in the making: which batches, in which order, with which outcomes.
pub struct Content {
    pub batches: Vec<(PartitionKey, Rows, Option<i64>)>,
}

impl Content {
    pub fn body_batches(&self) -> Vec<BodyBatch<'_>> {
        self.batches
            .iter()
            .map(|(partition, rows, time)| BodyBatch { partition: *partition, rows, log_append_time_ms: *time })
            .collect()
    }

    pub fn body(&self) -> Body {
        seal(&self.body_batches(), INGEST_TIME_MS).unwrap()
    }

    pub fn facts(&self) -> Vec<(PartitionKey, BatchFacts)> {
        let batches = self.body_batches();
        batches.iter().map(|batch| (batch.partition, facts(batch, INGEST_TIME_MS, None))).collect()
    }

    /// The runs of a flush with these batches, all appended from `offset` on in each partition.
    pub fn runs(&self, offset: u64) -> Vec<FlushRun> {
        let mut runs: Vec<FlushRun> = Vec::new();
        let (mut first_row, mut next) = (0, offset);
        for (partition, facts) in self.facts() {
            if runs.last().is_none_or(|run| run.partition != partition) {
                next = offset;
                runs.push(FlushRun { partition, first_row, batches: Vec::new() });
            }
            runs.last_mut().unwrap().batches.push((facts, Outcome::Appended(Offset::new(next))));
            first_row += u64::from(facts.rows);
            next += u64::from(facts.rows);
        }
        runs
    }
}

/// Three partitions of two topics; the last one is stamped by the log.
pub fn content() -> Content {
    let plain: Vec<Rec> =
        (0..10).map(|index| rec(1_764_000_000_000 + index, None, Some(format!("value {index}").as_bytes()))).collect();
    Content {
        batches: vec![
            (partition(1, 0), rows_of(&tricky_records()), None),
            (partition(1, 0), rows_of(&plain[..3]), None),
            (partition(1, 2), rows_of(&plain), None),
            (partition(1, 2), rows_of(&plain[..3]), None),
            (partition(2, 0), rows_of(&plain[5..]), Some(1_764_000_001_000)),
        ],
    }
}

pub fn flush_id() -> FlushId {
    "01KAS7Z03V0123456789ABCDEF".parse().unwrap()
}

pub fn segment_id() -> SegmentId {
    flush_id().into()
}

/// A commit with an inline flush that has one batch of every outcome.
pub fn commit_with_rows() -> Commit {
    let mut runs = content().runs(100);
    let stamp = |sequence| {
        Some(ProducerStamp { id: ProducerId::new(7), epoch: ProducerEpoch::new(1), sequence: Sequence::new(sequence) })
    };
    runs[0].batches[0].0.producer = stamp(40);
    runs[0].batches[0].0.expected_next_offset = Some(Offset::new(100));
    runs[0].batches[1].0.expected_next_offset = Some(Offset::new(106));
    runs[0].batches[1].1 = Outcome::Refused(BatchRefusal::OffsetMismatch { next: Offset::new(105) });
    runs[1].batches[0].0.producer = stamp(0);
    runs[1].batches[0].1 = Outcome::Duplicate(Offset::new(90));
    runs[1].batches[1].1 = Outcome::Appended(Offset::new(100));
    runs[2].batches[0].1 = Outcome::Refused(BatchRefusal::UnknownTopic);
    let config = BTreeMap::from([("retention.ms".to_owned(), "60000".to_owned())]);
    Commit {
        number: CommitNumber::new(12),
        place: Place { directory: directory(3, 0xfeed), index: 4 },
        writer: Nonce::new(0x5eed),
        time_ms: INGEST_TIME_MS + 1,
        entries: vec![
            Entry::CreateTopic { id: topic(1), name: TopicName::new("orders").unwrap(), partitions: 4, config },
            Entry::Flush(Flush {
                id: flush_id(),
                broker: Nonce::new(0x5eed),
                previous: Some(FlushId::MIN),
                body: FlushBody::Inline,
                ingest_time_ms: INGEST_TIME_MS,
                runs,
            }),
            Entry::MoveLogStart { partition: partition(1, 0), offset: Offset::new(101) },
            Entry::TrimRun(TrimRun {
                partition: partition(1, 0),
                offset: Offset::new(101),
                rows: 1,
                hash: RowsHash::EMPTY.push(100),
                bytes: 40,
                timestamps: Some(TimestampRange { first_ms: INGEST_TIME_MS - 5, last_ms: INGEST_TIME_MS }),
            }),
            Entry::Compact(Compaction {
                topic: topic(1),
                files: vec![CompactedFile {
                    id: table_file_id(),
                    runs: vec![compacted(0, 101, 4, 0), compacted(0, 110, 3, 4), compacted(2, 90, 2, 7)],
                }],
            }),
            Entry::CompactKeys(KeyCompaction {
                topic: topic(1),
                replaces: vec![cleaned_file_id()],
                files: vec![CleanedFile {
                    id: table_file_id(),
                    runs: vec![cleaned(0, 101, 12, 3, 0), cleaned(2, 90, 2, 2, 3)],
                }],
            }),
            Entry::PublishTable { topic: topic(1), version: 3 },
            Entry::StartGeneration(start_generation(4)),
            Entry::CommitOffsets(commit_offsets(4)),
            Entry::DeleteOffsets(DeleteOffsets {
                group: group(),
                generation: Generation::new(4),
                partitions: vec![partition(1, 0), partition(1, 2), partition(2, 0)],
            }),
            Entry::ExpireOffsets { group: group(), generation: Generation::new(4), before_ms: INGEST_TIME_MS },
            Entry::DeleteGroup { group: group(), generation: Generation::new(4) },
            Entry::Join(member()),
            Entry::Leave { member: Nonce::new(0xdead) },
            Entry::AllotProducerIds { first: 3000, count: 1000 },
            Entry::ExpireProducers { before_ms: INGEST_TIME_MS - 86_400_000, forgotten: 2 },
        ],
    }
}

/// A broker of the cluster.
pub fn member() -> Member {
    Member {
        nonce: Nonce::new(0xbeef),
        kafka: "broker-1.example:9092".to_owned(),
        http: "broker-1.example:8080".to_owned(),
        zone: "eu-central-1a".to_owned(),
        version: "0.1.0".to_owned(),
    }
}

pub fn table_file_id() -> TableFileId {
    "01KAS7Z04V0123456789ABCDEF".parse().unwrap()
}

fn cleaned(index: u32, base: u64, span: u64, rows: u64, first_row: u64) -> CleanedRun {
    CleanedRun {
        partition: partition(1, index),
        base_offset: Offset::new(base),
        span,
        rows,
        first_row,
        bytes: 100,
        timestamps: (index > 0).then_some(TimestampRange { first_ms: 0, last_ms: INGEST_TIME_MS }),
        hash: RowsHash::EMPTY.push(base),
        clean: index == 0,
    }
}

fn compacted(index: u32, base: u64, rows: u64, first_row: u64) -> MergedRun {
    let hash = RowsHash::EMPTY.push(base);
    MergedRun { partition: partition(1, index), base_offset: Offset::new(base), rows, first_row, hash }
}

pub fn cleaned_file_id() -> TableFileId {
    "01KAS7Z04V0123456789ABCDEG".parse().unwrap()
}

/// What is left of the rows of [`table_file`]: the first and the last, with gaps before, between and behind them.
pub fn cleaned_file() -> Bytes {
    let settings = TableSettings::default();
    let table = table_file(settings);
    let Ok(ParsedTable::Whole(footer)) = TableFooter::parse(&table, table.len() as u64) else { unreachable!() };
    let rows = footer.read(0..footer.rows, &[(0, table.clone())]).unwrap().rows;
    let name = TableFileName { id: cleaned_file_id(), topic_id: topic(1), topic: TopicName::new("orders").unwrap() };
    let mut writer = TableWriter::new(&identity(), name, settings).unwrap();
    writer.begin_run(partition(1, 0).partition, Offset::new(100)).unwrap();
    writer.place(Offset::new(103), &rows, 0).unwrap();
    writer.place(Offset::new(1 << 40), &rows, rows.len() - 1).unwrap();
    let cleaned = [(Offset::new(107), INGEST_TIME_MS), (Offset::new(1 << 41), INGEST_TIME_MS + 1)];
    writer.end_run(Offset::new(1 << 41), &cleaned).unwrap();
    writer.finish().unwrap().into()
}

/// A table file with the rows of partition 0 of topic 1, by its name.
pub fn table_files() -> Vec<(&'static str, Bytes)> {
    [
        ("table.parquet", ValueFormat::Binary),
        ("table-string.parquet", ValueFormat::String),
        ("table-json.parquet", ValueFormat::Json),
    ]
    .map(|(name, format)| (name, table_file(TableSettings { value_format: format, ..TableSettings::default() })))
    .into()
}

fn table_file(settings: TableSettings) -> Bytes {
    let name = TableFileName { id: table_file_id(), topic_id: topic(1), topic: TopicName::new("orders").unwrap() };
    let mut writer = TableWriter::new(&identity(), name, settings).unwrap();
    let body = content().body();
    let segment: Bytes = segment_object(&identity(), segment_id(), Nonce::new(0xb0b), body).into();
    let Parsed::Whole(footer) = Footer::parse(&segment, segment.len() as u64).unwrap() else { unreachable!() };
    let runs = content().runs(100);
    let rows: usize = runs[0].batches.iter().map(|(facts, _)| facts.rows as usize).sum();
    let rows = footer.read(0..rows as u64, &[(0, segment.clone())]).unwrap();
    writer.push(partition(1, 0).partition, Offset::new(100), &rows, 0..rows.len()).unwrap();
    writer.finish().unwrap().into()
}

pub fn group() -> GroupId {
    GroupId::new("readers/\u{1f980}").unwrap()
}

pub fn start_generation(generation: u32) -> StartGeneration {
    StartGeneration {
        group: group(),
        generation: Generation::new(generation),
        kind: GroupKind::Classic,
        protocol_type: "consumer".into(),
        members: 2,
        time_ms: INGEST_TIME_MS,
    }
}

pub fn commit_offsets(generation: u32) -> CommitOffsets {
    let at = |offset, leader_epoch, metadata: &str| CommittedOffset {
        offset: Offset::new(offset),
        leader_epoch,
        time_ms: INGEST_TIME_MS + 2,
        metadata: metadata.into(),
    };
    let offsets = vec![
        (partition(1, 0), at(3, Some(0), "")),
        (partition(1, 2), at(i64::MAX as u64, None, "a \"note\"\n")),
        (partition(2, 0), at(0, None, "grüße")),
    ];
    CommitOffsets { group: group(), generation: Generation::new(generation), offsets }
}

pub fn takeover() -> Commit {
    Commit {
        number: CommitNumber::ZERO,
        place: Place { directory: directory(0, 1), index: 0 },
        writer: Nonce::new(0x5eed),
        time_ms: INGEST_TIME_MS,
        entries: vec![Entry::Takeover(Takeover {
            next: directory(1, 0xfeed),
            address: "http://127.0.0.1:7070".to_owned(),
        })],
    }
}

/// A state that came about by commits: topics, runs inline, in segments and in a table file, producers, a group.
pub fn state() -> State {
    let writer = Nonce::new(0x5eed);
    let first = State::new(directory(0, 1));
    let next = Takeover { next: directory(1, 0xfeed), address: member().http };
    let (_, mut state) = Draft::takeover(&first, next, writer, 5).unwrap();
    let mut mint = Mint::new();
    for round in 0..6_u64 {
        let mut draft = Draft::after(&state);
        if round == 0 {
            for number in [1, 2] {
                let name = TopicName::new(&format!("topic-{number}")).unwrap();
                let change = lakebed_model::Change::CreateTopic {
                    id: topic(number),
                    name,
                    partitions: 3,
                    config: BTreeMap::new(),
                };
                draft.change(change).unwrap();
            }
            draft.change(lakebed_model::Change::AllotProducerIds { first: 0, count: 1000 }).unwrap();
            draft.change(lakebed_model::Change::Join(member())).unwrap();
        }
        let mut runs: Vec<ProposedRun> = Vec::new();
        let mut first_row = 0;
        for (partition, mut facts) in content().facts() {
            facts.producer = (partition.partition.get() == 2).then_some(ProducerStamp {
                id: ProducerId::new(7),
                epoch: ProducerEpoch::new(1),
                sequence: Sequence::new(round as i32 * 10),
            });
            if runs.last().is_none_or(|run| run.partition != partition) {
                runs.push(ProposedRun { partition, first_row, batches: Vec::new() });
            }
            runs.last_mut().unwrap().batches.push(facts);
            first_row += u64::from(facts.rows);
        }
        let proposal = FlushProposal {
            id: FlushId::new(mint.next(1_764_000_000_000 + round, round, SegmentId::MIN.ulid())),
            broker: writer,
            previous: None,
            body: if round % 2 == 0 { FlushBody::Inline } else { FlushBody::Segment },
            ingest_time_ms: INGEST_TIME_MS,
            runs,
        };
        draft.flush(&proposal).unwrap();
        if round == 5 {
            draft.change(lakebed_model::Change::StartGeneration(start_generation(1))).unwrap();
            draft.change(lakebed_model::Change::CommitOffsets(commit_offsets(1))).unwrap();
            let (_, base, run) = draft.state().runs_of_topic(topic(1)).next().unwrap();
            let compacted = MergedRun {
                partition: partition(1, 0),
                base_offset: base,
                rows: run.rows,
                first_row: 0,
                hash: run.hash,
            };
            let files = vec![CompactedFile { id: table_file_id(), runs: vec![compacted] }];
            draft.change(lakebed_model::Change::Compact(Compaction { topic: topic(1), files })).unwrap();
            draft.change(lakebed_model::Change::PublishTable { topic: topic(1), version: 1 }).unwrap();
            clean(&mut draft, base, run);
        }
        state = draft.seal(writer, 6).1;
    }
    state
}

/// Compacts the keys of the run of the table file: a row is left.
fn clean(draft: &mut Draft, base: Offset, run: lakebed_model::Run) {
    let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    draft.change(lakebed_model::Change::AlterTopic { id: topic(1), config }).unwrap();
    let left = CleanedRun { bytes: run.bytes, ..cleaned(0, base.get(), run.rows, 1, 0) };
    let files = vec![CleanedFile { id: cleaned_file_id(), runs: vec![left] }];
    let replaces = vec![table_file_id()];
    draft.change(lakebed_model::Change::CompactKeys(KeyCompaction { topic: topic(1), replaces, files })).unwrap();
}

pub fn snapshot() -> Snapshot {
    state().snapshot()
}

pub fn root() -> Root {
    Root { cluster_id: identity().cluster_id, cells: vec![directory(0, 1), directory(0, 2)] }
}

pub fn verdict() -> Verdict {
    let what = "2 of 16 rivals created 'check/000000000000abcd/race/000003'".to_owned();
    let broken = vec![Broken { promise: "create-if-absent".to_owned(), what }];
    Verdict { broken, time_ms: 1_764_000_000_000, version: "0.1.0".to_owned() }
}

/// Every sample with the name of its file.
pub fn files() -> Vec<(String, Bytes)> {
    let Checkpoint { parts, manifest } = encode(&identity(), &snapshot(), None);
    let mut files = vec![
        ("lakebed.json".to_owned(), Bytes::from(root().encode())),
        ("lakebed-check.json".to_owned(), Bytes::from(verdict().encode())),
        ("commit.parquet".to_owned(), commit_object(&identity(), &commit_with_rows(), content().body()).into()),
        ("takeover.parquet".to_owned(), commit_object(&identity(), &takeover(), Body::empty()).into()),
        (
            "segment.parquet".to_owned(),
            segment_object(&identity(), segment_id(), Nonce::new(0xb0b), content().body()).into(),
        ),
        ("manifest.json".to_owned(), manifest),
    ];
    files.extend(parts);
    files
}

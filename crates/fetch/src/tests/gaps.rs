//! Runs with gaps, as compaction of keys leaves them: consumers go over a gap, and never wait in one.

use lakebed_model::{
    CleanedFile, CleanedRun, CompactedFile, Compaction, KeyCompaction, MergedRun, ObjectId, RowsHash, TableFileId,
    TimestampRange,
};
use lakebed_segment::row_set::RowSet;
use lakebed_segment::table::{ParsedTable, TableFileName, TableFooter, TableSettings, TableWriter};

use super::*;

fn file(world: &World) -> (TableFileId, TableWriter) {
    let id = TableFileId::new(world.log.mint().ulid());
    let topic = TopicName::new("orders").unwrap();
    let name = TableFileName { id, topic_id: key(0).topic, topic };
    (id, TableWriter::new(&world.log.identity(), name, TableSettings::default()).unwrap())
}

async fn write(world: &World, id: TableFileId, writer: TableWriter) -> Bytes {
    let bytes = Bytes::from(writer.finish().unwrap());
    let at = Key::new(layout::table_file_key("orders", id)).unwrap();
    world.store.create(&at, bytes.clone()).await.unwrap();
    bytes
}

/// Puts all of partition 0 into a table file; its rows.
async fn compact(world: &World) -> RowSet {
    let (id, mut writer) = file(world);
    let state = world.log.state();
    let (mut runs, mut first_row) = (Vec::new(), 0);
    for (base, run) in state.runs_of(key(0)) {
        let ObjectId::Commit(number) = run.object else { panic!("{run:?}") };
        let at = layout::commit_key(world.log.identity().cell, state.place_of(number).unwrap());
        let bytes = world.store.get(&Key::new(at).unwrap()).await.unwrap();
        let lakebed_segment::footer::Parsed::Whole(footer) =
            lakebed_segment::footer::Footer::parse(&bytes, bytes.len() as u64).unwrap()
        else {
            unreachable!()
        };
        let rows = footer.read(run.first_row..run.first_row + run.rows, &[(0, bytes)]).unwrap();
        writer.push(key(0).partition, base, &rows, 0..rows.len()).unwrap();
        runs.push(MergedRun { partition: key(0), base_offset: base, rows: run.rows, first_row, hash: run.hash });
        first_row += run.rows;
    }
    let bytes = write(world, id, writer).await;
    let files = vec![CompactedFile { id, runs }];
    world.log.change(Change::Compact(Compaction { topic: key(0).topic, files })).await.unwrap();
    let ParsedTable::Whole(footer) = TableFooter::parse(&bytes, bytes.len() as u64).unwrap() else { unreachable!() };
    footer.read(0..footer.rows, &[(0, bytes)]).unwrap().rows
}

/// Leaves some offsets of partition 0, in runs that cover those between the ends.
async fn clean(world: &World, rows: &RowSet, ends: &[u64], stays: impl Fn(u64) -> bool) {
    let (id, mut writer) = file(world);
    let state = world.log.state();
    let (mut runs, mut base, mut first_row) = (Vec::new(), 0, 0);
    for end in ends {
        let left: Vec<Offset> = (base..*end).filter(|offset| stays(*offset)).map(Offset::new).collect();
        writer.begin_run(key(0).partition, Offset::new(base)).unwrap();
        let mut hash = RowsHash::EMPTY;
        for offset in &left {
            writer.place(*offset, rows, offset.get() as usize).unwrap();
            let hashed = lakebed_segment::row_hash::hash_row(rows, offset.get() as usize);
            hash = hash.push(lakebed_segment::row_hash::place_hash(hashed, *offset));
        }
        writer.end_run(Offset::new(*end), &[]).unwrap();
        let count = left.len() as u64;
        let times = left.iter().filter(|offset| offset.get() % 13 != 7).map(|offset| TIME_MS + offset.get() as i64);
        let timestamps = times.clone().min().zip(times.max());
        let timestamps = timestamps.map(|(first_ms, last_ms)| TimestampRange { first_ms, last_ms });
        runs.push(CleanedRun {
            partition: key(0),
            base_offset: Offset::new(base),
            span: end - base,
            rows: count,
            first_row,
            bytes: count,
            timestamps,
            hash,
            clean: true,
        });
        first_row += count;
        base = *end;
    }
    write(world, id, writer).await;
    let replaces = state.table_files(key(0).topic).into_iter().map(|(id, ..)| id).collect();
    let files = vec![CleanedFile { id, runs }];
    let compaction = KeyCompaction { topic: key(0).topic, replaces, files };
    world.log.change(Change::CompactKeys(compaction)).await.unwrap();
}

async fn cleaned(options: Options, ends: &[u64], stays: impl Fn(u64) -> bool) -> World {
    let mut world = World::new(options).await;
    let config = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
    world.log.change(Change::AlterTopic { id: key(0).topic, config }).await.unwrap();
    for first in (0..1000).step_by(100) {
        world.commit(&[(0, encode(Codec::None, first..first + 100), None)]).await;
    }
    let rows = compact(&world).await;
    clean(&world, &rows, ends, stays).await;
    world.fetch = Fetch::new(world.log.clone(), world.store.clone(), world.fetch.shared.options.clone());
    world
}

async fn fetch_from(world: &World, offset: u64, bytes_max: usize) -> Fetched {
    let partitions = vec![FetchPartition { key: key(0), offset: Offset::new(offset), bytes_max }];
    let request = FetchRequest { partitions, bytes_max, bytes_min: 0, wait_max: Duration::ZERO };
    world.fetch.fetch(request).await.pop().unwrap().unwrap()
}

/// The offsets that a consumer gets from one on, asking for so many bytes at a time.
async fn read_from(world: &World, mut offset: u64, bytes_max: usize) -> Vec<u64> {
    let (mut found, end) = (Vec::new(), 1000);
    while offset < end {
        let fetched = fetch_from(world, offset, bytes_max).await;
        assert!(fetched.next_offset.get() > offset, "nothing at {offset}");
        let read: Vec<FetchedRecord> =
            records(&fetched, Offset::new(offset)).collect::<Result<_, FetchError>>().unwrap();
        for record in &read {
            let number = record.offset.get();
            let expected = if number % 13 == 7 { -1 } else { TIME_MS + number as i64 };
            assert_eq!(record.timestamp_ms, expected, "offset {number}");
        }
        found.extend(read.iter().map(|record| record.offset.get()));
        for batch in &fetched.batches {
            let decoded = crate::decode(batch).unwrap();
            assert_eq!(decoded.rows.len() as u64, batch.records());
            assert_eq!(decoded.next_offset(), batch.next_offset());
        }
        offset = fetched.next_offset.get();
    }
    assert_eq!(offset, end, "the high watermark is reached");
    found
}

#[tokio::test(start_paused = true)]
async fn from_every_offset_a_consumer_gets_what_is_left_and_comes_to_the_high_watermark() {
    let stays = |offset: u64| offset % 7 == 3 && !(200..450).contains(&offset) && offset < 950;
    let world = cleaned(Options { tail_bytes: 0, ..Options::default() }, &[500, 700, 1000], stays).await;
    let left: Vec<u64> = (0..1000).filter(|offset| stays(*offset)).collect();
    for start in 0..1000 {
        let expected: Vec<u64> = left.iter().copied().filter(|offset| *offset >= start).collect();
        assert_eq!(read_from(&world, start, 1 << 20).await, expected, "from {start}");
    }
    assert_eq!(read_from(&world, 0, 1).await, left, "a batch at a time");
    assert!(fetch_from(&world, 1000, 1 << 20).await.batches.is_empty());
}

#[tokio::test(start_paused = true)]
async fn times_are_found_over_gaps() {
    let stays = |offset: u64| offset % 10 == 4;
    let world = cleaned(Options::default(), &[1000], stays).await;
    let at = async |ms: i64| world.fetch.offset_for_timestamp(key(0), TIME_MS + ms).await.unwrap();
    assert_eq!(at(35).await, Some((Offset::new(44), TIME_MS + 44)));
    // 124 is 7 modulo 13: it has no time.
    assert_eq!(at(115).await, Some((Offset::new(134), TIME_MS + 134)));
    assert_eq!(at(995).await, None);
    assert_eq!(world.fetch.max_timestamp(key(0)).await.unwrap(), Some((Offset::new(994), TIME_MS + 994)));
    let first = world.fetch.first_from(key(0), Offset::new(5)).await.unwrap();
    assert_eq!(first, Some((Offset::new(14), TIME_MS + 14)));
    let end = Change::MoveLogStart { partition: key(0), offset: Offset::new(996) };
    world.log.change(end).await.unwrap();
    assert_eq!(world.fetch.first_from(key(0), Offset::new(996)).await.unwrap(), None, "nothing is left there");
}

//! Offsets by timestamp.

use super::*;

fn stamped(times: &[i64]) -> Bytes {
    let timestamp_type = TimestampType::Create;
    let fields = Fields { codec: Codec::None, timestamp_type, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 1024);
    for (index, time) in times.iter().enumerate() {
        push(&mut encoder, index, index as u64, *time);
    }
    encoder.finish().unwrap()
}

#[tokio::test]
async fn the_first_offset_at_or_after_a_timestamp_is_found_in_offset_order() {
    for options in [Options::default(), no_tail()] {
        let mut world = World::new(options).await;
        let empty = world.fetch.offset_for_timestamp(key(0), 0).await.unwrap();
        assert_eq!((empty, world.fetch.max_timestamp(key(0)).await.unwrap()), (None, None));
        let times = [&[50, 10, 70][..], &[-1, -1], &[20, 90, 30, 90], &[80]];
        for times in times {
            world.produce(&[(0, stamped(times), None)]).await;
        }
        let all = times.concat();
        for wanted in 0..100 {
            let expected = all.iter().position(|time| *time >= wanted).map(|at| (Offset::new(at as u64), all[at]));
            assert_eq!(world.fetch.offset_for_timestamp(key(0), wanted).await.unwrap(), expected, "{wanted}");
        }
        assert_eq!(world.fetch.max_timestamp(key(0)).await.unwrap(), Some((Offset::new(6), 90)));
    }
}

#[tokio::test]
async fn records_below_the_log_start_are_not_found() {
    let mut world = World::new(no_tail()).await;
    world.produce(&[(0, stamped(&[90, 20, 30]), None)]).await;
    world.produce(&[(0, stamped(&[40, 60]), None)]).await;
    world.log.change(Change::MoveLogStart { partition: key(0), offset: Offset::new(1) }).await.unwrap();
    assert_eq!(world.fetch.offset_for_timestamp(key(0), 25).await.unwrap(), Some((Offset::new(2), 30)));
    assert_eq!(world.fetch.offset_for_timestamp(key(0), 50).await.unwrap(), Some((Offset::new(4), 60)));
    assert_eq!(world.fetch.max_timestamp(key(0)).await.unwrap(), Some((Offset::new(4), 60)));
    let missing = world.fetch.max_timestamp(key(9)).await;
    assert_eq!(missing, Err(FetchError::UnknownTopicOrPartition));
}

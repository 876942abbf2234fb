//! What is encoded is decoded: by us, by crate `kafka-protocol`, and by the codecs' own standard decoders.

use std::io::{Read, Write};

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    self as theirs, Compression, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
};
use lakebed_segment::batch::{
    Codec, Encoder, Fields, Header, Producer, TimestampType, address, address_copy, decode, decode_stored, split,
    with_log_append_time,
};
use proptest::prelude::*;

use crate::records::{LIMITS, Owned, codec, config, encode, fields, owned, push, records, with_records};

/// Decompresses the way of other implementations: those that the codec's own crate offers.
fn decompress_otherwise(codec: Codec, compressed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match codec {
        Codec::None => plain.extend_from_slice(compressed),
        Codec::Gzip => drop(flate2::read::GzDecoder::new(compressed).read_to_end(&mut plain).unwrap()),
        Codec::Snappy => {
            assert_eq!(&compressed[..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
            let mut rest = &compressed[16..];
            while let Some((len, after)) = rest.split_first_chunk() {
                let (chunk, after) = after.split_at(u32::from_be_bytes(*len) as usize);
                plain.extend(snap::raw::Decoder::new().decompress_vec(chunk).unwrap());
                rest = after;
            }
        }
        Codec::Lz4 => drop(lz4_flex::frame::FrameDecoder::new(compressed).read_to_end(&mut plain).unwrap()),
        Codec::Zstd => plain = zstd::stream::decode_all(compressed).unwrap(),
    }
    plain
}

/// Compresses in every other way that a producer may choose.
fn compressed_otherwise(plain: &[u8]) -> Vec<(Codec, Vec<u8>)> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let mut all = vec![(Codec::Snappy, snap::raw::Encoder::new().compress_vec(plain).unwrap())];
    let (front, back) = plain.split_at(plain.len() / 2);
    let mut members = Vec::new();
    for part in [front, back] {
        let mut encoder = flate2::write::GzEncoder::new(&mut members, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    all.push((Codec::Gzip, members));
    for (mode, size) in [
        (BlockMode::Linked, BlockSize::Max64KB),
        (BlockMode::Independent, BlockSize::Max4MB),
        (BlockMode::Linked, BlockSize::Max256KB),
    ] {
        let info = FrameInfo::new()
            .block_mode(mode)
            .block_size(size)
            .block_checksums(size == BlockSize::Max4MB)
            .content_checksum(mode == BlockMode::Linked)
            .content_size((size == BlockSize::Max256KB).then_some(plain.len() as u64));
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(plain).unwrap();
        let mut frame = encoder.finish().unwrap();
        all.push((Codec::Lz4, frame.clone()));
        // The header's checksum: old clients compute it over other bytes.
        let checksum_at = if size == BlockSize::Max256KB { 14 } else { 6 };
        frame[checksum_at] ^= 0xff;
        all.push((Codec::Lz4, frame));
    }
    for level in [-5, 3] {
        all.push((Codec::Zstd, zstd::bulk::compress(plain, level).unwrap()));
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(front).unwrap();
        encoder.flush().unwrap();
        encoder.write_all(back).unwrap();
        all.push((Codec::Zstd, encoder.finish().unwrap()));
    }
    all
}

fn to_theirs(record: &Owned, index: i32) -> theirs::Record {
    theirs::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: theirs::TimestampType::Creation,
        offset: record.offset,
        sequence: index,
        timestamp: record.timestamp_ms,
        key: record.key.clone().map(Bytes::from),
        value: record.value.clone().map(Bytes::from),
        headers: record
            .headers
            .iter()
            .map(|(key, value)| (StrBytes::from_string(key.clone()), value.clone().map(Bytes::from)))
            .collect::<IndexMap<_, _>>(),
    }
}

fn from_theirs(record: &theirs::Record) -> Owned {
    Owned {
        offset: record.offset,
        timestamp_ms: record.timestamp,
        key: record.key.as_deref().map(<[u8]>::to_vec),
        value: record.value.as_deref().map(<[u8]>::to_vec),
        headers: record
            .headers
            .iter()
            .map(|(key, value)| (key.to_string(), value.as_deref().map(<[u8]>::to_vec)))
            .collect(),
    }
}

fn decode_theirs(batch: &Bytes) -> Vec<Owned> {
    let set = RecordBatchDecoder::decode(&mut batch.clone()).unwrap();
    set.records.iter().map(from_theirs).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_we_encode_we_decode(records in records(true, false), codec in codec()) {
        let batch = encode(fields(codec), &records);
        let decoded = decode(batch.clone(), &LIMITS).unwrap();
        prop_assert_eq!(decoded.header.base_offset, records[0].offset);
        prop_assert_eq!(decoded.rows.min_timestamp_ms, records.iter().map(|record| record.timestamp_ms).min().unwrap());
        prop_assert_eq!(decoded.rows.max_timestamp_ms, decoded.header.max_timestamp);
        prop_assert_eq!(owned(&decoded.rows, records[0].offset), records);
    }

    #[test]
    fn what_the_encoder_finds_in_its_own_batch_is_what_decoding_finds(records in records(true, false)) {
        let mut encoder = Encoder::new(fields(Codec::None), 0);
        records.iter().for_each(|record| push(&mut encoder, record));
        let (batch, found) = encoder.finish_with_rows().unwrap().unwrap().into_parts();
        prop_assert_eq!(&batch, &encode(fields(Codec::None), &records));
        prop_assert_eq!(found, decode(batch, &LIMITS).unwrap());
    }

    #[test]
    fn kafka_protocol_reads_what_we_encode_with_gaps_and_any_codec(
        records in records(false, true),
        codec in codec(),
        log_append: bool,
    ) {
        let mut records = records;
        let timestamp_type = if log_append { TimestampType::LogAppend } else { TimestampType::Create };
        if log_append {
            let time = records[0].timestamp_ms;
            records.iter_mut().for_each(|record| record.timestamp_ms = time);
        }
        let batch = encode(Fields { timestamp_type, ..fields(codec) }, &records);
        let plain = with_records(&batch, Codec::None, &decompress_otherwise(codec, &batch[61..]));
        prop_assert_eq!(decode_theirs(&plain), records);
    }

    #[test]
    fn we_read_what_kafka_protocol_encodes(records in records(false, false)) {
        let sent: Vec<_> = records.iter().zip(0..).map(|(record, index)| to_theirs(record, index)).collect();
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut batch, &sent, &options).unwrap();
        // It writes sequences without a producer, which we refuse: none.
        batch[53..57].copy_from_slice(&(-1i32).to_be_bytes());
        crate::records::set_crc(&mut batch);
        let decoded = decode(batch.freeze(), &LIMITS).unwrap();
        prop_assert_eq!(owned(&decoded.rows, records[0].offset), records);
    }

    #[test]
    fn every_way_to_compress_gives_the_same_rows(records in records(true, false)) {
        let plain = encode(fields(Codec::None), &records);
        for (codec, compressed) in compressed_otherwise(&plain[61..]) {
            let decoded = decode(with_records(&plain, codec, &compressed), &LIMITS).unwrap();
            prop_assert_eq!(&owned(&decoded.rows, records[0].offset), &records);
        }
    }

    #[test]
    fn an_addressed_batch_keeps_its_records_and_its_crc(records in records(true, false), base in 0i64..1 << 60) {
        let batch = encode(fields(Codec::None), &records);
        let (prefix, rest) = address(&batch, base);
        prop_assert_eq!(rest.as_ptr(), batch[16..].as_ptr());
        let copy = address_copy(&batch, base);
        prop_assert_eq!([&prefix[..], &rest[..]].concat(), copy.to_vec());
        let decoded = decode(copy, &LIMITS).unwrap();
        prop_assert_eq!((decoded.header.base_offset, decoded.header.partition_leader_epoch), (base, 0));
        prop_assert_eq!(decoded.rows, decode(batch, &LIMITS).unwrap().rows);
    }

    #[test]
    fn a_stamped_batch_has_one_time_for_every_record(records in records(false, false), time in 0i64..1 << 50) {
        let stamped = with_log_append_time(&encode(fields(Codec::None), &records), time);
        let header = Header::peek(&stamped).unwrap();
        prop_assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppend);
        prop_assert_eq!(header.max_timestamp, time);
        // Theirs checks the CRC, and ignores the type.
        prop_assert_eq!(decode_theirs(&stamped), records.clone());
        prop_assert!(decode(stamped.clone(), &LIMITS).is_err(), "a producer may not send it");
        let stored = decode_stored(stamped, &LIMITS).unwrap();
        let expected: Vec<Owned> = records.into_iter().map(|record| Owned { timestamp_ms: time, ..record }).collect();
        prop_assert_eq!(owned(&stored.rows, expected[0].offset), expected);
        prop_assert_eq!(stored.timestamp_type, TimestampType::LogAppend);
    }
}

#[test]
fn uncompressed_rows_are_the_requests_own_bytes() {
    let record = Owned { offset: 0, timestamp_ms: 5, key: None, value: Some(vec![7; 100]), headers: vec![] };
    let batch = encode(fields(Codec::None), &[record]);
    let rows = decode(batch.clone(), &LIMITS).unwrap().rows;
    assert!(batch.as_ptr_range().contains(&rows.value(0).unwrap().as_ptr()));
    assert!(rows.headers_end.is_empty());
}

#[test]
fn a_records_field_is_split_into_its_batches_without_a_copy() {
    let record = Owned { offset: 0, timestamp_ms: 5, key: None, value: None, headers: vec![] };
    let producer = Some(Producer { id: 7, epoch: 1, base_sequence: 40 });
    let one = encode(Fields { producer, is_transactional: true, ..fields(Codec::Zstd) }, std::slice::from_ref(&record));
    let two = encode(fields(Codec::None), &[record]);
    let both = Bytes::from([&one[..], &two[..]].concat());
    assert_eq!(split(both.clone()).unwrap(), vec![one.clone(), two]);
    assert_eq!(split(both.clone()).unwrap()[0].as_ptr(), both.as_ptr());
    let header = decode(one, &LIMITS).unwrap().header;
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 1, 40));
    assert!(header.attributes.is_transactional() && !header.attributes.is_control());
    for cut in 0..both.len() {
        let whole = Header::peek(&both).unwrap().total_bytes();
        assert!(cut == whole || split(both.slice(..cut)).is_err(), "cut at {cut}");
    }
}

#[test]
fn the_largest_window_of_zstd_is_read() {
    let record = Owned { offset: 0, timestamp_ms: 5, key: None, value: Some(vec![7; 100_000]), headers: vec![] };
    let plain = encode(fields(Codec::None), std::slice::from_ref(&record));
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 22).unwrap();
    encoder.write_all(&plain[61..]).unwrap();
    let compressed = encoder.finish().unwrap();
    // Its frame claims a window of 128 MiB, and no content size.
    assert_eq!(compressed[4..6], [0, (27 - 10) << 3]);
    let decoded = decode(with_records(&plain, Codec::Zstd, &compressed), &LIMITS).unwrap();
    assert_eq!(owned(&decoded.rows, 0), [record]);
}

//! Objects: what is claimed of any bytes that may stand in a bucket where a commit or a segment should be.
//!
//! 1. Neither the footer's parser nor the reader of rows panics, nor allocates beyond the bound of [`crate::allocation`].
//! 2. Rows that are read, sealed and read again are the same, with the same hash, and seal to the same bytes; so is a commit.
//! 3. Rows make record batches that decode to the same rows.
//!
//! Few mutations survive a checksum: the bytes are tried as they are, and again with checksums that fit them.

use bytes::Bytes;
use lakebed_model::{Nonce, Offset, PartitionIndex, PartitionKey, TopicId};
use lakebed_segment::FormatError;
use lakebed_segment::batch::{Limits, decode_stored};
use lakebed_segment::body::{Body, seal_pieces};
use lakebed_segment::commit::{commit_object, segment_object};
use lakebed_segment::footer::{Footer, Kind, Parsed};
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::{Piece, RowSource};

use crate::allocation::within_bound;

const TAIL_BYTES: usize = 8;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Asserts the claims of `input`. Returns whether any of it was accepted.
pub fn check(input: &[u8]) -> bool {
    let accepted = check_one(&Bytes::copy_from_slice(input));
    fitting(input).is_some_and(|fitting| check_one(&fitting)) || accepted
}

fn check_one(object: &Bytes) -> bool {
    let Ok(Some((footer, rows))) = within_bound(object.len(), || read(object)) else {
        return false;
    };
    assert_stable(&footer, &rows);
    assert_batches(&rows);
    true
}

/// The footer and all rows of an object that is given whole; `None` if it says that it is longer.
fn read(object: &Bytes) -> Result<Option<(Footer, RowSet)>, FormatError> {
    match Footer::parse(object, object.len() as u64)? {
        Parsed::NeedsSuffix(bytes) => {
            assert!(bytes <= object.len() as u64, "{bytes} bytes are needed of {}", object.len());
            Ok(None)
        }
        Parsed::Whole(footer) => {
            let ranges = footer.ranges(0..footer.rows)?;
            assert!(ranges.iter().all(|range| range.end <= object.len() as u64), "{ranges:?} of {}", object.len());
            let rows = footer.read(0..footer.rows, &[(0, object.clone())])?;
            Ok(Some((footer, rows)))
        }
    }
}

fn assert_stable(footer: &Footer, rows: &RowSet) {
    assert_eq!(rows.len() as u64, footer.rows);
    let partition = PartitionKey::new(TopicId::new(uuid::Uuid::from_u128(1)), PartitionIndex::new(0));
    let seal = |rows: &RowSet| {
        if rows.is_empty() {
            return Body::empty();
        }
        seal_pieces(&[Piece { partition, source: rows, rows: 0..rows.len() }]).expect("what was read can be sealed")
    };
    let finish = |footer: &Footer, body: Body| -> Bytes {
        match &footer.kind {
            Kind::Commit(commit) => commit_object(&footer.identity, commit, body).into(),
            Kind::Segment { id, broker } => {
                segment_object(&footer.identity, *id, Nonce::new(broker.get()), body).into()
            }
        }
    };
    let again = finish(footer, seal(rows));
    let second = read(&again).expect("what we write we read");
    let (second_footer, second_rows) = second.expect("it was given whole");
    assert_eq!((&second_footer.identity, &second_footer.kind), (&footer.identity, &footer.kind));
    assert_eq!(records(&second_rows), records(rows));
    assert_eq!(second_rows.hash(), rows.hash());
    assert_eq!(finish(&second_footer, seal(&second_rows)), again, "the same bytes");
}

fn assert_batches(rows: &RowSet) {
    let batches = rows.to_batches(Offset::ZERO, BATCH_BYTES_MAX).expect("rows of a segment fit record batches");
    let mut first = 0;
    for batch in batches {
        assert_eq!(batch.first, Offset::new(first as u64));
        let limits = Limits { max_decompressed_bytes: 0 };
        let decoded = decode_stored(batch.bytes, &limits).expect("what is made for consumers is right").rows;
        for row in 0..decoded.len() {
            assert_eq!(decoded.timestamps_ms[row], rows.timestamp_ms(first + row));
            assert_eq!((decoded.key(row), decoded.value(row)), (rows.key(first + row), rows.value(first + row)));
            assert!(decoded.headers_of(row).eq(rows.headers(first + row)));
        }
        first += decoded.len();
    }
    assert_eq!(first, rows.len());
}

type Owned = (i64, u8, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn records(rows: &RowSet) -> Vec<Owned> {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let record = |row: usize| {
        let headers = rows.headers(row).map(|(key, value)| (key.to_vec(), owned(value))).collect();
        let stamp = rows.timestamp_type(row) as u8;
        (rows.timestamp_ms(row), stamp, rows.ingest_time_ms(row), owned(rows.key(row)), owned(rows.value(row)), headers)
    };
    (0..rows.len()).map(record).collect()
}

/// The object with the checksums of the bytes that it has: of each page, and of the footer. `None` where it is too damaged to say
/// where they stand.
fn fitting(object: &[u8]) -> Option<Bytes> {
    let length_start = object.len().checked_sub(TAIL_BYTES)?;
    let length = u32::from_le_bytes(object[length_start..length_start + 4].try_into().ok()?) as usize;
    let metadata_start = length_start.checked_sub(length)?;
    let (front, metadata) = (&object[..metadata_start], &object[metadata_start..length_start]);
    let metadata = with_page_checksums(front, metadata).unwrap_or_else(|| metadata.to_vec());
    let seal = metadata_start + value_of(&metadata, b"lakebed.footer")?.start;
    let length = u32::try_from(metadata.len()).ok()?;
    let mut fitting = [front, &metadata, &length.to_le_bytes(), &object[length_start + 4..]].concat();
    let pages_end = usize::from_str_radix(std::str::from_utf8(fitting.get(seal..seal + 16)?).ok()?, 16).ok()?;
    fitting.get_mut(seal + 17..seal + 25)?.fill(b'0');
    let checksum = format!("{:08x}", crc_fast::crc32_iscsi(fitting.get(pages_end..)?));
    fitting[seal + 17..seal + 25].copy_from_slice(checksum.as_bytes());
    Some(fitting.into())
}

/// The metadata with the checksums that the pages have, and the length that this text of them has.
fn with_page_checksums(front: &[u8], metadata: &[u8]) -> Option<Vec<u8>> {
    let value = value_of(metadata, b"lakebed.pages")?;
    let mut columns: Vec<serde_json::Value> = serde_json::from_slice(&metadata[value.clone()]).ok()?;
    let mut start = 4_usize;
    for column in &mut columns {
        for page in column.get_mut("pages")?.as_array_mut()? {
            let end = start.checked_add(usize::try_from(page.get(0)?.as_u64()?).ok()?)?;
            *page.get_mut(4)? = crc_fast::crc32_iscsi(front.get(start..end)?).into();
            start = end;
        }
    }
    let text = serde_json::to_vec(&columns).ok()?;
    let length_bytes = varint(value.len()).len();
    Some([&metadata[..value.start - length_bytes], &varint(text.len()), &text, &metadata[value.end..]].concat())
}

/// Where the value of a key-value stands: after the key come a byte for the field and the length as a varint.
fn value_of(metadata: &[u8], key: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut at = metadata.windows(key.len()).rposition(|window| window == key)? + key.len() + 1;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = *metadata.get(at)?;
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 || shift > 28 {
            break;
        }
    }
    (length <= metadata.len() - at).then_some(at..at + length)
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

//! Commit objects and segments: a [`Body`] and the footer that says what it is.
//!
//! The footer is Parquet's, with our words in its key-values; `docs/format.md` lists them. Invariants:
//!
//! 1. The last key-value is `lakebed.footer`: where the pages end, and the CRC-32C of everything from there to the end.
//! 2. The footers of two different objects differ within their last bytes: writer, place and checksum stand at the end.

use lakebed_model::{Cell, Commit, Nonce, SegmentId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::FORMAT;
use crate::body::{Body, MAGIC, Page};
use crate::checksum::{DIGITS, crc32c};
use crate::error::{FormatError, malformed};
use crate::schema::{COLUMNS, Column, SCHEMA};
use crate::text::{Hex, Text};
use crate::thrift::{Fields, key_values, write_struct};

mod cleaned_v1;
pub(crate) mod groups_v1;
pub(crate) mod v1;

/// Keys of the footer's key-values.
pub(crate) mod key {
    pub(crate) const FORMAT: &str = "lakebed.format";
    pub(crate) const KIND: &str = "lakebed.kind";
    pub(crate) const CLUSTER: &str = "lakebed.cluster";
    pub(crate) const CELL: &str = "lakebed.cell";
    pub(crate) const COMMIT: &str = "lakebed.commit";
    pub(crate) const SEGMENT: &str = "lakebed.segment";
    pub(crate) const PAGES: &str = "lakebed.pages";
    pub(crate) const WRITER: &str = "lakebed.writer";
    pub(crate) const FOOTER: &str = "lakebed.footer";
}

/// The kinds of objects, as `lakebed.kind` has them.
pub(crate) const KIND_COMMIT: &str = "commit";
pub(crate) const KIND_SEGMENT: &str = "segment";

/// `lakebed.footer` is 16 digits, a dash and 8 digits.
pub(crate) const SEAL_BYTES: usize = 16 + 1 + DIGITS;

pub(crate) const CREATED_BY: &str = "lakebed version 1.0.0";
/// The version of Parquet whose features are used; data page v1 belongs to 1.
const PARQUET_VERSION: i32 = 1;
const UNCOMPRESSED: i32 = 0;
const PLAIN: i32 = 0;
const RLE: i32 = 3;

/// Whose object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster of `lakebed.json`.
    pub cluster_id: Uuid,
    /// The cell.
    pub cell: Cell,
}

/// `lakebed.segment`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentV1 {
    pub(crate) id: Text<SegmentId>,
    pub(crate) broker: Hex,
}

/// The pages of a column in `lakebed.pages`; each page is bytes, bytes of its header, rows, entries, CRC-32C.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnPagesV1 {
    pub(crate) column: String,
    pub(crate) pages: Vec<(u32, u32, u32, u32, u32)>,
}

/// The bytes of a commit object.
///
/// `body` holds the rows of its inline flush, or is [`Body::empty`].
pub fn commit_object(identity: &Identity, commit: &Commit, body: Body) -> Vec<u8> {
    let text = serde_json::to_string(&v1::CommitV1::from(commit)).expect("persisted types have string keys");
    let writer = format!("{:016x}@{}", commit.writer.get(), commit.place);
    finish(identity, body, KIND_COMMIT, (key::COMMIT, &text), &writer)
}

/// What a commit says without its rows, as brokers pass it on.
pub fn encode_commit(commit: &Commit) -> Vec<u8> {
    serde_json::to_vec(&v1::CommitV1::from(commit)).expect("persisted types have string keys")
}

/// Reads what [`encode_commit`] has written.
///
/// # Errors
/// [`FormatError`]
pub fn decode_commit(bytes: &[u8]) -> Result<Commit, FormatError> {
    let commit: v1::CommitV1 =
        serde_json::from_slice(bytes).map_err(|error| malformed(format!("what a commit says: {error}")))?;
    Commit::try_from(commit)
}

/// The bytes of a segment that is uploaded before it is committed.
///
/// `broker` is the process that writes it.
pub fn segment_object(identity: &Identity, id: SegmentId, broker: Nonce, body: Body) -> Vec<u8> {
    let segment = SegmentV1 { id: Text(id), broker: Hex(broker.get()) };
    let text = serde_json::to_string(&segment).expect("persisted types have string keys");
    let writer = format!("{:016x}@{id}", broker.get());
    finish(identity, body, KIND_SEGMENT, (key::SEGMENT, &text), &writer)
}

fn finish(identity: &Identity, body: Body, kind: &str, content: (&str, &str), writer: &str) -> Vec<u8> {
    let Body { bytes: mut out, rows, columns } = body;
    let pages_end = out.len();
    let chunks = write_offset_indexes(&mut out, &columns);
    let seal = format!("{pages_end:016x}-{:08x}", 0);
    let pairs = [
        (key::FORMAT, FORMAT.to_string()),
        (key::KIND, kind.to_owned()),
        (key::CLUSTER, identity.cluster_id.hyphenated().to_string()),
        (key::CELL, identity.cell.to_string()),
        (content.0, content.1.to_owned()),
        (key::PAGES, pages_text(&columns)),
        (key::WRITER, writer.to_owned()),
        (key::FOOTER, seal),
    ];
    let start = out.len();
    write_struct(&mut out, |file| {
        file.i32(1, PARQUET_VERSION);
        file.structures(2, SCHEMA.into_iter(), |fields, element| element.write(fields));
        file.i64(3, rows as i64);
        let groups = if rows == 0 { &[][..] } else { &[()][..] };
        file.structures(4, groups.iter(), |fields, ()| write_row_group(fields, rows, &chunks));
        file.structures(5, pairs.iter(), |fields, (key, value)| {
            fields.text(1, key);
            fields.text(2, value);
        });
        file.text(6, CREATED_BY);
    });
    let length = u32::try_from(out.len() - start).expect("a footer is far below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(MAGIC);
    write_seal(&mut out, pages_end);
    out
}

/// Puts the checksum of all that stands behind the pages into `lakebed.footer`, whose digits were written as zeros.
pub(crate) fn write_seal(out: &mut [u8], pages_end: usize) {
    let end = out.len() - 4 - MAGIC.len();
    let length: [u8; 4] = out[end..end + 4].try_into().expect("four bytes");
    let start = end - u32::from_le_bytes(length) as usize;
    let digits = start + seal_position(&out[start..end]) + SEAL_BYTES - DIGITS;
    let checksum = format!("{:08x}", crc32c(&out[pages_end..]));
    out[digits..digits + DIGITS].copy_from_slice(checksum.as_bytes());
}

/// Where the value of `lakebed.footer` begins in metadata that was written just now.
fn seal_position(metadata: &[u8]) -> usize {
    let mut position = None;
    let parsed = key_values(metadata, |key, _, value_position| {
        if key == key::FOOTER.as_bytes() {
            position = Some(value_position);
        }
        Ok(())
    });
    assert!(parsed.is_ok(), "metadata that was written parses: {parsed:?}");
    position.expect("the key was written")
}

/// What Parquet's metadata says of a column chunk.
struct Chunk {
    column: Column,
    start: u64,
    bytes: u64,
    values: u64,
    offset_index_start: u64,
    offset_index_bytes: u64,
}

fn write_offset_indexes(out: &mut Vec<u8>, columns: &[Vec<Page>]) -> Vec<Chunk> {
    let mut chunks = Vec::with_capacity(columns.len());
    let mut start = MAGIC.len() as u64;
    for (column, pages) in COLUMNS.into_iter().zip(columns).filter(|(_, pages)| !pages.is_empty()) {
        let offset_index_start = out.len() as u64;
        let (mut position, mut row) = (start, 0_u64);
        let locations: Vec<(u64, u32, u64)> = pages
            .iter()
            .map(|page| {
                let location = (position, page.bytes, row);
                position += u64::from(page.bytes);
                row += u64::from(page.rows);
                location
            })
            .collect();
        write_struct(out, |index| {
            index.structures(1, locations.iter(), |fields, (position, bytes, row)| {
                fields.i64(1, *position as i64);
                fields.i32(2, *bytes as i32);
                fields.i64(3, *row as i64);
            });
        });
        let values = pages.iter().map(|page| u64::from(page.values)).sum();
        let offset_index_bytes = out.len() as u64 - offset_index_start;
        chunks.push(Chunk { column, start, bytes: position - start, values, offset_index_start, offset_index_bytes });
        start = position;
    }
    chunks
}

fn write_row_group(group: &mut Fields<'_>, rows: u64, chunks: &[Chunk]) {
    let bytes: u64 = chunks.iter().map(|chunk| chunk.bytes).sum();
    group.structures(1, chunks.iter(), |fields, chunk| {
        fields.i64(2, 0);
        fields.structure(3, |meta| {
            meta.i32(1, chunk.column.physical_type());
            meta.i32s(2, &[PLAIN, RLE]);
            meta.texts(3, chunk.column.path());
            meta.i32(4, UNCOMPRESSED);
            meta.i64(5, chunk.values as i64);
            meta.i64(6, chunk.bytes as i64);
            meta.i64(7, chunk.bytes as i64);
            meta.i64(9, chunk.start as i64);
        });
        fields.i64(4, chunk.offset_index_start as i64);
        fields.i32(5, chunk.offset_index_bytes as i32);
    });
    group.i64(2, bytes as i64);
    group.i64(3, rows as i64);
    group.i64(5, MAGIC.len() as i64);
    group.i64(6, bytes as i64);
}

fn pages_text(columns: &[Vec<Page>]) -> String {
    let all: Vec<ColumnPagesV1> = COLUMNS
        .into_iter()
        .zip(columns)
        .filter(|(_, pages)| !pages.is_empty())
        .map(|(column, pages)| ColumnPagesV1 {
            column: column.path().join("."),
            pages: pages
                .iter()
                .map(|page| (page.bytes, page.header_bytes, page.rows, page.values, page.crc32c))
                .collect(),
        })
        .collect();
    serde_json::to_string(&all).expect("persisted types have string keys")
}

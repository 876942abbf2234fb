//! Objects, from rows and decisions to bytes and back.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "helpers of tests")]

mod checkpoints;
mod damage;
mod golden;
mod parquet_reader;
mod round_trip;
mod samples;
mod touch;

use bytes::Bytes;
use lakebed_segment::FormatError;
use lakebed_segment::footer::{Footer, Parsed};
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::RowSource;
use samples::Rec;

/// Parses the footer of a whole object.
pub fn footer_of(object: &Bytes) -> Result<Footer, FormatError> {
    match Footer::parse(object, object.len() as u64)? {
        Parsed::Whole(footer) => Ok(footer),
        Parsed::NeedsSuffix(bytes) => panic!("{bytes} bytes are needed of {}, which are all given", object.len()),
    }
}

/// Reads every row of a whole object.
pub fn read_all(object: &Bytes) -> Result<(Footer, RowSet), FormatError> {
    let footer = footer_of(object)?;
    let rows = footer.read(0..footer.rows, &[(0, object.clone())])?;
    Ok((footer, rows))
}

/// The records of rows.
pub fn records_of(rows: &RowSet) -> Vec<Rec> {
    let record = |row| Rec {
        timestamp_ms: rows.timestamp_ms(row),
        key: rows.key(row).map(<[u8]>::to_vec),
        value: rows.value(row).map(<[u8]>::to_vec),
        headers: rows
            .headers(row)
            .map(|(key, value)| (String::from_utf8(key.to_vec()).unwrap(), value.map(<[u8]>::to_vec)))
            .collect(),
    };
    (0..rows.len()).map(record).collect()
}

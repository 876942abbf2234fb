//! `lakebed topic files`: the objects that hold a topic's records, one line each: files of its table, and segments that wait to become
//! such files.

use std::collections::BTreeMap;

use lakebed_client::Client;
use lakebed_wire::v1;
use serde::Serialize;

use super::PAGE_SIZE;
use crate::failure::Failure;
use crate::output::Output;
use crate::server::Server;

/// Ranges of offsets that fit a line for people.
const RANGES_SHOWN: usize = 3;

/// An object with the records of the topic in it.
#[derive(Debug, Serialize)]
struct File {
    uri: String,
    /// `table`: a file of the table; `segment`: an object of the log, whose rows are not in the table yet.
    kind: &'static str,
    row_count: i64,
    /// Of the whole object, which holds other topics too if it is a segment.
    object_bytes: Option<i64>,
    min_timestamp: Option<i64>,
    max_timestamp: Option<i64>,
    ranges: Vec<Range>,
}

/// Consecutive offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Range {
    partition: i32,
    base_offset: i64,
    last_offset: i64,
}

pub(super) async fn run(client: &Client, server: &Server, topic: String, output: Output) -> Result<(), Failure> {
    let mut request = v1::ListSegmentsRequest { topic, page_size: PAGE_SIZE, ..v1::ListSegmentsRequest::default() };
    let mut files: BTreeMap<String, File> = BTreeMap::new();
    loop {
        let page = client.list_segments(request.clone()).await;
        let what = || format!("the files of topic {} can't be listed", request.topic);
        let page = page.map_err(|error| Failure::call(what(), server, &error))?;
        page.segments.into_iter().for_each(|segment| add(&mut files, segment));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    // Files of the table first, then what waits, each in the order of their making.
    let mut files: Vec<File> = files.into_values().collect();
    files.sort_by(|one, other| (other.kind, &one.uri).cmp(&(one.kind, &other.uri)));
    tell(&request.topic, &files, output);
    let columns = ["kind", "rows", "bytes", "offsets", "from", "to", "uri"];
    output.list("files", &files, columns, |file| {
        let or_dash = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        [
            file.kind.to_owned(),
            file.row_count.to_string(),
            or_dash(file.object_bytes.map(|bytes| bytes.to_string())),
            ranges(&file.ranges),
            or_dash(file.min_timestamp.map(time)),
            or_dash(file.max_timestamp.map(time)),
            file.uri.clone(),
        ]
    })
}

fn tell(topic: &str, files: &[File], output: Output) {
    let count = |kind: &str| {
        let of_kind = files.iter().filter(|file| file.kind == kind);
        of_kind.fold((0, 0), |(objects, rows), file| (objects + 1, rows + file.row_count))
    };
    let ((files, rows), (segments, waiting)) = (count("table"), count("segment"));
    output.notice(format!(
        "the table of {topic} has {rows} rows in {files} files; {waiting} rows wait in {segments} segments, and are in it when it is loaded"
    ));
}

fn add(files: &mut BTreeMap<String, File>, segment: v1::Segment) {
    let file = files.entry(segment.uri.clone()).or_insert_with(|| File {
        kind: if is_table_file(&segment.uri) { "table" } else { "segment" },
        uri: segment.uri,
        row_count: 0,
        object_bytes: None,
        min_timestamp: None,
        max_timestamp: None,
        ranges: Vec::new(),
    });
    file.row_count += segment.row_count;
    file.object_bytes = file.object_bytes.or(segment.object_bytes);
    file.min_timestamp = [file.min_timestamp, segment.min_timestamp].into_iter().flatten().min();
    file.max_timestamp = file.max_timestamp.max(segment.max_timestamp);
    let range =
        Range { partition: segment.partition, base_offset: segment.base_offset, last_offset: segment.last_offset };
    match file.ranges.last_mut() {
        Some(last) if last.partition == range.partition && last.last_offset + 1 == range.base_offset => {
            last.last_offset = range.last_offset;
        }
        _ => file.ranges.push(range),
    }
}

/// Whether it is `{root}/tables/{namespace}/{table}/data/{file}`, whatever the root is called.
fn is_table_file(uri: &str) -> bool {
    let mut names = uri.rsplit('/');
    names.nth(1) == Some("data") && names.nth(2) == Some("tables")
}

fn ranges(ranges: &[Range]) -> String {
    let shown = ranges.iter().take(RANGES_SHOWN);
    let shown = shown.map(|range| format!("{}:{}-{}", range.partition, range.base_offset, range.last_offset));
    let mut text = shown.collect::<Vec<_>>().join(" ");
    if ranges.len() > RANGES_SHOWN {
        text += &format!(" +{}", ranges.len() - RANGES_SHOWN);
    }
    text
}

/// Milliseconds since 1970 as people read them.
pub(crate) fn time(time_ms: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(time_ms).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(uri: &str, partition: i32, offsets: std::ops::RangeInclusive<i64>, time_ms: Option<i64>) -> v1::Segment {
        v1::Segment {
            uri: uri.to_owned(),
            partition,
            base_offset: *offsets.start(),
            last_offset: *offsets.end(),
            row_count: offsets.end() - offsets.start() + 1,
            min_timestamp: time_ms,
            max_timestamp: time_ms.map(|time_ms| time_ms + 5),
            ..v1::Segment::default()
        }
    }

    #[test]
    fn the_runs_of_an_object_are_one_line_with_its_ranges() {
        let mut files = BTreeMap::new();
        let (table, log) =
            ("file:///r/tables/default/t/data/A.parquet", "file:///tables/a/b/cells/0/segments/B.parquet");
        add(&mut files, segment(table, 0, 0..=4, Some(10)));
        add(&mut files, segment(table, 0, 5..=9, None));
        add(&mut files, segment(table, 1, 3..=3, Some(7)));
        add(&mut files, segment(log, 0, 10..=10, Some(99)));
        let file = &files[table];
        assert_eq!(
            (file.kind, file.row_count, file.min_timestamp, file.max_timestamp),
            ("table", 11, Some(7), Some(15))
        );
        assert_eq!(ranges(&file.ranges), "0:0-9 1:3-3");
        assert_eq!((files[log].kind, files[log].row_count), ("segment", 1));
        let many: Vec<Range> = (0..5).map(|partition| Range { partition, base_offset: 0, last_offset: 1 }).collect();
        assert_eq!(ranges(&many), "0:0-1 1:0-1 2:0-1 +2");
    }
}

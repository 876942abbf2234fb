//! Files of every format version, kept for ever: today's code reads them, and writes the current ones again byte for byte.

use std::path::PathBuf;

use bytes::Bytes;
use lakebed_model::Offset;
use lakebed_segment::FORMAT;
use lakebed_segment::checkpoint::{Manifest, decode};
use lakebed_segment::footer::Kind;
use lakebed_segment::root::Root;
use lakebed_segment::table::{ParsedTable, Stretch, TableFooter};
use lakebed_segment::verdict::Verdict;

use crate::samples::{self, files};
use crate::{read_all, records_of};

fn golden(version: u32, name: &str) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}/{name}"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

#[test]
fn what_is_written_today_is_what_the_golden_files_of_the_current_version_hold() {
    for (name, bytes) in files() {
        assert!(golden(FORMAT, &name) == bytes, "{name} differs: a new format version, or a mistake");
    }
}

#[test]
fn golden_commits_of_version_1_are_read() {
    let (footer, rows) = read_all(&golden(1, "commit.parquet")).unwrap();
    assert_eq!(footer.identity, samples::identity());
    assert_eq!(footer.kind, Kind::Commit(samples::commit_with_rows()));
    assert_eq!(records_of(&rows)[..5], samples::tricky_records());
    let (footer, rows) = read_all(&golden(1, "takeover.parquet")).unwrap();
    assert_eq!(footer.kind, Kind::Commit(samples::takeover()));
    assert!(rows.is_empty());
}

#[test]
fn the_golden_segment_of_version_1_is_read() {
    let (footer, rows) = read_all(&golden(1, "segment.parquet")).unwrap();
    assert!(matches!(footer.kind, Kind::Segment { id, .. } if id == samples::segment_id()));
    let whole = samples::content()
        .facts()
        .iter()
        .fold(lakebed_model::RowsHash::EMPTY, |hash, (_, facts)| hash.concat(facts.hash, u64::from(facts.rows)));
    assert_eq!(rows.hash(), whole);
}

/// What the encoder writes may change with its version; what was written must be read for ever.
#[test]
fn the_golden_table_files_of_version_1_are_read() {
    let read = |bytes: &Bytes| match TableFooter::parse(bytes, bytes.len() as u64).unwrap() {
        ParsedTable::Whole(footer) => {
            let rows = footer.read(0..footer.rows, &[(0, bytes.clone())]).unwrap();
            (footer.name, rows.rows.hash(), rows.offsets, rows.partitions, footer.value_format)
        }
        other @ ParsedTable::NeedsSuffix(_) => panic!("{other:?}"),
    };
    let mut hashes = Vec::new();
    for (name, bytes) in samples::table_files() {
        let golden = read(&golden(1, name));
        assert_eq!(golden, read(&bytes), "{name}");
        assert_eq!((golden.0.id, golden.2.len() > 2), (samples::table_file_id(), true));
        hashes.push(golden.1);
    }
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "the same rows in every format");
}

#[test]
fn the_golden_table_file_with_gaps_of_version_1_is_read() {
    for bytes in [golden(1, "cleaned.parquet"), samples::cleaned_file()] {
        let ParsedTable::Whole(footer) = TableFooter::parse(&bytes, bytes.len() as u64).unwrap() else { panic!() };
        let (partition, base) = (samples::partition(1, 0).partition, Offset::new(100));
        let found = footer.stretches(partition, base, (1 << 41) - 100, 0, base);
        let [Stretch { rows, offsets }] = &found[..] else { panic!("{found:?}") };
        assert_eq!((rows.clone(), offsets.clone()), (0..2, base..Offset::new(1 << 41)));
        let read = footer.read(0..2, &[(0, bytes.clone())]).unwrap();
        assert_eq!(read.offsets, [Offset::new(103), Offset::new(1 << 40)]);
        let cleaned = footer.cleaned(partition, base, 0);
        assert_eq!(cleaned.iter().map(|(end, _)| end.get()).collect::<Vec<_>>(), [107, 1 << 41]);
        assert_eq!(footer.cleaned(partition, Offset::new(101), 0), []);
    }
}

#[test]
fn the_golden_checkpoint_root_and_verdict_of_version_1_are_read() {
    let manifest = Manifest::decode(&golden(1, "manifest.json")).unwrap();
    let parts: Vec<Bytes> = manifest.parts.iter().map(|part| golden(1, &part.name)).collect();
    assert_eq!(decode(&manifest, &parts), Ok(samples::snapshot()));
    assert_eq!(Root::decode(&golden(1, "lakebed.json")), Ok(samples::root()));
    assert_eq!(Verdict::decode(&golden(1, "lakebed-check.json")), Ok(samples::verdict()));
}

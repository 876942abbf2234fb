//! How many manifests there are, and how much is written, for many files.

use super::*;
use crate::file::{Column, DataFile};
use crate::next::{self, ENTRIES_MAX, Published};

fn data_file(shown: &Shown, number: u64) -> (ShownFile, DataFile) {
    let key = Key::new(format!("{}/data/{number:020}-x.parquet", name().directory())).unwrap();
    let path = shown.uri(&key);
    let bound = |value: u64| Some((value as i64).to_le_bytes().to_vec());
    let column = |id: u64| Column {
        size_bytes: id,
        values: Some(5),
        nulls: Some(0),
        lower: bound(number),
        upper: bound(number + 1),
    };
    let columns = (1..=9).map(|id: i32| (id, column(id as u64))).collect();
    let by = PartitionBy::Nothing;
    let file = DataFile {
        path,
        by,
        partition: None,
        rows: 5,
        size_bytes: 100,
        columns,
        split_offsets: vec![4],
        is_sorted: true,
    };
    (ShownFile { key, size_bytes: 100, rows: 5 }, file)
}

/// Builds the next version with `added` more files; returns it with the bytes of its manifests.
fn build(shown: &mut Shown, previous: Option<&Published>, added: std::ops::Range<u64>) -> (Published, usize) {
    let (files, arrived): (Vec<ShownFile>, Vec<DataFile>) = added.map(|number| data_file(shown, number)).unzip();
    shown.files.extend(files);
    assert_eq!(next::added(shown, previous).len(), arrived.len());
    let objects = next::build(shown, previous, arrived, &Expiry::default()).unwrap();
    shown.version = version(u64::from(shown.version.get()) + 1);
    let bytes = objects.manifests.iter().map(|(_, bytes)| bytes.len()).sum();
    (objects.published, bytes)
}

#[tokio::test]
async fn ten_thousand_files_lie_in_few_manifests_and_one_more_costs_little() {
    let mut shown = World::new().shown;
    let (published, whole) = build(&mut shown, None, 0..10_000);
    assert_eq!(published.manifests.len(), 3, "{whole} bytes");
    let (published, one) = build(&mut shown, Some(&published), 10_000..10_001);
    assert_eq!(published.live().count(), 10_001);
    assert_eq!(published.manifests.len(), 4);
    assert!(one * 50 < whole, "{one} of {whole} bytes");
    shown.files.remove(5000);
    let (published, removed) = build(&mut shown, Some(&published), 0..0);
    assert_eq!(published.live().count(), 10_000);
    assert!(removed < whole / 2, "one manifest is written anew: {removed} of {whole}");
    let (published, again) = build(&mut shown, Some(&published), 0..0);
    assert_eq!((published.live().count(), again), (10_000, 0), "nothing changed, nothing is written");
}

#[tokio::test]
async fn manifests_stay_few_when_files_come_one_by_one() {
    let mut shown = World::new().shown;
    let (mut published, _) = build(&mut shown, None, 0..1);
    let mut written = 1;
    for number in 1..600 {
        let (next, _) = build(&mut shown, Some(&published), number..number + 1);
        let named: BTreeSet<&str> = published.manifests.iter().map(|manifest| manifest.file.path.as_str()).collect();
        let fresh = next.manifests.iter().filter(|manifest| !named.contains(manifest.file.path.as_str()));
        written += fresh.map(|manifest| manifest.entries.len()).sum::<usize>();
        let bound = 1 + (number + 1).ilog2() as usize;
        assert!(next.manifests.len() <= bound, "{} manifests for {} files", next.manifests.len(), number + 1);
        published = next;
    }
    assert_eq!(published.live().count(), 600);
    assert!(written <= 600 * 10, "{written} entries were written for 600 files");
    const { assert!(ENTRIES_MAX > 600) };
}

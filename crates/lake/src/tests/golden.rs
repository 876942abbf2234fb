//! The metadata of a small table, as it was once looked at by people and by foreign readers.

use super::*;

/// Names of manifest lists have a hash of compressed bytes, which belong to the compressor.
fn without_hashes(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(".avro") {
        let (before, after) = rest.split_at(at);
        let kept = before.rfind('-').map_or(before, |dash| &before[..=dash]);
        result.push_str(kept);
        result.push('*');
        rest = after.strip_prefix(".avro").map_or(after, |_| &after[5..]);
        result.push_str(".avro");
    }
    result + rest
}

#[tokio::test]
async fn the_metadata_is_the_golden_one() {
    let mut world = World::new();
    let file = |number: u64| ShownFile {
        key: Key::new(format!("tables/default/orders/data/{number:020}-x.parquet")).unwrap(),
        size_bytes: 1000 + number,
        rows: 10,
    };
    let described = |world: &World, number: u64| crate::file::DataFile {
        path: world.shown.uri(&file(number).key),
        by: PartitionBy::Nothing,
        partition: None,
        rows: 10,
        size_bytes: 1000 + number,
        columns: BTreeMap::new(),
        split_offsets: vec![4],
        is_sorted: true,
    };
    world.shown.files = vec![file(1), file(2)];
    let arrived = vec![described(&world, 1), described(&world, 2)];
    let first = crate::next::build(&world.shown, None, arrived, &Expiry::default()).unwrap();
    world.advance(3);
    world.shown.files = vec![file(2), file(3)];
    let arrived = vec![described(&world, 3)];
    let second = crate::next::build(&world.shown, Some(&first.published), arrived, &Expiry::default()).unwrap();
    let text = serde_json::to_string_pretty(&serde_json::from_slice::<Value>(&second.metadata.1).unwrap()).unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v4.metadata.json");
    if std::env::var_os("LAKEBED_TEST_BLESS").is_some() {
        std::fs::write(golden, without_hashes(&text) + "\n").unwrap();
    }
    let expected = std::fs::read_to_string(golden).unwrap();
    assert_eq!(without_hashes(&text) + "\n", expected);
}

#[test]
fn hashes_are_left_out() {
    assert_eq!(without_hashes("a/m-01-ff.avro b snap-1-2-ee.avro."), "a/m-01-*.avro b snap-1-2-*.avro.");
}

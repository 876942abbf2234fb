//! Random sequences of versions against a plain model of sets.

use super::*;

/// What the model knows.
#[derive(Default)]
struct Model {
    /// The files of each version that was published, by its snapshot.
    shown: BTreeMap<i64, BTreeSet<String>>,
    /// The snapshot and the version that added each file.
    added: BTreeMap<String, (i64, i64)>,
}

/// One random history: adds, replacements, removals, versions without a publication, new publishers.
async fn run(seed: u64) {
    let mut rng = rng(seed);
    let mut world = World::new();
    let expiry = Expiry { age_ms: 5 * 60_000, snapshots_max: 20, metadata_max: 20 };
    let renew = |world: &World| Publisher::new(world.store.clone(), Options { expiry: expiry.clone(), ..options() });
    world.publisher = renew(&world);
    let mut model = Model::default();
    let mut previous: BTreeSet<String> = BTreeSet::new();
    for step in 0..40 {
        change(&mut world, &mut rng).await;
        if rng.random_bool(0.3) {
            // The state allots a version that nobody publishes.
            world.advance(1);
            continue;
        }
        if rng.random_bool(0.2) {
            world.publisher = renew(&world);
        }
        assert_eq!(world.publish().await, Outcome::Published, "seed {seed} step {step}");
        let view = look(&world.store).await.unwrap();
        assert_eq!(view.version, world.shown.version.get());
        let now = world.paths();
        let snapshot = view.current();
        let id = snapshot["snapshot-id"].as_i64().unwrap();
        let sequence = i64::from(world.shown.version.get());
        for path in now.difference(&previous) {
            model.added.insert(path.clone(), (id, sequence));
        }
        check_entries(&entries(&world.store, snapshot).await, &model, &previous, &now, id);
        check_summary(&world, snapshot, &previous, &now);
        model.shown.insert(id, now.clone());
        check_snapshots(&world, &view, &model, &expiry).await;
        previous = now;
        world.advance(1);
    }
    assert!(model.shown.len() > 15, "seed {seed}");
}

async fn change(world: &mut World, rng: &mut StdRng) {
    for _ in 0..rng.random_range(0..4) {
        let rows = rng.random_range(1..4);
        world.add(rows).await;
    }
    let count = world.shown.files.len();
    if rng.random_bool(0.3) && count > 2 {
        // Compaction: some go, one comes.
        let from = rng.random_range(0..count - 1);
        world.shown.files.drain(from..rng.random_range(from..count));
        world.add(3).await;
    }
    if rng.random_bool(0.2) {
        // Retention: the oldest go.
        world.shown.files.drain(..rng.random_range(0..=world.shown.files.len()));
    }
    if rng.random_bool(0.1) {
        world.shown.files.reverse();
    }
}

fn check_entries(entries: &[Seen], model: &Model, previous: &BTreeSet<String>, now: &BTreeSet<String>, id: i64) {
    assert_eq!(live(entries), *now);
    let of_status = |status: i64| entries.iter().filter(move |entry| entry.status == status);
    let fresh = |entries: &mut dyn Iterator<Item = &Seen>| -> BTreeSet<String> {
        entries.filter(|entry| entry.snapshot == id).map(|entry| entry.path.clone()).collect()
    };
    assert_eq!(fresh(&mut of_status(1)), now.difference(previous).cloned().collect());
    assert_eq!(fresh(&mut of_status(2)), previous.difference(now).cloned().collect());
    for entry in entries {
        let (snapshot, sequence) = model.added[&entry.path];
        assert_eq!(entry.sequence, sequence, "{entry:?}");
        assert!(entry.status == 2 || entry.snapshot == snapshot, "{entry:?}");
    }
}

fn check_summary(world: &World, snapshot: &Value, previous: &BTreeSet<String>, now: &BTreeSet<String>) {
    let summary = &snapshot["summary"];
    let count = |key: &str| summary[key].as_str().map_or(0, |text| text.parse::<u64>().unwrap());
    assert_eq!(count("lakebed.commit"), world.shown.commit.get());
    assert_eq!(count("total-data-files"), now.len() as u64);
    assert_eq!(count("total-records"), world.shown.files.iter().map(|file| file.rows).sum::<u64>());
    assert_eq!(count("total-files-size"), world.shown.files.iter().map(|file| file.size_bytes).sum::<u64>());
    let (added, removed) = (now.difference(previous).count() as u64, previous.difference(now).count() as u64);
    assert_eq!((count("added-data-files"), count("deleted-data-files")), (added, removed));
    let expected: &[&str] = match (added, removed) {
        (_, 0) => &["append"],
        (0, _) => &["delete"],
        _ => &["overwrite", "replace"],
    };
    assert!(expected.contains(&summary["operation"].as_str().unwrap()), "{summary}");
}

/// Every snapshot in sight shows what it showed, and those that must be in sight are.
async fn check_snapshots(world: &World, view: &View, model: &Model, expiry: &Expiry) {
    let snapshots = view.snapshots();
    assert!(snapshots.len() <= expiry.snapshots_max);
    let logged: Vec<&Value> =
        view.metadata["snapshot-log"].as_array().unwrap().iter().map(|logged| &logged["snapshot-id"]).collect();
    assert_eq!(logged, snapshots.iter().map(|snapshot| &snapshot["snapshot-id"]).collect::<Vec<_>>());
    let mut times: Vec<i64> = snapshots.iter().map(|snapshot| snapshot["timestamp-ms"].as_i64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    let now_ms = times.pop().unwrap();
    assert!(times.iter().skip(1).all(|superseded_ms| now_ms - superseded_ms <= expiry.age_ms), "{times:?}");
    for snapshot in snapshots {
        let id = snapshot["snapshot-id"].as_i64().unwrap();
        assert_eq!(live(&entries(&world.store, snapshot).await), model.shown[&id]);
    }
    for logged in view.metadata["metadata-log"].as_array().unwrap() {
        assert!(world.store.exists(&key_of(logged["metadata-file"].as_str().unwrap())).await.unwrap());
    }
}

#[tokio::test]
async fn every_version_shows_what_it_was_given() {
    for seed in 0..25 {
        run(seed).await;
    }
}

#[tokio::test]
async fn a_table_that_was_made_again_begins_without_history() {
    let mut world = World::new();
    world.add(3).await;
    world.publish().await;
    world.advance(1);
    world.shown.table_uuid = Uuid::from_u128(8);
    world.shown.files.clear();
    world.add(2).await;
    assert_eq!(world.publish().await, Outcome::Published);
    let view = look(&world.store).await.unwrap();
    assert_eq!((view.version, view.snapshots().len()), (2, 1));
    assert_eq!(view.metadata["table-uuid"], Uuid::from_u128(8).to_string());
    assert_eq!(view.paths(&world.store).await, world.paths());
    assert_eq!(view.metadata["metadata-log"], serde_json::json!([]));
}

#[tokio::test]
async fn a_table_whose_root_moved_names_its_files_where_they_are() {
    let mut world = World::new();
    world.add(3).await;
    world.publish().await;
    world.advance(1);
    world.add(2).await;
    world.shown.root = "s3://other/place".to_owned();
    assert_eq!(world.publish().await, Outcome::Published);
    let metadata = look(&world.store).await.unwrap().metadata;
    assert_eq!(metadata["location"], "s3://other/place/tables/default/orders");
    let list = metadata["snapshots"][0]["manifest-list"].as_str().unwrap();
    assert!(list.starts_with("s3://other/place/tables/default/orders/metadata/snap-"), "{list}");
    assert_eq!(metadata["snapshots"][0]["summary"]["added-data-files"], "2");
}

#[tokio::test]
async fn times_go_forward_whatever_the_clocks_say() {
    let mut world = World::new();
    for (version, time_ms) in [(1, 5000), (2, 3000), (3, 4000), (4, 9000)] {
        world.shown.version = super::version(version);
        world.shown.time_ms = time_ms;
        world.publish().await;
    }
    let view = look(&world.store).await.unwrap();
    let times: Vec<i64> = view.snapshots().iter().map(|snapshot| snapshot["timestamp-ms"].as_i64().unwrap()).collect();
    assert_eq!(times, [5000, 5001, 5002, 9000].map(|time_ms| time_ms - 60_000), "a minute before the commits");
    assert_eq!(view.metadata["last-updated-ms"], 9000 - 60_000);
}

#[tokio::test]
async fn what_is_damaged_is_passed_over_and_the_table_is_whole() {
    for what in ["metadata", "list", "manifest", "hint", "torn"] {
        let mut world = World::new();
        for _ in 0..3 {
            world.add(2).await;
            world.publish().await;
            world.advance(1);
        }
        let view = look(&world.store).await.unwrap();
        let list = view.current()["manifest-list"].as_str().unwrap().to_owned();
        let manifests = manifests(&world.store, view.current()).await;
        let manifest = manifests[0]["manifest_path"].as_str().unwrap();
        match what {
            "metadata" => world.store.overwrite(&layout::metadata_key(&name(), version(3)), "{\"torn").await.unwrap(),
            "list" => world.store.overwrite(&key_of(&list), "Obj").await.unwrap(),
            "manifest" => world.store.delete(&[key_of(manifest)]).await.unwrap(),
            "hint" => world.store.overwrite(&layout::hint_key(&name()), "99\n").await.unwrap(),
            _ => world.store.overwrite(&layout::hint_key(&name()), "4").await.unwrap(),
        }
        world.publisher = Publisher::new(world.store.clone(), options());
        world.add(2).await;
        world.advance(1);
        assert_eq!(world.publish().await, Outcome::Published, "{what}");
        let view = look(&world.store).await.unwrap();
        assert_eq!(view.version, world.shown.version.get(), "{what}");
        assert_eq!(view.paths(&world.store).await, world.paths(), "{what}");
    }
}

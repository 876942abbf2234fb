//! Metadata that no reader needs any more.

use super::*;
use crate::due;

const AGE_MS: i64 = 10 * 60_000;

/// A world with many versions, a minute from one to the next.
async fn world_of(versions: usize, expiry: Expiry) -> World {
    let mut world = World::new();
    world.publisher = Publisher::new(world.store.clone(), Options { expiry, ..options() });
    for number in 0..versions {
        world.add(1).await;
        if number % 7 == 6 {
            world.shown.files.drain(..3);
        }
        world.publish().await;
        world.advance(1);
    }
    world
}

async fn metadata_objects(world: &World) -> BTreeSet<String> {
    contents(&world.store).await.into_keys().filter(|key| key.contains("/metadata/")).collect()
}

#[tokio::test]
async fn what_is_due_is_what_no_version_within_the_age_leads_to() {
    for snapshots_max in [100, 3] {
        let world = world_of(40, Expiry { age_ms: AGE_MS, snapshots_max, metadata_max: snapshots_max }).await;
        let now_ms = world.shown.time_ms - 60_000;
        let due = due(&world.store, &name(), now_ms, AGE_MS).await.unwrap();
        let before = metadata_objects(&world).await.len();
        assert!(due.len() > before / 3, "{} of {before}", due.len());
        world.store.delete(&due).await.unwrap();
        // Every version that a reader may have found in the last ten minutes can still be read, whole, and what it leads to.
        let mut readable = 0;
        for number in 1..=40 {
            let key = layout::metadata_key(&name(), version(number));
            if !world.store.exists(&key).await.unwrap() {
                assert!(number < 30, "version {number} was superseded {} minutes ago", 40 - number);
                continue;
            }
            let view = View { version: number as u32, metadata: json_of(&world.store, &key).await };
            if number >= 30 {
                assert!(!view.paths(&world.store).await.is_empty());
                for snapshot in view.metadata["snapshots"].as_array().unwrap() {
                    for manifest in manifests(&world.store, snapshot).await {
                        avro_of(&world.store, manifest["manifest_path"].as_str().unwrap()).await;
                    }
                }
                readable += 1;
            }
        }
        assert_eq!(readable, 11);
        let left = metadata_objects(&world).await;
        // A list, a manifest and metadata of ten minutes, and of ten more to which the oldest of these leads.
        assert!(left.len() < 75, "{left:#?}");
        assert_eq!(super::super::due(&world.store, &name(), now_ms, AGE_MS).await.unwrap(), []);
        assert_eq!(world.publish().await, Outcome::Published);
    }
}

#[tokio::test]
async fn what_a_crash_left_is_due_once_it_is_old_and_what_is_coming_is_not() {
    let world = world_of(3, Expiry::default()).await;
    let orphan = layout::manifest_key(&name(), version(2), Uuid::from_u128(1));
    let coming = layout::manifest_key(&name(), version(4), Uuid::from_u128(2));
    for key in [&orphan, &coming] {
        world.store.create(key, "Obj").await.unwrap();
    }
    let now_ms = world.shown.time_ms;
    assert_eq!(due(&world.store, &name(), now_ms, AGE_MS).await.unwrap(), [orphan]);
    let nothing = TableName::new("default", "nothing").unwrap();
    assert_eq!(due(&world.store, &nothing, now_ms, AGE_MS).await.unwrap(), []);
}

#[tokio::test]
async fn what_the_newest_version_led_to_until_now_stays_for_the_age() {
    let expiry = Expiry { age_ms: AGE_MS, ..Expiry::default() };
    let mut world = world_of(2, expiry).await;
    // The second version is the newest for an hour, and leads to the first all that time.
    world.shown.time_ms += 60 * 60_000;
    world.add(1).await;
    world.publish().await;
    let view = look(&world.store).await.unwrap();
    assert_eq!(view.metadata["snapshots"].as_array().unwrap().len(), 2, "the first is out of sight");
    let mut now_ms = world.shown.time_ms + 1;
    let stands = metadata_objects(&world).await;
    assert_eq!(due(&world.store, &name(), now_ms, AGE_MS).await.unwrap(), []);
    assert!(stands.iter().any(|key| key.contains("/snap-0000000001-")), "{stands:?}");
    now_ms += AGE_MS;
    let gone = due(&world.store, &name(), now_ms, AGE_MS).await.unwrap();
    assert!(gone.iter().any(|key| key.name().starts_with("snap-0000000001-")), "{gone:?}");
    assert!(gone.contains(&layout::metadata_key(&name(), version(1))), "{gone:?}");
}

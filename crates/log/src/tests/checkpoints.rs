//! Checkpoints of one owner after another: none relies on what others may delete.

use lakebed_model::CommitNumber;
use lakebed_segment::checkpoint::Manifest;
use lakebed_segment::layout;
use lakebed_store::Key;

use super::*;

/// The manifests that stand, ascending.
async fn manifests(store: &Store) -> Vec<Manifest> {
    let mut manifests = Vec::new();
    for key in objects(store).await.into_iter().filter(|key| key.ends_with(layout::MANIFEST)) {
        manifests.push(Manifest::decode(&store.get(&Key::new(key).unwrap()).await.unwrap()).unwrap());
    }
    manifests.sort_by_key(|manifest| manifest.number);
    manifests
}

fn numbers(manifests: &[Manifest]) -> Vec<CommitNumber> {
    manifests.iter().map(|manifest| manifest.number).collect()
}

fn shares(manifest: &Manifest) -> bool {
    manifest.parts.iter().any(|part| part.number != manifest.number)
}

/// Commits what leaves most of the state as it is, until there is another checkpoint than `before`.
async fn until_another(log: &Log, store: &Store, before: &[Manifest]) -> Vec<Manifest> {
    loop {
        let config = BTreeMap::from([("turn".to_owned(), log.state().number().to_string())]);
        log.change(Change::AlterTopic { id: partition().topic, config }).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let now = manifests(store).await;
        if numbers(&now).last() != numbers(before).last() {
            return now;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_owner_relies_on_no_checkpoint_of_others_and_deletes_none_before_it_has_two() {
    let store = store();
    let log = Log::open(store.clone(), busy(), seams(1)).await.unwrap();
    create_topic(&log).await;
    append(&log, &["a"]).await.unwrap();
    let mut stand = Vec::new();
    for _ in 0..4 {
        stand = until_another(&log, &store, &stand).await;
    }
    assert!(stand.len() == 2 && shares(&stand[1]), "one owner's share what has not changed: {stand:#?}");
    for seed in 2..5 {
        // The former owner does not know yet, and may still delete what its own checkpoints don't name.
        let log = Log::open(store.clone(), busy(), seams(seed)).await.unwrap();
        let first = until_another(&log, &store, &stand).await;
        assert_eq!(numbers(&first)[..2], numbers(&stand), "what was there stands");
        assert!(first.len() == 3 && !shares(&first[2]), "{first:#?}");
        let second = until_another(&log, &store, &first).await;
        assert_eq!(numbers(&second)[0], first[2].number, "now it has two of its own");
        assert!(second.len() == 2 && shares(&second[1]), "{second:#?}");
        stand = second;
    }
}

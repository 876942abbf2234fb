//! What is merged when runs press.

use super::*;

#[tokio::test(start_paused = true)]
async fn runs_that_press_are_merged_out_of_objects_that_are_too_large_to_be_rewritten() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..100 {
        append(&log, &format!("record {index}")).await;
    }
    let (live, bytes) = (log.state().run_count(), log.state().objects().map(|(_, object)| object.live_bytes).max());
    assert_eq!(live, 200);
    // Each object is larger than half of a merge, so none is merged whole, but each run is much smaller.
    let options = Options { fan_in: 4, objects_max: 64, bytes_max: 2 * bytes.unwrap() - 2, runs_high: 1 };
    let small = Options { runs_high: usize::MAX, ..options.clone() };
    assert_eq!(plan(&log.state(), &small, &BTreeSet::new()), None);
    let merger = Merger::new(log.clone(), store.clone(), options);
    while merger.step().await {}
    let state = log.state();
    assert!(state.run_count() <= 2 * live / 3, "{} runs are left of {live}", state.run_count());
    let next = Options { bytes_max: 1 << 20, ..small };
    let merger = Merger::new(log.clone(), store.clone(), Options { runs_high: 1, ..next });
    while merger.step().await {}
    assert_eq!(log.state().run_count(), 2, "one run a partition");
    assert_eq!(merger.counts().failures.load(Ordering::Relaxed), 0);
    for partition in 0..2 {
        assert_eq!(log.state().partition(key(partition)).unwrap().high_watermark, Offset::new(100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_steady_trickle_of_small_flushes_does_not_keep_the_merger_from_the_tier_that_holds_the_runs() {
    const SINGLE: u32 = 100;
    let store = store();
    let log = open(&store, 1).await;
    create_topic_of(&log, SINGLE + 1).await;
    // Many partitions of one run, so that no stretch is worth rewriting, and a tier of a few larger objects that is not full.
    append_to(&log, 0..SINGLE, "one of many").await;
    let large = "x".repeat(70_000);
    for _ in 0..6 {
        append_to(&log, SINGLE..SINGLE + 1, &large).await;
    }
    let merger = Merger::new(log.clone(), store.clone(), Options { runs_high: 50, ..options(8) });
    let mut most = 0;
    for round in 0..100 {
        append_to(&log, 0..1, "a trickle").await;
        // No more than one merge a flush: whatever is chosen first is all that is done.
        merger.step().await;
        let in_large = log.state().runs_of(key(SINGLE)).count();
        assert!(round < 4 || in_large == 1, "{in_large} runs are left of 6 after {round} flushes");
        most = most.max(log.state().run_count());
    }
    let runs = log.state().run_count();
    let bound = SINGLE as usize + 1 + 8;
    assert!(runs <= bound, "{runs} runs are live, at most {bound} are expected; there were {most}");
    assert_eq!(merger.counts().failures.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn what_saves_hardly_a_run_is_not_rewritten_however_much_runs_press() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic_of(&log, 10).await;
    append_to(&log, 0..10, "a").await;
    append_to(&log, 0..2, "b").await;
    let pressed = Options { runs_high: 1, ..options(8) };
    assert_eq!(plan(&log.state(), &pressed, &BTreeSet::new()), None, "2 runs of 12");
    append_to(&log, 0..2, "c").await;
    let two = plan(&log.state(), &pressed, &BTreeSet::new()).unwrap();
    assert_eq!(merge(&log, &store, &log.state(), &two).await.unwrap().runs_after, 10);
    assert_eq!(plan(&log.state(), &pressed, &BTreeSet::new()), None, "one run a partition");
}

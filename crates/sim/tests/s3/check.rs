//! The check of a store: it passes what keeps its promises, fails each store that breaks one, and a broker goes by it.

use lakebed_broker::check::{Checked, Recorded, check_store};
use lakebed_broker::{Broker, Config, StartError};
use lakebed_sim::s3::bill::Operation;
use lakebed_sim::s3::conduct::{Conduct, Weakness};
use lakebed_sim::s3::{Options, S3Server};
use lakebed_store::check::{CheckOptions, Promise};
use lakebed_store::{Directory, Key, Store};

use super::{patient, told};

const RECORD: Option<(i64, &str)> = Some((1_764_000_000_000, "0.1.0"));

fn options(nonce: u64) -> CheckOptions {
    CheckOptions { rounds: 12, large_bytes: 8 << 20, samples: 5, nonce }
}

async fn server(weakness: Weakness) -> S3Server {
    let conduct = Conduct { weakness, ..Conduct::default() };
    S3Server::start(Options { conduct, ..Options::default() }).await.unwrap()
}

async fn check(store: &Store, nonce: u64) -> Checked {
    check_store(store, &options(nonce), RECORD).await.unwrap()
}

/// The keys that are not the log's.
async fn left(store: &Store) -> Vec<String> {
    let listed = store.list(&Directory::root(), None, 100).await.unwrap();
    listed.objects.into_iter().map(|object| object.key.to_string()).collect()
}

/// Starts a broker and stops it. Returns why it did not start.
async fn start(store: &Store, accept_unsafe_store: bool) -> Option<StartError> {
    let config = Config { store: store.url().into(), accept_unsafe_store, ..Config::default() };
    match Broker::start_on(store.clone(), config).await {
        Ok(broker) => {
            broker.run_until(async {}).await.unwrap();
            None
        }
        Err(error) => Some(error),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_store_passes_once_and_serves() {
    let server = server(Weakness::None).await;
    let store = patient(&server);
    let first = check(&store, 1).await;
    assert!(first.report.passed(), "{:#?}", first.report);
    assert_eq!(first.recorded, Recorded::Now);
    assert_eq!(left(&store).await, ["lakebed-check.json"], "all else was deleted");
    assert_eq!(check(&store, 2).await.recorded, Recorded::Before);
    let unasked = check_store(&store, &options(3), None).await.unwrap();
    assert_eq!(unasked.recorded, Recorded::No);
    // The first start makes the root.
    let puts = || server.counts().operations.get(&Operation::Put).map_or(0, |counts| counts.requests);
    assert!(start(&store, false).await.is_none());
    let logged = async || left(&store).await.iter().filter(|key| key.starts_with("cells/")).count() as u64;
    let before = (puts(), logged().await);
    assert!(start(&store, false).await.is_none());
    let commits = logged().await - before.1;
    assert!(commits >= 1, "the takeover; and the broker may have come and gone as a member");
    assert_eq!(puts() - before.0, commits, "a root that has passed is not asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_promise_is_found() {
    for (weakness, expected) in [
        (Weakness::IgnoresConditions, Promise::OneCreates),
        (Weakness::RacesConditions, Promise::OneCreates),
        (Weakness::RefusesConditions, Promise::OneCreates),
        (Weakness::ReadsLate, Promise::ReadsWhatWasWritten),
        (Weakness::ListsLate, Promise::ListsWhatWasWritten),
        (Weakness::ListsDeleted, Promise::Deletes),
        (Weakness::ShiftsRanges, Promise::ReadsParts),
    ] {
        let server = server(weakness).await;
        let store = patient(&server);
        let checked = check_store(&store, &options(1), RECORD).await;
        if weakness == Weakness::ReadsLate {
            // Its creates can't be told apart from those of others either: either promise names it.
            assert!(!checked.is_ok_and(|checked| checked.report.passed()), "{weakness:?}");
            continue;
        }
        let report = checked.unwrap().report;
        let broken: Vec<_> = report.broken().map(|finding| finding.promise).collect();
        assert_eq!(broken, [expected], "{weakness:?}: {report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verdict_of_a_racing_store_keeps_brokers_away() {
    let server = server(Weakness::RacesConditions).await;
    let store = patient(&server);
    assert!(start(&store, false).await.is_none(), "one after the other nobody races: only the check finds it");
    assert_eq!(check(&store, 1).await.recorded, Recorded::Now);
    let refused = start(&store, false).await.unwrap();
    let text = told(&refused);
    assert!(text.contains("create-if-absent") && text.contains("of 16 rivals"), "{text}");
    assert!(refused.remedy().unwrap().contains("--accept-unsafe-store"));
    server.set_conduct(Conduct::default()).await.unwrap();
    let lucky = check(&store, 2).await;
    assert!(lucky.report.passed());
    assert_eq!(lucky.recorded, Recorded::StillFailed);
    assert!(start(&store, false).await.is_some());
    assert!(start(&store, true).await.is_none(), "as told");
    store.delete(&[Key::new("lakebed-check.json").unwrap()]).await.unwrap();
    assert_eq!(check(&store, 3).await.recorded, Recorded::Now);
    assert!(start(&store, false).await.is_none());
    server.set_conduct(Conduct { weakness: Weakness::IgnoresConditions, ..Conduct::default() }).await.unwrap();
    assert_eq!(check(&store, 4).await.recorded, Recorded::Now, "what has failed since is no longer one that passed");
    assert!(start(&store, false).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_finds_a_store_without_conditional_writes_by_itself() {
    for (weakness, expected) in
        [(Weakness::IgnoresConditions, "overwrites"), (Weakness::RefusesConditions, "knows no conditional writes")]
    {
        let server = server(weakness).await;
        let store = patient(&server);
        let refused = start(&store, false).await.unwrap();
        assert!(told(&refused).contains(expected), "{weakness:?}: {}", told(&refused));
        assert!(left(&store).await.is_empty(), "{weakness:?}: {:?}", left(&store).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_that_is_damaged_is_told_and_not_passed_over() {
    let server = server(Weakness::None).await;
    let store = patient(&server);
    store.create(&Key::new("lakebed-check.json").unwrap(), "{}").await.unwrap();
    let refused = start(&store, false).await.unwrap();
    assert!(told(&refused).contains("lakebed-check.json can't be used"), "{}", told(&refused));
    assert!(refused.remedy().unwrap().contains("delete lakebed-check.json"));
    let checked = check_store(&store, &options(1), RECORD).await.unwrap_err();
    assert!(told(&checked).contains("lakebed-check.json can't be used"), "{}", told(&checked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_store_that_looks_and_writes_in_two_steps_fails() {
    let directory = tempfile::tempdir().unwrap();
    let filesystem = Some(directory.path().to_owned());
    let server = S3Server::start(Options { filesystem, ..Options::default() }).await.unwrap();
    let store = patient(&server);
    // Its first race has several winners, as have nearly all; 48 of them that all have one would be luck beyond belief.
    let checked = check_store(&store, &CheckOptions { rounds: 48, ..options(1) }, RECORD).await.unwrap();
    let broken: Vec<_> = checked.report.broken().collect();
    assert_eq!(broken.len(), 1, "{:#?}", checked.report);
    assert_eq!(broken[0].promise, Promise::OneCreates);
    assert!(broken[0].detail.contains("rivals"), "{}", broken[0].detail);
    assert!(matches!(start(&store, false).await, Some(StartError::Unsafe(_))));
}

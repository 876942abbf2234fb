//! Objects in parts over real HTTP, with what goes wrong at each step.

use lakebed_sim::s3::bill::Operation;
use lakebed_sim::s3::conduct::{Conduct, Fault, Rule};
use lakebed_sim::s3::{Options, S3Server};
use lakebed_store::{CreateError, Created, Key, Store};

use super::{impatient, patient, told};

fn key() -> Key {
    Key::new("tables/orders/data/file").unwrap()
}

fn body(store: &Store) -> Vec<u8> {
    (0..store.part_bytes() + 1000).map(|index| (index % 251) as u8).collect()
}

async fn create(store: &Store) -> Result<Created, CreateError> {
    let mut upload = store.create_in_parts(&key());
    upload.push(body(store).into()).await?;
    upload.finish().await
}

fn rule(fault: Fault, operation: Operation, applied: bool, times: u64) -> Conduct {
    let rule = Rule {
        fault,
        operation: Some(operation),
        key_contains: "tables/".to_owned(),
        access_key: None,
        address: None,
        applied,
        applied_after_ms: None,
        probability: 1.0,
        skip: 0,
        times: Some(times),
    };
    Conduct { rules: vec![rule], ..Conduct::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_once_the_object_is_created_and_nothing_else_is_left() {
    let server = S3Server::start(Options::default()).await.unwrap();
    let store = patient(&server);
    for operation in [Operation::Begin, Operation::Part, Operation::Complete, Operation::Abort] {
        for fault in [Fault::SlowDown, Fault::InternalError, Fault::CutConnection] {
            for applied in [false, true] {
                server.set_conduct(rule(fault, operation, applied, 1)).await.unwrap();
                let before = server.uploads_open();
                let created = create(&store).await.unwrap();
                let is_found = operation == Operation::Complete && applied;
                let expected = if is_found { Created::Mine } else { Created::New };
                assert_eq!(created, expected, "{operation:?} {fault:?} {applied}");
                assert!(store.get(&key()).await.unwrap() == body(&store), "{operation:?} {fault:?} {applied}");
                // Nobody knows what was begun without an answer.
                let lost = usize::from(operation == Operation::Begin && applied);
                assert_eq!(server.uploads_open() - before, lost, "{operation:?} {fault:?} {applied}");
                store.delete(&[key()]).await.unwrap();
            }
        }
    }
    server.set_conduct(rule(Fault::Conflict, Operation::Complete, false, 1)).await.unwrap();
    assert_eq!(create(&store).await.unwrap(), Created::New, "a conflict with nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_for_good_is_told_and_given_up() {
    let server = S3Server::start(Options::default()).await.unwrap();
    let store = impatient(&server);
    for operation in [Operation::Begin, Operation::Part, Operation::Complete] {
        server.set_conduct(rule(Fault::InternalError, operation, false, 9)).await.unwrap();
        let error = create(&store).await.unwrap_err();
        let is_unknown = matches!(error, CreateError::Unknown { .. });
        assert_eq!(is_unknown, operation == Operation::Complete, "{operation:?}: {}", told(&error));
        assert!(!store.exists(&key()).await.unwrap());
    }
    server.set_conduct(Conduct::default()).await.unwrap();
    let mut upload = store.create_in_parts(&key());
    upload.push(body(&store).into()).await.unwrap();
    upload.abort().await;
    assert!(!store.exists(&key()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_second_is_told_that_another_object_stands_there() {
    let server = S3Server::start(Options::default()).await.unwrap();
    let store = patient(&server);
    store.create(&key(), "first").await.unwrap();
    assert_eq!(create(&store).await.unwrap(), Created::Other);
    assert_eq!(store.get(&key()).await.unwrap(), "first");
}

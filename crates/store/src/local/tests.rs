//! What a local directory does beyond the conformance suite.

use super::*;
use crate::{CreateError, Created, ReadError, Store, StoreOptions};

fn open(directory: &Path) -> Result<Store, OpenError> {
    Store::open(directory.to_str().unwrap(), &StoreOptions::default())
}

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

#[tokio::test]
async fn a_second_store_on_a_directory_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    let refused = open(directory.path()).unwrap_err();
    assert!(matches!(&refused, OpenError::InUse { holder: Some(id), .. } if *id == std::process::id()), "{refused}");
    assert!(!refused.to_string().contains('\n'));
    let clone = first.clone();
    drop(first);
    assert!(matches!(open(directory.path()), Err(OpenError::InUse { .. })));
    drop(clone);
    open(directory.path()).unwrap();
}

#[tokio::test]
async fn objects_outlive_the_store_and_half_written_ones_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("a/new/root")).unwrap();
    assert_eq!(store.create(&key("x/y"), "body").await.unwrap(), Created::New);
    drop(store);
    let root = directory.path().join("a/new/root");
    fs::write(root.join(".staging/17"), "half").unwrap();
    let store = open(&root).unwrap();
    assert_eq!(&store.get(&key("x/y")).await.unwrap()[..], b"body");
    let listed = store.list(&Directory::root(), None, 10).await.unwrap().objects;
    assert_eq!(listed, [Listed { key: key("x/y"), size_bytes: 4 }]);
    assert!(root.join(".staging/17").exists(), "reading changes nothing");
    assert_eq!(store.create(&key("x/z"), "body").await.unwrap(), Created::New);
    assert_eq!(fs::read_dir(root.join(".staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(open(&file), Err(OpenError::NotADirectory { path }) if path == file));
    assert!(matches!(open(&file.join("below")), Err(OpenError::NotWritable { .. })));
}

#[tokio::test]
async fn the_lock_is_no_object() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    assert!(matches!(store.create(&key("lock"), "x").await, Err(CreateError::NotDone { .. })));
    assert!(matches!(store.get(&key("lock")).await, Err(ReadError::Refused { .. })));
    assert!(store.list(&Directory::root(), None, 10).await.unwrap().objects.is_empty());
}

#[tokio::test]
async fn a_directory_goes_with_its_last_object_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    for _ in 0..3 {
        assert_eq!(store.create(&key("a/b/c"), "1").await.unwrap(), Created::New);
        assert_eq!(store.list_directories(&Directory::root()).await.unwrap(), ["a"]);
        store.delete(&[key("a/b/c")]).await.unwrap();
        assert!(!directory.path().join("a").exists());
    }
    fs::create_dir(directory.path().join("empty")).unwrap();
    assert!(store.list_directories(&Directory::root()).await.unwrap().is_empty());
}

#[test]
fn after_a_failed_directory_sync_nothing_is_written_or_vouched_for() {
    let directory = tempfile::tempdir().unwrap();
    let backend = LocalBackend::open(directory.path()).unwrap();
    let files = &backend.files;
    files.create(&key("before"), &"x".into()).unwrap();
    files.durable.mark_linking(&directory.path().join("before")).keep();
    files.give_up_disk(ErrorKind::Other.into());
    assert_eq!(files.create(&key("after"), &"x".into()).unwrap_err().kind, FailureKind::Broken);
    assert_eq!(files.get(&key("before"), &Span::All).unwrap_err().kind, FailureKind::Broken);
    assert!(!directory.path().join("after").exists());
}

#[tokio::test]
async fn parts_lie_in_staging_until_they_are_whole_and_go_with_what_a_crash_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let part_bytes = Some(300_000);
    let options = StoreOptions { part_bytes, ..StoreOptions::default() };
    let store = Store::open(directory.path().to_str().unwrap(), &options).unwrap();
    let staged = || fs::read_dir(directory.path().join(".staging")).map_or(0, Iterator::count);
    let mut upload = store.create_in_parts(&key("x/y"));
    upload.push(vec![1; 700_000].into()).await.unwrap();
    assert_eq!((staged(), directory.path().join("x").exists()), (1, false));
    upload.push(vec![2; 1000].into()).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Created::New);
    assert_eq!(staged(), 0);
    let body = fs::read(directory.path().join("x/y")).unwrap();
    assert!(body == [vec![1; 700_000], vec![2; 1000]].concat());
    // As if the process ended there: nobody gives it up.
    let mut upload = store.create_in_parts(&key("x/z"));
    upload.push(vec![3; 700_000].into()).await.unwrap();
    std::mem::forget(upload);
    assert_eq!(staged(), 1);
    let backend = LocalBackend::look(directory.path()).unwrap();
    backend.files.clear_staging().unwrap();
    assert_eq!(staged(), 0);
}

#[test]
fn an_object_of_which_parts_are_missing_is_not_completed() {
    let directory = tempfile::tempdir().unwrap();
    let backend = LocalBackend::open(directory.path()).unwrap();
    let (files, target) = (&backend.files, key("a"));
    let upload = files.begin(&target).unwrap();
    files.put_part(&upload, &Part { index: 0, offset: 0, payload: "four".into() }).unwrap();
    assert_eq!(files.complete(&target, &upload, 5).unwrap_err().kind, FailureKind::Refused);
    files.abort(&upload).unwrap();
    for gone in [
        files.abort(&upload).unwrap_err(),
        files.complete(&target, &upload, 4).unwrap_err(),
        files.put_part(&upload, &Part { index: 1, offset: 4, payload: "more".into() }).unwrap_err(),
    ] {
        assert_eq!(gone.kind, FailureKind::Absent);
    }
    assert!(!directory.path().join("a").exists());
    files.give_up_disk(ErrorKind::Other.into());
    assert_eq!(files.begin(&target).unwrap_err().kind, FailureKind::Broken);
    assert_eq!(files.complete(&target, &upload, 4).unwrap_err().kind, FailureKind::Broken);
}

//! What groups write: how many commits of the log it costs, and in which order it stands there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use lakebed_log::{Log, Offload, Seams};
use lakebed_model::{Change, CommittedOffset, Offset, PartitionIndex, PartitionKey, TopicId, TopicName};
use lakebed_store::{MemoryBackend, Store, StoreOptions};
use uuid::Uuid;

use super::*;
use crate::groups::{Groups, Options};

mod beating;

const INTERVAL: Duration = Duration::from_millis(250);
const WALL_MS: i64 = 1_700_000_000_000;

fn key(partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId::new(Uuid::from_u128(1)), PartitionIndex::new(partition))
}

fn at(offset: u64) -> CommittedOffset {
    CommittedOffset { offset: Offset::new(offset), leader_epoch: None, time_ms: WALL_MS, metadata: "".into() }
}

fn nobody(group: &GroupId) -> MemberRef {
    MemberRef { group: group.clone(), member_id: String::new(), instance_id: None, generation: -1 }
}

async fn log(store: &Store) -> Log {
    let seams = Seams { wall: Arc::new(|| WALL_MS), seed: 1, offload: Offload::Inline };
    Log::open(store.clone(), lakebed_log::Options::default(), seams).await.unwrap()
}

/// A log with a topic of ten partitions, and groups over it.
async fn groups(store: &Store, retention: Duration) -> (Log, Groups) {
    let log = log(store).await;
    if log.state().topic_id("orders").is_none() {
        let name = TopicName::new("orders").unwrap();
        let create = Change::CreateTopic { id: key(0).topic, name, partitions: 10, config: BTreeMap::new() };
        log.change(create).await.unwrap();
    }
    let options = Options { limits: limits(), interval: INTERVAL, retention, waiting_bytes: 8 << 20 };
    let groups = Groups::new(log.clone(), options);
    tokio::spawn(groups.clone().run());
    (log, groups)
}

fn memory() -> Store {
    Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default())
}

async fn commit(groups: &Groups, from: MemberRef, offset: u64) -> Result<(), GroupError> {
    let partition = key(u32::try_from(offset % 10).unwrap());
    groups.commit(from, vec![(partition, at(offset))]).await?.await
}

#[tokio::test(start_paused = true)]
async fn a_thousand_commits_within_an_interval_are_two_commits_of_the_log() {
    let (log, groups) = groups(&memory(), Duration::from_secs(3600)).await;
    let before = log.state().number().get();
    let ids: Vec<GroupId> = (0..1000).map(|number| GroupId::new(&format!("group-{number}")).unwrap()).collect();
    let commits = ids.iter().zip(0..).map(|(id, offset)| commit(&groups, nobody(id), offset));
    let committed = join_all(commits).await;
    assert!(committed.iter().all(Result::is_ok), "{:?}", committed.iter().find(|one| one.is_err()));
    let cost = log.state().number().get() - before;
    assert!((1..=2).contains(&cost), "{cost} commits");
    assert_eq!(log.state().group_count(), 1000);
    for (id, offset) in ids.iter().zip(0_u64..) {
        let partition = key(u32::try_from(offset % 10).unwrap());
        assert_eq!(log.state().committed(id, partition), Some(&at(offset)));
    }
}

#[tokio::test(start_paused = true)]
async fn ten_consumers_that_commit_all_the_time_cost_four_commits_a_second() {
    let (log, groups) = groups(&memory(), Duration::from_secs(3600)).await;
    let before = log.state().number().get();
    let began = tokio::time::Instant::now();
    let busy = (0..10).map(|number| {
        let groups = groups.clone();
        async move {
            let id = GroupId::new(&format!("group-{number}")).unwrap();
            for offset in 0..40 {
                commit(&groups, nobody(&id), offset).await.unwrap();
            }
        }
    });
    join_all(busy).await;
    let intervals = began.elapsed().as_millis() / INTERVAL.as_millis();
    let cost = log.state().number().get() - before;
    assert!(u128::from(cost) <= intervals + 2, "{cost} commits in {intervals} intervals");
}

#[tokio::test(start_paused = true)]
async fn a_generation_is_durable_before_its_members_learn_of_it_and_waits_for_no_interval() {
    let (log, groups) = groups(&memory(), Duration::from_secs(3600)).await;
    let began = tokio::time::Instant::now();
    for generation in 1..=3 {
        let joined = groups.join(member(&format!("member-{generation}"))).await.unwrap();
        let stored = log.state().group(&id()).unwrap().generation;
        assert_eq!((joined.generation, stored.get()), (stored, generation * 2 - 1));
        groups.leave(&id(), &[(joined.member_id, None)]).unwrap().remove(0).unwrap();
    }
    assert!(began.elapsed() < INTERVAL, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_a_generation_commits_stands_before_the_generation_after_it() {
    let (log, groups) = groups(&memory(), Duration::from_secs(3600)).await;
    let a = groups.join(member("a")).await.unwrap();
    let from = MemberRef { group: id(), member_id: "a".to_owned(), instance_id: None, generation: 1 };
    let sync = Sync { member: from.clone(), protocol_type: None, protocol: None, assignments: Vec::new() };
    groups.sync(sync).await.unwrap();
    // Queued for the interval; the next generation takes it along.
    let committing = groups.commit(from, vec![(key(1), at(7))]).await.unwrap();
    groups.leave(&id(), &[(a.member_id, None)]).unwrap().remove(0).unwrap();
    let b = groups.join(member("b")).await.unwrap();
    assert_eq!((b.generation.get(), committing.await), (3, Ok(())));
    assert_eq!(log.state().committed(&id(), key(1)), Some(&at(7)));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_coordinator_commits_nothing_and_its_members_look_for_another() {
    let store = memory();
    let (_, groups) = groups(&store, Duration::from_secs(3600)).await;
    commit(&groups, nobody(&id()), 1).await.unwrap();
    let successor = log(&store).await;
    let refused = commit(&groups, nobody(&id()), 2).await;
    assert!(
        matches!(refused, Err(GroupError::NotCoordinator | GroupError::Stopped | GroupError::Unanswered { .. })),
        "{refused:?}"
    );
    let joined = groups.join(member("a")).await;
    assert!(
        matches!(joined, Err(GroupError::NotCoordinator | GroupError::Stopped | GroupError::Unanswered { .. })),
        "{joined:?}"
    );
    let state = successor.barrier().await.unwrap();
    assert_eq!(state.committed(&id(), key(2)), None);
    assert_eq!(state.committed(&id(), key(1)), Some(&at(1)));
}

#[tokio::test(start_paused = true)]
async fn old_offsets_of_a_group_without_members_expire_and_those_of_members_do_not() {
    let (log, groups) = groups(&memory(), Duration::from_secs(10)).await;
    let old = CommittedOffset { time_ms: WALL_MS - 20_000, ..at(1) };
    let idle = GroupId::new("idle").unwrap();
    for (partition, committed) in [(1, old.clone()), (2, at(2))] {
        groups.commit(nobody(&idle), vec![(key(partition), committed)]).await.unwrap().await.unwrap();
    }
    let gone = GroupId::new("gone").unwrap();
    groups.commit(nobody(&gone), vec![(key(1), old.clone())]).await.unwrap().await.unwrap();
    groups.join(member("a")).await.unwrap();
    let from = MemberRef { generation: 1, member_id: "a".to_owned(), ..nobody(&id()) };
    let sync = Sync { member: from.clone(), protocol_type: None, protocol: None, assignments: Vec::new() };
    groups.sync(sync).await.unwrap();
    groups.commit(from, vec![(key(1), old)]).await.unwrap().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let state = log.state();
    assert_eq!(state.group(&gone), None);
    let left: Vec<_> = state.group(&idle).unwrap().offsets.keys().copied().collect();
    assert_eq!(left, [key(2)], "what is younger stays");
    assert!(state.committed(&id(), key(1)).is_some(), "the group has a member");
}

#[tokio::test(start_paused = true)]
async fn members_that_did_not_come_back_after_a_restart_are_counted_out_so_that_their_offsets_can_expire() {
    let store = memory();
    let (log, first) = groups(&store, Duration::from_secs(3600)).await;
    first.join(member("a")).await.unwrap();
    assert_eq!(log.state().group(&id()).unwrap().members, 1);
    let (log, _second) = groups(&store, Duration::from_secs(3600)).await;
    tokio::time::sleep(Duration::from_secs(900)).await;
    let group = log.state().group(&id()).unwrap().clone();
    assert_eq!((group.members, group.generation.get()), (0, 2));
}

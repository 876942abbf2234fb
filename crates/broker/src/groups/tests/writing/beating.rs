//! The same of groups whose partitions are assigned here: over a log, with topics that come and grow, takeovers, and ears for what is new.

use std::collections::BTreeSet;

use super::*;
use crate::groups::reconcile::member::Beat;

/// A member of our gRPC service that joins and wants what there is.
fn joins(name: &str, names: &[&str]) -> Beat {
    Beat {
        group: id(),
        kind: GroupKind::Grpc,
        member_id: name.to_owned(),
        epoch: Generation::ZERO,
        instance_id: None,
        rack_id: None,
        client_id: "client".to_owned(),
        client_host: "/here".to_owned(),
        names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        pattern: None,
        assignor: None,
        owned: Some(BTreeSet::new()),
        session: 45 * SECOND,
        rebalance: Some(60 * SECOND),
    }
}

fn there(name: &str, epoch: Generation) -> Beat {
    Beat { epoch, names: None, owned: None, rebalance: None, ..joins(name, &[]) }
}

fn named(name: &str, epoch: Generation) -> MemberRef {
    let generation = i32::try_from(epoch.get()).unwrap();
    MemberRef { member_id: name.to_owned(), generation, ..nobody(&id()) }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_is_durable_before_its_member_learns_of_it_and_heartbeats_write_nothing() {
    let (log, groups) = groups(&memory(), Duration::from_secs(3600)).await;
    let joined = groups.beat(joins("a", &["orders"])).await.unwrap();
    let stored = log.state().group(&id()).unwrap().clone();
    assert_eq!((stored.generation, stored.members, stored.kind), (joined.epoch, 1, GroupKind::Grpc));
    assert_eq!(joined.assignment.map(|all| all.len()), Some(10));
    let before = log.state().number();
    for _ in 0..100 {
        assert_eq!(groups.beat(there("a", joined.epoch)).await.unwrap().epoch, joined.epoch);
    }
    assert_eq!(log.state().number(), before);
}

#[tokio::test(start_paused = true)]
async fn a_member_hears_of_a_topic_that_comes_and_of_another_member() {
    let (log, groups) = groups(&memory(), Duration::from_secs(3600)).await;
    let ear = groups.listen(&id(), "a");
    let joined = groups.beat(joins("a", &["orders", "later"])).await.unwrap();
    let create = Change::CreateTopic {
        id: TopicId::new(Uuid::from_u128(2)),
        name: TopicName::new("later").unwrap(),
        partitions: 2,
        config: BTreeMap::new(),
    };
    log.change(create).await.unwrap();
    ear.nudged().await;
    let told = groups.beat(there("a", joined.epoch)).await.unwrap();
    assert_eq!((told.epoch > joined.epoch, told.assignment.map(|all| all.len())), (true, Some(12)));
    groups.beat(Beat { session: 3600 * SECOND, ..joins("b", &["orders"]) }).await.unwrap();
    ear.nudged().await;
    let told = groups.beat(there("a", told.epoch)).await.unwrap();
    assert_eq!(told.assignment.map(|all| all.len()), Some(6));
    // It says nothing for its session, and hears that it is out.
    ear.nudged().await;
    assert_eq!(groups.beat(there("a", told.epoch)).await, Err(GroupError::UnknownMember));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_coordinator_begins_no_epoch_and_its_members_commit_nothing() {
    let store = memory();
    let (_, first) = groups(&store, Duration::from_secs(3600)).await;
    let joined = first.beat(joins("a", &["orders"])).await.unwrap();
    first.commit(named("a", joined.epoch), vec![(key(1), at(1))]).await.unwrap().await.unwrap();
    // It died between deciding and answering: nobody heard of this epoch, and none after it is as low.
    drop(first.beat(joins("lost", &["orders"])));
    let (log, second) = groups(&store, Duration::from_secs(3600)).await;
    let later = second.beat(joins("b", &["orders"])).await.unwrap();
    assert!(later.epoch > joined.epoch);
    let zombie = first.commit(named("a", joined.epoch), vec![(key(1), at(2))]).await;
    let zombie = match zombie {
        Ok(durable) => durable.await,
        Err(error) => Err(error),
    };
    let is_over = |error: &GroupError| {
        matches!(
            error,
            GroupError::NotCoordinator
                | GroupError::Stopped
                | GroupError::Unanswered { .. }
                | GroupError::UnknownMember
        )
    };
    assert!(zombie.as_ref().is_err_and(is_over), "{zombie:?}");
    let refused = first.beat(joins("c", &["orders"])).await;
    assert!(refused.as_ref().is_err_and(is_over), "{refused:?}");
    assert_eq!(second.beat(there("a", joined.epoch)).await, Err(GroupError::UnknownMember));
    let stranger = second.commit(named("a", joined.epoch), vec![(key(1), at(3))]).await;
    assert_eq!(stranger.err(), Some(GroupError::UnknownMember));
    second.commit(named("b", later.epoch), vec![(key(1), at(4))]).await.unwrap().await.unwrap();
    assert_eq!(log.state().committed(&id(), key(1)), Some(&at(4)));
}

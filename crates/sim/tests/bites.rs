//! Each rule of the log is left out once, and the checker must notice.

use lakebed_log::broken::Broken;
use lakebed_sim::{many, rules};

/// Worlds in which a missing rule must show.
const SEEDS: u64 = 400;

fn must_be_noticed(broken: Broken) {
    let summary = many::run(0..SEEDS, 1, |seed| rules::climate(broken, seed));
    assert!(
        summary.wrong.is_some(),
        "{} worlds without a rule, and nobody noticed: {:#?}",
        summary.worlds,
        summary.counters
    );
}

#[test]
fn reclaiming_takeovers_is_noticed() {
    must_be_noticed(Broken::ReclaimTakeovers);
}

#[test]
fn not_listing_after_taking_over_is_noticed() {
    must_be_noticed(Broken::NoListAfterTakingOver);
}

#[test]
fn not_listing_before_following_a_takeover_is_noticed() {
    must_be_noticed(Broken::NoListBeforeFollowing);
}

#[test]
fn not_listing_when_fenced_is_noticed() {
    must_be_noticed(Broken::NoListWhenFenced);
}

#[test]
fn acknowledging_out_of_order_is_noticed() {
    must_be_noticed(Broken::AcknowledgeOutOfOrder);
}

#[test]
fn a_checkpoint_of_what_is_in_flight_is_noticed() {
    must_be_noticed(Broken::CheckpointInFlight);
}

#[test]
fn not_reading_back_on_doubt_is_noticed() {
    must_be_noticed(Broken::NoReadBack);
}

#[test]
fn committing_a_flush_twice_is_noticed() {
    must_be_noticed(Broken::FlushTwice);
}

#[test]
fn reclaiming_commits_whose_rows_are_named_is_noticed() {
    must_be_noticed(Broken::ReclaimNamedRows);
}

#[test]
fn giving_producer_ids_before_they_are_durable_is_noticed() {
    must_be_noticed(Broken::GiveIdsInFlight);
}

#[test]
fn forgetting_producers_that_are_not_idle_is_noticed() {
    must_be_noticed(Broken::ForgetBusyProducers);
}

#[test]
fn committing_offsets_under_an_old_generation_is_noticed() {
    must_be_noticed(Broken::CommitUnderOldGenerations);
}

#[test]
fn deleting_table_files_at_once_is_noticed() {
    must_be_noticed(Broken::DeleteTableFilesAtOnce);
}

#[test]
fn deleting_table_files_that_a_snapshot_in_sight_shows_is_noticed() {
    must_be_noticed(Broken::DeleteSeenTableFiles);
}

#[test]
fn deleting_tables_of_deleted_topics_at_once_is_noticed() {
    must_be_noticed(Broken::DeleteGoneTablesAtOnce);
}

#[test]
fn leaving_hints_of_deleted_topics_is_noticed() {
    must_be_noticed(Broken::LeaveHints);
}

#[test]
fn refreshing_without_a_barrier_is_noticed() {
    must_be_noticed(Broken::RefreshWithoutBarrier);
}

#[test]
fn pushing_what_is_in_flight_is_noticed() {
    must_be_noticed(Broken::PushInFlight);
}

#[test]
fn answering_a_barrier_from_memory_is_noticed() {
    must_be_noticed(Broken::BarrierFromMemory);
}

#[test]
fn acknowledging_as_a_follower_is_noticed() {
    must_be_noticed(Broken::AcknowledgeAsFollower);
}

#[test]
fn every_rule_that_can_be_left_out_is_tested_here() {
    let source = include_str!("bites.rs");
    for (name, broken) in rules::RULES {
        assert!(source.contains(&format!("must_be_noticed(Broken::{broken:?})")), "{name}");
    }
}

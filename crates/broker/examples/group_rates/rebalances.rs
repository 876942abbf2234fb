//! How long it takes until everybody has an assignment.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::member::{HEARTBEAT, Member};
use crate::percentile_ms;
use crate::server::Server;

const GROUPS: usize = 100;
const MEMBERS: usize = 10;
const LARGE: usize = 100;
/// Heartbeats of each member whose time is measured.
const BEATS: usize = 10;

/// All members of all groups come at once. From the first that joins until every group is whole and all have their assignments; then the
/// time of heartbeats.
pub(crate) async fn many_groups(server: &Server) -> Value {
    let mut members = JoinSet::new();
    let begin = Arc::new(Barrier::new(GROUPS * MEMBERS + 1));
    let whole = Arc::new(AtomicI32::new(0));
    for group in 0..GROUPS {
        for _ in 0..MEMBERS {
            let mut member = Member::connect(server.kafka, &format!("group {group}")).await;
            let (begin, whole) = (Arc::clone(&begin), Arc::clone(&whole));
            members.spawn(async move {
                begin.wait().await;
                let begun = Instant::now();
                let mut settled = settle(&mut member, MEMBERS, &whole).await;
                // Whoever was whole before the last group was may send heartbeats meanwhile.
                let mut beats = Vec::with_capacity(BEATS);
                let mut ticks = interval(HEARTBEAT);
                while beats.len() < BEATS {
                    ticks.tick().await;
                    let (goes_on, took) = member.beat().await;
                    if !goes_on {
                        settled = settle(&mut member, MEMBERS, &whole).await;
                        beats.clear();
                    } else if whole.load(Ordering::Acquire) == GROUPS as i32 {
                        beats.push(took);
                    }
                }
                (settled.duration_since(begun), beats)
            });
        }
    }
    begin.wait().await;
    let (mut last, mut beats) = (Duration::ZERO, Vec::new());
    while let Some(done) = members.join_next().await {
        let (settled, of_member) = done.unwrap();
        last = last.max(settled);
        beats.extend(of_member);
    }
    json!({ "groups": GROUPS, "members": MEMBERS, "settled_s": last.as_secs_f64(), "heartbeat_p99_ms": percentile_ms(beats, 99) })
}

/// Until it has its assignment; its leader counts the group if it is whole.
async fn settle(member: &mut Member, members: usize, whole: &AtomicI32) -> Instant {
    if member.settle().await == Some(members) {
        whole.fetch_add(1, Ordering::AcqRel);
    }
    Instant::now()
}

/// A group of 99 is joined by one more: from its request until all 100 have their assignments of the new generation. The others hear of it by
/// their heartbeats.
pub(crate) async fn one_large_group(server: &Server) -> Value {
    let whole = Arc::new(AtomicI32::new(-1));
    let begin = Arc::new(Barrier::new(LARGE));
    let mut members = JoinSet::new();
    for _ in 1..LARGE {
        let mut member = Member::connect(server.kafka, "large").await;
        let (whole, begin) = (Arc::clone(&whole), Arc::clone(&begin));
        members.spawn(async move {
            let mut ticks = interval(HEARTBEAT);
            // First 99, each time with those who came meanwhile; the leader says which generation is whole.
            if member.settle().await == Some(LARGE - 1) {
                whole.store(member.generation, Ordering::Release);
            }
            while whole.load(Ordering::Acquire) != member.generation {
                ticks.tick().await;
                if !member.beat().await.0 && member.settle().await == Some(LARGE - 1) {
                    whole.store(member.generation, Ordering::Release);
                }
            }
            begin.wait().await;
            loop {
                ticks.tick().await;
                if !member.beat().await.0 {
                    member.settle().await;
                    return (member.generation, Instant::now());
                }
            }
        });
    }
    let mut newcomer = Member::connect(server.kafka, "large").await;
    begin.wait().await;
    let begun = Instant::now();
    newcomer.settle().await;
    let mut last = Instant::now();
    while let Some(done) = members.join_next().await {
        let (generation, settled) = done.unwrap();
        assert_eq!(generation, newcomer.generation, "one rebalance for all");
        last = last.max(settled);
    }
    json!({ "members": LARGE, "heartbeat_ms": HEARTBEAT.as_millis() as u64, "rebalance_s": last.duration_since(begun).as_secs_f64() })
}

//! Committed offsets expire: what a group without members has committed is forgotten some time after the last had left, or after it was
//! committed, if that was later. A loop proposes it; no clock decides anything inside of the state, and what is committed meanwhile stays.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lakebed_model::{Change, Group, GroupId};

use super::Groups;
use super::machine::Stored;

/// Groups are looked through so often, or in a tenth of the retention if that is shorter.
const INTERVAL_MAX: Duration = Duration::from_secs(600);
/// No more often than this.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Whether something of a group without members is older than `before_ms`: an offset, or the group itself if it has none.
pub(crate) fn is_due(group: &Group, before_ms: i64) -> bool {
    let mut offsets = group.offsets.values();
    let old = offsets.len() == 0 || offsets.any(|committed| committed.time_ms < before_ms);
    group.members == 0 && group.since_ms < before_ms && old
}

/// Looks through all groups now and then, for ever.
pub(crate) async fn expire(groups: &Groups) {
    let retention = groups.inner.options.retention;
    let interval = (retention / 10).clamp(INTERVAL_MIN, INTERVAL_MAX);
    loop {
        tokio::time::sleep(interval).await;
        pass(groups, retention).await;
    }
}

async fn pass(groups: &Groups, retention: Duration) {
    let state = groups.inner.log.state();
    let now_ms = (groups.inner.log.seams().wall)();
    let before_ms = now_ms.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
    // Members that the log has and memory has not were another broker's. Had one of them lived on, it would have joined here.
    let session_max = Duration::from_millis(groups.inner.options.limits.session_max);
    let are_lost = groups.inner.began.elapsed() >= session_max.min(retention);
    for (id, group) in state.groups() {
        if group.members > 0 && are_lost {
            groups.step(|machine, now| {
                if !machine.is_loaded(id) {
                    machine.mark_empty(now, id, &Stored::of(&state, id));
                }
            });
        } else if is_due(group, before_ms) && !propose(groups, id, before_ms).await {
            return;
        }
    }
    groups.counts().expiry_at_ms.store(now_ms, Ordering::Relaxed);
}

/// Proposes that old offsets are forgotten, unless the group lives; false if nothing is written any more.
async fn propose(groups: &Groups, id: &GroupId, before_ms: i64) -> bool {
    let Some(room) = groups.inner.queue.room(id.as_str().len() as u64).await else { return false };
    let stored = groups.stored(id);
    groups.step(|machine, _| {
        if stored.kind.is_some() && !machine.is_loaded(id) {
            let generation = stored.generation;
            machine.raise_floor(generation);
            let change = Change::ExpireOffsets { group: id.clone(), generation, before_ms };
            // What comes of it shows in the next pass.
            drop(groups.inner.queue.push_change(change, false, room));
            groups.counts().expired.fetch_add(1, Ordering::Relaxed);
        }
    });
    true
}

//! The rules that can be left out, and the weather in which that shows soon.

use lakebed_log::broken::Broken;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::climate::Climate;

/// Every rule that can be left out, with its name.
pub const RULES: [(&str, Broken); 20] = [
    ("reclaim-takeovers", Broken::ReclaimTakeovers),
    ("no-list-after-taking-over", Broken::NoListAfterTakingOver),
    ("no-list-before-following", Broken::NoListBeforeFollowing),
    ("no-list-when-fenced", Broken::NoListWhenFenced),
    ("acknowledge-out-of-order", Broken::AcknowledgeOutOfOrder),
    ("checkpoint-in-flight", Broken::CheckpointInFlight),
    ("no-read-back", Broken::NoReadBack),
    ("flush-twice", Broken::FlushTwice),
    ("reclaim-named-rows", Broken::ReclaimNamedRows),
    ("give-ids-in-flight", Broken::GiveIdsInFlight),
    ("forget-busy-producers", Broken::ForgetBusyProducers),
    ("delete-table-files-at-once", Broken::DeleteTableFilesAtOnce),
    ("delete-seen-table-files", Broken::DeleteSeenTableFiles),
    ("delete-gone-tables-at-once", Broken::DeleteGoneTablesAtOnce),
    ("leave-hints-of-gone-tables", Broken::LeaveHints),
    ("refresh-without-barrier", Broken::RefreshWithoutBarrier),
    ("commit-under-old-generations", Broken::CommitUnderOldGenerations),
    ("push-in-flight", Broken::PushInFlight),
    ("barrier-from-memory", Broken::BarrierFromMemory),
    ("acknowledge-as-follower", Broken::AcknowledgeAsFollower),
];

/// The climate of a seed in which a rule is left out.
pub fn climate(broken: Broken, seed: u64) -> Climate {
    Climate { broken, ..weather(broken, seed) }
}

/// The same with all rules in force.
pub fn weather(broken: Broken, seed: u64) -> Climate {
    let drawn = Climate::draw(&mut StdRng::seed_from_u64(seed));
    match broken {
        // The sequencer must not hear that a commit landed until that is merged, reclaimed, and something else is in its place.
        Broken::NoListWhenFenced => Climate {
            latency_ms: (5, 40),
            sluggish: (0, (0, 0)),
            attempt_ms: 300,
            applied_with_error: 0,
            late_takeovers: (0, (0, 0)),
            pause_ms: (1_000, 6_000),
            stuns: true,
            hunts: false,
            damage: 0,
            ..holes(drawn)
        },
        // A follower that is led astray finds back by the newest checkpoint, unless that can't be read.
        Broken::NoListBeforeFollowing => Climate {
            checkpoint_commits: 1,
            flushes_remembered_max: 4,
            latency_ms: (1, 2),
            sluggish: (500, (80, 400)),
            attempt_ms: 1_500,
            produce_ms: (60, 200),
            merge_ms: (40, 120),
            hunts: true,
            stuns: false,
            damage: 0,
            duration_ms: 25_000,
            ..holes(drawn)
        },
        Broken::DeleteTableFilesAtOnce
        | Broken::DeleteSeenTableFiles
        | Broken::DeleteGoneTablesAtOnce
        | Broken::LeaveHints => Climate { tables: true, ..drawn },
        // Whoever has been superseded must be asked before it commits anything and hears of it.
        Broken::RefreshWithoutBarrier => {
            Climate { tables: true, analyst_ms: (5, 60), produce_ms: (100, 300), idle_ms: (0, 400), ..drawn }
        }
        Broken::PushInFlight | Broken::BarrierFromMemory | Broken::AcknowledgeAsFollower => drawn.crowded(),
        _ => drawn,
    }
}

/// Commits are merged away and reclaimed within a second, takeovers land late in the holes, and some brokers are so slow that they
/// stumble over them.
fn holes(drawn: Climate) -> Climate {
    Climate {
        brokers: 3,
        uploaders: 1,
        producers: 3,
        duration_ms: 15_000,
        checkpoint_commits: 3,
        flushes_remembered_max: 12,
        in_flight_max: 2,
        latency_ms: (1, 4),
        slow: (0, (0, 0)),
        applied_with_error: 100,
        lost: 0,
        late: (0, (0, 0)),
        late_takeovers: (500, (300, 3_000)),
        sluggish: (350, (200, 1_500)),
        attempt_ms: 5_000,
        conflict: 0,
        cut: 0,
        idle_ms: (0, 200),
        nemesis_ms: (1_000, 5_000),
        pause_ms: (300, 3_000),
        ambush: true,
        doomed: 0,
        message_trouble: 20,
        message_ms: (1, 10),
        produce_ms: (5, 25),
        merge_ms: (20, 80),
        cells: 1,
        cell: 0,
        fetches: false,
        uploads: 0,
        tables: false,
        members: 0,
        ..drawn
    }
}

//! The rules that can be left out, and the weather in which that shows soon.

use lakebed_log::broken::Broken;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::climate::Climate;

/// Every rule that can be left out, with its name.
pub const RULES: [(&str, Broken); 8] = [
    ("reclaim-takeovers", Broken::ReclaimTakeovers),
    ("no-list-after-taking-over", Broken::NoListAfterTakingOver),
    ("no-list-when-fenced", Broken::NoListWhenFenced),
    ("acknowledge-out-of-order", Broken::AcknowledgeOutOfOrder),
    ("checkpoint-in-flight", Broken::CheckpointInFlight),
    ("no-read-back", Broken::NoReadBack),
    ("flush-twice", Broken::FlushTwice),
    ("reclaim-named-rows", Broken::ReclaimNamedRows),
];

/// The climate of a seed in which a rule is left out.
pub fn climate(broken: Broken, seed: u64) -> Climate {
    let drawn = Climate { broken, ..Climate::draw(&mut StdRng::seed_from_u64(seed)) };
    match broken {
        Broken::NoListWhenFenced => holes(drawn),
        // A follower that is led astray finds back by the newest checkpoint, unless that can't be read.
        Broken::NoListBeforeFollowing => Climate {
            checkpoint_commits: 1,
            flushes_remembered_max: 4,
            produce_ms: (20, 120),
            hunts: true,
            damage: 0,
            ..holes(drawn)
        },
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
        doomed: 0,
        message_trouble: 20,
        message_ms: (1, 10),
        produce_ms: (5, 25),
        merge_ms: (20, 80),
        ..drawn
    }
}

//! The plan of faults of one process: drawn from the seed, request by request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lakebed_store::faults::{Fault, Operation, Outcome, Symptom};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::climate::{Climate, chance, within};
use crate::process::Gate;

/// A plan for one process, which may be cut off from the store. When `healed` is set, nothing goes wrong any more.
pub(crate) fn plan(
    climate: Arc<Climate>,
    seed: u64,
    gate: Arc<Gate>,
    healed: Arc<AtomicBool>,
) -> impl FnMut(&Operation<'_>) -> Fault + Send + 'static {
    let mut rng = StdRng::seed_from_u64(seed);
    let sluggish = chance(&mut rng, climate.sluggish.0);
    move |operation| {
        if healed.load(Ordering::Relaxed) {
            return Fault::NONE;
        }
        let mut one_way = || {
            let slow = chance(&mut rng, climate.slow.0);
            Duration::from_millis(within(&mut rng, if slow { climate.slow.1 } else { climate.latency_ms }))
        };
        let (mut before, after) = (one_way(), one_way());
        if gate.is_cut_off() {
            let symptom = if chance(&mut rng, 500) { Symptom::Silence } else { Symptom::NotSent };
            return Fault { before, after, outcome: Outcome::LostWith(symptom) };
        }
        if sluggish {
            before += Duration::from_millis(within(&mut rng, climate.sluggish.1));
        }
        Fault { before, after, outcome: outcome(&climate, &mut rng, operation) }
    }
}

fn outcome(climate: &Climate, rng: &mut StdRng, operation: &Operation<'_>) -> Outcome {
    let creates = matches!(operation, Operation::Create { .. } | Operation::Complete { .. });
    let stores = matches!(operation, Operation::Begin { .. } | Operation::PutPart { .. } | Operation::Abort { .. });
    let writes = creates || stores || matches!(operation, Operation::Overwrite { .. } | Operation::Delete { .. });
    if chance(rng, climate.lost) {
        let symptoms = [
            Symptom::NotSent,
            Symptom::SlowDown,
            Symptom::ServerError,
            Symptom::Cut,
            Symptom::Silence,
            Symptom::Refused,
        ];
        // A refusal is final for its call, and rare on a real store.
        let symptom = symptoms[rng.random_range(0..symptoms.len())];
        let symptom = if symptom == Symptom::Refused && !chance(rng, 200) { Symptom::ServerError } else { symptom };
        return Outcome::LostWith(symptom);
    }
    if writes && chance(rng, climate.applied_with_error) {
        return Outcome::AppliedWith(doubtful(rng, creates));
    }
    if writes && chance(rng, climate.late.0) {
        // SUBTLE: never with a conflict: a store that says "exists" has not kept the request for later.
        return Outcome::LateWith(doubtful(rng, false), Duration::from_millis(within(rng, climate.late.1)));
    }
    if let Operation::Create { payload, .. } = operation
        && climate.late_takeovers.0 > 0
        && holds(&payload.slice(0, payload.size_bytes()), b"{\"takeover\":")
        && chance(rng, climate.late_takeovers.0)
    {
        return Outcome::LateWith(doubtful(rng, false), Duration::from_millis(within(rng, climate.late_takeovers.1)));
    }
    if creates && chance(rng, climate.conflict) {
        return Outcome::LostWith(Symptom::Conflict);
    }
    if matches!(operation, Operation::Get { .. }) && chance(rng, climate.cut) {
        return Outcome::CutBody(rng.random_range(0..2_000));
    }
    Outcome::Answered
}

fn doubtful(rng: &mut StdRng, creates: bool) -> Symptom {
    let symptoms = [Symptom::SlowDown, Symptom::ServerError, Symptom::Cut, Symptom::Silence, Symptom::Conflict];
    let count = if creates { symptoms.len() } else { symptoms.len() - 1 };
    symptoms[rng.random_range(0..count)]
}

fn holds(object: &[u8], words: &[u8]) -> bool {
    object.windows(words.len()).any(|window| window == words)
}

//! The rule: who may go, and what answers and throttles do to the limit.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const PACING: Pacing = Pacing { requests_first: 16, requests_max: 32 };

fn pace() -> Pace {
    Pace::new(&PACING)
}

/// Begins and answers so many.
fn answer(pace: &mut Pace, count: usize) {
    for _ in 0..count {
        let begun = pace.begin(Priority::Produce);
        pace.answered(begun);
        pace.end(begun);
    }
}

fn throttle(pace: &mut Pace, now: Instant) -> Duration {
    let begun = pace.begin(Priority::Tail);
    pace.throttled(begun, now, |throttles| Duration::from_secs(1 << throttles));
    pace.end(begun);
    pace.rest_until(now).map_or(Duration::ZERO, |until| until - now)
}

#[test]
fn a_place_for_produce_is_taken_by_nothing_else_whatever_comes_and_goes() {
    let (mut random, now) = (StdRng::seed_from_u64(7), Instant::now());
    for _ in 0..200 {
        let requests_first = random.random_range(1..40);
        let mut pace = Pace::new(&Pacing { requests_first, requests_max: 40 });
        let mut begun: Vec<Begun> = Vec::new();
        for _ in 0..200 {
            let priority = Priority::ALL[random.random_range(0..4)];
            if pace.admits(priority, now) {
                assert!(Priority::ALL[..priority as usize].iter().all(|before| pace.admits(*before, now)));
                begun.push(pace.begin(priority));
            } else if !begun.is_empty() {
                pace.end(begun.swap_remove(random.random_range(0..begun.len())));
            }
            let (limit, others) = (pace.limit(), pace.under_way[1..].iter().sum::<u32>());
            assert!(pace.under_way() <= limit, "{pace:?}");
            assert!(others < limit && others <= (limit * 3 / 4).max(1), "{pace:?}");
            assert!(pace.under_way[3] <= (limit / 4).max(1), "{pace:?}");
        }
        begun.into_iter().for_each(|begun| pace.end(begun));
        assert_eq!(pace.under_way(), 0);
        assert!(Priority::ALL.iter().all(|priority| pace.admits(*priority, now)), "what is idle admits everything");
    }
}

#[test]
fn the_limit_rises_by_one_for_each_limit_of_answers_while_it_is_used_and_stops_at_its_bound() {
    let mut pace = pace();
    answer(&mut pace, 1_000);
    assert_eq!(pace.limit(), 16, "one at a time says nothing of sixteen");
    let held: Vec<Begun> = (0..13).map(|_| pace.begin(Priority::Produce)).collect();
    answer(&mut pace, 17);
    assert_eq!(pace.limit(), 17);
    answer(&mut pace, 10_000);
    assert_eq!(pace.limit(), 28, "thirteen that wait and one that is answered are less than half of twenty-nine");
    let more: Vec<Begun> = (0..10).map(|_| pace.begin(Priority::Tail)).collect();
    answer(&mut pace, 10_000);
    assert_eq!(pace.limit(), 32);
    held.into_iter().chain(more).for_each(|begun| pace.end(begun));
}

#[test]
fn requests_that_are_throttled_together_halve_the_limit_once() {
    let (mut pace, now) = (pace(), Instant::now());
    let together: Vec<Begun> = (0..8).map(|_| pace.begin(Priority::Produce)).collect();
    for begun in together {
        pace.throttled(begun, now, |_| Duration::from_secs(1));
        pace.end(begun);
    }
    assert_eq!((pace.limit(), pace.rest_until(now)), (8, Some(now + Duration::from_secs(1))));
    for _ in 0..20 {
        throttle(&mut pace, now);
    }
    assert_eq!(pace.limit(), LIMIT_MIN, "one for produce, one for the rest");
    let later = now + Duration::from_secs(1 << 20);
    let rest = pace.begin(Priority::Compaction);
    assert!(!pace.admits(Priority::Tail, later) && pace.admits(Priority::Produce, later));
    pace.end(rest);
}

#[test]
fn rests_double_until_the_store_answers_again() {
    let (mut pace, now) = (pace(), Instant::now());
    let before = pace.begin(Priority::Produce);
    let rests: Vec<u64> = (0..4).map(|_| throttle(&mut pace, now).as_secs()).collect();
    assert_eq!(rests, [1, 2, 4, 8]);
    assert!(!pace.admits(Priority::Produce, now), "nobody asks meanwhile");
    assert!(pace.admits(Priority::Produce, now + Duration::from_secs(8)));
    pace.answered(before);
    pace.end(before);
    assert_eq!(throttle(&mut pace, now).as_secs(), 16, "an answer to an older request says nothing of now");
    answer(&mut pace, 1);
    assert_eq!(throttle(&mut pace, now).as_secs(), 1, "an answer makes all forgotten");
}

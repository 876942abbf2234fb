//! Worlds in which all rules hold.

use std::process::Command;

use lakebed_log::broken::Broken;
use lakebed_sim::climate::Climate;
use lakebed_sim::{World, many, rules};
use rand::SeedableRng;
use rand::rngs::StdRng;

const SEEDS: u64 = 1_000;

fn climate(seed: u64) -> Climate {
    Climate::draw(&mut StdRng::seed_from_u64(seed))
}

#[test]
fn no_record_is_lost_doubled_reordered_or_changed_in_a_thousand_worlds_that_exercised_everything() {
    let summary = many::run(0..SEEDS, 2, climate);
    if let Some(wrong) = &summary.wrong {
        panic!("{wrong}");
    }
    assert_eq!(summary.worlds, SEEDS);
    assert_eq!(summary.idle(), Vec::<&str>::new(), "these worlds were too tame: {:#?}", summary.counters);
}

#[test]
fn the_weather_in_which_a_missing_rule_shows_is_harmless_when_none_is_missing() {
    let weathers = [
        (Broken::NoListWhenFenced, 150, "objects in holes read"),
        (Broken::NoListBeforeFollowing, 40, "objects in holes read"),
        (Broken::RefreshWithoutBarrier, 60, "tables refreshed"),
    ];
    for (broken, seeds, exercised) in weathers {
        let summary = many::run(0..seeds, 2, |seed| rules::weather(broken, seed));
        if let Some(wrong) = &summary.wrong {
            panic!("{wrong}");
        }
        assert!(summary.counters[exercised] > 0, "{:#?}", summary.counters);
    }
}

#[test]
fn a_seed_gives_the_same_trace_in_every_process() {
    let mut clusters = 0;
    for seed in [3, 14, 159, 2, 8, 10] {
        let hash = || {
            let command = Command::new(env!("CARGO_BIN_EXE_lakebed-sim")).args(["--seed", &seed.to_string()]).output();
            String::from_utf8(command.unwrap().stdout).unwrap()
        };
        let (first, second) = (hash(), hash());
        assert!(first.starts_with("trace hash "), "{first}");
        assert_eq!(first, second, "seed {seed}");
        let here = World::run_seed(seed, false);
        assert_eq!(first.trim(), format!("trace hash {:016x}", here.hash), "seed {seed}");
        clusters += here.counters.get("clusters").copied().unwrap_or(0);
    }
    assert!((1..6).contains(&clusters), "{clusters} of these worlds have a cluster, and not all do");
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(World::run_seed(1, false).hash, World::run_seed(2, false).hash);
}

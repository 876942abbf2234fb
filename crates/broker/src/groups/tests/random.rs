//! Random clients: whatever they do, everybody is answered once, generations rise, bytes are counted, and groups come to rest.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const SEEDS: u64 = 300;
const STEPS: usize = 200;

fn step(world: &mut World, random: &mut StdRng, ids: &mut u32) {
    let known: Vec<String> = (1..=*ids).map(|number| format!("m{number}")).collect();
    let pick = |random: &mut StdRng| known.get(random.random_range(0..known.len().max(1))).cloned().unwrap_or_default();
    // The first one has nobody to act as.
    match random.random_range(0..if *ids == 0 { 1 } else { 12 }) {
        0..3 => {
            *ids += 1;
            let instance_id = random.random_ratio(1, 4).then(|| format!("i{}", random.random_range(0..2)));
            let wants_id_first = random.random();
            let protocols = vec![("range".to_owned(), Bytes::from(vec![0; random.random_range(0..64)]))];
            world.join(Join { instance_id, wants_id_first, protocols, ..member(&format!("m{ids}")) });
        }
        3..6 => {
            let member_id = pick(random);
            assert!(!member_id.is_empty());
            let instance_id = random.random_ratio(1, 4).then(|| format!("i{}", random.random_range(0..2)));
            world.join(Join { member_id, instance_id, ..member("unused") });
        }
        6..8 => {
            let name = pick(random);
            world.sync(&name, &[("m1", "one"), ("m2", "two")]);
        }
        8 => drop(world.heartbeat(&pick(random))),
        9 => drop(world.leave(&pick(random))),
        10 => {
            let from = world.member(&pick(random));
            drop(world.commit(&from));
        }
        _ => world.wait(random.random_range(0..12) * SECOND),
    }
}

#[test]
fn whatever_clients_do_everybody_is_answered_once_and_nothing_is_left_behind() {
    let (mut stable_seen, mut generations) = (0, 0);
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let initial_delay = if seed % 2 == 0 { 0 } else { 3 * SECOND };
        let mut world = World::with(Limits { initial_delay, ..limits() });
        let mut ids = 0;
        for _ in 0..STEPS {
            step(&mut world, &mut random, &mut ids);
            stable_seen += usize::from(world.phase() == Phase::Stable);
        }
        // Nobody says anything any more.
        world.wait(3600 * SECOND);
        assert_eq!(world.machine.size(), (0, 0, 0), "seed {seed}");
        assert_eq!(world.machine.next_due(), None, "seed {seed}");
        assert_eq!(
            world.joined.len() + world.synced.len(),
            world.tickets as usize,
            "seed {seed}: somebody waits for ever"
        );
        generations += world.started.len();
    }
    assert!(stable_seen > 1000 && generations > 1000, "{stable_seen} times stable, {generations} generations: too few");
}

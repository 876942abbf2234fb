//! What is done to a cluster besides killing and pausing: the network parts, the store can't be reached, brokers are told to stop, and those who
//! lead are paused one after the other.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::{Cut, Station, lock};
use crate::climate::within;
use crate::world::{World, pause};

/// Harms the cluster until the world is calm.
pub(crate) async fn storm(world: Arc<World>) {
    let mut rng = world.rng("storm", 0);
    loop {
        sleep(Duration::from_millis(within(&mut rng, world.climate.nemesis_ms))).await;
        if world.is_calm() {
            return;
        }
        let living = world.cluster.living();
        if living.is_empty() {
            continue;
        }
        let victim = &living[rng.random_range(0..living.len())];
        let time = Duration::from_millis(within(&mut rng, world.climate.cut_ms));
        match rng.random_range(0..6) {
            0 => {
                let other = &living[rng.random_range(0..living.len())];
                part(&world, &mut rng, victim.slot, &[other.slot], time);
            }
            1 => {
                let others: Vec<usize> = (0..world.climate.members).collect();
                part(&world, &mut rng, victim.slot, &others, time);
            }
            2 => cut_off(&world, victim, time),
            3 => {
                world.trace.note(format_args!("{} is told to stop", victim.gate.name()));
                victim.stop.notify_one();
            }
            4 => stun_leaders(&world, &living, time),
            _ => {
                // A sequencer that commits, but that nobody hears.
                let leader = living.iter().find(|station| station.leading(|_| ()).is_some()).unwrap_or(victim);
                let others: Vec<usize> = (0..world.climate.members).collect();
                part(&world, &mut rng, leader.slot, &others, time);
            }
        }
    }
}

/// One and each of the others don't reach each other for a while.
fn part(world: &Arc<World>, rng: &mut StdRng, one: usize, others: &[usize], time: Duration) {
    let cut = if rng.random_range(0..2) == 0 { Cut::Silent } else { Cut::Broken };
    let pairs = others.iter().filter(|other| **other != one).map(|other| (one.min(*other), one.max(*other)));
    let pairs: Vec<(usize, usize)> = pairs.collect();
    world.trace.note(format_args!("{pairs:?} can't reach each other: {cut:?}"));
    world.trace.count("partitions");
    lock(&world.cluster.cuts).extend(pairs.iter().map(|pair| (*pair, cut)));
    let world = Arc::clone(world);
    tokio::spawn(async move {
        sleep(time).await;
        lock(&world.cluster.cuts).retain(|pair, _| !pairs.contains(pair));
    });
}

fn cut_off(world: &World, victim: &Arc<Station>, time: Duration) {
    world.trace.note(format_args!("{} can't reach the store", victim.gate.name()));
    world.trace.count("partitions from the store");
    victim.gate.cut_off(true);
    let gate = Arc::clone(&victim.gate);
    tokio::spawn(async move {
        sleep(time).await;
        gate.cut_off(false);
    });
}

/// Pauses all who believe to lead; whoever comes next joins them if this happens again.
fn stun_leaders(world: &World, living: &[Arc<Station>], time: Duration) {
    for station in living.iter().filter(|station| station.leading(|_| ()).is_some()) {
        pause(world, Arc::clone(&station.gate), time);
    }
}

//! Random members, honest and forgetful: a partition never has two readers, epochs only grow, and in the end everybody who stays has its share.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const SEEDS: u64 = 150;
const STEPS: usize = 250;

/// A process that reads: what it believes, which is what it does.
#[derive(Debug, Clone)]
struct Reader {
    id: String,
    instance_id: Option<String>,
    epoch: u32,
    /// What it reads.
    holds: Partitions,
    names: Vec<String>,
    pattern: Option<String>,
    /// It has not got its last answer, so it says everything next.
    missed: bool,
}

struct Readers {
    world: World,
    readers: Vec<Reader>,
    random: StdRng,
    next: u32,
    lost: usize,
}

impl Readers {
    fn new(seed: u64) -> Self {
        Self { world: World::new(5), readers: Vec::new(), random: StdRng::seed_from_u64(seed), next: 0, lost: 0 }
    }

    fn beat_of(&self, reader: &Reader, whole: bool) -> Beat {
        let base = if whole || reader.epoch == 0 { joins(&reader.id) } else { there(&reader.id, reader.epoch) };
        let tells = base.names.is_some();
        Beat {
            epoch: Generation::new(reader.epoch),
            instance_id: reader.instance_id.clone(),
            names: tells.then(|| reader.names.clone()),
            pattern: if tells { Some(reader.pattern.clone().unwrap_or_default()) } else { None },
            owned: Some(reader.holds.clone()),
            ..base
        }
    }

    /// One asks, and does what it is told, unless the answer is lost.
    fn ask(&mut self, at: usize, whole: bool, is_lost: bool) {
        let beat = self.beat_of(&self.readers[at], whole || self.readers[at].missed);
        let told = self.world.beat(beat);
        self.readers[at].missed = is_lost;
        if is_lost {
            self.lost += 1;
            return;
        }
        let reader = &mut self.readers[at];
        match told {
            Ok(beaten) => {
                assert!(beaten.epoch.get() >= reader.epoch, "epochs only grow");
                reader.epoch = beaten.epoch.get();
                if let Some(assignment) = beaten.assignment {
                    reader.holds = assignment;
                }
            }
            Err(GroupError::FencedEpoch | GroupError::UnknownMember) => {
                (reader.epoch, reader.holds) = (0, Partitions::new());
                // One that is fenced comes as another: its old self goes with its session.
                self.next += 1;
                reader.id = format!("m{}", self.next);
            }
            Err(GroupError::FencedInstance | GroupError::UnreleasedInstance | GroupError::GroupFull) => {
                self.readers.remove(at);
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn check(&self, seed: u64) {
        let mut readers: BTreeMap<PartitionKey, &str> = BTreeMap::new();
        for reader in &self.readers {
            for key in &reader.holds {
                let other = readers.insert(*key, &reader.id);
                assert_eq!(other, None, "seed {seed}: {key} is read by {} as well", reader.id);
            }
        }
        let Some(group) = self.world.group() else { return };
        assert!(group.target_epoch <= group.epoch);
        for member in &group.members {
            assert!(member.epoch.is_none_or(|epoch| epoch <= group.target_epoch), "seed {seed}");
        }
    }

    fn step(&mut self) {
        let at = self.random.random_range(0..self.readers.len().max(1));
        let any = at < self.readers.len();
        match self.random.random_range(0..14) {
            0 | 1 => {
                self.next += 1;
                let instance_id =
                    self.random.random_ratio(1, 3).then(|| format!("i{}", self.random.random_range(0..3)));
                let names =
                    if self.random.random() { vec!["orders".to_owned()] } else { vec!["pay".into(), "x".into()] };
                let pattern = self.random.random_ratio(1, 3).then(|| "(p|x).*".to_owned());
                let (id, holds) = (format!("m{}", self.next), Partitions::new());
                self.readers.push(Reader { id, instance_id, epoch: 0, holds, names, pattern, missed: false });
                self.ask(self.readers.len() - 1, true, false);
            }
            2..9 if any => {
                let (whole, is_lost) = (self.random.random_ratio(1, 4), self.random.random_ratio(1, 6));
                self.ask(at, whole, is_lost);
            }
            9 if any => {
                self.readers[at].names =
                    if self.random.random() { vec!["x".into()] } else { vec!["orders".into(), "pay".into()] };
                self.ask(at, true, false);
            }
            10 if any => {
                let reader = self.readers.remove(at);
                let comes_back = reader.instance_id.is_some() && self.random.random();
                let (member_id, instance_id) = (reader.id, reader.instance_id);
                drop(self.world.depart(&Departure { group: id(), member_id, instance_id, comes_back }));
            }
            11 => {
                let partitions = self.random.random_range(1..7);
                let number = self.random.random_range(2..4);
                let there = self.random.random_ratio(3, 4).then_some(partitions);
                self.world.topic(if number == 2 { "pay" } else { "x1" }, number, there);
            }
            12 if any && self.random.random_ratio(1, 3) => drop(self.readers.remove(at)),
            _ => {
                // Nobody is silent for longer than its session unless it has gone: all say that they are there.
                self.world.wait(self.random.random_range(1..15) * SECOND);
                for at in (0..self.readers.len()).rev() {
                    self.ask(at, false, false);
                }
            }
        }
    }

    /// Everybody asks until nothing is new.
    fn settle(&mut self, seed: u64) {
        for _ in 0..30 {
            self.world.wait(10 * SECOND);
            for at in (0..self.readers.len()).rev() {
                self.ask(at, false, false);
                self.check(seed);
            }
        }
    }
}

#[test]
fn no_partition_has_two_readers_and_all_have_one_in_the_end() {
    let (mut lost, mut stable) = (0, 0);
    for seed in 0..SEEDS {
        let mut readers = Readers::new(seed);
        for _ in 0..STEPS {
            readers.step();
            readers.check(seed);
        }
        readers.settle(seed);
        lost += readers.lost;
        if let Some(group) = readers.world.group() {
            stable += 1;
            assert_eq!(group.progress, Progress::Stable, "seed {seed}: {group:#?}");
            assert!(group.members.iter().all(|member| member.assigned == member.target), "seed {seed}");
            let held: Partitions = readers.readers.iter().flat_map(|reader| &reader.holds).copied().collect();
            let targets: Partitions = group.members.iter().flat_map(|member| &member.target).copied().collect();
            assert_eq!(held, targets, "seed {seed}: what is assigned is read");
        }
        // Nobody says anything any more.
        readers.world.wait(SESSION + REBALANCE);
        assert_eq!(readers.world.machine.size(), (0, 0, 0), "seed {seed}");
        assert_eq!(readers.world.machine.next_due(), None, "seed {seed}");
        assert_eq!(readers.world.told.len(), readers.world.tickets as usize, "seed {seed}: somebody waits for ever");
    }
    assert!(lost > 1000 && stable > SEEDS / 2, "{lost} answers lost, {stable} groups: too few");
}

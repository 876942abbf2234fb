//! The weather of one world: how often things fail, how slow they are, how small the limits are. Drawn from the seed.

use lakebed_log::broken::Broken;
use rand::Rng;
use rand::rngs::StdRng;

/// A range of milliseconds, both ends possible.
pub type Range = (u64, u64);

/// What a world is like. Chances are out of 1000.
#[derive(Debug, Clone)]
pub struct Climate {
    /// The rule that is left out.
    pub broken: Broken,
    /// Brokers that take over, again and again.
    pub brokers: usize,
    /// Brokers that upload and commit through whoever is the sequencer.
    pub uploaders: usize,
    /// Producers, about half of them idempotent.
    pub producers: usize,
    /// How long clients run, in simulated milliseconds.
    pub duration_ms: u64,
    /// Commits between checkpoints.
    pub checkpoint_commits: u64,
    /// Flush ids that the log remembers.
    pub flushes_remembered_max: usize,
    /// Commits in flight.
    pub in_flight_max: usize,
    /// Latency of a request, each way.
    pub latency_ms: Range,
    /// Chance that a request is slow, and how slow.
    pub slow: (u32, Range),
    /// Chance that a write is applied but answered with an error.
    pub applied_with_error: u32,
    /// Chance that a request is lost.
    pub lost: u32,
    /// Chance that a write is applied after its caller has heard of an error, and how much later.
    pub late: (u32, Range),
    /// The same for takeovers alone.
    pub late_takeovers: (u32, Range),
    /// Chance that a process is sluggish all its life, and how long its requests then take on the way to the store.
    pub sluggish: (u32, Range),
    /// How long one attempt at the store may take.
    pub attempt_ms: u64,
    /// Chance that a create is answered with a conflict that says nothing.
    pub conflict: u32,
    /// Chance that a body is cut.
    pub cut: u32,
    /// How long a broker waits before it takes over (again).
    pub idle_ms: Range,
    /// Time between two deeds of the nemesis.
    pub nemesis_ms: Range,
    /// How long a process is paused.
    pub pause_ms: Range,
    /// Chance that a deed of the nemesis is to damage the newest checkpoint.
    pub damage: u32,
    /// Whether copies of takeovers that were declined land as soon as their place is reclaimed.
    pub ambush: bool,
    /// Whether the nemesis waits for an object to land where a commit was reclaimed, and strikes then: the sequencer dies, the
    /// newest checkpoint is damaged, and nobody new comes for a while.
    pub hunts: bool,
    /// Whether the nemesis pauses the sequencer as soon as a takeover finds a commit in its place, so that the sequencer does not
    /// hear that this commit landed.
    pub stuns: bool,
    /// Chance that a process dies at one of its next store operations, drawn when it starts.
    pub doomed: u32,
    /// Chance that a message is lost, doubled, or that its answer is.
    pub message_trouble: u32,
    /// How long a message takes.
    pub message_ms: Range,
    /// Time between two batches of a producer.
    pub produce_ms: Range,
    /// Time between two merges of a broker.
    pub merge_ms: Range,
    /// Time between two changes of topics.
    pub admin_ms: Range,
    /// Logs in the bucket.
    pub cells: u16,
    /// The one in which nearly everything happens; the others have one broker each.
    pub cell: u16,
    /// Whether consumers read by the read path of a broker, too.
    pub fetches: bool,
    /// Whether topics become tables.
    pub tables: bool,
    /// Time between two analysts of a broker who want a fresh table.
    pub analyst_ms: Range,
    /// Chance that a sequencer uploads its flushes instead of committing them inline.
    pub uploads: u32,
    /// Whether stores send slow requests a second time.
    pub hedges: bool,
    /// Whether stores have few requests under way at once, and leave alone what throttles.
    pub paces: bool,
    /// Brokers of a cluster, which know of one another, in place of those that take over whenever they come; 0 for none.
    pub members: usize,
    /// Nothing heard of a sequencer for so many milliseconds: who follows it tries to take over.
    pub takeover_ms: u64,
    /// How long brokers can't reach one another, or the store.
    pub cut_ms: Range,
}

impl Climate {
    /// The climate of a seed's world.
    pub fn draw(rng: &mut StdRng) -> Self {
        let stormy = rng.random_range(0..4) == 0;
        let calm = !stormy && rng.random_range(0..4) == 0;
        let often =
            |rng: &mut StdRng, max: u32| if calm { rng.random_range(0..=max / 8) } else { rng.random_range(0..=max) };
        Self {
            broken: Broken::Nothing,
            brokers: rng.random_range(2..=3),
            uploaders: 2,
            producers: rng.random_range(4..=6),
            duration_ms: rng.random_range(6_000..=15_000),
            checkpoint_commits: rng.random_range(4..=20),
            flushes_remembered_max: rng.random_range(8..=40),
            in_flight_max: rng.random_range(2..=4),
            latency_ms: (1, rng.random_range(4..=30)),
            slow: (often(rng, 60), (50, rng.random_range(200..=3_000))),
            applied_with_error: often(rng, 60),
            lost: often(rng, 60),
            late: (often(rng, 60), (100, rng.random_range(1_000..=15_000))),
            late_takeovers: (often(rng, 300), (100, rng.random_range(1_000..=15_000))),
            sluggish: (often(rng, 200), (100, rng.random_range(200..=2_500))),
            attempt_ms: rng.random_range(300..=4_000),
            conflict: often(rng, 30),
            cut: often(rng, 20),
            idle_ms: if stormy { (0, 400) } else { (300, rng.random_range(1_000..=5_000)) },
            nemesis_ms: (300, rng.random_range(1_000..=4_000)),
            pause_ms: (100, rng.random_range(500..=6_000)),
            damage: if calm { 0 } else { 100 },
            ambush: rng.random_range(0..4) == 0,
            hunts: rng.random_range(0..4) == 0,
            stuns: rng.random_range(0..4) == 0,
            doomed: rng.random_range(0..=500),
            message_trouble: often(rng, 120),
            message_ms: (1, rng.random_range(5..=300)),
            produce_ms: (5, rng.random_range(30..=200)),
            merge_ms: (200, rng.random_range(400..=2_000)),
            admin_ms: (500, 3_000),
            cells: 1,
            cell: 0,
            fetches: rng.random_range(0..2) == 0,
            uploads: rng.random_range(0..=500),
            tables: rng.random_range(0..3) == 0,
            analyst_ms: (50, 1_500),
            hedges: false,
            paces: false,
            members: 0,
            takeover_ms: 1_000,
            cut_ms: (0, 0),
        }
        .with_cells(rng)
        .with_ways_to_ask(rng)
        .with_members(rng)
    }

    /// Half of the worlds ask their stores as brokers ask a bucket, half as they ask a directory.
    fn with_ways_to_ask(self, rng: &mut StdRng) -> Self {
        Self { hedges: rng.random_range(0..2) == 0, paces: rng.random_range(0..2) == 0, ..self }
    }

    /// The same with a cluster for sure.
    pub(crate) fn crowded(self) -> Self {
        let least = Self { members: 3, takeover_ms: 300, cut_ms: (100, 2_000), ..self.clone() };
        if self.members > 0 { self } else { least }
    }

    /// Every other world has a cluster.
    fn with_members(self, rng: &mut StdRng) -> Self {
        if rng.random_range(0..2) == 0 {
            return self;
        }
        let members = if rng.random_range(0..8) == 0 { rng.random_range(6..=7) } else { rng.random_range(2..=5) };
        Self {
            members,
            // Each of them has readers.
            duration_ms: self.duration_ms * 2 / 3,
            takeover_ms: rng.random_range(150..=600),
            cut_ms: (100, rng.random_range(300..=4_000)),
            ..self
        }
    }

    /// Now and then there are several cells.
    fn with_cells(self, rng: &mut StdRng) -> Self {
        let cells = if rng.random_range(0..4) == 0 { rng.random_range(2..=3) } else { 1 };
        Self { cells, cell: rng.random_range(0..cells), ..self }
    }
}

/// Draws from a range.
pub fn within(rng: &mut StdRng, range: Range) -> u64 {
    rng.random_range(range.0..=range.1.max(range.0))
}

/// Whether a chance out of 1000 comes true.
pub fn chance(rng: &mut StdRng, out_of_1000: u32) -> bool {
    rng.random_range(0..1000) < out_of_1000
}

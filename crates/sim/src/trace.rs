//! What happened, as one hash, a tail of lines for people, and counters of what was exercised.
//!
//! Two runs are equal if their hashes are: every store operation as it was applied, every event of a process, every answer that a
//! client got, and every line that the code under test logged, goes in with its simulated time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

/// Lines that are kept for a report.
const TAIL_LINES: usize = 400;
/// FNV-1a, 64 bits.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The trace of one world. A handle.
#[derive(Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    start: Instant,
    hash: u64,
    lines: u64,
    tail: VecDeque<String>,
    print: bool,
    counters: BTreeMap<&'static str, u64>,
    anomalies: Vec<Anomaly>,
}

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    /// Its name, as the checkers of Kafka's guarantees call it.
    pub name: &'static str,
    /// The facts.
    pub what: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.what)
    }
}

impl Trace {
    /// An empty trace that begins now; `print` writes each line to stdout as well.
    pub fn new(print: bool) -> Self {
        let inner = Inner {
            start: Instant::now(),
            hash: FNV_BASIS,
            lines: 0,
            tail: VecDeque::new(),
            print,
            counters: BTreeMap::new(),
            anomalies: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds the trace")
    }

    /// Simulated milliseconds since the world began.
    pub fn now_ms(&self) -> u64 {
        let start = self.inner().start;
        u64::try_from(Instant::now().duration_since(start).as_millis()).expect("a world is short")
    }

    /// Adds a line.
    #[expect(clippy::print_stdout, reason = "printing the trace is what was asked for")]
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>8} {what}", self.now_ms());
        let mut inner = self.inner();
        for byte in line.bytes().chain([b'\n']) {
            inner.hash = (inner.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        inner.lines += 1;
        if inner.print {
            println!("{line}");
        }
        if inner.tail.len() == TAIL_LINES {
            inner.tail.pop_front();
        }
        inner.tail.push_back(line);
    }

    /// Counts something that was exercised.
    pub fn count(&self, counter: &'static str) {
        self.add(counter, 1);
    }

    /// Counts several.
    pub fn add(&self, counter: &'static str, times: u64) {
        *self.inner().counters.entry(counter).or_default() += times;
    }

    /// Reports something that must never be.
    pub fn anomaly(&self, name: &'static str, what: String) {
        self.note(format_args!("ANOMALY {name}: {what}"));
        self.inner().anomalies.push(Anomaly { name, what });
    }

    /// Whether something was reported.
    pub fn has_anomaly(&self) -> bool {
        !self.inner().anomalies.is_empty()
    }

    /// What was reported.
    pub fn anomalies(&self) -> Vec<Anomaly> {
        self.inner().anomalies.clone()
    }

    /// The hash of all lines so far.
    pub fn hash(&self) -> u64 {
        self.inner().hash
    }

    /// The last lines.
    pub fn tail(&self) -> Vec<String> {
        self.inner().tail.iter().cloned().collect()
    }

    /// What was counted.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        self.inner().counters.clone()
    }
}

/// Takes what the code under test logs into the trace. Set it as the thread's default while a world runs.
pub struct Listener {
    trace: Trace,
}

impl Listener {
    /// Listens for a trace.
    pub fn new(trace: Trace) -> Self {
        Self { trace }
    }
}

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("lakebed")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                use fmt::Write;
                let written = match field.name() {
                    "message" => write!(self.0, " {value:?}"),
                    name => write!(self.0, " {name}={value:?}"),
                };
                written.expect("a string takes what is written");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        if text.0.contains("commits that were in flight are in the log") {
            self.trace.count("fates looked up");
        }
        self.trace.note(format_args!("  log[{}]{}", event.metadata().target(), text.0));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

//! How the server behaves: its outages, weaknesses, latency and faults, and which of them meets a request.
//!
//! A [`Conduct`] is a JSON document; every field may be left out, and an unknown one is an error.

use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::bill::Operation;

/// Most rules of a conduct.
pub const RULES_MAX: usize = 64;
/// Longest wait that a latency or fault may ask for.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// How the server behaves; as it is by default, it keeps what S3 promises.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conduct {
    /// Whether it can be reached at all.
    pub outage: Outage,
    /// A promise that it does not keep.
    pub weakness: Weakness,
    /// By how many seconds its clock is ahead of this machine's. It is told in `Date`. Beyond 900 either way, requests of this machine are refused.
    pub clock_shift_seconds: i64,
    /// How long requests take, beyond what they take anyway.
    pub latency: Option<Latency>,
    /// What goes wrong with which requests; the first that meets a request decides.
    pub rules: Vec<Rule>,
}

/// Whether the server can be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    /// It can.
    #[default]
    None,
    /// Connections are refused, and those that were open are cut.
    Refused,
    /// Connections are accepted and reset, and those that were open are cut.
    Reset,
    /// Every request is answered 503 `ServiceUnavailable`.
    Unavailable,
}

/// A promise of S3 that is not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weakness {
    /// None: all are kept.
    #[default]
    None,
    /// `If-None-Match` and `If-Match` of a PUT are not looked at: what stands there is overwritten.
    IgnoresConditions,
    /// The condition is looked at, and the object stored later: rivals overwrite each other.
    RacesConditions,
    /// A conditional PUT is answered 501 `NotImplemented`.
    RefusesConditions,
    /// The object that was stored last is not listed.
    ListsLate,
    /// The first GET or HEAD of an object answers that there is none.
    ReadsLate,
    /// Deleted objects are listed all the same.
    ListsDeleted,
    /// A range is answered with other bytes of the object.
    ShiftsRanges,
}

/// How long requests take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Median of a lognormal distribution, in milliseconds. Half of it passes before a request is applied, half after.
    pub median_ms: f64,
    /// Its sigma: 0 is always the median; 0.5 has a 99th percentile of 3.2 medians.
    #[serde(default)]
    pub sigma: f64,
    /// Bytes of bodies that a connection carries in a second, each way. `None`: as fast as it can.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
}

/// What goes wrong with some requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What goes wrong.
    pub fault: Fault,
    /// Only requests of this kind.
    #[serde(default)]
    pub operation: Option<Operation>,
    /// Only requests whose key (of LIST: whose prefix) has this in it.
    #[serde(default)]
    pub key_contains: String,
    /// Whether the request is applied all the same, so that only its answer is wrong. A conflict is never applied.
    #[serde(default)]
    pub applied: bool,
    /// With which probability, of the requests that it may meet.
    #[serde(default = "always")]
    pub probability: f64,
    /// Requests that it passes over before it begins.
    #[serde(default)]
    pub skip: u64,
    /// Requests that it meets at most. `None`: no end.
    #[serde(default)]
    pub times: Option<u64>,
}

fn always() -> f64 {
    1.0
}

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// 409 `ConditionalRequestConflict`, which only conditional PUTs get.
    Conflict,
    /// 500 `InternalError`.
    InternalError,
    /// 503 `SlowDown`.
    SlowDown,
    /// The connection is cut in place of an answer.
    CutConnection,
    /// The body of a GET ends after so many bytes, and the connection with it.
    CutBody {
        /// How many.
        bytes: u64,
    },
    /// The body of a GET comes in pieces of so many bytes, so far apart.
    SlowBody {
        /// Bytes of a piece.
        bytes: u64,
        /// Milliseconds between two.
        every_ms: u64,
    },
    /// The answer comes so much later.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
}

/// A conduct that can't be followed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Problem {
    what: String,
}

impl Conduct {
    fn check(&self) -> Result<(), Problem> {
        let problem = |what: String| Err(Problem { what });
        if self.rules.len() > RULES_MAX {
            return problem(format!("{} rules: at most {RULES_MAX} can be kept", self.rules.len()));
        }
        if let Some(latency) = self.latency {
            let longest = WAIT_MAX.as_millis() as f64;
            if !(0.0..=longest).contains(&latency.median_ms) || !(0.0..=4.0).contains(&latency.sigma) {
                return problem(format!("latency: median_ms must be 0 to {longest}, sigma 0 to 4"));
            }
            if latency.bytes_per_second == Some(0) {
                return problem("latency: bytes_per_second must be more than 0".to_owned());
            }
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if !(0.0..=1.0).contains(&rule.probability) {
                return problem(format!("rule {index}: the probability must be 0 to 1"));
            }
            let wait_ms = match rule.fault {
                Fault::SlowBody { bytes: 0, .. } => return problem(format!("rule {index}: a piece needs bytes")),
                Fault::SlowBody { every_ms, .. } => every_ms,
                Fault::Delay { ms } => ms,
                _ => 0,
            };
            if u128::from(wait_ms) > WAIT_MAX.as_millis() {
                return problem(format!("rule {index}: it waits longer than {} s", WAIT_MAX.as_secs()));
            }
        }
        Ok(())
    }
}

/// A request, as far as a rule asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) operation: Operation,
    pub(crate) key: &'a str,
    pub(crate) conditional: bool,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Treatment {
    pub(crate) outage: Outage,
    pub(crate) clock_shift_seconds: i64,
    /// What passes before it is applied, and again before it is answered.
    pub(crate) wait: Duration,
    pub(crate) bytes_per_second: Option<u64>,
    /// The fault, and whether the request is applied all the same.
    pub(crate) fault: Option<(Fault, bool)>,
}

/// A conduct in force, with what it draws and counts.
#[derive(Debug)]
pub(crate) struct Demeanour {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    conduct: Conduct,
    /// Of each rule, how many requests it could have met.
    seen: Vec<u64>,
    /// Of each rule, how many it has met.
    met: Vec<u64>,
    random: StdRng,
}

impl Demeanour {
    pub(crate) fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { inner: Mutex::new(Inner { conduct: Conduct::default(), seen: Vec::new(), met: Vec::new(), random }) }
    }

    pub(crate) fn set(&self, conduct: Conduct) -> Result<(), Problem> {
        conduct.check()?;
        let mut inner = self.lock();
        inner.seen = vec![0; conduct.rules.len()];
        inner.met = vec![0; conduct.rules.len()];
        inner.conduct = conduct;
        Ok(())
    }

    /// The conduct, and how many requests each of its rules has met.
    pub(crate) fn get(&self) -> (Conduct, Vec<u64>) {
        let inner = self.lock();
        (inner.conduct.clone(), inner.met.clone())
    }

    pub(crate) fn weakness(&self) -> Weakness {
        self.lock().conduct.weakness
    }

    pub(crate) fn treat(&self, asked: &Asked<'_>) -> Treatment {
        let mut inner = self.lock();
        let latency = inner.conduct.latency;
        let wait = latency.map_or(Duration::ZERO, |latency| inner.draw(latency));
        let fault = inner.fault(asked);
        Treatment {
            outage: inner.conduct.outage,
            clock_shift_seconds: inner.conduct.clock_shift_seconds,
            wait: wait / 2,
            bytes_per_second: latency.and_then(|latency| latency.bytes_per_second),
            fault,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it decides")
    }
}

impl Inner {
    /// One value of the lognormal distribution: the normal one by the method of Box and Muller (1958).
    fn draw(&mut self, latency: Latency) -> Duration {
        let (first, second): (f64, f64) = (1.0 - self.random.random::<f64>(), self.random.random());
        let normal = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
        let wait = Duration::from_secs_f64(latency.median_ms / 1000.0 * (latency.sigma * normal).exp());
        wait.min(WAIT_MAX)
    }

    fn fault(&mut self, asked: &Asked<'_>) -> Option<(Fault, bool)> {
        for (index, rule) in self.conduct.rules.iter().enumerate() {
            let meets = rule.operation.is_none_or(|operation| operation == asked.operation)
                && asked.key.contains(&rule.key_contains)
                && (rule.fault != Fault::Conflict || asked.conditional);
            if !meets || rule.times.is_some_and(|times| self.met[index] >= times) {
                continue;
            }
            self.seen[index] += 1;
            if self.seen[index] > rule.skip && self.random.random_bool(rule.probability) {
                self.met[index] += 1;
                return Some((rule.fault, rule.applied && rule.fault != Fault::Conflict));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Asked<'static> = Asked { operation: Operation::Put, key: "root/log/1", conditional: true };

    fn told(text: &str) -> Demeanour {
        let demeanour = Demeanour::new(7);
        demeanour.set(serde_json::from_str(text).unwrap()).unwrap();
        demeanour
    }

    #[test]
    fn a_rule_meets_the_requests_that_it_names_as_often_as_it_says() {
        let demeanour = told(
            r#"{"rules":[{"fault":"slow_down","operation":"put","key_contains":"log/","skip":1,"times":2,"applied":true}]}"#,
        );
        let get = Asked { operation: Operation::Get, ..PUT };
        let elsewhere = Asked { key: "root/segments/1", ..PUT };
        assert_eq!(demeanour.treat(&get).fault, None);
        assert_eq!(demeanour.treat(&elsewhere).fault, None);
        let faults: Vec<_> = (0..4).map(|_| demeanour.treat(&PUT).fault).collect();
        assert_eq!(faults, [None, Some((Fault::SlowDown, true)), Some((Fault::SlowDown, true)), None]);
        assert_eq!(demeanour.get().1, [2]);
    }

    #[test]
    fn only_a_conditional_put_gets_a_conflict_and_it_is_not_applied() {
        let demeanour = told(r#"{"rules":[{"fault":"conflict","applied":true}]}"#);
        assert_eq!(demeanour.treat(&Asked { conditional: false, ..PUT }).fault, None);
        assert_eq!(demeanour.treat(&PUT).fault, Some((Fault::Conflict, false)));
    }

    #[test]
    fn chance_follows_from_the_seed() {
        let run = || {
            let demeanour = told(
                r#"{"latency":{"median_ms":20,"sigma":0.5},"rules":[{"fault":"internal_error","probability":0.5}]}"#,
            );
            (0..1000).map(|_| demeanour.treat(&PUT)).collect::<Vec<_>>()
        };
        let first = run();
        assert_eq!(first, run());
        let faults = first.iter().filter(|treatment| treatment.fault.is_some()).count();
        assert!((400..600).contains(&faults), "{faults}");
        let mut waits: Vec<_> = first.iter().map(|treatment| treatment.wait * 2).collect();
        waits.sort();
        assert!((18..22).contains(&waits[500].as_millis()), "the median is {:?}", waits[500]);
        assert!((50..80).contains(&waits[989].as_millis()), "the 99th percentile is {:?}", waits[989]);
    }

    #[test]
    fn what_can_not_be_followed_is_refused_and_changes_nothing() {
        let demeanour = told(r#"{"rules":[{"fault":{"cut_body":{"bytes":3}}}]}"#);
        let before = demeanour.get();
        for wrong in [
            r#"{"rules":[{"fault":"slow_down","probability":2}]}"#,
            r#"{"rules":[{"fault":{"slow_body":{"bytes":0,"every_ms":1}}}]}"#,
            r#"{"rules":[{"fault":{"delay":{"ms":600001}}}]}"#,
            r#"{"latency":{"median_ms":-1}}"#,
            r#"{"latency":{"median_ms":1,"bytes_per_second":0}}"#,
        ] {
            assert!(demeanour.set(serde_json::from_str(wrong).unwrap()).is_err(), "{wrong}");
        }
        assert_eq!(demeanour.get(), before);
        for wrong in [r#"{"outrage":"none"}"#, r#"{"outage":"total"}"#, r#"{"rules":[{"fault":"conflict","time":1}]}"#]
        {
            assert!(serde_json::from_str::<Conduct>(wrong).is_err(), "{wrong}");
        }
    }
}

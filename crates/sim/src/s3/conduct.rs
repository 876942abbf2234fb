//! How the server behaves: its outages, weaknesses, latency and faults, and which of them meets a request.
//!
//! A [`Conduct`] is a JSON document; every field may be left out, and an unknown one is an error.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::bill::Operation;
use super::latency::Drawn;
use super::limits::Served;

pub use super::latency::{Latency, Profile};
pub use super::limits::{Clock, Limits};

/// Most rules of a conduct.
pub const RULES_MAX: usize = 64;
/// Longest wait that a latency or fault may ask for.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(600);

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
    /// How long requests take, as in a store that is known.
    pub profile: Profile,
    /// How long requests take, in place of a profile.
    pub latency: Option<Latency>,
    /// How many requests a prefix is served in a second. `None`: as many as come; `{}`: as many as S3 does. Those that a rule meets don't count.
    pub limits: Option<Limits>,
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

/// What goes wrong with some requests.
///
/// | what a network or a store does | the rule |
/// |---|---|
/// | a client is cut off: it gets no answer and nothing it asks for is done | `{"fault":"silence","access_key":"b"}`, or `"address":"127.0.0.2"` |
/// | the same, with its connections cut | `{"fault":"cut_connection","access_key":"b"}` |
/// | an answer is lost | `{"fault":"cut_connection","applied":true,"operation":"put","times":1}` |
/// | a PUT that was given up is applied later | `{"fault":"internal_error","applied_after_ms":5000,"operation":"put","times":1}` |
///
/// The way back alone is cut by `silence` with `applied`. A cut meets answers that are on their way when it begins, and ends when a conduct is
/// put into force that has no such rule.
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
    /// Only requests of the client with this access key.
    #[serde(default)]
    pub access_key: Option<String>,
    /// Only requests of the client with this address.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Whether the request is applied all the same, so that only its answer is wrong. A conflict is never applied.
    #[serde(default)]
    pub applied: bool,
    /// The request is applied so many milliseconds after it was answered, or when the control endpoint is told so. Only of a fault that takes
    /// the place of the answer, but no conflict.
    #[serde(default)]
    pub applied_after_ms: Option<u64>,
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
    /// No answer comes, and the connection stays as it is; it is cut when a conduct is in force that has no such rule for the request.
    Silence,
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

impl Fault {
    /// Whether a request that is not applied may get it.
    fn precedes_the_request(self) -> bool {
        matches!(self, Self::InternalError | Self::SlowDown | Self::CutConnection | Self::Silence)
    }
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
        if self.latency.is_some() && self.profile != Profile::None {
            return problem("latency: the profile says it already".to_owned());
        }
        let latency = self.latency.and_then(|latency| latency.problem());
        if let Some(what) = latency.or_else(|| self.limits.and_then(|limits| limits.problem())) {
            return problem(what);
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
            let wait_ms = wait_ms.max(rule.applied_after_ms.unwrap_or(0));
            if u128::from(wait_ms) > WAIT_MAX.as_millis() {
                return problem(format!("rule {index}: it waits longer than {} s", WAIT_MAX.as_secs()));
            }
            if rule.applied_after_ms.is_some() && (rule.applied || !rule.fault.precedes_the_request()) {
                return problem(format!("rule {index}: the request can't be applied after its answer"));
            }
        }
        Ok(())
    }
}

/// A request, as far as a rule asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) operation: Operation,
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    pub(crate) conditional: bool,
    /// As the request names it; whether it may is not known yet.
    pub(crate) access_key: &'a str,
    pub(crate) address: IpAddr,
}

/// Whether a request that meets a fault is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    Never,
    Before,
    After(Duration),
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Treatment {
    pub(crate) outage: Outage,
    pub(crate) clock_shift_seconds: i64,
    /// What it takes. Half of its wait passes before it is applied.
    pub(crate) latency: Drawn,
    pub(crate) fault: Option<(Fault, Applied)>,
}

/// A conduct in force, with what it draws and counts.
#[derive(Debug)]
pub(crate) struct Demeanour {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
    clock: Clock,
}

#[derive(Debug)]
struct Inner {
    conduct: Conduct,
    /// Of each rule, how many requests it could have met.
    seen: Vec<u64>,
    /// Of each rule, how many it has met.
    met: Vec<u64>,
    served: Served,
    random: StdRng,
}

impl Demeanour {
    pub(crate) fn new(seed: u64, clock: Clock) -> Self {
        let inner = Inner {
            conduct: Conduct::default(),
            seen: Vec::new(),
            met: Vec::new(),
            served: Served::default(),
            random: StdRng::seed_from_u64(seed),
        };
        Self { inner: Mutex::new(inner), changed: watch::Sender::new(()), clock }
    }

    pub(crate) fn set(&self, conduct: Conduct) -> Result<(), Problem> {
        conduct.check()?;
        let mut inner = self.lock();
        inner.seen = vec![0; conduct.rules.len()];
        inner.met = vec![0; conduct.rules.len()];
        if inner.conduct.limits != conduct.limits {
            inner.served = Served::default();
        }
        inner.conduct = conduct;
        drop(inner);
        self.changed.send_replace(());
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
        let mut guard = self.lock();
        let inner = &mut *guard;
        let latency = inner.conduct.latency.or_else(|| inner.conduct.profile.latency());
        let latency = latency.map_or(Drawn::default(), |latency| latency.draw(&mut inner.random));
        let fault = inner.fault(asked).or_else(|| inner.refusal(asked, self.clock.now()));
        let Conduct { outage, clock_shift_seconds, .. } = inner.conduct;
        Treatment { outage, clock_shift_seconds, latency, fault }
    }

    /// What cuts `asked` off by now, though it may not have done so when it came: answers on their way are lost with the rest.
    pub(crate) fn cuts_off(&self, asked: &Asked<'_>) -> Option<Fault> {
        let inner = self.lock();
        let mut certain = inner.conduct.rules.iter().filter(|rule| rule.is_certain());
        let first = certain.find(|rule| rule.is_for(asked))?;
        matches!(first.fault, Fault::Silence | Fault::CutConnection).then_some(first.fault)
    }

    /// Returns when no rule asks for silence towards `asked`.
    pub(crate) async fn silence_ends(&self, asked: &Asked<'_>) {
        let is_asked_for = |conduct: &Conduct| {
            let mut silences = conduct.rules.iter().filter(|rule| rule.fault == Fault::Silence);
            silences.any(|rule| rule.is_for(asked))
        };
        // Seen from before the first look, so that no change is missed.
        let mut changed = self.changed.subscribe();
        while is_asked_for(&self.lock().conduct) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it decides")
    }
}

impl Rule {
    fn is_for(&self, asked: &Asked<'_>) -> bool {
        self.operation.is_none_or(|operation| operation == asked.operation)
            && asked.key.contains(&self.key_contains)
            && self.access_key.as_ref().is_none_or(|access_key| access_key == asked.access_key)
            && self.address.is_none_or(|address| address == asked.address)
            && (self.fault != Fault::Conflict || asked.conditional)
    }

    /// Whether it meets all that it is for.
    fn is_certain(&self) -> bool {
        (self.probability, self.skip, self.times) == (1.0, 0, None)
    }

    fn applied(&self) -> Applied {
        match (self.fault, self.applied_after_ms) {
            (Fault::Conflict, _) => Applied::Never,
            (_, Some(ms)) => Applied::After(Duration::from_millis(ms)),
            (_, None) if self.applied => Applied::Before,
            (_, None) => Applied::Never,
        }
    }
}

impl Inner {
    fn fault(&mut self, asked: &Asked<'_>) -> Option<(Fault, Applied)> {
        for (index, rule) in self.conduct.rules.iter().enumerate() {
            if !rule.is_for(asked) || rule.times.is_some_and(|times| self.met[index] >= times) {
                continue;
            }
            self.seen[index] += 1;
            if self.seen[index] > rule.skip && self.random.random_bool(rule.probability) {
                self.met[index] += 1;
                return Some((rule.fault, rule.applied()));
            }
        }
        None
    }

    /// What a request beyond the limits gets.
    fn refusal(&mut self, asked: &Asked<'_>, now: Duration) -> Option<(Fault, Applied)> {
        let limits = self.conduct.limits?;
        let admitted = self.served.admit(&limits, asked.operation, (asked.bucket, asked.key), now);
        (!admitted).then_some((Fault::SlowDown, Applied::Never))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Asked<'static> = Asked {
        operation: Operation::Put,
        bucket: "test",
        key: "root/log/1",
        conditional: true,
        access_key: "test",
        address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    };

    fn told(text: &str) -> Demeanour {
        let demeanour = Demeanour::new(7, Clock::Manual(std::sync::Arc::default()));
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
        assert_eq!(
            faults,
            [None, Some((Fault::SlowDown, Applied::Before)), Some((Fault::SlowDown, Applied::Before)), None]
        );
        assert_eq!(demeanour.get().1, [2]);
    }

    #[test]
    fn only_a_conditional_put_gets_a_conflict_and_it_is_not_applied() {
        let demeanour = told(r#"{"rules":[{"fault":"conflict","applied":true}]}"#);
        assert_eq!(demeanour.treat(&Asked { conditional: false, ..PUT }).fault, None);
        assert_eq!(demeanour.treat(&PUT).fault, Some((Fault::Conflict, Applied::Never)));
    }

    #[test]
    fn a_rule_tells_clients_apart() {
        let demeanour = told(
            r#"{"rules":[{"fault":"silence","access_key":"b"},{"fault":"cut_connection","address":"127.0.0.2"},
                {"fault":"internal_error","access_key":"c","address":"::1","applied_after_ms":7}]}"#,
        );
        let treat = |access_key, address: &str| {
            demeanour.treat(&Asked { access_key, address: address.parse().unwrap(), ..PUT }).fault
        };
        assert_eq!(treat("a", "127.0.0.1"), None);
        assert_eq!(treat("b", "127.0.0.2"), Some((Fault::Silence, Applied::Never)));
        assert_eq!(treat("a", "127.0.0.2"), Some((Fault::CutConnection, Applied::Never)));
        assert_eq!(treat("c", "127.0.0.1"), None);
        assert_eq!(treat("c", "::1"), Some((Fault::InternalError, Applied::After(Duration::from_millis(7)))));
        assert_eq!(demeanour.get().1, [1, 1, 1]);
    }

    #[test]
    fn a_cut_meets_answers_on_their_way_and_what_is_left_to_chance_does_not() {
        let other = Asked { access_key: "other", ..PUT };
        let cut = |rules: &str| told(&format!(r#"{{"rules":[{rules}]}}"#)).cuts_off(&other);
        let (silence, certain) = (r#"{"fault":"silence","access_key":"other"}"#, Some(Fault::Silence));
        assert_eq!(cut(silence), certain);
        assert_eq!(cut(r#"{"fault":"silence","access_key":"test"}"#), None);
        assert_eq!(cut(r#"{"fault":"silence","times":1}"#), None);
        assert_eq!(
            cut(r#"{"fault":"silence","probability":0.5},{"fault":"cut_connection"}"#),
            Some(Fault::CutConnection)
        );
        assert_eq!(cut(&format!(r#"{{"fault":"slow_down","times":1}},{silence}"#)), certain);
        assert_eq!(cut(&format!(r#"{{"fault":{{"delay":{{"ms":1}}}}}},{silence}"#)), None, "the first decides");
    }

    #[test]
    fn who_is_over_the_limit_is_refused_and_what_a_rule_meets_does_not_count() {
        let demeanour =
            told(r#"{"limits":{"writes_per_second":2},"rules":[{"fault":"internal_error","skip":1,"times":1}]}"#);
        let faults: Vec<_> = (0..4).map(|_| demeanour.treat(&PUT).fault.map(|(fault, _)| fault)).collect();
        assert_eq!(faults, [None, Some(Fault::InternalError), None, Some(Fault::SlowDown)]);
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
        let mut waits: Vec<_> = first.iter().map(|treatment| treatment.latency.wait).collect();
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
            r#"{"latency":{"median_ms":1},"profile":"express"}"#,
            r#"{"limits":{"reads_per_second":1000001}}"#,
            r#"{"rules":[{"fault":"silence","applied_after_ms":600001}]}"#,
            r#"{"rules":[{"fault":"silence","applied_after_ms":1,"applied":true}]}"#,
            r#"{"rules":[{"fault":"conflict","applied_after_ms":1}]}"#,
            r#"{"rules":[{"fault":{"delay":{"ms":1}},"applied_after_ms":1}]}"#,
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

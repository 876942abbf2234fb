//! How long requests take: lognormal, as object stores are measured, and longer by the bytes that they carry.
//!
//! A slow request is slow as a whole: one factor is drawn for its wait and for the rate of its bytes.

use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::conduct::WAIT_MAX;

/// Sigma of both profiles: a 99th percentile of 3.3 medians, as 45/150 and 90/300 of S3 Standard and 9/30 of S3 Express both have it.
const SIGMA: f64 = 0.518;

/// The latency of a known store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// None: as fast as it can.
    #[default]
    None,
    /// S3 Standard: 45 ms at the median and 150 ms at the 99th percentile for small objects, 90 and 300 for 6 MiB.
    Standard,
    /// S3 Express One Zone: 9 ms at the median and 30 ms at the 99th percentile for small objects, 15 and 51 for 6 MiB.
    Express,
}

impl Profile {
    pub(crate) fn latency(self) -> Option<Latency> {
        let (median_ms, bytes_per_second) = match self {
            Self::None => return None,
            Self::Standard => (45.0, 140_000_000),
            Self::Express => (9.0, 1_000_000_000),
        };
        Some(Latency { median_ms, sigma: SIGMA, bytes_per_second: Some(bytes_per_second) })
    }
}

/// How long requests take. What they take anyway is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Median of a lognormal distribution, in milliseconds. Half of it passes before a request is applied, half after.
    pub median_ms: f64,
    /// Its sigma: 0 is always the median; 0.5 has a 99th percentile of 3.2 medians.
    #[serde(default)]
    pub sigma: f64,
    /// Bytes of bodies that a connection carries in a second, each way, when a request is as slow as the median; one that is twice as slow
    /// carries half. `None`: as fast as it can.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
}

/// What one request takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Drawn {
    /// Without its bytes.
    pub(crate) wait: Duration,
    pub(crate) bytes_per_second: Option<f64>,
}

impl Latency {
    pub(crate) fn problem(&self) -> Option<String> {
        let longest = WAIT_MAX.as_millis() as f64;
        if !(0.0..=longest).contains(&self.median_ms) || !(0.0..=4.0).contains(&self.sigma) {
            return Some(format!("latency: median_ms must be 0 to {longest}, sigma 0 to 4"));
        }
        let is_stuck = self.bytes_per_second == Some(0);
        is_stuck.then(|| "latency: bytes_per_second must be more than 0".to_owned())
    }

    /// One value of the distribution: the normal one by the method of Box and Muller (1958).
    pub(crate) fn draw(&self, random: &mut impl Rng) -> Drawn {
        let (first, second): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
        let normal = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
        let factor = (self.sigma * normal).exp();
        Drawn {
            wait: bounded(self.median_ms / 1000.0 * factor),
            bytes_per_second: self.bytes_per_second.map(|rate| rate as f64 / factor),
        }
    }
}

impl Drawn {
    /// What `bytes` take more.
    pub(crate) fn carrying(&self, bytes: u64) -> Duration {
        self.bytes_per_second.map_or(Duration::ZERO, |rate| bounded(bytes as f64 / rate))
    }
}

fn bounded(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// Median and 99th percentile of what requests of so many bytes take, in milliseconds.
    fn quantiles(profile: Profile, bytes: u64) -> (f64, f64) {
        let (latency, mut random) = (profile.latency().unwrap(), StdRng::seed_from_u64(1));
        let draws = (0..100_000).map(|_| latency.draw(&mut random));
        let mut all: Vec<_> = draws.map(|drawn| drawn.wait + drawn.carrying(bytes)).collect();
        all.sort();
        let at = |share: f64| all[(all.len() as f64 * share) as usize].as_secs_f64() * 1000.0;
        (at(0.5), at(0.99))
    }

    #[test]
    fn a_profile_has_the_quantiles_that_it_names() {
        for (profile, bytes, median, late) in [
            (Profile::Standard, 1 << 10, 45.0, 150.0),
            (Profile::Standard, 4 << 20, 75.0, 250.0),
            (Profile::Standard, 6 << 20, 90.0, 300.0),
            (Profile::Standard, 8 << 20, 105.0, 350.0),
            (Profile::Express, 1 << 10, 9.0, 30.0),
            (Profile::Express, 6 << 20, 15.3, 51.0),
        ] {
            let drawn = quantiles(profile, bytes);
            let is_near = |drawn: f64, expected: f64| (drawn / expected - 1.0).abs() < 0.03;
            assert!(is_near(drawn.0, median) && is_near(drawn.1, late), "{profile:?}, {bytes} bytes: {drawn:?}");
        }
        assert_eq!(Profile::None.latency(), None);
    }

    #[test]
    fn the_worst_draw_has_an_end() {
        let latency = Latency { median_ms: 600_000.0, sigma: 4.0, bytes_per_second: Some(1) };
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..10_000 {
            let drawn = latency.draw(&mut random);
            assert!(drawn.wait <= WAIT_MAX && drawn.carrying(u64::MAX) <= WAIT_MAX);
        }
    }
}

//! `lakebed-sim --seeds N --from S` runs worlds until one is wrong; `--seed S --trace` shows one of them whole. `--broken RULE` leaves a rule out, in the weather
//! in which that shows; `--weather RULE` has that weather and all rules.

use std::process::ExitCode;

use anyhow::{Context, bail};
use lakebed_log::broken::Broken;
use lakebed_sim::climate::Climate;
use lakebed_sim::{World, many, rules};

struct Args {
    from: u64,
    seeds: u64,
    threads: usize,
    single: bool,
    trace: bool,
    broken: Broken,
    /// The weather in which a rule is missed, with the rule in force.
    weather: Option<Broken>,
}

impl Args {
    fn climate(&self, seed: u64) -> Climate {
        self.weather.map_or_else(|| rules::climate(self.broken, seed), |rule| rules::weather(rule, seed))
    }
}

fn args() -> anyhow::Result<Args> {
    let mut args =
        Args { from: 0, seeds: 1_000, threads: 2, single: false, trace: false, broken: Broken::Nothing, weather: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--from" => args.from = value()?.parse().context("--from takes a number")?,
            "--seeds" => args.seeds = value()?.parse().context("--seeds takes a number")?,
            "--threads" => args.threads = value()?.parse().context("--threads takes a number")?,
            "--seed" => (args.from, args.single) = (value()?.parse().context("--seed takes a number")?, true),
            "--trace" => args.trace = true,
            "--broken" => args.broken = rule(&value()?)?,
            "--weather" => args.weather = Some(rule(&value()?)?),
            other => {
                bail!(
                    "unknown word {other}; known are --seeds, --from, --threads, --seed, --trace, --broken, --weather"
                )
            }
        }
    }
    Ok(args)
}

fn rule(name: &str) -> anyhow::Result<Broken> {
    let rule = rules::RULES.iter().find(|(known, _)| *known == name);
    let names = rules::RULES.map(|(name, _)| name).join(", ");
    Ok(rule.with_context(|| format!("{name} is no rule: known are {names}"))?.1)
}

#[expect(clippy::print_stdout, reason = "it is a command")]
fn main() -> anyhow::Result<ExitCode> {
    let args = args()?;
    if args.single {
        let report = World::run(args.from, args.climate(args.from), args.trace);
        println!("trace hash {:016x}", report.hash);
        if !report.anomalies.is_empty() {
            println!("{report}");
        }
        return Ok(if report.anomalies.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    #[expect(clippy::disallowed_methods, reason = "seeds a second are of the real clock")]
    let started = std::time::Instant::now();
    let summary = many::run(args.from..args.from + args.seeds, args.threads.max(1), |seed| args.climate(seed));
    let seconds = started.elapsed().as_secs_f64();
    for (name, count) in &summary.counters {
        println!("{count:>12} {name}");
    }
    println!("{} seeds from {}, {:.1} seeds/s", summary.worlds, args.from, summary.worlds as f64 / seconds);
    let Some(wrong) = summary.wrong else {
        return Ok(ExitCode::SUCCESS);
    };
    println!("{wrong}");
    Ok(ExitCode::FAILURE)
}

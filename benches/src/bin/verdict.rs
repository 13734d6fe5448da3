//! What the judge of rollouts costs and whether it keeps its word: false alarms, canary requests until a bad release is
//! stopped, and until a good one is called no worse. Simulated: no processes, no sockets.
//!
//! Every number comes from seeds, so two runs print the same. See the room `judge` of the controller for what is judged.

// The judge alone, by its files: the controller would bring its store and its servers with it.
#[allow(dead_code, unused_imports, unreachable_pub, reason = "the controller uses more of it")]
#[path = "../../../controller/src"]
mod controller {
    pub(crate) mod judge;
}

#[path = "verdict/dice.rs"]
mod dice;
#[path = "verdict/figure.rs"]
mod figure;
#[path = "verdict/simulated.rs"]
mod simulated;

use std::path::PathBuf;

use clap::Parser;
use pointsman_benches::Problem;
use pointsman_benches::report::{Common, Host};
use simulated::{Ended, Rates, Rollout, many};

/// Simulate rollouts and let the judge look after every report.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rollouts for each line about false alarms and wrong passes; a tenth of them for the others.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    rollouts: usize,
    /// Draw canary requests until a bad release is stopped, by its share of the traffic.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

const SHARES: [f64; 4] = [0.001, 0.01, 0.1, 0.5];
/// The stable release's, where nothing else is said.
const STABLE: f64 = 0.001;
/// The accepted excess of errors, 0.1 %.
const MARGIN_PPM: u32 = 1_000;
/// Requests of a rollout in which nothing should happen.
const CALM: u64 = 100_000;
/// Nobody waits longer.
const MOST: u64 = 50_000_000;

fn main() -> Result<(), Problem> {
    let arguments = Arguments::parse();
    let common =
        Common { binary: "the judge, in this process".into(), folder: std::env::temp_dir(), json: None, keep: false };
    Host::new("verdict", &common).tell("verdict");
    let tenth = arguments.rollouts.div_ceil(10);
    let medians = power(tenth);
    if let Some(path) = &arguments.svg {
        std::fs::write(path, figure::draw(&medians, tenth))?;
    }
    late(tenth);
    false_alarms(arguments.rollouts);
    wrong_passes(arguments.rollouts);
    passes(tenth);
    Ok(())
}

/// No difference, both measures judged: how many rollouts are called worse.
fn false_alarms(rollouts: usize) {
    println!("no difference, {CALM} requests, looked at after every report of 1 to 1,000 requests, slow 5 % for both");
    println!("{:>8}  {:<28} {:>8} {:>12}", "share", "errors of both", "rollouts", "false alarms");
    let rates = [
        ("0 %", Rates::same(0.0)),
        ("0.1 %", Rates::same(0.001)),
        ("1 %", Rates::same(0.01)),
        ("20 %", Rates::same(0.2)),
        ("0 % to 20 % and back", Rates::Drifting { most: 0.2, requests: CALM }),
        ("0.1 %, at times 20 %", Rates::Incidents { usual: 0.001, during: 0.2 }),
    ];
    for share in SHARES {
        for (name, rates) in rates {
            let rollout = Rollout { reports: None, slow: Some(0.05), most: CALM, ..Rollout::new(share, rates) };
            let ended = many(rollouts, &rollout);
            let alarms = ended.iter().filter(|ended| ended.worse.is_some()).count();
            println!("{:>8}  {name:<28} {rollouts:>8} {alarms:>12}", percent(share));
        }
    }
    println!();
}

/// Both measures judged, the canary fails more often: its requests until it is stopped.
fn power(rollouts: usize) -> Vec<figure::Row> {
    println!("canary requests until it is called worse, errors of stable {}, slow 5 % for both", percent(STABLE));
    println!("{:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}", "share", "errors", "report", "rollouts", "p10", "p50", "p90");
    let mut rows = Vec::new();
    for (share, report) in [(0.001, 20), (0.01, 20), (0.1, 20), (0.1, 1), (0.2, 20), (0.5, 20), (0.5, 1)] {
        for errors in [0.5, 0.05, 0.01] {
            let rates = Rates::Apart { canary: errors, stable: STABLE, from: 0 };
            let rollout = Rollout { reports: Some(report), slow: Some(0.05), ..Rollout::new(share, rates) };
            let quantiles = told(&many(rollouts, &rollout), |ended| ended.worse);
            println!("{:>8} {:>8} {report:>8} {rollouts:>8} {quantiles}", percent(share), percent(errors));
            if report > 1 {
                rows.push(figure::Row {
                    share,
                    errors,
                    low: quantiles.low,
                    median: quantiles.median,
                    high: quantiles.high,
                });
            }
        }
    }
    println!();
    rows
}

/// The same for a canary that was well at first.
fn late(rollouts: usize) {
    const WELL: u64 = 50_000;
    println!("the same, of a canary that was as good as stable for {WELL} requests of both; counted from then on");
    println!("{:>8} {:>8} {:>8} {:>8} {:>8} {:>8}", "share", "errors", "rollouts", "p10", "p50", "p90");
    for share in [0.01, 0.1, 0.5] {
        for errors in [0.5, 0.05, 0.01] {
            let rates = Rates::Apart { canary: errors, stable: STABLE, from: WELL };
            // No verdict of no worse ends it before.
            let rollout = Rollout { slow: Some(0.05), until_no_worse: false, ..Rollout::new(share, rates) };
            let quantiles = told(&many(rollouts, &rollout), |ended| ended.worse);
            println!("{:>8} {:>8} {rollouts:>8} {quantiles}", percent(share), percent(errors));
        }
    }
    println!();
}

/// Errors alone, worse by the margin and by twice the margin: how many are ever called no worse.
fn wrong_passes(rollouts: usize) {
    const REQUESTS: u64 = 300_000;
    println!(
        "worse by 0.1 % (the margin) and by 0.2 %, {REQUESTS} requests, reports of 1,000: called no worse at any time"
    );
    println!("{:>8} {:>8} {:>8} {:>8} {:>14}", "share", "stable", "canary", "rollouts", "wrongly passed");
    for share in [0.1, 0.5] {
        for stable in [0.0, 0.001, 0.01] {
            for canary in [stable + 0.001, stable + 0.002] {
                let rates = Rates::Apart { canary, stable, from: 0 };
                let rollout =
                    Rollout { reports: Some(1_000), most: REQUESTS, until_worse: false, ..Rollout::new(share, rates) };
                let wrong = many(rollouts, &rollout).iter().filter(|ended| ended.no_worse.is_some()).count();
                let (share, stable, canary) = (percent(share), percent(stable), percent(canary));
                println!("{share:>8} {stable:>8} {canary:>8} {rollouts:>8} {wrong:>14}");
            }
        }
    }
    println!();
}

/// Errors alone, no difference: canary requests until it is no worse.
fn passes(rollouts: usize) {
    println!("canary requests until it is called no worse, no difference");
    println!("{:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}", "share", "margin", "errors", "rollouts", "p10", "p50", "p90");
    for share in [0.01, 0.1, 0.5] {
        for margin_ppm in [MARGIN_PPM, 10 * MARGIN_PPM] {
            for errors in [0.0, 0.0001, 0.001, 0.01, 0.05] {
                let rates = Rates::same(errors);
                // About 500 requests of the canary in each.
                let report = Some((500.0 / share) as u64);
                let most = MOST * 10;
                let rollout =
                    Rollout { reports: report, margin_ppm, most, until_worse: false, ..Rollout::new(share, rates) };
                let quantiles = told(&many(rollouts, &rollout), |ended| ended.no_worse);
                let margin = percent(f64::from(margin_ppm) / 1e6);
                println!("{:>8} {margin:>8} {:>8} {rollouts:>8} {quantiles}", percent(share), percent(errors));
            }
        }
    }
}

fn percent(fraction: f64) -> String {
    format!("{} %", (fraction * 1e6).round() / 1e4)
}

/// Of canary requests; those that it was never said of count as the most.
struct Quantiles {
    low: u64,
    median: u64,
    high: u64,
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for count in [self.low, self.median, self.high] {
            if count == u64::MAX {
                write!(f, "{:>8} ", "never")?;
            } else {
                write!(f, "{count:>8} ")?;
            }
        }
        Ok(())
    }
}

fn told(ended: &[Ended], when: impl Fn(&Ended) -> Option<u64>) -> Quantiles {
    let mut counts: Vec<u64> = ended.iter().map(|ended| when(ended).unwrap_or(u64::MAX)).collect();
    counts.sort_unstable();
    let at = |tenths: usize| counts.get((counts.len().saturating_sub(1)) * tenths / 10).copied().unwrap_or(u64::MAX);
    Quantiles { low: at(1), median: at(5), high: at(9) }
}

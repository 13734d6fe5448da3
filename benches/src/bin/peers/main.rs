//! The same work through pointsman and its peers, in one run: processor time per request, and memory.
//!
//! A turn is one work done by one contender that is started for it, with one worker on a core of its own; load and
//! origin are on the other core. Each round has a turn of every contender, in an order that rotates. See
//! `peers/README.md` for the path and how to compare.

mod accounting;
mod contender;
mod credentials;
mod handshakes;
mod interrupt;
mod load;
mod measure;
mod origin;
mod results;
mod work;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use pointsman_benches::Problem;
use pointsman_benches::report::{Common, Host};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Map, Value, json};

use contender::Contender;
use measure::Figures;
use origin::Stand;
use results::Results;
use work::{Kind, Task, WORKS, Work};

/// Where the contender runs, alone.
const CONTENDER_CORE: usize = 0;
/// Where everything else runs.
const LOAD_CORE: usize = 1;
/// Open files: 10,000 connections and some, at both ends.
const FILES: u64 = 65_536;

/// Measure the same work through pointsman, nginx and HAProxy.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Only these works, such as W1,W4a.
    #[arg(long, value_name = "WORKS", value_delimiter = ',', value_parser = WORKS.map(|work| work.name))]
    only: Vec<String>,
    /// Turns of each contender in each work.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a load lasts that counts.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only these; the first is compared with each of the others.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "pointsman,nginx,haproxy")]
    contenders: Vec<Kind>,
}

fn main() -> Result<(), Problem> {
    let arguments = Arguments::parse();
    let parent = arguments.common.json.as_deref().and_then(Path::parent);
    if let Some(parent) = parent.filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        return Err(format!("--json: there is no folder {}", parent.display()).into());
    }
    // Looked at before this process is held to one core.
    let host = Host::new("peers", &arguments.common);
    prepare()?;
    let folder = arguments.common.run_folder()?;
    let versions = versions(&arguments.common.binary);
    host.tell("peers");
    versions.iter().for_each(|(name, version)| println!("{name}: {}", version.as_str().unwrap_or_default()));
    println!();

    let stand = Stand::start(folder.path())?;
    let asked = |work: &&Work| arguments.only.is_empty() || arguments.only.iter().any(|name| name == work.name);
    let mut all = Vec::new();
    for work in WORKS.iter().filter(asked) {
        let results = rounds(&arguments, work, &stand)?;
        results.tell();
        all.push(results);
    }
    if let Some(path) = &arguments.common.json {
        let mut figures: Map<String, Value> = all.iter().map(Results::to_json).collect();
        let run = json!({ "host": host, "date": date(), "versions": versions, "rounds": arguments.rounds,
                          "seconds": arguments.seconds });
        figures.insert("run".into(), run);
        std::fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    let failed: Vec<String> = all.iter().flat_map(Results::failed).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// All rounds of a work.
fn rounds(arguments: &Arguments, work: &Work, stand: &Stand) -> Result<Results, Problem> {
    let mut results = Results::new(*work, &arguments.contenders);
    let mut order = arguments.contenders.clone();
    for round in 1..=arguments.rounds {
        for kind in &order {
            let figures = turn(arguments, work, *kind, round, stand);
            // What was interrupted is not a contender's failure.
            interrupt::check()?;
            if let Ok([(name, value), ..]) = figures.as_deref() {
                eprintln!("{} round {round}/{} {kind}: {name} {value:.2}", work.name, arguments.rounds);
            }
            results.push(*kind, figures.map_err(|problem| format!("round {round}: {problem}")));
        }
        order.rotate_left(1);
    }
    Ok(results)
}

/// A contender is started, checked, given the work, and ended.
fn turn(arguments: &Arguments, work: &Work, kind: Kind, round: u32, stand: &Stand) -> Result<Figures, Problem> {
    // When one asks who calls, all are sent the same requests.
    let credentials = arguments.contenders.iter().any(|kind| kind.asks_who());
    let start = |name: &str| {
        let folder = stand.folder.join(name);
        let contender = Contender::start(kind, stand, &folder, &arguments.common.binary, credentials)?;
        let checked = contender.check(work.task, stand);
        checked.map_err(|problem| format!("{problem}{}", contender.last_words()))?;
        Ok::<_, Problem>(contender)
    };
    let name = format!("{}-{round}-{kind}", work.name);
    if let Task::Idle { connections } = work.task {
        return measure::idle(connections, stand, |which| start(&format!("{name}-{which}")));
    }
    let contender = start(&name)?;
    let time = Duration::from_secs(arguments.seconds);
    let figures = measure::measure(work, &contender, stand, &stand.folder.join(&name), time);
    figures.map_err(|problem| format!("{problem}{}", contender.last_words()).into())
}

/// Takes this process and what it starts to the load's core, and allows it enough open files.
fn prepare() -> Result<(), Problem> {
    interrupt::watch()?;
    let mut cores = CpuSet::new();
    cores.set(LOAD_CORE);
    sched_setaffinity(None, &cores).map_err(|error| format!("core {LOAD_CORE} cannot be used: {error}"))?;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < FILES) {
        let raised = Rlimit { current: Some(FILES), maximum: maximum.map(|maximum| maximum.max(FILES)) };
        // Only root may go beyond the maximum.
        setrlimit(Resource::Nofile, raised)
            .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }))?;
    }
    Ok(())
}

/// The first line that says it, by program.
fn versions(binary: &Path) -> Map<String, Value> {
    let ask = |program: &Path, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("not found").to_owned()
    };
    [
        ("pointsman", binary, "--version"),
        ("nginx", Path::new("nginx"), "-v"),
        ("haproxy", Path::new("haproxy"), "-v"),
        ("envoy", Path::new("envoy"), "--version"),
        ("wrk", Path::new("wrk"), "-v"),
        ("h2load", Path::new("h2load"), "--version"),
    ]
    .map(|(name, program, argument)| (name.to_owned(), ask(program, argument).into()))
    .into_iter()
    .collect()
}

/// "2026-11-21T10:00:00Z", as the system says it.
fn date() -> String {
    let output = Command::new("date").args(["-u", "+%FT%TZ"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

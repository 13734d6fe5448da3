//! How long a rollback, and any other change of weights, takes until the whole fleet has it: in memory and on disk.
//!
//! The figure is the controller's own (`Switched.us`): from the command's arrival there until the last proxy was known
//! to be ACTIVE. Beside it stands what one fsync costs in the same folder in the same minutes, because that is what most
//! of a change consists of. See the README for the path.

use std::time::Duration;

use api::operator::change_request::Verb;
use api::operator::{Rollback, SetWeight, Unhold};
use clap::Parser;
use pointsman_benches::disk::Disk;
use pointsman_benches::distribution::Samples;
use pointsman_benches::fleet::Fleet;
use pointsman_benches::load::Load;
use pointsman_benches::operator::{Followed, Operator, promote};
use pointsman_benches::report::{Common, Report};
use pointsman_benches::{Problem, upstream};

const STAGE: &str = "hello/production";
const HOST: &str = "hello.production.localhost";
/// Everything, in parts per million.
const ALL: u32 = 1_000_000;

/// Measure promotions, weight changes and rollbacks on a fleet of proxies, beside the cost of an fsync.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// How many times r2 is promoted, weighed up and rolled back from.
    #[arg(long, value_name = "N", default_value_t = 500)]
    rounds: usize,
    /// Proxies in the fleet, with one worker each.
    #[arg(long, value_name = "N", default_value_t = 4)]
    proxies: usize,
    /// Requests per second through all proxies together meanwhile.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0)]
    load: u32,
}

/// One kind of change.
#[derive(Default)]
struct Changes {
    /// Arrival at the controller to the last proxy known ACTIVE.
    fleet: Samples,
    /// Sending the command to the end of its answer.
    caller: Samples,
}

impl Changes {
    fn push(&mut self, followed: &Followed, proxies: usize) -> Result<(), Problem> {
        self.fleet.push_us(followed.last_of(proxies)?);
        self.caller.push(followed.took);
        Ok(())
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Problem> {
    let arguments = Arguments::parse();
    let folder = arguments.common.run_folder()?;
    let mut fleet = Fleet::new(&arguments.common.binary, folder.path())?;
    let operator = fleet.controller()?;
    for number in 1..=arguments.proxies {
        fleet.proxy(&operator, &format!("p{number}"), 1).await?;
    }
    set_up(&operator).await?;
    let load = Load::start(&fleet.proxies, HOST, arguments.load);
    let mut report = Report::new("rollback", &arguments.common);
    measure(&arguments, &operator, folder.path(), &mut report).await?;
    let (answered, failed) = load.end();
    report.fact("proxies", arguments.proxies);
    report.fact("requests answered", answered);
    report.fact("requests failed", failed);
    report.tell(Some("fsync, overwriting 4 KiB"), arguments.common.json.as_deref())
}

/// A service with two releases of which the first serves.
async fn set_up(operator: &Operator) -> Result<(), Problem> {
    let environment =
        "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\ntarget = { kind = \"static\" }\n";
    let service = "schema = 1\nservice = \"hello\"\n[component.web]\nfolder = \"dist\"\nprotocol = \"h1\"\n[stage.production]\npublic = true\n";
    let files = vec![("production.toml".into(), environment.into()), ("pointsman.toml".into(), service.into())];
    operator.apply(files).await?;
    for name in ["r1", "r2"] {
        let port = upstream::start(name)?;
        operator.add_release("hello", upstream::address(0, port)).await?;
    }
    operator.change(promote("hello@r1".into(), "production", ALL), false).await?;
    Ok(())
}

async fn measure(
    arguments: &Arguments,
    operator: &Operator,
    folder: &std::path::Path,
    report: &mut Report,
) -> Result<(), Problem> {
    let mut disk = Disk::new(folder)?;
    let (mut promotions, mut weights, mut rollbacks) = (Changes::default(), Changes::default(), Changes::default());
    for _ in 0..arguments.rounds {
        let half = operator.change(promote("hello@r2".into(), "production", ALL / 2), false).await?;
        promotions.push(&half, arguments.proxies)?;
        let all = Verb::Weight(SetWeight { stage: STAGE.into(), share_ppm: ALL });
        weights.push(&operator.change(all, false).await?, arguments.proxies)?;
        let back = Verb::Rollback(Rollback { stage: STAGE.into(), to: None });
        rollbacks.push(&operator.change(back, false).await?, arguments.proxies)?;
        // A rollback marks r2 bad, and what is bad cannot be promoted. No proxy hears of this change.
        operator.change(Verb::Unhold(Unhold { stage: STAGE.into(), release: 2 }), false).await?;
        disk.measure()?;
        // Not in step with anything that runs once in a while.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    for (name, changes) in [("rollback", &rollbacks), ("weight to 100 %", &weights), ("promotion at 50 %", &promotions)]
    {
        report.line(name, &changes.fleet);
    }
    report.line("rollback, as the caller sees it", &rollbacks.caller);
    report.line("fsync, overwriting 4 KiB", &disk.overwrite);
    report.line("fsync, appending 4 KiB", &disk.append);
    Ok(())
}

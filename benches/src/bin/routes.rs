//! How long a new route takes among thousands until it serves, and what thousands of routes cost in memory.
//!
//! The figure is a client's: from sending the promotion until the first 200 for the new host came back through the
//! proxy, on a connection that was open already. See the README for the path.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use pointsman_benches::client::Connection;
use pointsman_benches::distribution::Samples;
use pointsman_benches::fleet::Fleet;
use pointsman_benches::operator::{Operator, promote};
use pointsman_benches::report::{Common, Report};
use pointsman_benches::{Problem, upstream};
use tokio::task::JoinSet;

/// A route that does not serve by then never will.
const PATIENCE: Duration = Duration::from_secs(10);
const PROXY: &str = "p1";
/// Joins when all routes are there, and so gets them at once instead of one by one.
const LATER: &str = "p2";
/// Long enough that what the making took is given back, and that every endpoint had its turn to be checked.
const SETTLE: Duration = Duration::from_secs(5);
/// Everything, in parts per million.
const ALL: u32 = 1_000_000;
/// Files in one call, well below the 16 MiB that the controller takes.
const FILES: usize = 5_000;

/// Measure a route that is added to thousands of others, and what they cost.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Routes that are there before anything is measured.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    routes: usize,
    /// Routes that are added and measured, one after the other.
    #[arg(long, value_name = "N", default_value_t = 300)]
    rounds: usize,
    /// The proxy's workers.
    #[arg(long, value_name = "N", default_value_t = 2)]
    workers: u16,
    /// How often `status -o json` is asked.
    #[arg(long, value_name = "N", default_value_t = 20)]
    statuses: usize,
    /// Microseconds between two tries for the new host; 0 keeps one core busy with trying.
    #[arg(long, value_name = "US", default_value_t = 200)]
    pause_us: u64,
    /// Calls to the controller at a time while the routes are made.
    #[arg(long, value_name = "N", default_value_t = 32)]
    in_flight: usize,
    /// All services at one address, so that the proxy checks the health of one endpoint instead of thousands.
    #[arg(long)]
    one_endpoint: bool,
}

/// Where each service's release serves, and how many are told to the controller at a time.
struct Endpoints {
    port: u16,
    one: bool,
    in_flight: usize,
}

impl Endpoints {
    fn of(&self, service: usize) -> SocketAddr {
        upstream::address(if self.one { 0 } else { service }, self.port)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Problem> {
    let arguments = Arguments::parse();
    let folder = arguments.common.run_folder()?;
    let mut fleet = Fleet::new(&arguments.common.binary, folder.path())?;
    let operator = fleet.controller()?;
    fleet.proxy(&operator, PROXY, arguments.workers).await?;
    let parts: Vec<String> = fleet.pids().map(|(name, pid)| format!("{name} {pid}")).collect();
    println!("processes: {}", parts.join(", "));
    let endpoints =
        Endpoints { port: upstream::start("r1")?, one: arguments.one_endpoint, in_flight: arguments.in_flight };
    let mut report = Report::new("routes", &arguments.common);
    remember(&mut report, &fleet, &[PROXY, "controller"], "without routes")?;

    let begun = Instant::now();
    describe(&operator, 0..arguments.routes).await?;
    report.fact("applying all services, ms", millis(begun.elapsed()));
    let begun = Instant::now();
    add_releases(&operator, 0..arguments.routes, &endpoints).await?;
    report.fact("adding a release to each, ms", millis(begun.elapsed()));
    let begun = Instant::now();
    promote_all(&operator, arguments.routes, arguments.in_flight).await?;
    wait_for_all(&operator, &fleet, arguments.routes).await?;
    report.fact("promoting all until the last one serves, ms", millis(begun.elapsed()));
    tokio::time::sleep(SETTLE).await;
    remember(&mut report, &fleet, &[PROXY, "controller"], "with all routes")?;

    measure_status(&arguments, &operator, &fleet, &mut report).await?;
    let new = arguments.routes..arguments.routes + arguments.rounds;
    describe(&operator, new.clone()).await?;
    add_releases(&operator, new.clone(), &endpoints).await?;
    measure_routes(&arguments, &operator, &fleet, new, &mut report).await?;
    remember(&mut report, &fleet, &[PROXY, "controller"], "at the end")?;
    fleet.proxy(&operator, LATER, arguments.workers).await?;
    wait_for_all(&operator, &fleet, arguments.routes).await?;
    tokio::time::sleep(SETTLE).await;
    remember(&mut report, &fleet, &[LATER], "joined at the end")?;
    report.tell(None, arguments.common.json.as_deref())
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

fn name(number: usize) -> String {
    format!("s{number}")
}

fn host(number: usize) -> String {
    format!("s{number}.production.localhost")
}

fn remember(report: &mut Report, fleet: &Fleet, parts: &[&str], when: &str) -> Result<(), Problem> {
    for part in parts {
        let memory = fleet.memory(part)?;
        report.fact(&format!("{part} {when}, VmRSS KiB"), memory.rss_kib);
        report.fact(&format!("{part} {when}, VmHWM KiB"), memory.peak_kib);
    }
    Ok(())
}

/// Applies the environment and some services.
async fn describe(operator: &Operator, services: std::ops::Range<usize>) -> Result<(), Problem> {
    let environment =
        "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\ntarget = { kind = \"static\" }\n";
    operator.apply(vec![("production.toml".into(), environment.into())]).await?;
    let file = |number: usize| {
        let text = format!(
            "schema = 1\nservice = \"{}\"\n[component.web]\nfolder = \"dist\"\nprotocol = \"h1\"\n[stage.production]\npublic = true\n",
            name(number)
        );
        (format!("{}.toml", name(number)), text)
    };
    let files: Vec<_> = services.map(file).collect();
    for files in files.chunks(FILES) {
        operator.apply(files.to_vec()).await?;
    }
    Ok(())
}

/// Does something for each number, some at a time.
async fn each<F>(
    in_flight: usize,
    numbers: std::ops::Range<usize>,
    mut task: impl FnMut(usize) -> F,
) -> Result<(), Problem>
where
    F: Future<Output = Result<(), Problem>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for number in numbers {
        if running.len() >= in_flight
            && let Some(ended) = running.join_next().await
        {
            ended??;
        }
        running.spawn(task(number));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

async fn add_releases(
    operator: &Operator,
    services: std::ops::Range<usize>,
    endpoints: &Endpoints,
) -> Result<(), Problem> {
    each(endpoints.in_flight, services, |number| {
        let (operator, address) = (operator.clone(), endpoints.of(number));
        async move { operator.add_release(&name(number), address).await }
    })
    .await
}

async fn promote_all(operator: &Operator, routes: usize, in_flight: usize) -> Result<(), Problem> {
    each(in_flight, 0..routes, |number| {
        let operator = operator.clone();
        async move { operator.change(promote(format!("{}@r1", name(number)), "production", ALL), true).await.map(drop) }
    })
    .await
}

/// Until every proxy has the newest version and the newest proxy serves.
async fn wait_for_all(operator: &Operator, fleet: &Fleet, routes: usize) -> Result<(), Problem> {
    let begun = Instant::now();
    loop {
        let status = operator.status().await?;
        if status.fleet.iter().all(|member| member.version == status.version) {
            break;
        }
        if begun.elapsed() > PATIENCE * 6 {
            return Err("the proxy does not get the newest version".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let newest = fleet.proxies.last().ok_or("there is no proxy")?;
    let mut connection = Connection::open(*newest)?;
    for number in [0, routes / 2, routes - 1] {
        let status = connection.get(&host(number))?;
        if status != 200 {
            return Err(format!("{} answers {status}", host(number)).into());
        }
    }
    Ok(())
}

async fn measure_status(
    arguments: &Arguments,
    operator: &Operator,
    fleet: &Fleet,
    report: &mut Report,
) -> Result<(), Problem> {
    let (mut command, mut api, mut bytes, mut stages) = (Samples::default(), Samples::default(), 0, 0);
    for _ in 0..arguments.statuses {
        let (text, took) = fleet.ask(&["-o", "json", "status"])?;
        command.push(took);
        bytes = text.len();
        let begun = Instant::now();
        let status = operator.status().await?;
        api.push(begun.elapsed());
        stages = status.services.iter().map(|service| service.stages.len()).sum();
    }
    report.line("status -o json, the whole command", &command);
    report.line("status, the API call", &api);
    report.fact("stages in the status", stages);
    report.fact("bytes of `status -o json`", bytes);
    Ok(())
}

/// Adds routes one by one while a thread of its own tries the new host.
async fn measure_routes(
    arguments: &Arguments,
    operator: &Operator,
    fleet: &Fleet,
    new: std::ops::Range<usize>,
    report: &mut Report,
) -> Result<(), Problem> {
    let (mut first, mut safe, mut caller) = (Samples::default(), Samples::default(), Samples::default());
    let mut others = 0;
    let (proxy, pause) = (fleet.proxies[0], Duration::from_micros(arguments.pause_us));
    for number in new {
        let (sent, begun) = std::sync::mpsc::channel();
        let trying = std::thread::spawn(move || first_answer(proxy, &host(number), pause, &sent));
        // It tries already, and hears that there is no such host.
        begun.recv()?;
        let sent_at = Instant::now();
        let followed = operator.change(promote(format!("{}@r1", name(number)), "production", ALL), false).await?;
        let (answered_at, unexpected) = trying.join().map_err(|_| "the client failed")??;
        others += unexpected;
        first.push(answered_at.saturating_duration_since(sent_at));
        safe.push_us(followed.last_of(1)?);
        caller.push(followed.took);
    }
    report.line("promotion sent to first 200 of the new host", &first);
    report.line("arrived at the controller to ACTIVE", &safe);
    report.line("the promotion, as the caller sees it", &caller);
    report.fact("answers of new hosts that were neither 404 nor 200", others);
    Ok(())
}

/// When the first 200 was there, and how many answers before it were neither 404 nor 200.
///
/// Says on `begun` when the first answer, a 404, was.
fn first_answer(
    proxy: SocketAddr,
    host: &str,
    pause: Duration,
    begun: &std::sync::mpsc::Sender<()>,
) -> Result<(Instant, usize), Problem> {
    let mut connection = Connection::open(proxy)?;
    let before = connection.get(host)?;
    if before != 404 {
        return Err(format!("{host} answers {before} before it is there").into());
    }
    begun.send(())?;
    let (deadline, mut others) = (Instant::now() + PATIENCE, 0);
    loop {
        let status = connection.get(host)?;
        let now = Instant::now();
        match status {
            200 => return Ok((now, others)),
            _ if now > deadline => return Err(format!("{host} answers {status}").into()),
            404 => {}
            _ => others += 1,
        }
        std::thread::sleep(pause);
    }
}

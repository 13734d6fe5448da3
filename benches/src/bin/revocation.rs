//! How long a revoked application, or a group that policies no longer permit, still passes: until the last proxy of the fleet
//! refuses a request, as a client of each sees it. See the README for the path.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use pointsman_benches::client::Connection;
use pointsman_benches::disk::Disk;
use pointsman_benches::distribution::Samples;
use pointsman_benches::fleet::Fleet;
use pointsman_benches::operator::{Operator, promote};
use pointsman_benches::report::{Common, Report};
use pointsman_benches::{Problem, upstream};

const HOST: &str = "hello.production.localhost";
/// Everything, in parts per million.
const ALL: u32 = 1_000_000;
/// Between two tries of a client.
const PAUSE: Duration = Duration::from_micros(200);
/// Longest wait for a proxy to know of a change.
const PATIENCE: Duration = Duration::from_secs(10);

const ENVIRONMENT: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
    target = { kind = \"static\" }\ncredentials = [\"application\"]\n";
const SERVICE: &str = "schema = 1\nservice = \"hello\"\n[component.web]\nfolder = \"dist\"\nprotocol = \"h1\"\n\
    [stage.production]\n";
const ACCESS: &str = "schema = 1\npolicies = [\"bench.cedar\"]\n";

/// Measure how long a revoked application still passes.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// How many applications, and how many groups, are revoked.
    #[arg(long, value_name = "N", default_value_t = 200)]
    rounds: usize,
    /// Proxies in the fleet, with one worker each.
    #[arg(long, value_name = "N", default_value_t = 4)]
    proxies: usize,
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
    operator
        .apply(vec![("production.toml".into(), ENVIRONMENT.into()), ("pointsman.toml".into(), SERVICE.into())])
        .await?;
    permit(&operator, &["tools", "partners"]).await?;
    operator.add_release("hello", upstream::address(0, upstream::start("r1")?)).await?;
    operator.change(promote("hello@r1".into(), "production", ALL), false).await?;

    let mut report = Report::new("revocation", &arguments.common);
    let mut disk = Disk::new(folder.path())?;
    let (mut applications, mut groups) = (Samples::default(), Samples::default());
    let partner = operator.create_application("partner", "partners").await?;
    for round in 0..arguments.rounds {
        let name = format!("tool-{round}");
        let key = operator.create_application(&name, "tools").await?;
        applications.push(refused_by_all(&fleet.proxies, &key, operator.revoke_application(&name)).await?);
        groups.push(refused_by_all(&fleet.proxies, &partner, permit(&operator, &["tools"])).await?);
        permit(&operator, &["tools", "partners"]).await?;
        disk.measure()?;
    }
    report.line("application revoked", &applications);
    report.line("group no longer permitted", &groups);
    report.line("fsync, overwriting 4 KiB", &disk.overwrite);
    report.fact("proxies", arguments.proxies);
    report.tell(Some("fsync, overwriting 4 KiB"), arguments.common.json.as_deref())
}

/// Has policies permit just these groups.
async fn permit(operator: &Operator, groups: &[&str]) -> Result<(), Problem> {
    let policy = |group: &&str| {
        format!(
            "permit (principal, action, resource in Environment::\"production\")\n\
             when {{ context has application && context.application in Group::\"{group}\" }};\n"
        )
    };
    let text = groups.iter().map(policy).collect();
    operator.apply(vec![("access.toml".into(), ACCESS.into()), ("bench.cedar".into(), text)]).await
}

/// From the beginning of `revoke` until every proxy has refused a request with this key, on a connection of before.
async fn refused_by_all(
    proxies: &[SocketAddr],
    key: &str,
    revoke: impl Future<Output = Result<(), Problem>>,
) -> Result<Duration, Problem> {
    let (passes, passing) = mpsc::channel();
    let clients: Vec<_> = proxies
        .iter()
        .map(|proxy| {
            let (proxy, fields, passes) = (*proxy, vec![("x-api-key", key.to_owned())], passes.clone());
            thread::spawn(move || -> Result<Instant, String> {
                let connection = Connection::open(proxy).map_err(|error| error.to_string())?.with(&fields);
                refused(connection, &passes)
            })
        })
        .collect();
    drop(passes);
    for _ in proxies {
        passing.recv_timeout(PATIENCE).map_err(|_| "a proxy does not know the application")?;
    }
    let begun = Instant::now();
    revoke.await?;
    let mut last = begun;
    for client in clients {
        last = last.max(client.join().map_err(|_| "a client failed")??);
    }
    Ok(last - begun)
}

/// Says once that it passes, and then when it does not any more.
fn refused(mut connection: Connection, passes: &mpsc::Sender<()>) -> Result<Instant, String> {
    let (deadline, mut has_passed) = (Instant::now() + PATIENCE, false);
    while Instant::now() < deadline {
        let status = connection.get(HOST).map_err(|error| error.to_string())?;
        match (status, has_passed) {
            (200, false) => {
                has_passed = true;
                // Whoever waits for it says what is wrong when it does not come.
                let _ = passes.send(());
            }
            (200, true) | (401 | 404, false) => {}
            (401 | 404, true) => return Ok(Instant::now()),
            (other, _) => return Err(format!("a request is answered with {other}")),
        }
        thread::sleep(PAUSE);
    }
    Err(format!("it is {} after {PATIENCE:?}", if has_passed { "not refused" } else { "refused" }))
}

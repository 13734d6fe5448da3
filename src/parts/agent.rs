//! `agent`: runs releases on this machine.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use certs::fleet::Role;
use clap::Args;

use super::init::println_out;
use super::member::Joining;
use super::stay::{self, LogArgs, SOFTWARE};
use crate::exit::{Ended, Exit, Failure};
use crate::values::Ports;

/// Run an agent: it starts and supervises releases on this machine.
///
/// It only connects to the controller; nothing connects to it. The releases it started go on running when it stops, and
/// it finds them again, unless --end-releases says otherwise.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  pointsman agent --data ./a1 --join pmjoin1...
  pointsman agent --data /var/lib/pointsman --address 10.0.0.7 --ports 20000-20999")]
pub(crate) struct AgentArgs {
    /// Its folder; made when there is none.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    join: Joining,
    /// Where proxies reach the releases on this machine.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// The ports that releases are given.
    #[arg(long, value_name = "FIRST-LAST", default_value = "20000-29999")]
    ports: Ports,
    /// End all releases when the agent stops.
    #[arg(long)]
    end_releases: bool,
    #[command(flatten)]
    log: LogArgs,
}

pub(crate) fn run(args: AgentArgs) -> Ended {
    args.log.start();
    stay::threads()?.block_on(serve(args))
}

async fn serve(args: AgentArgs) -> Ended {
    let identity = args.join.identity(&args.data, Role::Agent).await?;
    let (first, last) = (args.ports.0.start(), args.ports.0.end());
    println_out(&format!("agent {}: releases at {}, ports {first} to {last}", identity.name(), args.address))?;
    let settings = ::agent::Settings {
        data: args.data,
        address: args.address,
        ports: args.ports.0,
        end_releases: args.end_releases,
        software: SOFTWARE.into(),
    };
    let stop = stay::stop()?;
    ::agent::run(settings, identity, stop).await.map_err(|error| Failure::refused(error.to_string()))?;
    Ok(Exit::Done)
}

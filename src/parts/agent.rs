//! `agent`: runs releases on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
///
/// Under systemd the unit needs KillMode=process: otherwise stopping the agent ends all releases as well.
///
/// A release runs in a folder of its own that is read-only and unpacked anew at every start. The folder in $HOME is the
/// one that it may write; it is gone when the release has left.
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
    /// Where proxies reach the releases on this machine; without it, by which it reaches the controller.
    ///
    /// An address that no proxy can reach, such as 127.0.0.1 where a proxy runs on another machine, makes releases
    /// healthy for the agent and unreachable for the proxy.
    #[arg(long, value_name = "IP", value_parser = reachable)]
    address: Option<IpAddr>,
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
    let address = match args.address {
        Some(address) => address,
        None => own_address(identity.controller()).await?,
    };
    // Whoever started it may not read what it says.
    let _ = println_out(&format!("agent {}: releases at {address}, ports {first} to {last}", identity.name()));
    let settings = ::agent::Settings {
        data: args.data,
        address,
        ports: args.ports.0,
        end_releases: args.end_releases,
        software: SOFTWARE.into(),
    };
    let stop = stay::stop()?;
    ::agent::run(settings, identity, stop).await.map_err(|error| Failure::refused(error.to_string()))?;
    Ok(Exit::Done)
}

fn reachable(text: &str) -> Result<IpAddr, String> {
    let address = text.parse().ok().filter(|address: &IpAddr| !address.is_unspecified());
    address.ok_or_else(|| "accepted is an address that proxies can connect to, such as \"10.0.0.7\"".to_owned())
}

/// The address of this machine on its way to the controller. Nothing is sent: the system only chooses a route.
async fn own_address(controller: &str) -> Result<IpAddr, Failure> {
    let unknown = |why: String| {
        Failure::refused(format!(
            "where proxies reach this machine cannot be told by the way to the controller at {controller} ({why}): say it \
             with `--address IP`"
        ))
    };
    let found = tokio::net::lookup_host(controller).await.map_err(|error| unknown(error.to_string()))?;
    let mut why = "its name has no address".to_owned();
    for to in found {
        match route(to).await {
            Ok(address) if !address.is_unspecified() => return Ok(address),
            Ok(_) => why = "the system names no address of its own".to_owned(),
            Err(error) => why = error.to_string(),
        }
    }
    Err(unknown(why))
}

async fn route(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_can_be_connected_to() {
        for good in ["10.0.0.7", "127.0.0.1", "2001:db8::7"] {
            assert!(reachable(good).is_ok(), "{good}");
        }
        for bad in ["0.0.0.0", "::", "web.example.com", "10.0.0.7:80", ""] {
            assert!(reachable(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn without_an_address_the_one_towards_the_controller_counts() {
        // The machine's own addresses, as far as it has them: from each to itself the way begins there.
        for own in ["127.0.0.1", "::1"].map(|own| own.parse::<IpAddr>().expect("an address")) {
            if std::net::UdpSocket::bind((own, 0)).is_ok() {
                assert_eq!(own_address(&SocketAddr::new(own, 7400).to_string()).await, Ok(own));
            }
        }
        let unknown = own_address("no.such.host.invalid:7400").await.expect_err("no address").message;
        assert!(unknown.contains("--address IP"), "{unknown}");
    }
}

//! `proxy`: runs one; its break-glass verbs stand in `local`.

use std::net::SocketAddr;
use std::path::PathBuf;

use ::proxy::LogTarget;
use api::Span;
use certs::fleet::Role;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use tokio::sync::oneshot;

use super::init::println_out;
use super::local::{self, OverrideArgs};
use super::member::Joining;
use super::stay::{self, LogArgs, SOFTWARE};
use crate::exit::{Ended, Exit, Failure};
use crate::operator::Session;

/// Where a proxy serves when nothing is said.
const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8080);
const HTTPS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8443);

/// Run a proxy; override it by hand when no controller is there.
///
/// Serves from its data folder at once, also without a controller, and follows the controller when it is there. Stops on
/// SIGTERM or Ctrl-C: no new requests, those in flight may finish within --drain.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_long_help = "Examples:
  pointsman proxy --data ./p1 --join pmjoin1...
  pointsman proxy --data /var/lib/pointsman --http 0.0.0.0:80 --https 0.0.0.0:443
  pointsman proxy status --data ./p1")]
pub(crate) struct ProxyArgs {
    #[command(subcommand)]
    verb: Option<ProxyVerb>,
    /// Its folder; made when there is none.
    #[arg(long, value_name = "DIR", required = true)]
    data: Option<PathBuf>,
    #[command(flatten)]
    join: Joining,
    /// Where plain HTTP is served; 0.0.0.0:8080 when neither --http nor --https is given.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Where HTTPS is served; 0.0.0.0:8443 when neither --http nor --https is given.
    #[arg(long, value_name = "ADDRESS")]
    https: Option<SocketAddr>,
    /// Where metrics and readiness are served, in clear.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Threads that serve requests; without it one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Believe proxies in this network about who the client is; may be repeated.
    ///
    /// What they say in X-Forwarded-For, -Proto, -Host, -Port and Forwarded is passed on, from the nearest hop backwards
    /// as far as the addresses are in these networks. Of anybody else none of it is. Without the option nobody is believed.
    #[arg(long, value_name = "NETWORK")]
    trust: Vec<IpNet>,
    /// Expect a PROXY protocol header (version 1 or 2) at the beginning of each connection.
    ///
    /// On both listeners. Connections from outside the networks of --trust are closed.
    #[arg(long, requires = "trust")]
    proxy_protocol: bool,
    /// Write a line of JSON per request to this file, or to the standard output with -.
    ///
    /// On SIGHUP the file is opened again: move it first to rotate. When it cannot be written lines are dropped and
    /// counted, and requests go on.
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// How long requests in flight may go on after a stop.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    drain: Span,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum ProxyVerb {
    /// Break glass: give a stage on this proxy to one release.
    ///
    /// Whatever the controller says. Works on the proxy's own machine without any controller, by its local socket. It ends by itself, and is told to
    /// the controller when that is back.
    #[command(after_long_help = "Examples:
  pointsman proxy override hello/production r41 --for 1h --reason \"controller is down\" --data ./p1
  pointsman proxy override hello/production --end --data ./p1")]
    Override(OverrideArgs),
    /// Show what this proxy serves, by its local socket.
    #[command(after_long_help = "Example:\n  pointsman proxy status --data ./p1")]
    Status {
        /// The proxy's folder.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

pub(crate) fn run(args: ProxyArgs, session: &Session) -> Ended {
    match args.verb {
        Some(ProxyVerb::Override(args)) => stay::threads()?.block_on(local::set(args, &session.output)),
        Some(ProxyVerb::Status { data }) => stay::threads()?.block_on(local::status(&data, &session.output)),
        None => {
            args.log.start();
            stay::threads()?.block_on(serve(args))
        }
    }
}

async fn serve(args: ProxyArgs) -> Ended {
    let data = args.data.expect("required without a subcommand");
    let identity = args.join.identity(&data, Role::Proxy).await?;
    let (http, https) = match (args.http, args.https) {
        (None, None) => (Some(HTTP), Some(HTTPS)),
        given => given,
    };
    let workers = args.workers.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let (sender, ready) = oneshot::channel::<::proxy::Bound>();
    let settings = ::proxy::Settings {
        http,
        https,
        admin: args.admin,
        workers,
        drain: args.drain.duration(),
        software: SOFTWARE.into(),
        trusted: args.trust,
        proxy_protocol: args.proxy_protocol,
        access_log: args.access_log.map(|path| match path.to_str() {
            Some("-") => LogTarget::Output,
            _ => LogTarget::File(path),
        }),
        reopen_log: stay::hangups()?,
        ready: Some(sender),
        ..::proxy::Settings::new(data)
    };
    let name = identity.name().to_owned();
    tokio::spawn(async move {
        if let Ok(bound) = ready.await {
            // Whoever started it may not read what it says.
            let _ = println_out(&listening(&name, &bound, workers));
        }
    });
    let stop = stay::stop()?;
    let run = ::proxy::run(settings, identity, stop).await;
    let cut = run.map_err(|error| Failure::refused(error.to_string()))?;
    if cut > 0 {
        tracing::warn!(cut, "requests were cut at the end of the drain");
    }
    Ok(Exit::Done)
}

fn listening(name: &str, bound: &::proxy::Bound, workers: usize) -> String {
    let mut text = format!("proxy {name}: ");
    for (protocol, address) in [("http", bound.http), ("https", bound.https), ("admin", Some(bound.admin))] {
        if let Some(address) = address {
            text.push_str(&format!("{protocol} {address}, "));
        }
    }
    text + &if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_says_where_it_listens() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let both = ::proxy::Bound { http: Some(address(80)), https: Some(address(443)), admin: address(9090) };
        assert_eq!(
            listening("p1", &both, 2),
            "proxy p1: http 127.0.0.1:80, https 127.0.0.1:443, admin 127.0.0.1:9090, 2 workers"
        );
        let one = ::proxy::Bound { http: None, ..both };
        assert_eq!(listening("p1", &one, 1), "proxy p1: https 127.0.0.1:443, admin 127.0.0.1:9090, 1 worker");
    }
}

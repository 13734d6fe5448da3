//! An agent from start to stop.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use api::agent::Hello;
use certs::endpoint::Authorities;
use certs::fleet::Identity;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::sync::Notify;
use tracing::info;

use crate::artifact::Artifacts;
use crate::file;
use crate::instance::Host;
use crate::keeper::Instances;
use crate::link::Link;
use crate::ports::Ports;

/// How an agent is started.
#[derive(Debug)]
pub struct Settings {
    /// Folder for everything it keeps; made with mode 0700 when it does not exist.
    pub data: PathBuf,
    /// Where proxies reach what runs here.
    pub address: IpAddr,
    /// Ports for releases.
    pub ports: RangeInclusive<u16>,
    /// Whether releases end with the agent; otherwise they go on, and are found again.
    pub end_releases: bool,
    /// Version, for people.
    pub software: String,
}

/// Why an agent did not start. One sentence.
#[derive(Debug)]
pub struct AgentError(String);

impl std::fmt::Display for AgentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AgentError {}

/// Runs an agent until `stop`.
///
/// # Errors
/// An address that nobody can connect to, a data folder that cannot be used or that another agent uses, or an identity
/// that is not usable.
pub async fn run(settings: Settings, identity: Identity, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
    if settings.address.is_unspecified() {
        return Err(AgentError(format!(
            "no proxy can connect to {}: name an address of this machine",
            settings.address
        )));
    }
    let data = &settings.data;
    let failed = |problem: std::io::Error| AgentError(format!("{}: {problem}", data.display()));
    file::folder(data).map_err(failed)?;
    // The same folder under every name: marks in processes' environments are compared as text.
    let data = data.canonicalize().map_err(failed)?;
    let lock = fs::File::create(data.join("lock")).map_err(failed)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|problem| match problem {
        Errno::WOULDBLOCK => AgentError(format!("{}: another agent uses this folder", data.display())),
        _ => AgentError(format!("{}: the folder cannot be locked: {problem}", data.display())),
    })?;
    let channel = identity.channel().map_err(|problem| AgentError(problem.to_string()))?;
    let changed = Arc::new(Notify::new());
    let host = Host {
        artifacts: Artifacts::new(&data, channel.clone()),
        data: data.into(),
        ports: Arc::new(Ports::new(settings.ports)),
        probe: probe_address(settings.address),
        authorities: Authorities::of_machine(),
        changed: changed.clone(),
    };
    let hello = Hello { software: settings.software, address: settings.address.to_string(), ..Hello::default() };
    let mut instances = Instances::resume(&host);
    info!(name = identity.name(), controller = identity.controller(), "agent runs");
    let link = Link { identity: &identity, channel, hello, changed };
    tokio::select! {
        () = stop => {}
        () = link.run(&mut instances) => {}
        () = identity.keep_renewed() => {}
    }
    if settings.end_releases {
        instances.end_all().await;
    }
    // The lock last: the next agent must not meet a task of this one.
    instances.leave().await;
    drop(lock);
    Ok(())
}

/// Releases are probed where proxies reach them; behind a translated address only the loopback is left.
fn probe_address(address: IpAddr) -> IpAddr {
    let is_ours = UdpSocket::bind((address, 0)).is_ok();
    if is_ours { address } else { Ipv4Addr::LOCALHOST.into() }
}

//! `release build/add/list/show/logs`.

use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::operator::build_release_request::Source as Wanted;
use api::operator::{
    AddReleaseRequest, BuildReleaseRequest, LogPiece, Release, ReleaseLogsRequest, Releases, StaticAddress,
};
use api::{ReleaseName, ServiceName, Verb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Answers;
use crate::build::{self, Revision};
use crate::core::Command;
use crate::core::event::Event;
use crate::core::state::Addresses;
use crate::engine::{Accepted, Engine, Priority};
use crate::server::Shared;
use crate::server::who::{Operator, parse, stopping, wrong};
use crate::status;

/// How often a log that is followed is looked at.
const FOLLOW: Duration = Duration::from_millis(200);
const PIECE_BYTES: u64 = 64 * 1024;

impl Shared {
    /// Finds the commit, then queues its build.
    pub(super) async fn build_release(&self, who: &Operator, request: BuildReleaseRequest) -> Result<Release, Status> {
        let service: ServiceName = parse(&request.service)?;
        who.may(Verb::Release, Some(&service), None)?;
        // Before the branch is looked up: it may have moved on since.
        if let Some(before) = self.done_before(who, &request.request_id).await? {
            return self.made(before).await;
        }
        let looked_up = service.clone();
        let source =
            self.engine.read(move |engine| engine.state.service(&looked_up).map(|service| service.spec.source.clone()));
        let source = source.await.ok_or_else(stopping)?;
        let source = source.ok_or_else(|| {
            Status::not_found(format!("there is no service {service}: apply its pointsman.toml first"))
        })?;
        let source = source.ok_or_else(|| {
            Status::failed_precondition(format!(
                "{service} has no `source` in its pointsman.toml: name its repository, or use `release add`"
            ))
        })?;
        let revision = match request.source {
            Some(Wanted::Commit(commit)) => Revision::Commit(commit),
            Some(Wanted::Tag(tag)) => Revision::Tag(tag),
            Some(Wanted::Branch(branch)) => Revision::Branch(branch),
            None => Revision::Branch(source.branch.clone()),
        };
        let commit = build::resolve(&self.folders, &service, &source, &revision).await;
        let commit = commit.map_err(|problem| Status::failed_precondition(problem.sentence))?;
        let command = Command::Build {
            service,
            version: commit.tag.unwrap_or_default(),
            commit: commit.id,
            subject: commit.subject,
        };
        let accepted = self.ask(who, command, request.reason, request.request_id, Priority::Normal).await?;
        self.made(accepted).await
    }

    pub(super) async fn add_release(&self, who: &Operator, request: AddReleaseRequest) -> Result<Release, Status> {
        let service: ServiceName = parse(&request.service)?;
        who.may(Verb::Release, Some(&service), None)?;
        let (mut addresses, mut mistakes) = (Vec::new(), Vec::new());
        for given in &request.addresses {
            match read_addresses(given) {
                Ok(read) => addresses.push(read),
                Err(found) => mistakes.extend(found),
            }
        }
        if !mistakes.is_empty() {
            return Err(wrong(&mistakes));
        }
        let command = Command::AddRelease { service, version: request.version, commit: request.commit, addresses };
        let accepted = self.ask(who, command, request.reason, request.request_id, Priority::Normal).await?;
        self.made(accepted).await
    }

    /// The release that a command made.
    async fn made(&self, accepted: Accepted) -> Result<Release, Status> {
        let name = accepted.events.iter().find_map(|event| match event {
            Event::ReleaseRequested { release, .. } | Event::ReleaseAdded { release, .. } => Some(release.clone()),
            _ => None,
        });
        let name = name.ok_or_else(|| Status::already_exists(accepted.lines.join("; ")))?;
        let release = self.engine.read(move |engine| status::release(&engine.state, &name)).await;
        release.ok_or_else(stopping)?.ok_or_else(|| Status::internal("the release is not there"))
    }

    pub(super) async fn list_releases(&self, who: &Operator, service: &str) -> Result<Releases, Status> {
        let service: ServiceName = parse(service)?;
        who.may(Verb::Read, Some(&service), None)?;
        let list = move |engine: &Engine| {
            let entry = engine
                .state
                .service(&service)
                .ok_or_else(|| Status::not_found(format!("there is no service {service}")))?;
            let names = entry.releases.keys().rev().map(|number| ReleaseName::new(service.clone(), *number));
            Ok(Releases { releases: names.filter_map(|name| status::release(&engine.state, &name)).collect() })
        };
        self.engine.read(list).await.ok_or_else(stopping)?
    }

    pub(super) async fn show_release(&self, who: &Operator, name: &str) -> Result<Release, Status> {
        let name: ReleaseName = parse(name)?;
        who.may(Verb::Read, Some(&name.service), None)?;
        let unknown = Status::not_found(format!("there is no release {name}"));
        let show = move |engine: &Engine| status::release(&engine.state, &name);
        self.engine.read(show).await.ok_or_else(stopping)?.ok_or(unknown)
    }
}

fn read_addresses(given: &StaticAddress) -> Result<Addresses, Vec<String>> {
    let mut mistakes = Vec::new();
    let environment = (!given.environment.is_empty()).then(|| given.environment.parse()).transpose();
    let environment =
        environment.map_err(|problem: api::NotAccepted| mistakes.push(problem.to_string())).unwrap_or_default();
    let component =
        given.component.parse().map_err(|problem: api::NotAccepted| mistakes.push(problem.to_string())).ok();
    let mut addresses = Vec::new();
    for text in &given.addresses {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => {
                mistakes.push(format!("{text:?} has port 0, on which nobody can be reached: accepted is 1 to 65535"));
            }
            Ok(address) => addresses.push(address),
            Err(_) => mistakes.push(format!(
                "{text:?} is not an address: accepted is IP:PORT, such as \"10.0.0.7:8080\" or \"[::1]:8080\""
            )),
        }
    }
    match component {
        Some(component) if mistakes.is_empty() => Ok(Addresses { environment, component, addresses }),
        _ => Err(mistakes),
    }
}

/// The log of a build; with `follow`, until the build has ended.
pub(super) async fn logs(
    shared: Arc<Shared>,
    who: &Operator,
    request: ReleaseLogsRequest,
) -> Result<Answers<LogPiece>, Status> {
    let name: ReleaseName = parse(&request.release)?;
    who.may(Verb::Read, Some(&name.service), None)?;
    if ended(&shared, &name).await?.is_none() {
        return Err(Status::not_found(format!("there is no release {name}")));
    }
    let path = shared.folders.log(&name);
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut offset = 0;
        loop {
            // Asked before reading: what was written until the end is then read below.
            let over = !request.follow || !matches!(ended(&shared, &name).await, Ok(Some(false)));
            loop {
                let Ok(data) = read_piece(&path, offset) else {
                    return drop(sender.send(Err(Status::internal("the log cannot be read"))).await);
                };
                if data.is_empty() {
                    break;
                }
                offset += data.len() as u64;
                if sender.send(Ok(LogPiece { data })).await.is_err() {
                    return;
                }
            }
            if over {
                return;
            }
            tokio::time::sleep(FOLLOW).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Whether the build of a release has ended; `None` when there is no such release.
async fn ended(shared: &Shared, name: &ReleaseName) -> Result<Option<bool>, Status> {
    let name = name.clone();
    let ended =
        shared.engine.read(move |engine| engine.state.release(&name).map(|release| release.progress.is_terminal()));
    ended.await.ok_or_else(stopping)
}

/// A log that does not exist yet is an empty one.
fn read_piece(path: &std::path::Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::new();
    match std::fs::File::open(path) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(offset))?;
            file.take(PIECE_BYTES).read_to_end(&mut data)?;
        }
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => {}
        Err(problem) => return Err(problem),
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_an_address_has_a_port() {
        let given = |text: &str| StaticAddress {
            component: "web".into(),
            addresses: vec![text.to_owned()],
            ..StaticAddress::default()
        };
        assert!(read_addresses(&given("10.0.0.7:8080")).is_ok());
        for wrong in ["10.0.0.7:0", "[::1]:0", "10.0.0.7", "host:80"] {
            let mistakes = read_addresses(&given(wrong)).expect_err(wrong);
            assert!(mistakes.len() == 1 && mistakes[0].contains(wrong) && mistakes[0].contains("accepted is"));
        }
    }
}

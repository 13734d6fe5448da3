//! The stream of one agent, and the artifacts it fetches.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use api::Digest;
use api::agent::agent_message::Kind as Up;
use api::agent::agents_server::Agents;
use api::agent::controller_message::Kind as Down;
use api::agent::instance_status::State as InstanceState;
use api::agent::{AgentMessage, Chunk, ControllerMessage, FetchRequest, InstanceStatus, Report, Welcome};
use certs::fleet::Role;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::Shared;
use super::accept::Caller;
use super::who::{parse, stopping};
use crate::core::State;
use crate::core::observe::InstanceSeen;
use crate::core::state::ArtifactKind;
use crate::engine::{AgentSender, Engine};
use crate::fleet::{LEASE, QUEUE};
use crate::shelf::Placed;
use crate::status::clock_ms;

const HELLO: Duration = Duration::from_secs(10);
/// Large enough that the cost per message does not count, small enough for a slow reader.
const CHUNK_BYTES: usize = 256 * 1024;

pub(super) struct Service(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl Agents for Service {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<ControllerMessage, Status>> + Send>>;
    type FetchStream = ReceiverStream<Result<Chunk, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let member = self.0.member(&request, Role::Agent).await?;
        let name = member.name.clone();
        let from = request.extensions().get::<Caller>().map(|caller| caller.address);
        let mut messages = request.into_inner();
        let hello = match timeout(HELLO, messages.next()).await {
            Ok(Some(Ok(AgentMessage { kind: Some(Up::Hello(hello)) }))) => hello,
            _ => return Err(Status::invalid_argument("the first message of an agent is its hello")),
        };
        let address: IpAddr = parse(&hello.address)?;
        self.0.fleet.clocks.told(&name, from, hello.at_ms, clock_ms(), Instant::now());
        let connection = self.0.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let looked_up = name.clone();
        let group =
            self.0.engine.read(move |engine| engine.state.members.get(&looked_up).map(|member| member.group.clone()));
        let group = group.await.ok_or_else(stopping)?.unwrap_or_default();
        let lease_ms = u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX);
        let welcome = Down::Welcome(Welcome { name: name.to_string(), group, lease_ms });
        let _ = sender.try_send(ControllerMessage { kind: Some(welcome) }); // An empty queue takes one message.
        info!(agent = %name, software = hello.software, "connected");
        let (engine, attached) = (self.0.engine.clone(), name.clone());
        let attach = move |engine: &mut Engine| {
            // It may have been revoked while its hello was waited for: its stream then ends with `sender`.
            if member.still(&engine.state) {
                engine.attach_agent(attached, hello.software, AgentSender { connection, messages: sender });
            }
        };
        self.0.engine.tell_and_wait(attach).await;
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if let Some(Up::Report(report)) = message.kind {
                    let (name, generation) = (name.clone(), report.generation);
                    let instances = instances(report, address);
                    // Waited for: an agent that reports without end waits for the engine, not the other way round.
                    engine
                        .tell_and_wait(move |engine| engine.observe_agent(name, connection, generation, instances))
                        .await;
                }
            }
            info!(agent = %name, "disconnected");
            engine.tell(move |engine| engine.detach_agent(&name, connection));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver).map(Ok))))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let member = self.0.member(&request, Role::Agent).await?;
        let request = request.into_inner();
        let digest: Digest = parse(&request.digest)?;
        let mut blob = self.blob(&digest).await?;
        let (sender, receiver) = mpsc::channel(4);
        let (engine, runtime) = (self.0.engine.clone(), tokio::runtime::Handle::current());
        let refusal = move || {
            let member = member.clone();
            match runtime.block_on(engine.read(move |engine| member.still(&engine.state))) {
                Some(true) => None,
                Some(false) => Some(Status::permission_denied("this agent was revoked")),
                None => Some(stopping()),
            }
        };
        tokio::task::spawn_blocking(move || {
            let failed = |problem: std::io::Error| Err(Status::internal(format!("{digest} cannot be read: {problem}")));
            if let Err(problem) = blob.seek(SeekFrom::Start(request.offset)) {
                return drop(sender.blocking_send(failed(problem)));
            }
            loop {
                let mut data = Vec::with_capacity(CHUNK_BYTES);
                let piece = match blob.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut data) {
                    Ok(0) => return,
                    Ok(_) => Ok(Chunk { data }),
                    Err(problem) => failed(problem),
                };
                // Revoked in the middle it gets no more of it.
                if let Some(refusal) = refusal() {
                    return drop(sender.blocking_send(Err(refusal)));
                }
                let ends = piece.is_err();
                if sender.blocking_send(piece).is_err() || ends {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Service {
    /// A blob of an artifact that some release has.
    async fn blob(&self, digest: &Digest) -> Result<File, Status> {
        let placed = self.0.engine.read(|engine| placed(&engine.state)).await.ok_or_else(stopping)?;
        self.0.shelf.open(digest, placed).await.map_err(Status::not_found)
    }
}

/// Artifacts for agents that are elsewhere, too.
fn placed(state: &State) -> Vec<Placed> {
    let releases = state.services.values().flat_map(|service| service.releases.values());
    let kept = releases.filter(|release| release.trimmed.artifacts_ms.is_none());
    let folders = kept.flat_map(|release| release.all_artifacts()).map(|(_, _, artifact)| artifact);
    let folders = folders.filter(|artifact| artifact.kind == ArtifactKind::Folder);
    folders.filter_map(|one| Some(Placed { digest: one.digest, place: one.place.clone()? })).collect()
}

/// An agent's report as the core sees it.
fn instances(report: Report, address: IpAddr) -> Vec<(String, InstanceSeen)> {
    let seen = |status: InstanceStatus| {
        let state = status.state();
        let port = u16::try_from(status.port).ok().filter(|port| *port > 0);
        let seen = InstanceSeen {
            healthy: state == InstanceState::Healthy,
            address: port.map(|port| SocketAddr::new(address, port)),
            state: state_name(state),
            problem: status.problem,
            restarts: status.restarts,
        };
        (status.id, seen)
    };
    report.instances.into_iter().map(seen).collect()
}

fn state_name(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Unspecified => "unknown",
        InstanceState::Fetching => "fetching",
        InstanceState::Starting => "starting",
        InstanceState::Healthy => "healthy",
        InstanceState::Unhealthy => "unhealthy",
        InstanceState::Backoff => "waiting to start again",
        InstanceState::Stopping => "stopping",
    }
}

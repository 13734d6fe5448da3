//! The stream of one proxy: its hello, what it needs, then changes down and reports up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use api::MemberName;
use api::fleet::controller_message::Kind as Down;
use api::fleet::fleet_server::Fleet;
use api::fleet::proxy_message::Kind as Up;
use api::fleet::{ControllerMessage, Override, Progress, ProxyMessage, Welcome, progress};
use certs::fleet::Role;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::Shared;
use super::accept::Caller;
use super::who::stopping;
use crate::core::Command;
use crate::engine::{Engine, Priority, Sealed, Submission};
use crate::fleet::{LEASE, QUEUE};
use crate::status::clock_ms;

/// First message of a proxy (limits by default: first bytes 10 s).
const HELLO: Duration = Duration::from_secs(10);
/// A proxy that refuses is sent everything again, at most so often: refusing again must not become a storm.
const RESEND: Duration = Duration::from_secs(5);

/// Of what a proxy tells about an override so much is kept, in characters: a name, and a paragraph.
const BY_MOST: usize = 64;
const REASON_MOST: usize = 1_000;

pub(super) struct Service(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl Fleet for Service {
    type ConnectStream = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<ControllerMessage, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<ProxyMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let member = self.0.member(&request, Role::Proxy).await?;
        let name = member.name.clone();
        let address = request.extensions().get::<Caller>().map(|caller| caller.address);
        let mut messages = request.into_inner();
        let hello = match timeout(HELLO, messages.next()).await {
            Ok(Some(Ok(ProxyMessage { kind: Some(Up::Hello(hello)) }))) => hello,
            _ => return Err(Status::invalid_argument("the first message of a proxy is its hello")),
        };
        self.0.fleet.clocks.told(&name, address, hello.at_ms, clock_ms(), Instant::now());
        let connection = self.0.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let lease_ms = u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX);
        let welcome = Down::Welcome(Welcome { name: name.to_string(), lease_ms });
        let _ = sender.try_send(ControllerMessage { kind: Some(welcome) }); // An empty queue takes one message.
        info!(proxy = %name, software = hello.software, "connected");
        let (seal_key, brake) = (hello.seal_key.clone(), Brake::default());
        let session = Session { shared: self.0.clone(), name: name.clone(), connection, seal_key, brake };
        let sealed = self.0.sealed_for(hello.seal_key.clone()).await?;
        let attached = name.clone();
        // Counted in before its first report is read: reports of unknown connections are dropped.
        let attach = move |engine: &mut Engine| {
            // It may have been revoked while its hello was waited for: its stream then ends with `sender`.
            if member.still(&engine.state) {
                engine.attach_proxy(&attached, connection, &hello, sender, &sealed);
            }
        };
        self.0.engine.tell_and_wait(attach).await;
        tokio::spawn(session.listen(messages));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver).map(Ok))))
    }
}

impl Shared {
    /// All secrets of now, sealed for one proxy.
    async fn sealed_for(&self, seal_key: Vec<u8>) -> Result<Sealed, Status> {
        let secrets = self.engine.read(|engine| engine.publisher.secrets()).await.ok_or_else(stopping)?;
        let sealed = tokio::task::spawn_blocking(move || Sealed::for_key(&secrets, &seal_key)).await;
        sealed.map_err(|_| stopping())
    }
}

/// The upward half of a proxy's stream.
struct Session {
    shared: Arc<Shared>,
    name: MemberName,
    connection: u64,
    /// What its secrets are sealed for; empty: it knows none.
    seal_key: Vec<u8>,
    brake: Brake,
}

/// Spaces out what is sent again.
#[derive(Debug, Default)]
struct Brake {
    /// When everything was sent again last, or will be.
    sent_all: Option<Instant>,
}

impl Brake {
    /// How long to wait before everything is sent again; none: that is on its way already.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        if self.sent_all.is_some_and(|last| last > now) {
            return None;
        }
        let at = self.sent_all.map_or(now, |last| now.max(last + RESEND));
        self.sent_all = Some(at);
        Some(at - now)
    }
}

impl Session {
    async fn listen(mut self, mut messages: Streaming<ProxyMessage>) {
        while let Some(Ok(message)) = messages.next().await {
            if !self.shared.fleet.is_current(&self.name, self.connection) {
                break; // It was revoked, or has connected again.
            }
            let now_ms = clock_ms();
            match message.kind {
                Some(Up::Progress(report)) => self.progress(&report, now_ms),
                Some(Up::Counts(counts)) => {
                    let is_bad = self.shared.fleet.counts(&self.name, self.connection, &counts, now_ms);
                    self.hurry(is_bad);
                }
                Some(Up::Tripped(told)) => {
                    self.hurry(self.shared.fleet.tripped(&self.name, self.connection, &told));
                }
                Some(Up::Override(told)) => self.override_told(&told).await,
                Some(Up::Answer(answer)) => self.shared.fleet.answered(&self.name, self.connection, answer),
                Some(Up::Hello(_)) | None => {}
            }
        }
        info!(proxy = %self.name, "disconnected");
        self.shared.fleet.detach(&self.name, self.connection);
    }

    /// Has the engine look at what is due at once, and not within its next tick.
    fn hurry(&self, is_needed: bool) {
        if is_needed {
            self.shared.engine.tell(|_| {});
        }
    }

    fn progress(&mut self, report: &Progress, now_ms: u64) {
        self.shared.fleet.progress(&self.name, self.connection, report, now_ms);
        if report.state() != progress::State::Rejected {
            return;
        }
        let Some(wait) = self.brake.wait(Instant::now()) else { return };
        warn!(proxy = %self.name, rejections = ?report.rejections, "refused a change; it is sent everything again");
        let (shared, name, connection) = (self.shared.clone(), self.name.clone(), self.connection);
        let seal_key = self.seal_key.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let Ok(sealed) = shared.sealed_for(seal_key).await else { return };
            shared.engine.tell(move |engine| {
                engine.fleet.send(&name, connection, sealed.messages());
                engine.fleet.send(&name, connection, &engine.publisher.everything());
            });
        });
    }

    async fn override_told(&self, told: &Override) {
        let Ok(stage) = told.stage.parse() else { return };
        let release = api::ReleaseNumber::new(told.release);
        let command = Command::TellOverride { proxy: self.name.clone(), stage, release, until_ms: told.until_ms };
        // Not an operator whom we know: a name that somebody gave on the proxy's machine.
        let by = format!("{} on {}", cut(&told.by, BY_MOST), self.name);
        let submission = Submission::of(&by, cut(&told.reason, REASON_MOST), command);
        if let Err(problem) = self.shared.engine.submit(submission, Priority::Normal).await {
            warn!(proxy = %self.name, ?problem, "an override could not be recorded");
        }
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_refuses_without_end_is_not_sent_everything_without_end() {
        let (mut brake, start) = (Brake::default(), Instant::now());
        assert_eq!(brake.wait(start), Some(Duration::ZERO));
        // Refused again at once, and again and again until the next one is sent.
        let second = Duration::from_secs(1);
        assert_eq!(brake.wait(start + second), Some(RESEND - second));
        for tenths in 11..50 {
            assert_eq!(brake.wait(start + second * tenths / 10), None);
        }
        assert_eq!(brake.wait(start + RESEND), Some(RESEND), "the next one counts from the one before");
        assert_eq!(brake.wait(start + RESEND * 10), Some(Duration::ZERO));
    }
}

//! The stream to the controller: hello, then what should run comes down and what runs goes up.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::agent::agent_message::Kind as Up;
use api::agent::agents_client::AgentsClient;
use api::agent::controller_message::Kind as Down;
use api::agent::{AgentMessage, Hello, Report};
use certs::fleet::Identity;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::keeper::Instances;

/// At least so often the controller hears of us: a tenth of its lease.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Changes that come together are reported together.
const GATHER: Duration = Duration::from_millis(20);
/// Largest wanted set: some ten thousand instances.
const DESIRED_BYTES: usize = 16 * 1024 * 1024;
/// Longest wait for a controller that is connected but does not answer.
const SILENCE: Duration = Duration::from_secs(10);
/// Waits between attempts in milliseconds, the last one for ever.
const RETRY_MS: [u64; 6] = [100, 200, 500, 1_000, 2_000, 5_000];

/// What a connection needs.
pub(crate) struct Link<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) channel: Channel,
    pub(crate) hello: Hello,
    pub(crate) changed: Arc<Notify>,
}

impl Link<'_> {
    /// Stays connected; never returns.
    pub(crate) async fn run(&self, instances: &mut Instances) {
        let mut failures = 0;
        loop {
            match self.talk(instances).await {
                Ok(()) => failures = 0,
                Err(status) if status.code() == Code::Unauthenticated => {
                    self.identity.was_refused();
                    warn!(problem = status.message(), "the controller does not take this agent's certificate");
                }
                Err(status) if failures == 0 => warn!(problem = status.message(), "the controller is away"),
                Err(status) => debug!(problem = status.message(), "the controller is still away"),
            }
            let wait = Duration::from_millis(RETRY_MS[failures.min(RETRY_MS.len() - 1)]);
            failures += 1;
            // Agents of a fleet that lost its controller together do not come back together.
            let spread = wait.mul_f64(f64::from(std::process::id() % 100) / 200.0);
            tokio::time::sleep(wait + spread).await;
        }
    }

    /// One connection, until it ends; `Ok` when it had come about.
    async fn talk(&self, instances: &mut Instances) -> Result<(), tonic::Status> {
        let (sender, receiver) = mpsc::channel(16);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let hello = AgentMessage { kind: Some(Up::Hello(Hello { at_ms, ..self.hello.clone() })) };
        let _ = sender.try_send(hello); // An empty queue takes one message.
        let mut client = AgentsClient::new(self.channel.clone()).max_decoding_message_size(DESIRED_BYTES);
        let answer = timeout(SILENCE, client.connect(ReceiverStream::new(receiver))).await;
        let answer = answer.map_err(|_| tonic::Status::deadline_exceeded("the controller does not answer"))?;
        let mut messages = answer?.into_inner();
        info!("the controller is connected");
        loop {
            tokio::select! {
                message = messages.message() => match message {
                    Ok(Some(message)) => match message.kind {
                        Some(Down::Desired(desired)) => instances.want(desired.generation, desired.instances),
                        Some(Down::Welcome(welcome)) => info!(name = welcome.name, group = welcome.group, "belongs to the fleet"),
                        None => {}
                    },
                    Ok(None) | Err(_) => break,
                },
                () = self.changed.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(REPORT_EVERY) => {}
            }
            let report = Report { generation: instances.generation, instances: instances.statuses() };
            // A full queue: the controller does not read. The next report says it all again.
            if let Err(TrySendError::Closed(_)) = sender.try_send(AgentMessage { kind: Some(Up::Report(report)) }) {
                break;
            }
        }
        info!("the controller is gone; what runs goes on");
        Ok(())
    }
}

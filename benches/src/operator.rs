//! The API as the command uses it: one connection, the first operator's token, changes followed to their end.

use std::path::Path;
use std::time::{Duration, Instant};

use api::operator::change_request::Verb;
use api::operator::change_update::Kind;
use api::operator::operator_client::OperatorClient;
use api::operator::{
    AddReleaseRequest, ApplyRequest, ChangeRequest, CreateApplicationRequest, CreateJoinRequest, ExplainRolloutRequest,
    File, Outcome, Promote, RevokeApplicationRequest, RolloutExplained, StaticAddress, StatusReply, StatusRequest,
};
use serde::Deserialize;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::Problem;

/// A status of thousands of services is larger than the library's 4 MiB.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;

/// What the controller writes for its first operator.
#[derive(Deserialize)]
struct OperatorFile {
    controller: String,
    ca: String,
    token: String,
}

/// Adds the token to each call.
#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Calls to one controller; a clone shares the connection.
#[derive(Clone)]
pub struct Operator {
    calls: OperatorClient<InterceptedService<Channel, Bearer>>,
}

/// A change that was followed to its end.
#[derive(Debug)]
pub struct Followed {
    /// What the controller said of it.
    pub outcome: Outcome,
    /// From sending the command to the last word about it.
    pub took: Duration,
}

impl Followed {
    /// From the command's arrival at the controller until the last proxy was known to be ACTIVE, in microseconds.
    ///
    /// # Errors
    /// When not just these many proxies switched: the figure would be of something else.
    pub fn last_of(&self, proxies: usize) -> Result<u64, Problem> {
        let Outcome { switched, lagging, failed, .. } = &self.outcome;
        if !failed.is_empty() || switched.len() != proxies {
            return Err(format!("of {proxies} proxies {} switched: {failed} {lagging:?}", switched.len()).into());
        }
        Ok(switched.iter().map(|switched| switched.us).max().unwrap_or_default())
    }
}

impl Operator {
    /// Reads the operator file; connects at the first call.
    ///
    /// # Errors
    /// No such file, or one that is no operator file.
    pub fn from_file(path: &Path) -> Result<Self, Problem> {
        let file: OperatorFile = toml::from_str(&std::fs::read_to_string(path)?)?;
        certs::install_provider();
        let channel = certs::fleet::operator_channel(&file.controller, &file.ca)?;
        let bearer = Bearer(format!("Bearer {}", file.token.trim()).parse()?);
        let calls = OperatorClient::with_interceptor(channel, bearer).max_decoding_message_size(LARGEST_MESSAGE);
        Ok(Self { calls })
    }

    /// Applies files, each with its name; what is no TOML is named by `access.toml` among them.
    ///
    /// # Errors
    /// The mistakes in them.
    pub async fn apply(&self, files: Vec<(String, String)>) -> Result<(), Problem> {
        let named = |(name, text): (String, String)| match name.ends_with(".toml") {
            true => File { name, text, ..File::default() },
            false => File { written: name.clone(), named_by: "access.toml".into(), name, text },
        };
        let files = files.into_iter().map(named).collect();
        let request = ApplyRequest { files, reason: String::new(), plan: false };
        let reply = self.calls.clone().apply(request).await?.into_inner();
        match reply.mistakes.first() {
            None => Ok(()),
            Some(first) => Err(format!("{}:{}: {}", first.file, first.line, first.message).into()),
        }
    }

    /// Makes an application of one group; its key.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn create_application(&self, name: &str, group: &str) -> Result<String, Problem> {
        let request = CreateApplicationRequest { name: name.into(), groups: vec![group.into()], ..Default::default() };
        Ok(self.calls.clone().create_application(request).await?.into_inner().key)
    }

    /// Ends an application.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn revoke_application(&self, name: &str) -> Result<(), Problem> {
        let request = RevokeApplicationRequest { name: name.into(), ..Default::default() };
        self.calls.clone().revoke_application(request).await?;
        Ok(())
    }

    /// A one-time token for a proxy.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn join_proxy(&self, name: &str) -> Result<String, Problem> {
        let request =
            CreateJoinRequest { role: "proxy".into(), name: name.into(), valid_ms: 600_000, ..Default::default() };
        Ok(self.calls.clone().create_join(request).await?.into_inner().token)
    }

    /// Adds a release that serves at one address; its number follows the one before.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn add_release(&self, service: &str, address: std::net::SocketAddr) -> Result<(), Problem> {
        let addresses = vec![StaticAddress {
            environment: String::new(),
            component: "web".into(),
            addresses: vec![address.to_string()],
        }];
        let request = AddReleaseRequest { service: service.into(), addresses, ..Default::default() };
        self.calls.clone().add_release(request).await?;
        Ok(())
    }

    /// Asks for a change and follows it to its end.
    ///
    /// # Errors
    /// A refusal, or a stream that ends without an outcome.
    pub async fn change(&self, verb: Verb, no_wait: bool) -> Result<Followed, Problem> {
        let request = ChangeRequest { verb: Some(verb), no_wait, ..Default::default() };
        let begun = Instant::now();
        let mut updates = self.calls.clone().change(request).await?.into_inner();
        let mut outcome = None;
        while let Some(update) = updates.message().await? {
            if let Some(Kind::Outcome(last)) = update.kind {
                outcome = Some(last);
            }
        }
        let outcome = outcome.ok_or("the controller did not say how the change ended")?;
        Ok(Followed { outcome, took: begun.elapsed() })
    }

    /// The status of everything, and the size of the answer.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn status(&self) -> Result<StatusReply, Problem> {
        let mut replies = self.calls.clone().status(StatusRequest::default()).await?.into_inner();
        replies.message().await?.ok_or_else(|| "no status came".into())
    }

    /// The way of a stage's last rollout.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn explain_rollout(&self, stage: &str) -> Result<RolloutExplained, Problem> {
        let request = ExplainRolloutRequest { stage: stage.to_owned(), release: None };
        Ok(self.calls.clone().explain_rollout(request).await?.into_inner())
    }
}

/// The promotion of a release for a share in parts per million.
pub fn promote(release: String, environment: &str, share_ppm: u32) -> Verb {
    Verb::Promote(Promote { release, environment: environment.into(), share_ppm: Some(share_ppm), bypass: false })
}

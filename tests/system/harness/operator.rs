//! The operator API without the command between: fast enough for thousands of changes.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use api::operator::change_request::Verb;
use api::operator::change_update::Kind;
use api::operator::operator_client::OperatorClient;
use api::operator::{ChangeRequest, Decided, Outcome, Promote, Rollback, SetWeight, Unhold};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::STAGE;

type Calls = OperatorClient<InterceptedService<Channel, Bearer>>;

/// An operator with a connection.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) calls: Calls,
}

/// What became of a change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changed {
    pub(crate) decided: Decided,
    pub(crate) outcome: Outcome,
}

#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl Operator {
    /// With the token of an operator file.
    pub(crate) fn new(file: &Path) -> Self {
        let table: toml::Table = std::fs::read_to_string(file).expect("a file").parse().expect("TOML");
        let text = |key: &str| table[key].as_str().expect("text").to_owned();
        let channel = certs::fleet::operator_channel(&text("controller"), &text("ca")).expect("an address");
        let token = format!("Bearer {}", text("token")).parse().expect("a token");
        Self { calls: OperatorClient::with_interceptor(channel, Bearer(token)) }
    }

    /// Sends a change under an id and follows it to its end.
    pub(crate) async fn send(&mut self, id: &str, verb: Verb) -> Result<Changed, Status> {
        let request = ChangeRequest {
            request_id: id.to_owned(),
            reason: "a test".into(),
            verb: Some(verb),
            ..Default::default()
        };
        let mut updates = self.calls.change(request).await?.into_inner();
        let mut changed = Changed::default();
        let mut ended = false;
        while let Some(update) = updates.message().await? {
            match update.kind {
                Some(Kind::Decided(decided)) => changed.decided = decided,
                Some(Kind::Outcome(outcome)) => (changed.outcome, ended) = (outcome, true),
                _ => {}
            }
        }
        if ended { Ok(changed) } else { Err(Status::unavailable("the answers broke off")) }
    }

    /// Sends a change that every one of `proxies` proxies must have when it is answered.
    pub(crate) async fn changes(&mut self, verb: Verb, proxies: usize) -> Changed {
        let shown = format!("{verb:?}");
        let changed = self.send(&request_id(), verb).await.unwrap_or_else(|status| panic!("{shown}: {status:?}"));
        let Outcome { lagging, failed, switched, .. } = &changed.outcome;
        assert!(lagging.is_empty() && failed.is_empty(), "{shown}: {changed:#?}");
        assert_eq!(switched.len(), proxies, "{shown}: {changed:#?}");
        changed
    }
}

/// Whether the controller went away, rather than refused.
pub(crate) fn is_broken(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

/// An id that no other request has.
pub(crate) fn request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("system-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed))
}

impl Changed {
    pub(crate) fn promote(release: u32, share_ppm: Option<u32>) -> Verb {
        let release = format!("hello@r{release}");
        Verb::Promote(Promote { release, environment: "production".into(), share_ppm, bypass: false })
    }

    pub(crate) fn weight(share_ppm: u32) -> Verb {
        Verb::Weight(SetWeight { stage: STAGE.into(), share_ppm })
    }

    pub(crate) fn rollback() -> Verb {
        Verb::Rollback(Rollback { stage: STAGE.into(), to: None })
    }

    pub(crate) fn unhold(release: u32) -> Verb {
        Verb::Unhold(Unhold { stage: STAGE.into(), release })
    }
}

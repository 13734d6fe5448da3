//! `explain`: why something was as it was.

use std::net::IpAddr;

use api::operator::{ExplainPolicyRequest, ExplainRequestRequest, ExplainRolloutRequest};
use api::{MemberName, ReleaseNumber, StageName};
use clap::{Args, Subcommand};

use crate::exit::{Ended, Exit};
use crate::operator::{Session, asking};
use crate::render;
use crate::values::{AttributeGiven, UserName};

/// Say why a request was answered as it was, or what became of a rollout and why.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(subcommand)]
    verb: ExplainVerb,
}

#[derive(Debug, Subcommand)]
enum ExplainVerb {
    /// Say what was decided about a request, and by which policies.
    ///
    /// ID is what the caller found in x-request-id. That of an answer 404 of ours is sealed, and is opened by the controller:
    /// it says which stage, application and reason it was, for as long as somebody keeps it. That of any other answer is
    /// asked of the proxies, which remember the last requests of each of their workers.
    #[command(after_long_help = "Examples:
  pointsman explain request 4f0c9a52d1b87e36a4f0c9a52d1b87e3
  pointsman explain request ID --user corp/alice")]
    Request {
        /// As x-request-id of the answer has it. A sealed one may begin with a hyphen.
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// Tell whether it was this user; a sealed id does not name its user.
        #[arg(long, value_name = "ISSUER/SUBJECT")]
        user: Option<UserName>,
    },
    /// Say how a rollout went, step by step, and why.
    ///
    /// The one under way, or else the last one, or that of --release: when each step was taken, with which share and by what it was earned; what
    /// was counted, the test, its threshold and the decision. All of it from what is on record.
    #[command(after_long_help = "Examples:
  pointsman explain rollout hello/production
  pointsman explain rollout hello/production --release r41
  pointsman explain rollout hello/production -o json")]
    Rollout {
        /// The stage, such as hello/production.
        stage: StageName,
        /// The last rollout of this release; without it of whichever was promoted last.
        #[arg(long, value_name = "RELEASE")]
        release: Option<ReleaseNumber>,
    },
}

/// Say what would be decided about a caller and a request, by which policies, and what is missing.
///
/// The same questions in the same order as a proxy asks them, with the policies that are applied now.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  pointsman policy explain hello/staging --user corp/alice --group staff --app batch
  pointsman policy explain hello/staging --user corp/alice --attribute department=sales --method POST --path /orders
  pointsman policy explain hello/staging --app batch --rpc shop.Orders/List")]
pub(crate) struct ExplainPolicyArgs {
    /// The stage that is called.
    stage: StageName,
    /// The user; none: nobody in particular.
    #[arg(long, value_name = "ISSUER/SUBJECT")]
    user: Option<UserName>,
    /// A group that the user is in; can be given several times.
    #[arg(long = "group", value_name = "GROUP", requires = "user")]
    groups: Vec<String>,
    /// An attribute of the user; can be given several times.
    #[arg(long = "attribute", value_name = "NAME=VALUE", requires = "user")]
    attributes: Vec<AttributeGiven>,
    /// The application that calls; none: none that is valid.
    #[arg(long, value_name = "NAME")]
    app: Option<MemberName>,
    /// Ask this release by its own host.
    #[arg(long, value_name = "rN")]
    release: Option<ReleaseNumber>,
    /// Method of HTTP.
    #[arg(long, value_name = "METHOD", default_value = "GET", conflicts_with = "rpc")]
    method: String,
    /// Path of HTTP.
    #[arg(long, value_name = "PATH", default_value = "/", conflicts_with = "rpc")]
    path: String,
    /// A call of gRPC.
    #[arg(long, value_name = "SERVICE/METHOD")]
    rpc: Option<String>,
    /// A WebSocket, or another change of protocol.
    #[arg(long, conflicts_with = "rpc")]
    upgrade: bool,
    /// The client's address; 192.0.2.1, which is nobody's, when it is not given.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
}

pub(crate) async fn run(args: ExplainArgs, session: &Session) -> Ended {
    let (id, user) = match args.verb {
        ExplainVerb::Request { id, user } => (id, user),
        ExplainVerb::Rollout { stage, release } => return rollout(&stage, release, session).await,
    };
    let mut client = session.client()?;
    let user = user.map(|user| format!("{}/{}", user.issuer, user.subject)).unwrap_or_default();
    let reply = client.calls.explain_request(asking(ExplainRequestRequest { id, user })).await;
    let explained = reply.map_err(|status| client.failure(&status))?.into_inner();
    session.output.show(&explained, |view| render::request_explained(&explained, view))?;
    Ok(Exit::Done)
}

async fn rollout(stage: &StageName, release: Option<ReleaseNumber>, session: &Session) -> Ended {
    let mut client = session.client()?;
    let request = ExplainRolloutRequest { stage: stage.to_string(), release: release.map(ReleaseNumber::number) };
    let reply = client.calls.explain_rollout(asking(request)).await;
    let explained = reply.map_err(|status| client.failure(&status))?.into_inner();
    session.output.show(&explained, |view| render::rollout_explained(&explained, view))?;
    Ok(Exit::Done)
}

/// `policy explain`.
pub(crate) async fn policy(args: ExplainPolicyArgs, session: &Session) -> Ended {
    let mut client = session.client()?;
    let (issuer, subject) = args.user.map(|user| (user.issuer, user.subject)).unwrap_or_default();
    let of_http = args.rpc.is_none();
    let request = ExplainPolicyRequest {
        stage: args.stage.to_string(),
        issuer,
        subject,
        groups: args.groups,
        attributes: args.attributes.into_iter().map(|given| given.0).collect(),
        application: args.app.map(|name| name.to_string()).unwrap_or_default(),
        release: args.release.map_or(0, ReleaseNumber::number),
        method: if of_http { args.method } else { String::new() },
        path: if of_http { args.path } else { String::new() },
        rpc: args.rpc.unwrap_or_default(),
        upgrade: args.upgrade,
        client: args.client.map(|client| client.to_string()).unwrap_or_default(),
    };
    let reply = client.calls.explain_policy(asking(request)).await;
    let explained = reply.map_err(|status| client.failure(&status))?.into_inner();
    session.output.show(&explained, |_| render::policy_explained(&explained))?;
    Ok(Exit::Done)
}

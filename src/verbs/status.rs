//! `status`: the state now, or as it changes.

use api::operator::{StatusReply, StatusRequest};
use clap::Args;
use tonic::Request;

use crate::exit::{Ended, Exit, Failure};
use crate::live;
use crate::operator::{Session, asking};
use crate::render;
use crate::values::Selector;

/// Show what serves where, how much and how well.
///
/// Services with their stages and releases: the weight that was set and the share that was measured, rate, errors,
/// latencies, endpoints; then the newest releases, the fleet, and what needs attention. With --watch a live view on a
/// terminal (q leaves), and a line per change elsewhere.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  pointsman status
  pointsman status hello/production --watch
  pointsman status hello -o json")]
pub(crate) struct StatusArgs {
    /// A service or a stage; without it everything.
    selector: Option<Selector>,
    /// Go on showing it as it changes.
    #[arg(short, long)]
    watch: bool,
}

pub(crate) async fn run(args: StatusArgs, session: &Session) -> Ended {
    let selector = args.selector.map(|selector| selector.0).unwrap_or_default();
    if args.watch {
        return live::watch(selector, session).await;
    }
    let mut client = session.client()?;
    let request = asking(StatusRequest { selector, watch: false });
    let reply = client.calls.status(request).await;
    let mut stream = reply.map_err(|status| client.failure(&status))?.into_inner();
    let reply = stream.message().await.map_err(|status| client.failure(&status))?;
    let reply: StatusReply = reply.ok_or_else(|| Failure::refused("the controller gave no status"))?;
    session.output.show(&reply, |view| {
        let tree = render::status(&reply, view);
        [vec![tree.head], tree.rows].concat()
    })?;
    Ok(Exit::Done)
}

/// A request for a status that goes on.
pub(crate) fn watching(selector: &str) -> Request<StatusRequest> {
    Request::new(StatusRequest { selector: selector.to_owned(), watch: true })
}

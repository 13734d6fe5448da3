//! `repository`: where services register themselves.

use api::operator::ListRequest;
use clap::{Args, Subcommand};

use crate::exit::{Ended, Exit};
use crate::operator::{Session, asking};
use crate::render;

/// Show the repositories whose services register themselves.
#[derive(Debug, Args)]
pub(crate) struct RepositoryArgs {
    #[command(subcommand)]
    verb: RepositoryVerb,
}

#[derive(Debug, Subcommand)]
enum RepositoryVerb {
    /// List the repositories whose services register themselves, and what was found there last.
    #[command(after_long_help = "Example:\n  pointsman repository list")]
    List,
}

pub(crate) async fn run(args: RepositoryArgs, session: &Session) -> Ended {
    let RepositoryVerb::List = args.verb;
    let mut client = session.client()?;
    let reply = client.calls.list_repositories(asking(ListRequest {})).await;
    let list = reply.map_err(|status| client.failure(&status))?.into_inner();
    session.output.show(&list, |view| render::repositories(&list, view))?;
    Ok(Exit::Done)
}

//! `fleet`: the proxies and agents.

use api::MemberName;
use api::operator::{ListRequest, RevokeMemberRequest};
use clap::{Args, Subcommand};

use crate::cli::Reason;
use crate::exit::{Ended, Exit};
use crate::operator::{Session, asking};
use crate::render::{self, Line};

/// List and revoke proxies and agents.
#[derive(Debug, Args)]
pub(crate) struct FleetArgs {
    #[command(subcommand)]
    verb: FleetVerb,
}

#[derive(Debug, Subcommand)]
enum FleetVerb {
    /// List the proxies and agents with their state and version.
    #[command(after_long_help = "Example:\n  pointsman fleet list")]
    List,
    /// Take a proxy or agent out of the fleet: its certificate is not accepted any more.
    #[command(after_long_help = "Example:\n  pointsman fleet revoke p1 --reason \"the machine is gone\"")]
    Revoke {
        /// Its name.
        name: MemberName,
        #[command(flatten)]
        reason: Reason,
    },
}

pub(crate) async fn run(args: FleetArgs, session: &Session) -> Ended {
    let (mut client, output) = (session.client()?, &session.output);
    match args.verb {
        FleetVerb::List => {
            let reply = client.calls.list_fleet(asking(ListRequest {})).await;
            let list = reply.map_err(|status| client.failure(&status))?.into_inner();
            output.show(&list, |view| render::fleet(&list, view))?;
        }
        FleetVerb::Revoke { name, reason } => {
            let request = RevokeMemberRequest { name: name.to_string(), reason: reason.text() };
            client.calls.revoke_member(asking(request)).await.map_err(|status| client.failure(&status))?;
            output.aside(&Line::plain(format!("{name} is revoked")));
        }
    }
    Ok(Exit::Done)
}

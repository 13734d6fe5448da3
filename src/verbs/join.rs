//! `join`: a one-time token for a new proxy or agent.

use api::operator::CreateJoinRequest;
use api::{MemberName, Span};
use clap::{Args, Subcommand};

use crate::cli::Reason;
use crate::exit::{Ended, Exit};
use crate::operator::{Session, asking};
use crate::render;

/// Invite a proxy or an agent into the fleet.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    #[command(subcommand)]
    role: JoinRole,
}

#[derive(Debug, Subcommand)]
enum JoinRole {
    /// Invite a proxy: prints a one-time token and the command to run.
    #[command(after_long_help = "Example:\n  pointsman join proxy --name p1")]
    Proxy {
        #[command(flatten)]
        invitation: Invitation,
    },
    /// Invite an agent: prints a one-time token and the command to run.
    #[command(after_long_help = "Example:\n  pointsman join agent --name a1 --group prod")]
    Agent {
        #[command(flatten)]
        invitation: Invitation,
        /// The group it belongs to, which environments name as their target.
        #[arg(long, value_name = "GROUP")]
        group: Option<MemberName>,
    },
}

#[derive(Debug, Args)]
struct Invitation {
    /// Its name in the fleet.
    #[arg(long, value_name = "NAME")]
    name: MemberName,
    /// How long the token may be used.
    #[arg(long, value_name = "TIME", default_value = "15m")]
    valid: Span,
    #[command(flatten)]
    reason: Reason,
}

pub(crate) async fn run(args: JoinArgs, session: &Session) -> Ended {
    let (role, Invitation { name, valid, reason }, group) = match args.role {
        JoinRole::Proxy { invitation } => ("proxy", invitation, None),
        JoinRole::Agent { invitation, group } => ("agent", invitation, group),
    };
    let request = CreateJoinRequest {
        role: role.into(),
        name: name.to_string(),
        group: group.map(|group| group.to_string()).unwrap_or_default(),
        valid_ms: valid.ms(),
        reason: reason.text(),
    };
    let mut client = session.client()?;
    let reply = client.calls.create_join(asking(request)).await;
    let reply = reply.map_err(|status| client.failure(&status))?.into_inner();
    session.output.show(&reply, |view| render::invitation(&reply, role, name.as_str(), view))?;
    Ok(Exit::Done)
}

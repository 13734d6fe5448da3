//! `app`: what calls, on behalf of users or its own.

use api::operator::{
    ApplicationKey, Applications, CreateApplicationRequest, ListRequest, RevokeApplicationRequest,
    RotateApplicationRequest,
};
use api::{MemberName, Span};
use clap::{Args, Subcommand};

use crate::cli::Reason;
use crate::exit::{Ended, Exit, Failure};
use crate::operator::{Client, Session, asking};
use crate::output::Output;
use crate::render::{self, Line, Style};
use crate::values::{IssuedTo, Overlap};

/// Make, list, rotate and revoke applications: what calls, with its API keys.
///
/// A call shows which application it comes from by an API key (x-api-key), a client certificate, or the client that a user's
/// token was issued to. Policies say what it may.
#[derive(Debug, Args)]
pub(crate) struct AppArgs {
    #[command(subcommand)]
    verb: AppVerb,
}

#[derive(Debug, Subcommand)]
enum AppVerb {
    /// Make an application; its key is shown once.
    #[command(after_long_help = "Examples:
  pointsman app create batch --group partners
  pointsman app create batch --key-until 90d > batch.key
  pointsman app create batch --certificate spiffe://example.com/batch --without-key
  pointsman app create web --client corp=abc123")]
    Create {
        /// Its name, as policies know it: `Application::"NAME"`.
        name: MemberName,
        /// A group that it is in; can be given several times.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// A name in client certificates that stands for it: a URI or a DNS name; can be given several times.
        #[arg(long = "certificate", value_name = "URI|DNS")]
        certificates: Vec<String>,
        /// Tokens of an issuer that were issued to this client (azp, client_id); can be given several times.
        #[arg(long = "client", value_name = "ISSUER=ID")]
        clients: Vec<IssuedTo>,
        /// How long the key counts; for ever when it is not given.
        #[arg(long, value_name = "TIME")]
        key_until: Option<Span>,
        /// Make no key: it is known by certificates or tokens alone.
        #[arg(long, conflicts_with = "key_until")]
        without_key: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// List the applications: what each is known by, never a key.
    #[command(after_long_help = "Example:\n  pointsman app list\n  pointsman app list -o json")]
    List,
    /// Show one application.
    #[command(after_long_help = "Example:\n  pointsman app show batch")]
    Show {
        /// Its name.
        name: MemberName,
    },
    /// Make another key, shown once; those before count a while longer.
    #[command(after_long_help = "Examples:
  pointsman app rotate batch
  pointsman app rotate batch --overlap 0s --reason \"the key was in a log\"")]
    Rotate {
        /// Its name.
        name: MemberName,
        /// How long the keys before still count; 0s: they end at once.
        #[arg(long, value_name = "TIME", default_value = "24h")]
        overlap: Overlap,
        /// How long the new key counts; for ever when it is not given.
        #[arg(long, value_name = "TIME")]
        key_until: Option<Span>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Shut an application out, at once: its keys, certificates and clients stand for nobody.
    #[command(after_long_help = "Example:\n  pointsman app revoke batch --reason \"it left us\"")]
    Revoke {
        /// Its name.
        name: MemberName,
        #[command(flatten)]
        reason: Reason,
    },
}

pub(crate) async fn run(args: AppArgs, session: &Session) -> Ended {
    let (mut client, output) = (session.client()?, &session.output);
    match args.verb {
        AppVerb::Create { name, groups, certificates, clients, key_until, without_key, reason } => {
            let request = CreateApplicationRequest {
                name: name.to_string(),
                groups,
                certificates,
                clients: clients.into_iter().map(Into::into).collect(),
                key_valid_ms: key_until.map_or(0, Span::ms),
                without_key,
                reason: reason.text(),
            };
            let reply = client.calls.create_application(asking(request)).await;
            let reply = reply.map_err(|status| client.failure(&status))?.into_inner();
            made(output, &name, &reply)
        }
        AppVerb::List => {
            let list = all(&mut client).await?;
            output.show(&list, |view| render::applications(&list, view))?;
            Ok(Exit::Done)
        }
        AppVerb::Show { name } => {
            let mut list = all(&mut client).await?;
            list.applications.retain(|one| one.name == name.as_str());
            let Some(one) = list.applications.pop() else {
                return Err(Failure::refused(format!(
                    "there is no application {name}: `pointsman app list` shows all"
                )));
            };
            output.show(&one, |view| render::application(&one, view))?;
            Ok(Exit::Done)
        }
        AppVerb::Rotate { name, overlap, key_until, reason } => {
            let request = RotateApplicationRequest {
                name: name.to_string(),
                overlap_ms: overlap.0,
                key_valid_ms: key_until.map_or(0, Span::ms),
                reason: reason.text(),
            };
            let reply = client.calls.rotate_application(asking(request)).await;
            let reply = reply.map_err(|status| client.failure(&status))?.into_inner();
            made(output, &name, &reply)
        }
        AppVerb::Revoke { name, reason } => {
            let request = RevokeApplicationRequest { name: name.to_string(), reason: reason.text() };
            let reply = client.calls.revoke_application(asking(request)).await;
            let reply = reply.map_err(|status| client.failure(&status))?.into_inner();
            output.aside(&Line::plain(format!("the application {name} is revoked")));
            Ok(reached(output, &reply.lagging))
        }
    }
}

async fn all(client: &mut Client) -> Result<Applications, Failure> {
    let reply = client.calls.list_applications(asking(ListRequest {})).await;
    Ok(reply.map_err(|status| client.failure(&status))?.into_inner())
}

/// The key alone on stdout, so that it can be sent into a file.
fn made(output: &Output, name: &MemberName, reply: &ApplicationKey) -> Ended {
    output.show(reply, |view| {
        render::key_made(name.as_str(), reply, view).iter().for_each(|line| output.aside(line));
        if reply.key.is_empty() { Vec::new() } else { vec![Line::plain(&reply.key)] }
    })?;
    Ok(reached(output, &reply.lagging))
}

/// Whether the whole fleet has it.
fn reached(output: &Output, lagging: &[String]) -> Exit {
    for proxy in lagging {
        output.aside(&Line::plain("proxy ").with(Style::Bold, proxy).with(Style::Bad, " does not know it yet"));
    }
    if lagging.is_empty() { Exit::Done } else { Exit::Lagging }
}

//! `token`: who may do what.

use api::operator::{CreateTokenRequest, ListRequest, RevokeTokenRequest};
use api::{EnvironmentName, MemberName, ServiceName, Verb};
use clap::{Args, Subcommand};

use crate::cli::Reason;
use crate::exit::{Ended, Exit};
use crate::operator::{Session, asking};
use crate::render::{self, Line, Style};

/// Make, list and revoke tokens.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Debug, Subcommand)]
enum TokenVerb {
    /// Make a token; it is shown once.
    #[command(after_long_help = "Examples:
  pointsman token create ci --allow read,release --service hello
  pointsman token create anna --allow read,promote,rollback --environment production
  pointsman token create ci --allow read > ci.token")]
    Create {
        /// Its name, as history shows it.
        name: MemberName,
        /// What it may: read, apply, release, promote, rollback, fleet, admin.
        #[arg(long, value_name = "VERB", required = true, value_delimiter = ',')]
        allow: Vec<Verb>,
        /// For this service only; can be given several times.
        #[arg(long = "service", value_name = "SERVICE", value_delimiter = ',')]
        services: Vec<ServiceName>,
        /// In this environment only; can be given several times.
        #[arg(long = "environment", value_name = "ENVIRONMENT", value_delimiter = ',')]
        environments: Vec<EnvironmentName>,
        #[command(flatten)]
        reason: Reason,
    },
    /// List the tokens: what each may, never what it is.
    #[command(after_long_help = "Example:\n  pointsman token list")]
    List,
    /// Make a token useless, at once.
    #[command(after_long_help = "Example:\n  pointsman token revoke ci --reason \"it was in a log\"")]
    Revoke {
        /// Its name.
        name: MemberName,
        #[command(flatten)]
        reason: Reason,
    },
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

pub(crate) async fn run(args: TokenArgs, session: &Session) -> Ended {
    let (mut client, output) = (session.client()?, &session.output);
    match args.verb {
        TokenVerb::Create { name, allow, services, environments, reason } => {
            let request = CreateTokenRequest {
                name: name.to_string(),
                verbs: texts(&allow),
                services: texts(&services),
                environments: texts(&environments),
                reason: reason.text(),
            };
            let reply = client.calls.create_token(asking(request)).await;
            let reply = reply.map_err(|status| client.failure(&status))?.into_inner();
            // The token alone on stdout, so that it can be sent into a file.
            if !output.is_json() {
                output.aside(&Line::of(Style::Dim, format!("token {name}, shown once:")));
            }
            output.show(&reply, |_| vec![Line::plain(&reply.token)])?;
        }
        TokenVerb::List => {
            let reply = client.calls.list_tokens(asking(ListRequest {})).await;
            let list = reply.map_err(|status| client.failure(&status))?.into_inner();
            output.show(&list, |view| render::tokens(&list, view))?;
        }
        TokenVerb::Revoke { name, reason } => {
            let request = RevokeTokenRequest { name: name.to_string(), reason: reason.text() };
            client.calls.revoke_token(asking(request)).await.map_err(|status| client.failure(&status))?;
            output.aside(&Line::plain(format!("the token {name} is revoked")));
        }
    }
    Ok(Exit::Done)
}

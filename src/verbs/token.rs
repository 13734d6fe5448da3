//! `token`: who may do what.

use std::path::{Path, PathBuf};

use api::operator::{CreateTokenRequest, ListRequest, RevokeTokenRequest};
use api::{EnvironmentName, MemberName, ServiceName, Span, Verb};
use certs::fleet::OperatorKey;
use clap::{Args, Subcommand};

use crate::cli::Reason;
use crate::contexts::{self, Context};
use crate::exit::{Ended, Exit, Failure};
use crate::operator::{Client, Session, asking};
use crate::render::{self, Line, Style};

/// Make, list and revoke tokens.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Debug, Subcommand)]
enum TokenVerb {
    /// Make a token; it is shown once, or a certificate stands for it.
    ///
    /// With --certificate nothing secret is shown or sent: a key is made on this machine, the controller certifies it, and
    /// both go into an operator file, which `pointsman login --from FILE` takes.
    #[command(after_long_help = "Examples:
  pointsman token create ci --allow read,release --service hello
  pointsman token create anna --allow read,promote,rollback --environment production
  pointsman token create ci --allow read > ci.token
  pointsman token create alice --allow read,promote --certificate alice.toml --valid 30d")]
    Create {
        /// Its name, as history shows it.
        name: MemberName,
        /// What it may: read, apply, release, promote, rollback, fleet, app, admin.
        #[arg(long, value_name = "VERB", required = true, value_delimiter = ',')]
        allow: Vec<Verb>,
        /// For this service only; can be given several times.
        #[arg(long = "service", value_name = "SERVICE", value_delimiter = ',')]
        services: Vec<ServiceName>,
        /// In this environment only; can be given several times.
        #[arg(long = "environment", value_name = "ENVIRONMENT", value_delimiter = ',')]
        environments: Vec<EnvironmentName>,
        /// The operator file to write, with a key that is made here and its certificate; never written over.
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
        /// How long the certificate is good.
        #[arg(long, value_name = "TIME", default_value = "30d", requires = "certificate")]
        valid: Span,
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

/// Has a key that is made here certified, and writes both into an operator file.
async fn certified(session: &Session, client: &mut Client, request: CreateTokenRequest, file: &Path) -> Ended {
    let unusable = |error: certs::CertsError| Failure::refused(error.to_string());
    if file.exists() {
        return Err(Failure::refused(format!("{}: it exists already", file.display())));
    }
    let name = request.name.clone();
    let (controller, key) = (client.controller().to_owned(), OperatorKey::generate().map_err(unusable)?);
    let mut context = Context { controller, key: key.pem(), ..Context::default() };
    // Before the token is made: a file that cannot be written would waste it.
    contexts::write_operator_file(file, context.clone())?;
    let request = CreateTokenRequest { csr_der: key.request_der().map_err(unusable)?, ..request };
    let reply = match client.calls.create_token(asking(request)).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => {
            let _ = std::fs::remove_file(file); // The first error is the one to tell.
            return Err(client.failure(&status));
        }
    };
    if reply.certificate_der.is_empty() {
        let _ = std::fs::remove_file(file); // As above.
        return Err(Failure::refused(format!(
            "the controller is too old to certify operators; it made a token: `pointsman token revoke {name}`"
        )));
    }
    context.ca = reply.ca_pem;
    context.certificate = certs::fleet::certificate_pem(&reply.certificate_der);
    contexts::write_operator_file(file, context)?;
    let login = format!("{name} logs in with `pointsman login --from {}`", file.display());
    session.output.aside(&Line::plain(login));
    Ok(Exit::Done)
}

pub(crate) async fn run(args: TokenArgs, session: &Session) -> Ended {
    let (mut client, output) = (session.client()?, &session.output);
    match args.verb {
        TokenVerb::Create { name, allow, services, environments, certificate, valid, reason } => {
            let request = CreateTokenRequest {
                name: name.to_string(),
                verbs: texts(&allow),
                services: texts(&services),
                environments: texts(&environments),
                reason: reason.text(),
                ..CreateTokenRequest::default()
            };
            if let Some(file) = certificate {
                let request = CreateTokenRequest { valid_ms: valid.ms(), ..request };
                return certified(session, &mut client, request, &file).await;
            }
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

//! `access`: what those need who are told who calls.

use api::operator::ListRequest;
use clap::{Args, Subcommand};

use crate::exit::{Ended, Exit};
use crate::operator::{Session, asking};
use crate::output::print_line;

/// Show what endpoints verify callers with.
///
/// Who may pass is described by files: `pointsman apply -f access.toml`.
#[derive(Debug, Args)]
pub(crate) struct AccessArgs {
    #[command(subcommand)]
    verb: AccessVerb,
}

#[derive(Debug, Subcommand)]
enum AccessVerb {
    /// Print the keys by which endpoints verify x-pointsman-assertion, as a JSON Web Key Set (RFC 7517).
    ///
    /// Keys change every 30 days; the next one is among them a day before it is used. Proxies serve the same set on their
    /// admin address, at /assertion/jwks.json.
    #[command(after_long_help = "Example:\n  pointsman access jwks > jwks.json")]
    Jwks,
}

pub(crate) async fn run(args: AccessArgs, session: &Session) -> Ended {
    let AccessVerb::Jwks = args.verb;
    let mut client = session.client()?;
    let reply = client.calls.assertion_keys(asking(ListRequest {})).await;
    let keys = reply.map_err(|status| client.failure(&status))?.into_inner();
    // It is JSON already, whatever the form of other results.
    print_line(&keys.jwks)?;
    Ok(Exit::Done)
}

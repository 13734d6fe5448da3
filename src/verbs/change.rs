//! What all verbs that change traffic share: send, tell as it goes, end with the right code.

use std::time::Duration;

use api::operator::change_request::Verb;
use api::operator::change_update::Kind;
use api::operator::{ChangeRequest, ChangeUpdate, Decided, Outcome};
use clap::Args;
use serde::Serialize;
use tonic::{Request, Status};

use crate::cli::Reason;
use crate::exit::{self, Ended, Failure};
use crate::operator::{Client, Session, is_broken_connection, request_id};
use crate::render::{Line, Manner, Style, Told, change_lines};

/// A connection that broke after the change was decided is tried again so often, a second apart: the same request
/// answers with what the first one did.
const ATTEMPTS: u32 = 10;

/// Options of every verb that changes traffic.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Say what would happen, change nothing.
    #[arg(long)]
    plan: bool,
    /// Do not wait until every proxy has switched; exit code 4.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    reason: Reason,
}

/// A change as programs see it.
#[derive(Debug, Default, Serialize)]
struct Record {
    decided: Option<Decided>,
    outcome: Option<Outcome>,
}

/// Sends a change and tells how it goes.
///
/// # Errors
/// A refusal, or a controller that cannot be asked.
pub(super) async fn send(verb: Verb, args: ChangeArgs, session: &Session) -> Ended {
    let mut client = session.client()?;
    let manner = Manner { plan: args.plan, no_wait: args.no_wait };
    let request = ChangeRequest {
        request_id: request_id()?,
        reason: args.reason.text(),
        plan: args.plan,
        no_wait: args.no_wait,
        verb: Some(verb),
    };
    let (mut seen, mut told) = (Record::default(), Told::default());
    let mut attempt = 0;
    while let Err(status) = follow(&mut client, &request, manner, &mut seen, &mut told, session).await? {
        attempt += 1;
        if seen.decided.is_none() {
            return Err(client.failure(&status));
        }
        if !is_broken_connection(&status) || attempt == ATTEMPTS {
            session.output.aside(&Line::of(Style::Moving, client.failure(&status).message));
            let text = "the change is on record; `pointsman status` shows how far it is";
            session.output.aside(&Line::plain(text));
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    if session.output.is_json() {
        session.output.json(&seen)?;
    }
    Ok(exit::of_change(args.plan, args.no_wait, seen.decided.as_ref(), seen.outcome.as_ref()))
}

/// Follows the answers to their end. The outer error ends the command, the inner one is the controller's.
async fn follow(
    client: &mut Client,
    request: &ChangeRequest,
    manner: Manner,
    seen: &mut Record,
    told: &mut Told,
    session: &Session,
) -> Result<Result<(), Status>, Failure> {
    let mut updates = match client.calls.change(Request::new(request.clone())).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    loop {
        let update: ChangeUpdate = match updates.message().await {
            Ok(Some(update)) => update,
            Ok(None) => return Ok(Ok(())),
            Err(status) => return Ok(Err(status)),
        };
        if !session.output.is_json() {
            session.output.lines(&change_lines(&update, manner, told, &session.output.view()))?;
        }
        match update.kind {
            Some(Kind::Decided(decided)) => seen.decided = Some(decided),
            Some(Kind::Outcome(outcome)) => seen.outcome = Some(outcome),
            Some(Kind::Waiting(_) | Kind::Switched(_)) | None => {}
        }
    }
}

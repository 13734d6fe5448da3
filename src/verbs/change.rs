//! What all verbs that change traffic share: send, tell as it goes, end with the right code.

use api::operator::change_request::Verb;
use api::operator::change_update::Kind;
use api::operator::{ChangeRequest, ChangeUpdate, Decided, Outcome};
use clap::Args;
use serde::Serialize;
use tonic::{Request, Status};

use super::past::Past;
use crate::cli::Reason;
use crate::exit::{self, Ended};
use crate::operator::{Attempts, Client, Meaning, Session, request_id};
use crate::output::Reading;
use crate::render::{Line, Manner, Style, Told, change_lines};

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
    carry_out(verb, None, args, session).await
}

/// As [`send`], of what may go back past releases that are marked not reversible.
///
/// # Errors
/// As [`send`].
pub(super) async fn send_past(verb: Verb, past: Past, args: ChangeArgs, session: &Session) -> Ended {
    carry_out(verb, Some(past), args, session).await
}

async fn carry_out(verb: Verb, mut past: Option<Past>, args: ChangeArgs, session: &Session) -> Ended {
    let mut client = session.client()?;
    let manner = Manner { plan: args.plan, no_wait: args.no_wait };
    let mut request = ChangeRequest {
        request_id: request_id()?,
        reason: args.reason.text(),
        plan: args.plan,
        no_wait: args.no_wait,
        verb: Some(verb),
        past: past.as_ref().and_then(Past::number),
    };
    let (mut seen, mut told) = (Record::default(), Told::default());
    let (mut attempts, mut reading) = (Attempts::default(), Reading::of(&session.output));
    while let Err(status) = follow(&mut client, &request, manner, &mut seen, &mut told, &mut reading).await {
        if let Some(past) = past.as_mut().filter(|_| !args.plan)
            && let Some(number) = past.asked(&status, session)?
        {
            request.past = Some(number);
            continue;
        }
        let meaning = attempts.after(&status).await;
        if meaning == Meaning::Again {
            continue;
        }
        if seen.decided.is_none() {
            let nothing_done = meaning == Meaning::Refused || args.plan;
            return Err(if nothing_done { client.failure(&status) } else { client.unknown(&status) });
        }
        session.output.aside(&Line::of(Style::Moving, client.failure(&status).message));
        let text = "the change is on record; `pointsman status` shows how far it is";
        session.output.aside(&Line::plain(text));
        break;
    }
    if session.output.is_json() {
        reading.tell(|output| output.json(&seen));
    }
    Ok(exit::of_change(args.plan, args.no_wait, seen.decided.as_ref(), seen.outcome.as_ref()))
}

/// Follows the answers to their end, whether or not anybody reads them.
async fn follow(
    client: &mut Client,
    request: &ChangeRequest,
    manner: Manner,
    seen: &mut Record,
    told: &mut Told,
    reading: &mut Reading<'_>,
) -> Result<(), Status> {
    let mut updates = client.calls.change(Request::new(request.clone())).await?.into_inner();
    while let Some(update) = updates.message().await? {
        reading.tell(|output| match output.is_json() {
            true => Ok(()),
            false => output.lines(&change_lines(&update, manner, told, &output.view())),
        });
        seen.take_in(update);
    }
    Ok(())
}

impl Record {
    fn take_in(&mut self, update: ChangeUpdate) {
        match update.kind {
            // A repeated request may be told that nothing had to change: by then that is so.
            Some(Kind::Decided(decided)) if decided.event > 0 || self.decided.is_none() => self.decided = Some(decided),
            Some(Kind::Outcome(outcome)) => self.outcome = Some(outcome),
            Some(Kind::Decided(_) | Kind::Waiting(_) | Kind::Switched(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_decided_stays_so_when_it_is_asked_again() {
        let decided = |event| ChangeUpdate { kind: Some(Kind::Decided(Decided { event, lines: vec![] })) };
        let mut record = Record::default();
        for (event, expected) in [(0, 0), (7, 7), (0, 7)] {
            record.take_in(decided(event));
            assert_eq!(record.decided.as_ref().map(|decided| decided.event), Some(expected));
        }
        let exit = exit::of_change(false, false, record.decided.as_ref(), None);
        assert_eq!(exit, exit::Exit::Waiting, "on record, not yet done");
    }
}

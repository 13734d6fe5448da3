//! `history`: what happened, who did it and why.

use api::operator::{HistoryEntry, HistoryRequest};
use clap::Args;
use serde::Serialize;
use tonic::Request;

use crate::exit::{Ended, Exit};
use crate::operator::Session;
use crate::render::{Line, Style, history_line};
use crate::values::Subject;

/// Show what happened: when, what, by whom and why.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  pointsman history
  pointsman history hello/production -n 5
  pointsman history hello -f")]
pub(crate) struct HistoryArgs {
    /// A service, stage, release or member; without it everything.
    about: Option<Subject>,
    /// At most so many, the newest; 0 for all.
    #[arg(short = 'n', long = "limit", value_name = "N", default_value_t = 20)]
    limit: u32,
    /// Go on with what happens from now on, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
}

#[derive(Serialize)]
struct Entries {
    entries: Vec<HistoryEntry>,
}

pub(crate) async fn run(args: HistoryArgs, session: &Session) -> Ended {
    let (mut client, output) = (session.client()?, &session.output);
    let request = HistoryRequest {
        selector: args.about.map(|about| about.0).unwrap_or_default(),
        limit: args.limit,
        follow: args.follow,
    };
    let reply = client.calls.history(Request::new(request)).await;
    let mut stream = reply.map_err(|status| client.failure(&status))?.into_inner();
    let mut entries = Vec::new();
    let mut none = true;
    while let Some(entry) = stream.message().await.map_err(|status| client.failure(&status))? {
        none = false;
        match (output.is_json(), args.follow) {
            // What never ends cannot be one document: a line for each.
            (true, true) => output.json_line(&entry)?,
            (true, false) => entries.push(entry),
            (false, _) => output.lines(&[history_line(&entry, &output.view())])?,
        }
    }
    if output.is_json() && !args.follow {
        output.json(&Entries { entries })?;
    } else if none {
        output.aside(&Line::of(Style::Dim, "nothing happened yet"));
    }
    Ok(Exit::Done)
}

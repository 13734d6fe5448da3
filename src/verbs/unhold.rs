//! `unhold`: takes the mark "bad" from a release.

use api::operator::Unhold;
use api::operator::change_request::Verb;
use api::{ReleaseNumber, StageName};
use clap::Args;

use super::change::{self, ChangeArgs};
use crate::exit::Ended;
use crate::operator::Session;

/// Take the mark "bad" from a release in a stage.
///
/// A rollback marks the release that is left; without the mark it may be promoted there again.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:
  pointsman unhold hello/production r42 --reason \"it was the database\"")]
pub(crate) struct UnholdArgs {
    /// The stage, such as hello/production.
    stage: StageName,
    /// The release, such as r42.
    release: ReleaseNumber,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(args: UnholdArgs, session: &Session) -> Ended {
    let unhold = Unhold { stage: args.stage.to_string(), release: args.release.number() };
    change::send(Verb::Unhold(unhold), args.change, session).await
}

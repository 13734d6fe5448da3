//! `rollback`: the release before serves again.

use api::operator::Rollback;
use api::operator::change_request::Verb;
use api::{ReleaseNumber, StageName};
use clap::Args;

use super::change::{self, ChangeArgs};
use super::past::PastArgs;
use crate::exit::Ended;
use crate::operator::Session;

/// Give a stage back to the release before, at once.
///
/// Works during a rollout and after it, as long as the old release is kept warm; `status` says until when that is. No
/// request fails. The release that is left is marked bad in this stage and is not promoted there again before `unhold`,
/// so a second rollback never goes back to it. A release that waits for the end of the rollout does not enter then.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  pointsman rollback hello/production --reason \"errors at checkout\"
  pointsman rollback hello/production --to r41
  pointsman rollback hello/production --past r42 --reason \"the column is back\"")]
pub(crate) struct RollbackArgs {
    /// The stage, such as hello/production.
    stage: StageName,
    /// The release to go back to; without it the one before.
    #[arg(long, value_name = "RELEASE")]
    to: Option<ReleaseNumber>,
    #[command(flatten)]
    past: PastArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(args: RollbackArgs, session: &Session) -> Ended {
    let rollback = Rollback { stage: args.stage.to_string(), to: args.to.map(ReleaseNumber::number) };
    let past = args.past.of(&args.stage.service);
    change::send_past(Verb::Rollback(rollback), past, args.change, session).await
}

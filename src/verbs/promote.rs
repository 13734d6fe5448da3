//! `promote`: a release enters a stage.

use api::operator::Promote;
use api::operator::change_request::Verb;
use api::{EnvironmentName, ReleaseName, Share};
use clap::Args;

use super::change::{self, ChangeArgs};
use super::past::PastArgs;
use crate::exit::Ended;
use crate::operator::Session;

/// Let a release into a stage, wholly or with a share of its requests.
///
/// The release must have run in a stage that leads to this one. It is started first where it does not run yet; then the
/// weights change. Returns when every proxy has switched, and says how long each took. Where the stage lets releases wait for the
/// end of another's rollout it returns at once, with exit code 4.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  pointsman promote hello@r42 --to staging
  pointsman promote hello@r42 --to production --weight 1%
  pointsman promote hello@r42 --to production --bypass --reason \"hotfix, staging is broken\"")]
pub(crate) struct PromoteArgs {
    /// The release, such as hello@r42.
    release: ReleaseName,
    /// The environment to enter.
    #[arg(long, value_name = "ENVIRONMENT")]
    to: EnvironmentName,
    /// Share of the requests, such as 1% or 0.01%; without it everything.
    #[arg(long, value_name = "SHARE")]
    weight: Option<Share>,
    /// Enter although it has not run upstream; needs a reason.
    #[arg(long, requires = "reason")]
    bypass: bool,
    #[command(flatten)]
    past: PastArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(args: PromoteArgs, session: &Session) -> Ended {
    let promote = Promote {
        release: args.release.to_string(),
        environment: args.to.to_string(),
        share_ppm: args.weight.map(Share::ppm),
        bypass: args.bypass,
    };
    let past = args.past.of(&args.release.service);
    change::send_past(Verb::Promote(promote), past, args.change, session).await
}

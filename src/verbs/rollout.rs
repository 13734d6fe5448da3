//! `rollout`: the shift of weight within a stage.

use api::operator::SetWeight;
use api::operator::change_request::Verb;
use api::{Share, StageName};
use clap::{Args, Subcommand};

use super::change::{self, ChangeArgs};
use crate::exit::Ended;
use crate::operator::Session;

/// Move weight from the stable release to the canary.
#[derive(Debug, Args)]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    verb: RolloutVerb,
}

#[derive(Debug, Subcommand)]
enum RolloutVerb {
    /// Give the canary a share of the stage's requests; 100% completes the rollout.
    ///
    /// Exact: after any number of requests, each release has received its share to within one request per worker.
    #[command(after_long_help = "Examples:
  pointsman rollout weight hello/production 50%
  pointsman rollout weight hello/production 100%")]
    Weight {
        /// The stage, such as hello/production.
        stage: StageName,
        /// The canary's share, such as 50% or 0.01%.
        share: Share,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

pub(crate) async fn run(args: RolloutArgs, session: &Session) -> Ended {
    let RolloutVerb::Weight { stage, share, change } = args.verb;
    let weight = SetWeight { stage: stage.to_string(), share_ppm: share.ppm() };
    change::send(Verb::Weight(weight), change, session).await
}

//! `rollout`: the shift of weight within a stage.

use api::operator::change_request::Verb;
use api::operator::move_rollout::Move;
use api::operator::{MoveRollout, SetWeight};
use api::{Share, StageName};
use clap::{Args, Subcommand};

use super::change::{self, ChangeArgs};
use super::past::PastArgs;
use crate::exit::Ended;
use crate::live;
use crate::operator::Session;

/// Move the rollout under way in a stage, or watch it.
#[derive(Debug, Args)]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    verb: RolloutVerb,
}

#[derive(Debug, Subcommand)]
enum RolloutVerb {
    /// Give the canary a share of the stage's requests; 100% completes the rollout.
    ///
    /// Exact: after any number of requests, each release has received its share to within one request per worker. From then on
    /// the rollout goes on by hand: its steps count no more.
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
        #[command(flatten)]
        past: PastArgs,
    },
    /// Let nothing move by itself until `rollout resume`.
    ///
    /// Shares stay as they are. A release that turns out to be worse still leaves.
    #[command(after_long_help = "Example:\n  pointsman rollout pause hello/production --reason \"lunch\"")]
    Pause(Moved),
    /// Let it go on: after a pause, in a step that waits for it, or although it froze.
    ///
    /// One that was frozen is judged anew from here: what was known against it is forgotten.
    #[command(after_long_help = "Example:\n  pointsman rollout resume hello/production")]
    Resume {
        #[command(flatten)]
        moved: Moved,
        #[command(flatten)]
        past: PastArgs,
    },
    /// Take the next step now, whatever the rest of this one asks for.
    #[command(after_long_help = "Examples:
  pointsman rollout skip hello/production --plan
  pointsman rollout skip hello/production --reason \"seen enough\"")]
    Skip {
        #[command(flatten)]
        moved: Moved,
        #[command(flatten)]
        past: PastArgs,
    },
    /// Take the entering release out again.
    ///
    /// As `rollback` does, but only of a rollout under way, also of one that is frozen. The release is marked bad when it was
    /// found to be worse, or with --bad. One that waits for the end of the rollout does not enter then.
    #[command(after_long_help = "Examples:
  pointsman rollout abort hello/production
  pointsman rollout abort hello/production --bad --reason \"wrong prices\"")]
    Abort {
        #[command(flatten)]
        moved: Moved,
        /// Mark the release bad in this stage although nothing was found against it.
        #[arg(long)]
        bad: bool,
        #[command(flatten)]
        past: PastArgs,
    },
    /// Show the rollout as it goes, until it has ended.
    ///
    /// On a terminal a live view (q leaves), elsewhere a line whenever something else is so, with -o json a document each
    /// time. Exit code 0 when the rollout completed, 1 when it was rolled back, aborted or replaced, 4 when it was left
    /// before its end. Without a rollout under way it says how the last one ended.
    #[command(after_long_help = "Examples:
  pointsman rollout watch hello/production
  pointsman promote hello@r42 --to production && pointsman rollout watch hello/production")]
    Watch {
        /// The stage, such as hello/production.
        stage: StageName,
    },
}

/// What all of them are given.
#[derive(Debug, Args)]
struct Moved {
    /// The stage, such as hello/production.
    stage: StageName,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(args: RolloutArgs, session: &Session) -> Ended {
    let (word, moved) = match args.verb {
        RolloutVerb::Weight { stage, share, change, past } => {
            let weight = SetWeight { stage: stage.to_string(), share_ppm: share.ppm() };
            return change::send_past(Verb::Weight(weight), past.of(&stage.service), change, session).await;
        }
        RolloutVerb::Watch { stage } => return live::rollout(&stage, session).await,
        RolloutVerb::Pause(moved) => (Move::Pause, moved),
        RolloutVerb::Resume { moved, past } => return leave(Move::Resume, false, moved, past, session).await,
        RolloutVerb::Skip { moved, past } => return leave(Move::Skip, false, moved, past, session).await,
        RolloutVerb::Abort { moved, bad, past } => return leave(Move::Abort, bad, moved, past, session).await,
    };
    let wanted = MoveRollout { stage: moved.stage.to_string(), r#move: word.into(), bad: false };
    change::send(Verb::MoveRollout(wanted), moved.change, session).await
}

/// A move that may leave a release behind.
async fn leave(word: Move, bad: bool, moved: Moved, past: PastArgs, session: &Session) -> Ended {
    let past = past.of(&moved.stage.service);
    let wanted = MoveRollout { stage: moved.stage.to_string(), r#move: word.into(), bad };
    change::send_past(Verb::MoveRollout(wanted), past, moved.change, session).await
}

//! `release`: made, listed, shown, compared, verified, marked.

mod add;
mod bar;
mod build;
mod end;
mod logs;
mod seeing;

use api::{ReleaseName, ReleaseNumber, ServiceName};
use clap::{Args, Subcommand};

use crate::cli::Reason;
use crate::exit::Ended;
use crate::operator::Session;
use crate::values::{Imaged, OtherRelease, Placed};

/// Build, add and show releases.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(subcommand)]
    verb: ReleaseVerb,
}

#[derive(Debug, Subcommand)]
enum ReleaseVerb {
    /// Build a release from a commit.
    ///
    /// The commit is checked out clean and built with the `[build]` of its own pointsman.toml. The log is shown until the
    /// build has ended; a failed build ends with exit code 1 and touches no stage. Ctrl-C stops the showing only. A commit
    /// that was built already is that release.
    #[command(after_long_help = "Examples:
  pointsman release build hello
  pointsman release build hello --tag v2.1.0 --no-wait
  pointsman release build hello --from r41 --branch fix/gate
  pointsman release build hello --from r41 --pick 1a2b3c4 --pick 5d6e7f8")]
    Build {
        /// The service.
        service: ServiceName,
        #[command(flatten)]
        source: SourceArgs,
        /// Build although this commit was built.
        #[arg(long)]
        again: bool,
        /// Do not wait for the end; exit code 4.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// Add a release that was made elsewhere, by its addresses or its images.
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["addresses", "images"]))]
    #[command(after_long_help = "Examples:
  pointsman release add hello --version 2.1.0 --address web=10.0.0.7:8080,10.0.0.8:8080
  pointsman release add hello --version 2.1.0 --address staging/web=10.0.1.7:8080 --address production/web=10.0.2.7:8080
  pointsman release add hello --version 2.1.0 --image web=registry.example.com/shop/web:2.1.0")]
    Add {
        /// The service.
        service: ServiceName,
        /// The version, for people.
        #[arg(long, value_name = "VERSION")]
        version: String,
        /// The commit it was made from, for people.
        #[arg(long, value_name = "COMMIT", default_value = "", hide_default_value = true)]
        commit: String,
        /// Where a component runs, in one environment or in all.
        #[arg(long = "address", value_name = "[ENVIRONMENT/]COMPONENT=IP:PORT[,IP:PORT]...")]
        addresses: Vec<Placed>,
        /// An image that something else has built.
        ///
        /// REF is `HOST[:PORT]/REPOSITORY:TAG` or `HOST[:PORT]/REPOSITORY@sha256:DIGEST`. A tag is looked up once; from then on
        /// its digest counts.
        #[arg(long = "image", value_name = "[ENVIRONMENT/]COMPONENT=REF")]
        images: Vec<Imaged>,
        #[command(flatten)]
        reason: Reason,
    },
    /// List the releases of a service, the newest first.
    #[command(after_long_help = "Examples:\n  pointsman release list hello\n  pointsman release list hello -n 5 --all")]
    List {
        /// The service.
        service: ServiceName,
        /// At most so many.
        #[arg(short = 'n', long = "limit", value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Also those that were cancelled or overtaken before they were built.
        #[arg(long)]
        all: bool,
    },
    /// Show one release: what it is made of, where it runs, what happened to it.
    ///
    /// Of one that failed, the end of its log too.
    #[command(after_long_help = "Example:\n  pointsman release show hello@r42")]
    Show {
        /// The release, such as hello@r42.
        release: ReleaseName,
    },
    /// Show the build log of a release.
    #[command(after_long_help = "Examples:
  pointsman release logs hello@r42
  pointsman release logs hello@r42 -f
  pointsman release logs hello@r42 --check fits")]
    Logs {
        /// The release, such as hello@r42.
        release: ReleaseName,
        /// Go on until the build has ended.
        #[arg(short, long)]
        follow: bool,
        /// The log of this check in place of that of the build.
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        check: String,
    },
    /// End a build, or take it out of the queue.
    #[command(after_long_help = "Example:\n  pointsman release cancel hello@r42")]
    Cancel {
        /// The release, such as hello@r42.
        release: ReleaseName,
        #[command(flatten)]
        reason: Reason,
    },
    /// Build the commit of a release that failed or was cancelled, as a new one.
    #[command(after_long_help = "Example:\n  pointsman release retry hello@r42")]
    Retry {
        /// The release, such as hello@r42.
        release: ReleaseName,
        /// Do not wait for the end; exit code 4.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// Show what changed between two releases: commits, configuration, artifacts.
    #[command(after_long_help = "Example:\n  pointsman release diff hello@r41 r42")]
    Diff {
        /// The release to compare with, such as hello@r41.
        from: ReleaseName,
        /// The other one of the same service, such as r42.
        to: OtherRelease,
    },
    /// Check that a release's tag still names its commit, and that every artifact is where it should be, byte for byte.
    ///
    /// Ends with exit code 1 when something is wrong.
    #[command(after_long_help = "Example:\n  pointsman release verify hello@r42")]
    Verify {
        /// The release, such as hello@r42.
        release: ReleaseName,
    },
    /// Say that what a release does cannot be taken back by running an older one, or that it can.
    ///
    /// A release that is marked not reversible, because it drops a column say, is not left unasked once it ran in a stage:
    /// `rollback`, `rollout abort` and `promote` of an older one ask for its name on a terminal, and need `--past`
    /// elsewhere. The controller never goes back past it by itself: a rollout freezes, and after a rollout it is told. The
    /// reason is shown with the release.
    #[command(group = clap::ArgGroup::new("whether").required(true).args(["not_reversible", "reversible"]))]
    #[command(after_long_help = "Examples:
  pointsman release mark hello@r42 --not-reversible --reason \"drops the column names\"
  pointsman release mark hello@r42 --reversible")]
    Mark {
        /// The release, such as hello@r42.
        release: ReleaseName,
        /// Nothing goes back past it unasked; the reason says what it does.
        #[arg(long, requires = "reason")]
        not_reversible: bool,
        /// It can be left like any other.
        #[arg(long)]
        reversible: bool,
        #[command(flatten)]
        reason: Reason,
    },
}

/// What to build.
#[derive(Debug, Args)]
struct SourceArgs {
    /// This commit.
    #[arg(long, value_name = "COMMIT", conflicts_with_all = ["tag", "branch"])]
    commit: Option<String>,
    /// The commit of this tag.
    #[arg(long, value_name = "TAG", conflicts_with = "branch")]
    tag: Option<String>,
    /// The newest commit of this branch; without any of the three, that of the service's own branch.
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
    /// Build on top of this release.
    ///
    /// What is built is the branch, which has to begin at the release's commit, or the picked commits on top of it, and
    /// nothing else that came since; the new release is marked as its hot fix.
    #[arg(long, value_name = "rN", conflicts_with_all = ["commit", "tag"])]
    from: Option<ReleaseNumber>,
    /// Put this commit on top of the release, in this order; may be repeated.
    ///
    /// A conflict is shown and makes no release.
    #[arg(long = "pick", value_name = "COMMIT", requires = "from", conflicts_with_all = ["commit", "tag", "branch"])]
    picks: Vec<String>,
}

pub(crate) async fn run(args: ReleaseArgs, session: &Session) -> Ended {
    match args.verb {
        ReleaseVerb::Build { service, source, again, no_wait, reason } => {
            build::build(service, source, again, no_wait, reason, session).await
        }
        ReleaseVerb::Add { service, version, commit, addresses, images, reason } => {
            add::add(add::Given { service, version, commit, addresses, images, reason }, session).await
        }
        ReleaseVerb::List { service, limit, all } => seeing::list(&service, limit, all, session).await,
        ReleaseVerb::Show { release } => seeing::show(&release, session).await,
        ReleaseVerb::Logs { release, follow, check } => logs::run(&release, follow, check, session).await,
        ReleaseVerb::Cancel { release, reason } => end::cancel(&release, reason, session).await,
        ReleaseVerb::Retry { release, no_wait, reason } => build::retry(&release, no_wait, reason, session).await,
        ReleaseVerb::Diff { from, to } => seeing::diff(&from, &to.of(&from), session).await,
        ReleaseVerb::Verify { release } => seeing::verify(&release, session).await,
        ReleaseVerb::Mark { release, reversible, reason, .. } => end::mark(&release, reversible, reason, session).await,
    }
}

#[cfg(test)]
mod tests;

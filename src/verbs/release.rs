//! `release`: made, listed, shown, marked.

use std::time::Duration;

use api::operator::Release;
use api::operator::build_release_request::Source;
use api::operator::{
    AddReleaseRequest, BuildReleaseRequest, ListReleasesRequest, MarkReleaseRequest, ReleaseLogsRequest, ReleaseRequest,
};
use api::{ReleaseName, ServiceName};
use clap::{Args, Subcommand};
use tonic::{Request, Status};

use crate::cli::Reason;
use crate::exit::{self, Ended, Exit, Failure};
use crate::operator::{Attempts, Client, Meaning, Session, asking, request_id};
use crate::output::Reading;
use crate::render::{self, Line, LogText, Style};
use crate::values::Placed;

/// Between two looks at a build whose log has ended but whose state has not.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
    /// build has ended; a failed build ends with exit code 1 and touches no stage. Ctrl-C stops the showing only.
    #[command(after_long_help = "Examples:
  pointsman release build hello
  pointsman release build hello --tag v2.1.0 --no-wait")]
    Build {
        /// The service.
        service: ServiceName,
        #[command(flatten)]
        source: SourceArgs,
        /// Do not wait for the end; exit code 4.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// Add a release that runs elsewhere, by its addresses.
    #[command(after_long_help = "Examples:
  pointsman release add hello --version 2.1.0 --address web=10.0.0.7:8080,10.0.0.8:8080
  pointsman release add hello --version 2.1.0 --address staging/web=10.0.1.7:8080 --address production/web=10.0.2.7:8080")]
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
        #[arg(long = "address", value_name = "[ENVIRONMENT/]COMPONENT=IP:PORT[,IP:PORT]...", required = true)]
        addresses: Vec<Placed>,
        #[command(flatten)]
        reason: Reason,
    },
    /// List the releases of a service.
    #[command(after_long_help = "Example:\n  pointsman release list hello")]
    List {
        /// The service.
        service: ServiceName,
    },
    /// Show one release.
    #[command(after_long_help = "Example:\n  pointsman release show hello@r42")]
    Show {
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
    /// Show the build log of a release.
    #[command(after_long_help = "Examples:\n  pointsman release logs hello@r42\n  pointsman release logs hello@r42 -f")]
    Logs {
        /// The release, such as hello@r42.
        release: ReleaseName,
        /// Go on until the build has ended.
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct SourceArgs {
    /// This commit.
    #[arg(long, value_name = "COMMIT")]
    commit: Option<String>,
    /// The commit of this tag.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// The newest commit of this branch; without any of the three, that of the service's own branch.
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
}

impl SourceArgs {
    fn source(self) -> Option<Source> {
        let commit = self.commit.map(Source::Commit);
        commit.or(self.tag.map(Source::Tag)).or(self.branch.map(Source::Branch))
    }
}

pub(crate) async fn run(args: ReleaseArgs, session: &Session) -> Ended {
    let mut client = session.client()?;
    match args.verb {
        ReleaseVerb::Build { service, source, no_wait, reason } => {
            let request = BuildReleaseRequest {
                service: service.to_string(),
                source: source.source(),
                reason: reason.text(),
                request_id: request_id()?,
            };
            let release = client.insist(async |calls| calls.build_release(asking(request.clone())).await).await?;
            return built(release, no_wait, &mut client, session).await;
        }
        ReleaseVerb::Add { service, version, commit, addresses, reason } => {
            let request = AddReleaseRequest {
                service: service.to_string(),
                version,
                commit,
                addresses: addresses.into_iter().map(Into::into).collect(),
                reason: reason.text(),
                request_id: request_id()?,
            };
            let release = client.insist(async |calls| calls.add_release(asking(request.clone())).await).await?;
            session.output.show(&release, |view| render::release(&release, view))?;
        }
        ReleaseVerb::List { service } => {
            let request = ListReleasesRequest { service: service.to_string() };
            let reply = client.calls.list_releases(asking(request)).await;
            let list = reply.map_err(|status| client.failure(&status))?.into_inner();
            session.output.show(&list, |view| render::releases(&list, view))?;
        }
        ReleaseVerb::Show { release } => {
            let release = one(&mut client, &release.to_string()).await?;
            session.output.show(&release, |view| render::release(&release, view))?;
        }
        ReleaseVerb::Mark { release, reversible, reason, .. } => {
            let request = MarkReleaseRequest {
                release: release.to_string(),
                reversible,
                reason: reason.text(),
                request_id: request_id()?,
            };
            let release = client.insist(async |calls| calls.mark_release(asking(request.clone())).await).await?;
            session.output.show(&release, |view| render::release(&release, view))?;
        }
        ReleaseVerb::Logs { release, follow } => {
            let mut reading = Reading::of(&session.output);
            let logs = logs(&mut client, &release.to_string(), follow, &mut reading, false).await;
            logs.map_err(|status| client.failure(&status))?;
            return Ok(reading.ended().unwrap_or(Exit::Done));
        }
    }
    Ok(Exit::Done)
}

async fn one(client: &mut Client, release: &str) -> Result<Release, Failure> {
    ask_one(client, release).await.map_err(|status| client.failure(&status))
}

async fn ask_one(client: &mut Client, release: &str) -> Result<Release, Status> {
    let request = ReleaseRequest { release: release.to_owned() };
    Ok(client.calls.show_release(asking(request)).await?.into_inner())
}

/// Follows a build to its end, or not. It is on record: nothing that goes wrong with following it undoes that.
async fn built(mut release: Release, no_wait: bool, client: &mut Client, session: &Session) -> Ended {
    let (name, output) = (format!("{}@r{}", release.service, release.number), &session.output);
    let mut reading = Reading::of(output);
    if !no_wait {
        output.aside(&Line::of(Style::Bold, &name).with(Style::Plain, format!(" {}", release.state)));
        if let Err(status) = logs(client, &name, true, &mut reading, true).await {
            let text = format!("; `pointsman release logs {name}` shows its log");
            output.aside(&Line::of(Style::Moving, client.failure(&status).message).with(Style::Plain, text));
        }
        release = end_of_build(client, &name).await?;
    }
    reading.tell(|output| output.show(&release, |view| render::release(&release, view)));
    Ok(exit::of_build(&release.state))
}

/// Looks at a release until its build has ended, also across a controller that comes back.
async fn end_of_build(client: &mut Client, name: &str) -> Result<Release, Failure> {
    let mut attempts = Attempts::at_known();
    loop {
        match ask_one(client, name).await {
            Ok(release) if exit::of_build(&release.state) != Exit::Waiting => return Ok(release),
            Ok(_) => {
                attempts = Attempts::at_known();
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(status) => {
                if attempts.after(&status).await != Meaning::Again {
                    let why = client.failure(&status).message;
                    let text =
                        format!("{why}; the build is on record: `pointsman release show {name}` shows how it ended");
                    return Err(Failure::unknown(text));
                }
            }
        }
    }
}

/// Shows a build log: on stdout, or beside the result when a program reads that. `stay`: to its end, although nobody
/// reads it any more.
async fn logs(
    client: &mut Client,
    release: &str,
    follow: bool,
    reading: &mut Reading<'_>,
    stay: bool,
) -> Result<(), Status> {
    let request = Request::new(ReleaseLogsRequest { release: release.to_owned(), follow });
    let mut pieces = client.calls.release_logs(request).await?.into_inner();
    let mut text = LogText::default();
    let show = |reading: &mut Reading<'_>, line: String| {
        reading.tell(|output| {
            if output.is_json() {
                output.aside(&Line::plain(line));
                return Ok(());
            }
            output.lines(&[Line::plain(line)])
        });
    };
    while let Some(piece) = pieces.message().await? {
        text.piece(&piece.data).into_iter().for_each(|line| show(reading, line));
        if !stay && reading.ended().is_some() {
            return Ok(());
        }
    }
    if let Some(line) = text.end() {
        show(reading, line);
    }
    Ok(())
}

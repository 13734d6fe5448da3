//! `release`: made, listed, shown.

use std::time::Duration;

use api::operator::Release;
use api::operator::build_release_request::Source;
use api::operator::{AddReleaseRequest, BuildReleaseRequest, ListReleasesRequest, ReleaseLogsRequest, ReleaseRequest};
use api::{ReleaseName, ServiceName};
use clap::{Args, Subcommand};
use tonic::Request;

use crate::cli::Reason;
use crate::exit::{self, Ended, Exit, Failure};
use crate::operator::{Client, Session, asking, request_id};
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
            let reply = client.calls.build_release(asking(request)).await;
            let release = reply.map_err(|status| client.failure(&status))?.into_inner();
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
            let reply = client.calls.add_release(asking(request)).await;
            let release = reply.map_err(|status| client.failure(&status))?.into_inner();
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
        ReleaseVerb::Logs { release, follow } => logs(&mut client, &release.to_string(), follow, session).await?,
    }
    Ok(Exit::Done)
}

async fn one(client: &mut Client, release: &str) -> Result<Release, Failure> {
    let request = ReleaseRequest { release: release.to_owned() };
    let reply = client.calls.show_release(asking(request)).await;
    Ok(reply.map_err(|status| client.failure(&status))?.into_inner())
}

/// Follows a build to its end, or not.
async fn built(mut release: Release, no_wait: bool, client: &mut Client, session: &Session) -> Ended {
    let (name, output) = (format!("{}@r{}", release.service, release.number), &session.output);
    if !no_wait {
        output.aside(&Line::of(Style::Bold, &name).with(Style::Plain, format!(" {}", release.state)));
        logs(client, &name, true, session).await?;
        release = one(client, &name).await?;
        while exit::of_build(&release.state) == Exit::Waiting {
            tokio::time::sleep(LOOK_AGAIN).await;
            release = one(client, &name).await?;
        }
    }
    output.show(&release, |view| render::release(&release, view))?;
    Ok(exit::of_build(&release.state))
}

/// Shows a build log: on stdout, or beside the result when a program reads that.
async fn logs(client: &mut Client, release: &str, follow: bool, session: &Session) -> Result<(), Failure> {
    let request = Request::new(ReleaseLogsRequest { release: release.to_owned(), follow });
    let reply = client.calls.release_logs(request).await;
    let mut pieces = reply.map_err(|status| client.failure(&status))?.into_inner();
    let (mut text, output) = (LogText::default(), &session.output);
    let show = |line: String| {
        if output.is_json() {
            output.aside(&Line::plain(line));
            return Ok(());
        }
        output.lines(&[Line::plain(line)])
    };
    while let Some(piece) = pieces.message().await.map_err(|status| client.failure(&status))? {
        text.piece(&piece.data).into_iter().try_for_each(show)?;
    }
    text.end().map_or(Ok(()), show)
}

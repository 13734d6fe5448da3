//! `release build` and `retry`: a build is asked for and followed to its end.

use std::time::Duration;

use api::operator::build_release_request::Source;
use api::operator::{BuildReleaseRequest, ChangeReleaseRequest, Release};
use api::{ReleaseName, ServiceName};

use super::SourceArgs;
use super::logs::{self, Wanted};
use super::seeing::ask_one;
use crate::cli::Reason;
use crate::exit::{self, Ended, Exit, Failure};
use crate::operator::{Attempts, Client, Meaning, Session, asking, request_id};
use crate::output::Reading;
use crate::render::{self, Line, Style};

/// Between two looks at a build whose log has ended but whose state has not.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl SourceArgs {
    fn source(&self) -> Option<Source> {
        let commit = self.commit.clone().map(Source::Commit);
        commit.or(self.tag.clone().map(Source::Tag)).or(self.branch.clone().map(Source::Branch))
    }
}

pub(super) async fn build(
    service: ServiceName,
    source: SourceArgs,
    again: bool,
    no_wait: bool,
    reason: Reason,
    session: &Session,
) -> Ended {
    let mut client = session.client()?;
    let request = BuildReleaseRequest {
        service: service.to_string(),
        source: source.source(),
        reason: reason.text(),
        request_id: request_id()?,
        from_release: source.from.map_or(0, api::ReleaseNumber::number),
        picks: source.picks,
        again,
    };
    let release = client.insist(async |calls| calls.build_release(asking(request.clone())).await).await?;
    built(release, no_wait, &mut client, session).await
}

pub(super) async fn retry(release: &ReleaseName, no_wait: bool, reason: Reason, session: &Session) -> Ended {
    let mut client = session.client()?;
    let request =
        ChangeReleaseRequest { release: release.to_string(), reason: reason.text(), request_id: request_id()? };
    let release = client.insist(async |calls| calls.retry_release(asking(request.clone())).await).await?;
    built(release, no_wait, &mut client, session).await
}

/// Follows a build to its end, or not. It is on record: nothing that goes wrong with following it undoes that.
async fn built(mut release: Release, no_wait: bool, client: &mut Client, session: &Session) -> Ended {
    let (name, output) = (format!("{}@r{}", release.service, release.number), &session.output);
    let mut reading = Reading::of(output);
    // One that was asked for just now has yet to be built.
    if release.state == "ready" {
        let text = " was built of this commit already; `--again` builds it once more";
        output.aside(&Line::of(Style::Bold, &name).with(Style::Plain, text));
    } else if !no_wait {
        let mut line = Line::of(Style::Bold, &name).with(Style::Plain, format!(" {}", release.state));
        if !release.waits.is_empty() {
            line.push(Style::Plain, format!(", waits: {}", release.waits));
        }
        output.aside(&line);
        let wanted = Wanted { release: &name, follow: true, check: String::new(), stay: true };
        if let Err(status) = logs::show(client, wanted, &mut reading).await {
            let text = format!("; `pointsman release logs {name}` shows its log");
            output.aside(&Line::of(Style::Moving, client.failure(&status).message).with(Style::Plain, text));
        }
        release = end_of_build(client, &name).await?;
    }
    reading.tell(|output| output.show(&release, |view| render::release_in_short(&release, view)));
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

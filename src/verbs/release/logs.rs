//! `release logs`: on stdout, or beside the result when a program reads that.

use api::ReleaseName;
use api::operator::ReleaseLogsRequest;
use tonic::{Request, Status};

use super::bar::Bar;
use crate::exit::{Ended, Exit};
use crate::operator::{Client, Session};
use crate::output::Reading;
use crate::render::{Line, LogText};

/// Which log, and how long it is read.
pub(super) struct Wanted<'a> {
    pub(super) release: &'a str,
    /// Until the build has ended.
    pub(super) follow: bool,
    /// Of this check; empty: of the build.
    pub(super) check: String,
    /// To its end, although nobody reads it any more.
    pub(super) stay: bool,
}

pub(super) async fn run(release: &ReleaseName, follow: bool, check: String, session: &Session) -> Ended {
    let mut client = session.client()?;
    let mut reading = Reading::of(&session.output);
    let wanted = Wanted { release: &release.to_string(), follow, check, stay: false };
    show(&mut client, wanted, &mut reading).await.map_err(|status| client.failure(&status))?;
    Ok(reading.ended().unwrap_or(Exit::Done))
}

/// Shows a log as it comes, and with a bar below it what goes to the registry meanwhile.
pub(super) async fn show(client: &mut Client, wanted: Wanted<'_>, reading: &mut Reading<'_>) -> Result<(), Status> {
    let Wanted { release, follow, check, stay } = wanted;
    let request = Request::new(ReleaseLogsRequest { release: release.to_owned(), follow, check });
    let mut pieces = client.calls.release_logs(request).await?.into_inner();
    let (mut text, mut bar) = (LogText::default(), Bar::of(reading.output()));
    let tell = |reading: &mut Reading<'_>, line: String| {
        reading.tell(|output| {
            if output.is_json() {
                output.aside(&Line::plain(line));
                return Ok(());
            }
            output.lines(&[Line::plain(line)])
        });
    };
    while let Some(piece) = pieces.message().await? {
        let lines = text.piece(&piece.data);
        if !lines.is_empty() {
            bar.clear();
        }
        lines.into_iter().for_each(|line| tell(reading, line));
        if let Some(transfer) = &piece.transfer {
            bar.draw(transfer);
        }
        if !stay && reading.ended().is_some() {
            return Ok(());
        }
    }
    bar.clear();
    if let Some(line) = text.end() {
        tell(reading, line);
    }
    Ok(())
}

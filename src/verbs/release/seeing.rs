//! `release list`, `show`, `diff` and `verify`: what only looks.

use std::collections::VecDeque;

use api::operator::{DiffReleasesRequest, ListReleasesRequest, Release, ReleaseLogsRequest, ReleaseRequest};
use api::{ReleaseName, ServiceName};
use tonic::{Request, Status};

use crate::exit::{Ended, Exit};
use crate::operator::{Client, Session, asking};
use crate::render::{self, LogText};

/// Lines of its log that a failed release is shown with.
const OUTPUT_SHOWN: usize = 20;

pub(super) async fn list(service: &ServiceName, limit: u32, all: bool, session: &Session) -> Ended {
    let mut client = session.client()?;
    // One more tells whether there are more.
    let request = ListReleasesRequest { service: service.to_string(), limit: limit + 1, all };
    let reply = client.calls.list_releases(asking(request)).await;
    let mut list = reply.map_err(|status| client.failure(&status))?.into_inner();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = list.releases.len() > limit;
    list.releases.truncate(limit);
    session.output.show(&list, |view| render::releases(&list, more, view))?;
    Ok(Exit::Done)
}

pub(super) async fn show(release: &ReleaseName, session: &Session) -> Ended {
    let mut client = session.client()?;
    let name = release.to_string();
    let release = ask_one(&mut client, &name).await.map_err(|status| client.failure(&status))?;
    let is_told = release.state == "failed" && !session.output.is_json();
    // A page without it is better than none.
    let output = if is_told { end_of_log(&mut client, &name).await.unwrap_or_default() } else { Vec::new() };
    session.output.show(&release, |view| render::release_with_output(&release, &output, view))?;
    Ok(Exit::Done)
}

pub(super) async fn diff(from: &ReleaseName, to: &ReleaseName, session: &Session) -> Ended {
    let mut client = session.client()?;
    let request = DiffReleasesRequest { from: from.to_string(), to: to.to_string() };
    // The mirror may have to be brought up to date.
    let reply = client.calls.diff_releases(Request::new(request)).await;
    let differ = reply.map_err(|status| client.failure(&status))?.into_inner();
    session.output.show(&differ, |view| render::differ(&differ, view))?;
    Ok(Exit::Done)
}

pub(super) async fn verify(release: &ReleaseName, session: &Session) -> Ended {
    let mut client = session.client()?;
    let request = ReleaseRequest { release: release.to_string() };
    // All of it is read: that takes as long as it takes.
    let reply = client.calls.verify_release(Request::new(request)).await;
    let found = reply.map_err(|status| client.failure(&status))?.into_inner();
    session.output.show(&found, |view| render::verified(&found, view))?;
    Ok(if found.well { Exit::Done } else { Exit::Refused })
}

/// A release with all that is known of it.
pub(super) async fn ask_one(client: &mut Client, release: &str) -> Result<Release, Status> {
    let request = ReleaseRequest { release: release.to_owned() };
    Ok(client.calls.show_release(asking(request)).await?.into_inner())
}

/// The last lines of a log.
async fn end_of_log(client: &mut Client, release: &str) -> Result<Vec<String>, Status> {
    let request = ReleaseLogsRequest { release: release.to_owned(), ..ReleaseLogsRequest::default() };
    let mut pieces = client.calls.release_logs(Request::new(request)).await?.into_inner();
    let (mut text, mut last) = (LogText::default(), VecDeque::new());
    while let Some(piece) = pieces.message().await? {
        last.extend(text.piece(&piece.data));
        last.drain(..last.len().saturating_sub(OUTPUT_SHOWN));
    }
    last.extend(text.end());
    last.drain(..last.len().saturating_sub(OUTPUT_SHOWN));
    Ok(last.into())
}

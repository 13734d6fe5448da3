//! `release cancel` and `mark`: what is said of one that is there.

use api::ReleaseName;
use api::operator::{ChangeReleaseRequest, MarkReleaseRequest};

use crate::cli::Reason;
use crate::exit::{Ended, Exit};
use crate::operator::{Session, asking, request_id};
use crate::render;

pub(super) async fn cancel(release: &ReleaseName, reason: Reason, session: &Session) -> Ended {
    let mut client = session.client()?;
    let request =
        ChangeReleaseRequest { release: release.to_string(), reason: reason.text(), request_id: request_id()? };
    let release = client.insist(async |calls| calls.cancel_build(asking(request.clone())).await).await?;
    session.output.show(&release, |view| render::release_in_short(&release, view))?;
    // Its processes are ended in order, which takes a moment.
    Ok(if release.state == "building" { Exit::Waiting } else { Exit::Done })
}

pub(super) async fn mark(release: &ReleaseName, reversible: bool, reason: Reason, session: &Session) -> Ended {
    let mut client = session.client()?;
    let request = MarkReleaseRequest {
        release: release.to_string(),
        reversible,
        reason: reason.text(),
        request_id: request_id()?,
    };
    let release = client.insist(async |calls| calls.mark_release(asking(request.clone())).await).await?;
    session.output.show(&release, |view| render::release_in_short(&release, view))?;
    Ok(Exit::Done)
}

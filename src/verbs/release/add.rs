//! `release add`.

use api::ServiceName;
use api::operator::AddReleaseRequest;

use crate::cli::Reason;
use crate::exit::{Ended, Exit};
use crate::operator::{Session, asking, request_id};
use crate::render;
use crate::values::{Imaged, Placed};

/// What somebody says of a release that was made elsewhere.
pub(super) struct Given {
    pub(super) service: ServiceName,
    pub(super) version: String,
    pub(super) commit: String,
    pub(super) addresses: Vec<Placed>,
    pub(super) images: Vec<Imaged>,
    pub(super) reason: Reason,
}

pub(super) async fn add(given: Given, session: &Session) -> Ended {
    let mut client = session.client()?;
    let request = AddReleaseRequest {
        service: given.service.to_string(),
        version: given.version,
        commit: given.commit,
        addresses: given.addresses.into_iter().map(Into::into).collect(),
        images: given.images.into_iter().map(Into::into).collect(),
        reason: given.reason.text(),
        request_id: request_id()?,
    };
    let release = client.insist(async |calls| calls.add_release(asking(request.clone())).await).await?;
    session.output.show(&release, |view| render::release_in_short(&release, view))?;
    Ok(Exit::Done)
}

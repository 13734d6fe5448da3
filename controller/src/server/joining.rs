//! Joining and staying: a one-time secret becomes a certificate, and a certificate the next one.

use std::sync::Arc;
use std::time::SystemTime;

use api::fleet::joining_server::Joining;
use api::fleet::membership_server::Membership;
use api::fleet::{JoinReply, JoinRequest, RenewReply, RenewRequest};
use certs::fleet::peer;
use rustls::pki_types::CertificateDer;
use tonic::{Request, Response, Status};
use tracing::info;

use super::Shared;
use super::who::{hex, status, stopping};
use crate::core::Command;
use crate::core::state::MemberProgress;
use crate::engine::{Engine, Priority, Submission};
use crate::secret;

pub(super) struct Service(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl Joining for Service {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let request = request.into_inner();
        let given = request.secret;
        let find = move |engine: &Engine| {
            let invited = engine.state.members.iter().find(|(_, member)| match &member.progress {
                MemberProgress::Invited { secret, .. } => secret::matches(&given, secret),
                _ => false,
            });
            invited.map(|(name, member)| (name.clone(), member.role))
        };
        let unknown = || {
            Status::permission_denied(
                "this join token is not known, or was used before: make a new one with `pointsman join`",
            )
        };
        let (name, role) = self.0.engine.read(find).await.ok_or_else(stopping)?.ok_or_else(unknown)?;
        let certificate_der = self
            .0
            .ca
            .sign(&request.csr_der, role, &name, SystemTime::now())
            .map_err(|problem| Status::invalid_argument(problem.to_string()))?;
        // Recorded before it is given out: of two that use one token at once, the second is refused here.
        let command = Command::Join { name: name.clone(), serial: serial_of(&certificate_der)? };
        let submission = Submission::of(name.as_str(), String::new(), command);
        self.0.engine.submit(submission, Priority::Normal).await.map_err(status)?;
        info!(%name, %role, software = request.software, "joined");
        Ok(Response::new(JoinReply {
            name: name.to_string(),
            role: role.to_string(),
            certificate_der,
            ca_der: self.0.ca.certificate_der().to_vec(),
        }))
    }
}

/// The serial number of a certificate that was just signed.
pub(super) fn serial_of(certificate_der: &[u8]) -> Result<String, Status> {
    let signed = peer(&[CertificateDer::from(certificate_der)]);
    signed.map(|signed| hex(&signed.serial)).ok_or_else(|| Status::internal("the certificate names nobody"))
}

#[tonic::async_trait]
impl Membership for Service {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let member = self.0.late_member(&request).await?;
        let certificate_der = self
            .0
            .ca
            .sign(&request.into_inner().csr_der, member.role, &member.name, SystemTime::now())
            .map_err(|problem| Status::invalid_argument(problem.to_string()))?;
        // Recorded before it is given out. Should the answer be lost, the certificate that was used stays good.
        let serial = serial_of(&certificate_der)?;
        let name = member.name.clone();
        let command = Command::RenewMember { name, used: member.serial, from_ms: member.from_ms, serial };
        let submission = Submission::of(member.name.as_str(), String::new(), command);
        self.0.engine.submit(submission, Priority::Normal).await.map_err(status)?;
        info!(name = %member.name, role = %member.role, "has another certificate");
        Ok(Response::new(RenewReply { certificate_der }))
    }
}

//! `cert`: what is served, asked for now, and brought by hand.

use std::time::SystemTime;

use api::operator::{Certificates, ImportCertificateRequest, ListCertificatesRequest, RenewCertificateRequest};
use api::{EnvironmentName, Verb};
use tokio::sync::oneshot;
use tonic::Status;

use crate::certificates::{Bringer, NotBrought, Order, bring, told};
use crate::core::Context;
use crate::core::decide::require_reason;
use crate::core::spec::CertificateSource;
use crate::engine::{Engine, NotDone};
use crate::server::Shared;
use crate::server::who::{Operator, parse, status, stopping};
use crate::status::clock_ms;

impl Shared {
    /// The certificates that the operator may see; of one environment with their chains.
    pub(super) async fn list_certificates(
        &self,
        who: Operator,
        request: ListCertificatesRequest,
    ) -> Result<Certificates, Status> {
        let only = (!request.environment.is_empty()).then(|| parse(&request.environment)).transpose()?;
        if let Some(environment) = &only {
            who.may(Verb::Read, None, Some(environment))?;
        }
        let list = move |engine: &Engine| {
            let now = SystemTime::now();
            let names = engine.state.environments.keys().filter(|name| only.as_ref().is_none_or(|only| only == *name));
            let seen = names.filter(|name| who.sees(None, Some(name)));
            let certificates = seen.flat_map(|name| told::of_environment(engine, name, only.is_some(), now)).collect();
            let unknown = only.as_ref().filter(|name| !engine.state.environments.contains_key(name));
            match unknown {
                Some(name) => Err(Status::not_found(format!("there is no environment {name}"))),
                None => Ok(Certificates { certificates }),
            }
        };
        self.engine.read(list).await.ok_or_else(stopping)?
    }

    /// Has the source of an environment asked now.
    pub(super) async fn renew_certificate(
        &self,
        who: Operator,
        request: RenewCertificateRequest,
    ) -> Result<Certificates, Status> {
        let environment: EnvironmentName = parse(&request.environment)?;
        who.may(Verb::Apply, None, Some(&environment))?;
        // Before anybody is asked for one that could not be recorded.
        let (by, reason) = (who.name.to_string(), request.reason.clone());
        let context = Context { by, reason, now_ms: clock_ms(), past: None };
        let named = environment.clone();
        let may = self.engine.read(move |engine| require_reason(&engine.state, &named, &context)).await;
        may.ok_or_else(stopping)?.map_err(|refusal| status(NotDone::Refused(refusal)))?;
        let (done, answer) = oneshot::channel();
        let bringer = Bringer { by: who.name.to_string(), reason: request.reason };
        let order = Order { environment: environment.clone(), bringer, done };
        self.orders.send(order).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?.map_err(Status::failed_precondition)?;
        self.list_certificates(who, ListCertificatesRequest { environment: environment.to_string() }).await
    }

    /// Takes a certificate with its key.
    pub(super) async fn import_certificate(
        &self,
        who: Operator,
        request: ImportCertificateRequest,
    ) -> Result<Certificates, Status> {
        let environment: EnvironmentName = parse(&request.environment)?;
        who.may(Verb::Apply, None, Some(&environment))?;
        let material = certs::pair::read(&request.chain_pem, &request.key_pem, SystemTime::now());
        let material = material.map_err(|problem| Status::invalid_argument(problem.to_string()))?;
        let bringer = Bringer { by: who.name.to_string(), reason: request.reason };
        let source = CertificateSource::Imported;
        let brought = bring(&self.engine, bringer, environment.clone(), &source, vec![material]).await;
        brought.map_err(|not| match not {
            NotBrought::NotDone(not_done) => status(not_done),
            NotBrought::NotKept(problem) => Status::unavailable(format!("nothing was changed: {problem}")),
        })?;
        self.list_certificates(who, ListCertificatesRequest { environment: environment.to_string() }).await
    }
}

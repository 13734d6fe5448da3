//! One turn with an ACME authority for one environment: asks when to renew, orders what is due, brings it.
//!
//! Must not know: when it is its turn.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use api::EnvironmentName;
use certs::acme::AcmeError;
use certs::development::Material;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::bring::{Bringer, bring};
use super::keeper::{Standing, ms};
use super::ordering::{Names, Orders, account, prover};
use crate::core::spec::{AcmeSpec, CertificateSource};
use crate::engine::Handle;
use crate::fleet::Fleet;

/// What a turn is about.
pub(super) struct Turn {
    pub(super) name: EnvironmentName,
    pub(super) spec: AcmeSpec,
    pub(super) wanted: Vec<Names>,
    pub(super) have: Vec<Material>,
    pub(super) orders: Orders,
    pub(super) bringer: Bringer,
    /// Whoever wants new ones now, whatever the time.
    pub(super) asked: Option<oneshot::Sender<Result<(), String>>>,
    pub(super) engine: Handle,
    pub(super) fleet: Arc<Fleet>,
    /// Where accounts are kept.
    pub(super) folder: PathBuf,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) orders: Orders,
    pub(super) standing: Standing,
}

impl Turn {
    /// Carries it out: minutes, when something is ordered. Not to be dropped in the middle: proofs would stay.
    pub(super) async fn run(mut self) -> Ended {
        let result = self.order().await;
        let now = SystemTime::now();
        let mut standing = Standing::default();
        if let Err(problem) = &result {
            warn!(environment = %self.name, problem, "a certificate could not be renewed; what is served stays");
            (standing.problem, standing.failed_ms) = (problem.clone(), ms(now));
        }
        self.orders.keep(&self.wanted);
        standing.renews_ms = self.orders.plan(&self.wanted, &self.have, now, false).next.map_or(0, ms);
        if let Some(asked) = self.asked.take() {
            let _ = asked.send(result); // Whoever asked may have gone.
        }
        Ended { orders: self.orders, standing }
    }

    /// Orders all that is due; the first problem. One that fails does not keep the others from being ordered.
    async fn order(&mut self) -> Result<(), String> {
        let all = Names::new();
        let account = account(&self.folder, &self.spec).await.map_err(|problem| {
            self.orders.failed(&all, &problem, SystemTime::now());
            problem.to_string()
        })?;
        self.orders.succeeded(&all);
        self.orders.ask_when(&account, &self.have, SystemTime::now()).await;
        let plan = self.orders.plan(&self.wanted, &self.have, SystemTime::now(), self.asked.is_some());
        let (method, prover) = prover(&self.spec.challenge, &self.engine, &self.fleet);
        let mut first_problem = None;
        for (names, replaced) in plan.order {
            let replaces = replaced.as_ref().and_then(|material| material.chain_der.first()).map(Vec::as_slice);
            let issued = account.issue(&names, method, &*prover, replaces).await;
            let taken = match issued {
                Ok(material) => self.take(&names, material).await,
                Err(problem) => Err(problem),
            };
            match taken {
                Ok(()) => self.orders.succeeded(&names),
                Err(problem) => {
                    self.orders.failed(&names, &problem, SystemTime::now());
                    first_problem = first_problem.or(Some(problem.to_string()));
                }
            }
        }
        first_problem.map_or(Ok(()), Err)
    }

    async fn take(&mut self, names: &Names, material: Material) -> Result<(), AcmeError> {
        info!(environment = %self.name, names = names.join(" "), "has a new certificate");
        self.have.retain(|known| known.dns_names != *names && self.wanted.contains(&known.dns_names));
        self.have.push(material);
        self.bring().await
    }

    async fn bring(&self) -> Result<(), AcmeError> {
        let (bringer, have, source) =
            (self.bringer.clone(), self.have.clone(), CertificateSource::Acme(self.spec.clone()));
        let brought = bring(&self.engine, bringer, self.name.clone(), &source, have).await;
        brought.map(drop).map_err(|not| AcmeError::Asked(format!("it was issued, but {not}")))
    }
}

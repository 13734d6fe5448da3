//! An order's life (RFC 8555 §7.1.6): ordered, proved, finalised, fetched, checked; and everything shown is withdrawn.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use api::Host;
use instant_acme::{CertificateIdentifier, Error, Identifier, NewOrder, Order, OrderStatus, RetryPolicy};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::account::{failed, renewal_id, unless_nonce};
use super::authorize::{gather, server, show, tell, wait_until_ready};
use super::error::plain;
use super::http::Failure;
use super::{Account, AcmeError, Method, Problem, Proof, Prover, issued};
use crate::CertsError;
use crate::development::Material;

/// From the order to the certificate.
const WHOLE: Duration = Duration::from_secs(600);
/// Taking back what was shown, all of it.
const WITHDRAWING: Duration = Duration::from_secs(300);
/// Looks soon at first, then ever more rarely; a server that says when to look is followed.
pub(super) const LOOKING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.2).timeout(WHOLE);
impl Account {
    /// Orders a certificate for `names`, proves them all by `method`, and returns it with a fresh P-256 key.
    ///
    /// `names`: DNS names in lower case, `*.` in front for a wildcard, which [`Method::Dns01`] alone proves; one named twice
    /// counts once. `replaces`: the leaf (DER) that this one follows; a server with renewal information is told (RFC 9773
    /// §5), and where it does not take that, the order is made without.
    ///
    /// Proofs are shown one after the other, then the server is asked to look at all of them. Everything shown is withdrawn
    /// before this returns, at most 5 minutes for all of it. Until then at most 10 minutes pass.
    ///
    /// # Errors
    /// Whose side, which name and challenge, and when to come back: see [`AcmeError`].
    ///
    /// # Cancel safety
    /// Not cancel safe: what was shown stays. It has its own deadlines; let it run to its end.
    pub async fn issue(
        &self,
        names: &[String],
        method: Method,
        prover: &dyn Prover,
        replaces: Option<&[u8]>,
    ) -> Result<Material, AcmeError> {
        let names = accepted(names, method)?;
        let mut shown = Vec::new();
        let obtaining = Box::pin(self.obtain(&names, method, prover, replaces, &mut shown));
        let obtained = tokio::time::timeout(WHOLE, obtaining).await;
        let withdrawing = async {
            for proof in &shown {
                prover.withdraw(proof).await;
            }
        };
        if tokio::time::timeout(WITHDRAWING, withdrawing).await.is_err() {
            tracing::warn!(names = %names.join(", "), "not all proofs of a certificate could be withdrawn in time");
        }
        obtained.unwrap_or(Err(AcmeError::TimedOut { doing: "issue a certificate", retry_after: None }))
    }

    async fn obtain(
        &self,
        names: &[String],
        method: Method,
        prover: &dyn Prover,
        replaces: Option<&[u8]>,
        shown: &mut Vec<Proof>,
    ) -> Result<Material, AcmeError> {
        let mut order = self.order(names, replaces.and_then(renewal_id)).await?;
        match order.state().status {
            OrderStatus::Pending => {
                let pending = unless_nonce!(gather(&mut order, names, method).await)?;
                show(&pending, prover, shown).await?;
                let mut told = HashSet::new();
                unless_nonce!(tell(&mut order, method, &mut told).await)?;
                wait_until_ready(&mut order, method).await?;
            }
            // Its names were proved for an earlier order.
            OrderStatus::Ready => {}
            other => return Err(server("take an order", format!("a new order is {other:?} already"))),
        }
        let (key, csr) = request(names)?;
        unless_nonce!(order.finalize_csr(&csr).await.map_err(|error| failed("issue a certificate", &error)))?;
        let pem = unless_nonce!({
            order.poll_certificate(&LOOKING).await.map_err(|error| failed("issue a certificate", &error))
        })?;
        issued::check(names, &pem, key.serialize_der(), SystemTime::now())
    }

    /// A new order; by a new account, once, when the server has forgotten ours.
    async fn order(
        &self,
        names: &[String],
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, AcmeError> {
        let account = self.current().await;
        match self.order_by(&account, names, replaces.clone()).await {
            Err(error) if error.is_refusal("accountDoesNotExist") => {
                let account = self.replace(account.id()).await?;
                self.order_by(&account, names, replaces).await
            }
            done => done,
        }
    }

    async fn order_by(
        &self,
        account: &instant_acme::Account,
        names: &[String],
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, AcmeError> {
        if let Some(asked) = &self.settings.profile {
            let mut offered: Vec<_> = account.profiles().map(|profile| plain(profile.name)).collect();
            if !offered.contains(asked) {
                offered.sort();
                return Err(AcmeError::Profile { asked: asked.clone(), offered });
            }
        }
        let identifiers: Vec<_> = names.iter().cloned().map(Identifier::Dns).collect();
        let new = || {
            let order = NewOrder::new(&identifiers);
            self.settings.profile.iter().fold(order, |order, profile| order.profile(profile))
        };
        if let Some(replaces) = replaces {
            let order = new().replaces(replaces);
            let ordered = unless_nonce!(match account.new_order(&order).await {
                Ok(order) => Ok(Some(order)),
                Err(error) if is_about_replacing(&error) => Ok(None),
                Err(error) => Err(failed("take an order", &error)),
            });
            if let Some(order) = ordered? {
                return Ok(order);
            }
            tracing::info!(names = %names.join(", "), "the ACME server takes no order that replaces the certificate");
        }
        let order = new();
        unless_nonce!(account.new_order(&order).await.map_err(|error| failed("take an order", &error)))
    }
}

/// Whether the same order may be taken when it does not say what it replaces. The server refuses what was replaced already,
/// what another account ordered, and what it does not know (RFC 9773 §5); it does not say so in one way.
fn is_about_replacing(error: &Error) -> bool {
    match error {
        Error::Unsupported(_) => true,
        Error::Other(inner) => match inner.downcast_ref::<Failure>() {
            Some(Failure::Refused { problem: Some(problem), .. }) => {
                let problem = Problem::new(problem);
                !["accountDoesNotExist", "badNonce", "rateLimited", "serverInternal"]
                    .iter()
                    .any(|kind| problem.is(kind))
            }
            Some(_) => false,
            // The library: the order does not say what it replaces, so the server did not take it in.
            None => true,
        },
        _ => false,
    }
}

/// The names of an order, each once.
fn accepted(names: &[String], method: Method) -> Result<Vec<String>, AcmeError> {
    let mut accepted: Vec<String> = Vec::new();
    for name in names {
        let host = name.strip_prefix("*.").unwrap_or(name);
        host.parse::<Host>().map_err(|error| AcmeError::Asked(error.to_string()))?;
        if host.len() < name.len() && method != Method::Dns01 {
            let what = format!("{name} cannot be proved by {method}: a wildcard needs {}", Method::Dns01);
            return Err(AcmeError::Asked(what));
        }
        if !accepted.contains(name) {
            accepted.push(name.clone());
        }
    }
    if accepted.is_empty() {
        return Err(AcmeError::Asked("a certificate needs at least one DNS name".into()));
    }
    Ok(accepted)
}

/// A fresh key and what asks for a certificate of it (RFC 8555 §7.4: the names stand in the extension).
fn request(names: &[String]) -> Result<(KeyPair, Vec<u8>), CertsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?;
    Ok((key, csr.der().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acme_names_are_checked_before_anybody_is_asked() {
        for (names, method, expected) in [
            (&["a.example", "*.a.example", "a.example"][..], Method::Dns01, Ok(2)),
            (&["a.example"], Method::Http01, Ok(1)),
            (&[], Method::Dns01, Err("at least one")),
            (&["*.a.example"], Method::Http01, Err("*.a.example cannot be proved by http-01")),
            (&["*.a.example"], Method::TlsAlpn01, Err("needs dns-01")),
            (&["a.example", "A.example"], Method::Dns01, Err("A.example")),
            (&["*.*.example"], Method::Dns01, Err("*.example")),
            (&["*."], Method::Dns01, Err("a DNS name")),
            (&["127.0.0.1"], Method::Http01, Err("127.0.0.1")),
        ] {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            match (accepted(&names, method), expected) {
                (Ok(accepted), Ok(count)) => assert_eq!(accepted.len(), count, "{names:?}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{names:?}: {error}"),
                (found, _) => panic!("{names:?}: {found:?}"),
            }
        }
    }
}

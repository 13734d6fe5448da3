//! What calls: applications, and by what each is known.
//!
//! Must not know: tokens, policies.
//!
//! Main types: [`Applications`], [`Application`].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use api::{Digest, fleet};
use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::fault::Fault;
use super::{User, api_key};
use crate::Problem;

/// An application that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Its name.
    pub name: Arc<str>,
    /// Groups that it was put into, each once, in order.
    pub groups: Vec<Arc<str>>,
}

type Table<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// All applications, compiled.
#[derive(Default)]
pub struct Applications {
    by_key: Table<Digest, Key>,
    /// By URI as it is written, or DNS name in lower case.
    by_certificate: Table<String, Arc<Application>>,
    /// By the issuer's name, then by client.
    by_client: Table<String, Table<String, Arc<Application>>>,
}

struct Key {
    sha256: Digest,
    /// The first second in which it does not count any more.
    until_s: Option<u64>,
    application: Arc<Application>,
}

// === impl Applications ===

impl Applications {
    /// Reads what the contract says, by name.
    ///
    /// # Errors
    /// Everything that is wrong, such as a certificate that would stand for two applications.
    pub fn new<'a>(
        applications: impl Iterator<Item = (&'a str, &'a fleet::Application)>,
    ) -> Result<Self, Vec<Problem>> {
        let mut all = Self::default();
        let mut problems = Vec::new();
        for (name, written) in applications {
            let mut groups: Vec<Arc<str>> = written.groups.iter().map(|group| group.as_str().into()).collect();
            groups.sort_unstable();
            groups.dedup();
            let application = Arc::new(Application { name: name.into(), groups });
            let mut wrong = |message: String| {
                problems.push(Problem { place: format!("application {name}"), line: 0, column: 0, message });
            };
            if written.groups.iter().any(String::is_empty) {
                wrong("one of its groups has no name".to_owned());
            }
            all.add_keys(&application, &written.keys, &mut wrong);
            all.add_certificates(&application, &written.certificates, &mut wrong);
            all.add_clients(&application, &written.clients, &mut wrong);
        }
        if problems.is_empty() { Ok(all) } else { Err(problems) }
    }

    fn add_keys(&mut self, application: &Arc<Application>, keys: &[fleet::ApiKey], wrong: &mut impl FnMut(String)) {
        for key in keys {
            let Ok(sha256) = <[u8; 32]>::try_from(&*key.sha256).map(Digest::from_bytes) else {
                wrong(format!("a key's SHA-256 has {} bytes in place of 32", key.sha256.len()));
                continue;
            };
            let until_s = (key.until_ms != 0).then(|| key.until_ms.div_ceil(1000));
            let known = Key { sha256, until_s, application: Arc::clone(application) };
            if let Some(other) = self.by_key.insert(sha256, known) {
                wrong(format!("one of its keys stands twice, first at {}", other.application.name));
            }
        }
    }

    fn add_certificates(&mut self, application: &Arc<Application>, names: &[String], wrong: &mut impl FnMut(String)) {
        for name in names {
            if name.is_empty() {
                wrong("one of its certificates has no name: a URI or a DNS name is one".to_owned());
            } else if let Some(other) = self.by_certificate.insert(certificate(name), Arc::clone(application)) {
                wrong(format!("the certificate \"{}\" stands for {} already", name.escape_debug(), other.name));
            }
        }
    }

    fn add_clients(
        &mut self,
        application: &Arc<Application>,
        clients: &[fleet::IssuedClient],
        wrong: &mut impl FnMut(String),
    ) {
        for fleet::IssuedClient { issuer, client_id } in clients {
            if issuer.is_empty() || client_id.is_empty() {
                wrong("one of its clients lacks its issuer or its id, such as \"corp=abc\"".to_owned());
                continue;
            }
            let clients = self.by_client.entry(issuer.clone()).or_default();
            if let Some(other) = clients.insert(client_id.clone(), Arc::clone(application)) {
                let (client, other) = (client_id.escape_debug(), &other.name);
                wrong(format!("the client \"{client}\" of {issuer} stands for {other} already"));
            }
        }
    }

    /// The application with that API key, and until when the key counts.
    ///
    /// A key is found by its digest, so neither how long that takes nor how near a guess came can say anything about a key
    /// (hostile h46); the digests are then compared in constant time all the same.
    pub(crate) fn by_key(&self, key: &[u8], now_s: u64) -> Result<(&Arc<Application>, Option<u64>), Fault> {
        let sha256 = api_key::read(key)?;
        let known = self.by_key.get(&sha256).ok_or(Fault::KeyUnknown)?;
        verify_slices_are_equal(known.sha256.as_bytes(), sha256.as_bytes()).map_err(|_| Fault::KeyUnknown)?;
        if known.until_s.is_some_and(|until_s| now_s >= until_s) {
            return Err(Fault::KeyExpired);
        }
        Ok((&known.application, known.until_s))
    }

    /// The application that these names of one certificate stand for, if any.
    pub(crate) fn by_certificate(&self, names: &[String]) -> Result<Option<&Arc<Application>>, Fault> {
        if self.by_certificate.is_empty() {
            return Ok(None);
        }
        let mut found: Option<&Arc<Application>> = None;
        for application in names.iter().filter_map(|name| self.by_certificate.get(&certificate(name))) {
            if found.is_some_and(|other| other.name != application.name) {
                return Err(Fault::CertificateAmbiguous);
            }
            found = Some(application);
        }
        Ok(found)
    }

    /// The application as whose client a user's token was issued, if any.
    pub(crate) fn by_client(&self, user: &User) -> Option<&Arc<Application>> {
        self.by_client.get(&*user.issuer)?.get(user.client.as_deref()?)
    }

    /// Whether a token may say which application calls.
    pub(crate) fn has_clients(&self) -> bool {
        !self.by_client.is_empty()
    }
}

/// A name in a certificate as it is compared: DNS names without case (RFC 4343), URIs byte for byte.
fn certificate(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { name.to_ascii_lowercase() }
}

impl fmt::Debug for Applications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applications")
            .field("keys", &self.by_key.len())
            .field("certificates", &self.by_certificate)
            .field("clients", &self.by_client)
            .finish()
    }
}

#[cfg(test)]
mod tests;

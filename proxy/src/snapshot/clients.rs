//! Which certificates clients may show, each way of it once.
//!
//! Must not know: which hosts ask for them, or what a client has shown.
//!
//! Main type: [`ClientsBoard`], which gives the same [`Clients`] to all who ask for the same.

use std::collections::HashMap;
use std::sync::Arc;

use api::Digest;
use api::fleet::ClientCertificates;
use certs::client::Clients;
use certs::public::Public;
use prost::Message;

use super::check::Problems;

/// Every way that a snapshot may still name.
#[derive(Debug)]
pub(super) struct ClientsBoard {
    public: Arc<Public>,
    /// By the digest of what is asked for: lists of revoked certificates are large.
    known: HashMap<Digest, Arc<Clients>>,
}

impl Default for ClientsBoard {
    fn default() -> Self {
        Self::new(Public::new())
    }
}

impl ClientsBoard {
    pub(super) fn new(public: Arc<Public>) -> Self {
        Self { public, known: HashMap::new() }
    }

    /// What a zone or a stage asks for; `None`: nothing, or it cannot be read, and `problems` says so.
    pub(super) fn of(
        &mut self,
        asked: Option<&ClientCertificates>,
        problems: &mut Problems<'_>,
    ) -> Option<Arc<Clients>> {
        let asked = asked?;
        let key = Digest::of(&asked.encode_to_vec());
        if let Some(known) = self.known.get(&key) {
            return Some(known.clone());
        }
        match Clients::of(asked, &self.public) {
            Ok(clients) => {
                let clients = Arc::new(clients);
                self.known.insert(key, clients.clone());
                Some(clients)
            }
            Err(wrong) => {
                for (field, why) in wrong {
                    problems.add(format!("client_certificates.{field}"), why);
                }
                None
            }
        }
    }

    /// Whether nobody asks for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Forgets what no snapshot and no connection needs any more.
    pub(super) fn prune(&mut self) {
        self.known.retain(|_, clients| Arc::strong_count(clients) > 1);
    }
}

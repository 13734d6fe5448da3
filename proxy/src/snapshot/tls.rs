//! How the endpoints of backends are verified, each way of it once.
//!
//! Must not know: sockets, addresses, or what a handshake led to.
//!
//! Main types: [`Tls`], one way; [`TlsBoard`], which gives the same one to all who ask for the same.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use api::fleet;
use certs::CertsError;
use certs::endpoint::{Application, Authorities, Connector};

use super::Protocol;

/// Whom endpoints must be, who says so, and what they have to speak.
///
/// Compared by its number: equal ones are made once, and no number is given twice. What tells connections apart may
/// hold the number alone.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) id: u64,
    /// Remembers no session: what keeps connections makes one of its own that does.
    pub(crate) connector: Connector,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Tls {}

impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// Every way that a snapshot may still name.
#[derive(Debug, Default)]
pub(super) struct TlsBoard {
    /// Those of this machine, for backends that name none.
    machine: Authorities,
    known: HashMap<(fleet::EndpointTls, Protocol), Arc<Tls>>,
    last_id: u64,
}

impl TlsBoard {
    pub(super) fn new(machine: Authorities) -> Self {
        Self { machine, ..Self::default() }
    }

    /// The way that a backend asks for.
    pub(super) fn of(&mut self, asked: &fleet::EndpointTls, protocol: Protocol) -> Result<Arc<Tls>, CertsError> {
        let key = (asked.clone(), protocol);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let application = match protocol {
            Protocol::Http1 => Application::Http1,
            Protocol::Http2 => Application::Http2,
        };
        let connector = Connector::of(asked, &self.machine, application)?;
        self.last_id += 1;
        let tls = Arc::new(Tls { id: self.last_id, connector });
        self.known.insert(key, tls.clone());
        Ok(tls)
    }

    /// Forgets what no snapshot, no health check and no connection needs any more.
    pub(super) fn prune(&mut self) {
        self.known.retain(|_, tls| Arc::strong_count(tls) > 1);
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;

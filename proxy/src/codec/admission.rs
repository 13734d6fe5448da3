//! Who a client is by the certificate that it showed, and for how long that counts.
//!
//! Must not know: hosts, or handshakes. Main type: [`Admission`], one per connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use certs::client::{Client, Clients};
use rustls::pki_types::UnixTime;

/// See the module. One thread owns it.
#[derive(Debug, Default)]
pub(crate) struct Admission(RefCell<Option<Admitted>>);

/// What a client was asked for, and what it showed.
#[derive(Debug)]
struct Admitted {
    by: Arc<Clients>,
    client: Option<Rc<Client>>,
}

impl Admission {
    /// The client has shown this to those who asked; it was verified.
    pub(super) fn admit(&self, by: Arc<Clients>, client: Option<Client>) {
        self.0.replace(Some(Admitted { by, client: client.map(Rc::new) }));
    }

    /// Who the client is.
    pub(crate) fn client(&self) -> Option<Rc<Client>> {
        self.0.borrow().as_ref()?.client.clone()
    }

    /// Whether the connection may be used for a host that asks for this now: those who are trusted may have changed since
    /// the handshake, or somebody was revoked. What was shown is looked at again then, once.
    pub(crate) fn is_good_for(&self, asked: Option<&Arc<Clients>>) -> bool {
        let mut admitted = self.0.borrow_mut();
        let Some(asked) = asked else {
            // Nobody vouches for it any more.
            *admitted = None;
            return true;
        };
        match admitted.as_mut() {
            Some(admitted) if Arc::ptr_eq(&admitted.by, asked) => true,
            Some(Admitted { by, client: Some(client) }) => match asked.verify(client, UnixTime::now()) {
                Ok(()) => {
                    *by = asked.clone();
                    true
                }
                Err(error) => {
                    let name = client.name();
                    tracing::info!(client = name, %error, "a certificate that was accepted is not any more");
                    false
                }
            },
            // It may never have been asked.
            _ => !asked.is_required(),
        }
    }
}

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
    /// URIs and DNS names in its certificate.
    names: Rc<[String]>,
}

impl Admission {
    /// The client has shown this to those who asked; it was verified.
    pub(crate) fn admit(&self, by: Arc<Clients>, client: Option<Client>) {
        let names = client.as_ref().map(|client| names(client.header()).map(str::to_owned).collect());
        self.0.replace(Some(Admitted { by, client: client.map(Rc::new), names: names.unwrap_or_default() }));
    }

    /// URIs and DNS names in the client's certificate. `None`: it showed none.
    pub(crate) fn names(&self) -> Option<Rc<[String]>> {
        Some(self.0.borrow().as_ref()?.names.clone())
    }

    /// The first second, since the Unix epoch, in which that certificate does not count any more. `None`: it showed none.
    pub(crate) fn until_s(&self) -> Option<u64> {
        Some(self.0.borrow().as_ref()?.client.as_ref()?.until_s())
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
            Some(Admitted { by, client: Some(client), .. }) => match asked.verify(client, UnixTime::now()) {
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

/// The names in what is told of a certificate: `Hash=...;Subject="...";URI=...;DNS=...`. Within quotes there is no other quote,
/// and a value without them holds neither `,` nor `;` nor `=`.
fn names(told: &str) -> impl Iterator<Item = &str> {
    let mut rest = told;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (name, behind) = rest.split_once('=')?;
            let (value, after) = match behind.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => behind.split_at(behind.find(';').unwrap_or(behind.len())),
            };
            rest = after.strip_prefix(';').unwrap_or_default();
            if matches!(name, "URI" | "DNS") {
                return Some(value);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_of_a_certificate_are_its_own_and_not_what_its_subject_says() {
        for (told, expected) in [
            ("Hash=ab;Subject=\"CN=a\"", &[][..]),
            ("Hash=ab;Subject=\"CN=x\";URI=spiffe://a/b;DNS=c.example;DNS=d", &["spiffe://a/b", "c.example", "d"][..]),
            ("Hash=ab;Subject=\"O=;URI=spiffe://evil;DNS=evil\";DNS=a", &["a"][..]),
            ("Hash=ab;Subject=\"\";URI=\"https://a/?b=c;DNS=evil\";DNS=d", &["https://a/?b=c;DNS=evil", "d"][..]),
        ] {
            assert_eq!(super::names(told).collect::<Vec<_>>(), expected, "{told}");
        }
    }
}

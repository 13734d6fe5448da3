//! How to shake hands with a client, by what it says first; and why hands were not shaken.
//!
//! Must not know: sockets, or what becomes of the connection. It decides on the name and the protocols of a ClientHello.
//!
//! Main types: [`Way`], and [`Unshaken`], a label of metrics.

use std::sync::Arc;

use certs::client::Clients;
use certs::public::PROOF_PROTOCOL;
use rustls::{CertificateError, ServerConfig};

use crate::route;
use crate::snapshot::Snapshot;
use crate::totals::Unshaken;

/// How to shake hands.
#[derive(Debug)]
pub(crate) enum Way {
    /// As with everybody.
    Common,
    /// Asking for a certificate.
    Asking(Arc<Clients>),
    /// To show that a host is ours; nothing else is said on such a connection.
    Proof(Arc<ServerConfig>),
}

/// The way for a name, as the client wrote it, and the protocols that it offers.
pub(crate) fn choose<'a>(
    snapshot: &Snapshot,
    name: Option<&str>,
    protocols: Option<impl Iterator<Item = &'a [u8]>>,
) -> Way {
    let Some(name) = name else { return Way::Common };
    // Allocates once per connection.
    let name = name.to_ascii_lowercase();
    let only = protocols.and_then(|mut protocols| protocols.next().filter(|_| protocols.next().is_none()));
    if only == Some(PROOF_PROTOCOL)
        && let Some(config) = snapshot.challenges.handshake(&name)
    {
        return Way::Proof(config.clone());
    }
    // Counts on a line that workers share: only where certificates are asked for.
    route::clients(snapshot, &name).map_or(Way::Common, |clients| Way::Asking(clients.clone()))
}

/// Why a handshake was refused by us; `None`: the client ended it, or the connection broke.
pub(crate) fn reason(error: &std::io::Error) -> Option<Unshaken> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::AlertReceived(_) => return None,
        rustls::Error::NoCertificatesPresented => Unshaken::NoneShown,
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::InvalidCertRevocationList(_) => Unshaken::RevocationUnknown,
        rustls::Error::NoApplicationProtocol => Unshaken::Protocol,
        rustls::Error::PeerIncompatible(_) => Unshaken::Incompatible,
        _ => Unshaken::Broken,
    })
}

/// Why a certificate that a client showed was refused.
pub(crate) fn of_certificate(error: &CertificateError) -> Unshaken {
    use CertificateError::*;
    match error {
        Expired | ExpiredContext { .. } => Unshaken::Expired,
        NotValidYet | NotValidYetContext { .. } => Unshaken::NotYetValid,
        Revoked => Unshaken::Revoked,
        UnknownRevocationStatus | ExpiredRevocationList | ExpiredRevocationListContext { .. } => {
            Unshaken::RevocationUnknown
        }
        UnknownIssuer => Unshaken::UnknownIssuer,
        InvalidPurpose | InvalidPurposeContext { .. } => Unshaken::NotForClients,
        BadEncoding => Unshaken::Unreadable,
        _ => Unshaken::Certificate,
    }
}

#[cfg(test)]
mod tests {
    use api::fleet::{Challenge, ClientCertificates, Resource, Stage, Zone, challenge};

    use super::*;
    use crate::snapshot::fixture;

    fn asking() -> Option<ClientCertificates> {
        let ca = rcgen::generate_simple_self_signed(vec!["ca".into()]).expect("a certificate");
        Some(ClientCertificates { ca_der: vec![ca.cert.der().to_vec()], ..ClientCertificates::default() })
    }

    fn proof(host: &str, kind: challenge::Kind) -> Resource {
        let (token, key_authorization) = ("abc".into(), "abc.def".into());
        let body = Challenge { kind: kind.into(), host: host.into(), token, key_authorization };
        fixture::resource("challenge", &format!("x/{host}"), &body)
    }

    #[test]
    fn a_zone_asks_for_all_its_hosts_and_a_stage_for_its_own() {
        certs::install_provider();
        let zone = |domain: &str, client_certificates| {
            let body = Zone { environment: "staging".into(), domain: domain.into(), client_certificates, https: None };
            fixture::resource("zone", domain, &body)
        };
        let stage = |service: &str, client_certificates| {
            let (service, environment) = (service.to_owned(), "staging".to_owned());
            let name = format!("{service}/{environment}");
            fixture::resource("stage", &name, &Stage { service, environment, client_certificates, ..Stage::default() })
        };
        let snapshot = fixture::snapshot(&[
            zone("asks.example", asking()),
            zone("open.example", None),
            stage("plain", None),
            stage("own", asking()),
            proof("own.asks.example", challenge::Kind::TlsAlpn01),
            proof("b.example", challenge::Kind::TlsAlpn01),
            proof("a.example", challenge::Kind::Http01),
        ]);
        let [of_zone, of_stage] = ["plain.asks.example", "own.asks.example"].map(|host| {
            let Way::Asking(clients) = choose(&snapshot, Some(host), None::<std::iter::Empty<_>>) else {
                panic!("{host}")
            };
            clients
        });
        assert!(!Arc::ptr_eq(&of_zone, &of_stage));
        let (http, acme) = (&["h2", "http/1.1"][..], &["acme-tls/1"][..]);
        for (name, protocols, expected) in [
            (Some("plain.asks.example"), http, "zone"),
            (Some("PLAIN.Asks.example"), http, "zone"),
            (Some("unknown.asks.example"), http, "zone"),
            (Some("r7--unknown.asks.example"), http, "zone"),
            (Some("own.asks.example"), http, "stage"),
            (Some("r7--own.asks.example"), http, "stage"),
            (Some("own.open.example"), http, "stage"),
            (Some("r7--own.open.example"), &[], "stage"),
            (Some("x--own.asks.example"), http, "zone"),
            (Some("plain.open.example"), http, "common"),
            (Some("unknown.open.example"), http, "common"),
            (Some("plain.unknown.example"), http, "common"),
            (Some("asks.example"), http, "common"),
            (Some(""), http, "common"),
            (None, http, "common"),
            (None, acme, "common"),
            (Some("own.asks.example"), acme, "proof"),
            (Some("OWN.asks.example"), acme, "proof"),
            (Some("b.example"), acme, "proof"),
            (Some("a.example"), acme, "common"),
            (Some("c.example"), acme, "common"),
            (Some("plain.asks.example"), acme, "zone"),
            (Some("b.example"), &["acme-tls/1", "h2"], "common"),
            (Some("b.example"), &["h2", "acme-tls/1"], "common"),
            (Some("b.example"), &[], "common"),
        ] {
            let offered = (!protocols.is_empty()).then(|| protocols.iter().map(|name| name.as_bytes()));
            let chosen = match choose(&snapshot, name, offered) {
                Way::Common => "common",
                Way::Asking(clients) if Arc::ptr_eq(&clients, &of_zone) => "zone",
                Way::Asking(clients) if Arc::ptr_eq(&clients, &of_stage) => "stage",
                Way::Asking(_) => "another",
                Way::Proof(_) => "proof",
            };
            assert_eq!(chosen, expected, "{name:?} {protocols:?}");
        }
    }

    #[test]
    fn hostile_h80_challenges_and_clients_that_are_none_are_refused_with_their_place() {
        certs::install_provider();
        let kind = challenge::Kind::Http01;
        let bad = |change: fn(&mut Challenge)| {
            let (host, token, key_authorization) = ("a.example".to_owned(), "abc".into(), "abc.def".into());
            let mut body = Challenge { kind: kind.into(), host, token, key_authorization };
            change(&mut body);
            fixture::resource("challenge", "http-01/a.example", &body)
        };
        let clients = |ca: &[u8]| {
            let client_certificates = Some(ClientCertificates { ca_der: vec![ca.to_vec()], ..Default::default() });
            let body = Zone { environment: "a".into(), domain: "a.example".into(), client_certificates, https: None };
            fixture::resource("zone", "a.example", &body)
        };
        let of_stage = Stage {
            service: "hello".into(),
            environment: "a".into(),
            client_certificates: Some(ClientCertificates { ca_der: vec![Vec::new(); 65], ..Default::default() }),
            ..Stage::default()
        };
        for (resource, field) in [
            (bad(|body| body.host = "b.example".into()), "name"),
            (bad(|body| body.host = "a_b/..".into()), "host"),
            (bad(|body| body.token = "../x".into()), "token"),
            (bad(|body| body.token = String::new()), "token"),
            (bad(|body| body.token = "x".repeat(257)), "token"),
            (bad(|body| body.key_authorization = "a\r\nb: c".into()), "key_authorization"),
            (bad(|body| body.key_authorization = String::new()), "key_authorization"),
            (bad(|body| body.kind = 7), "kind"),
            (clients(b"x"), "client_certificates.ca_der[0]"),
            (fixture::resource("stage", "hello/a", &of_stage), "client_certificates.ca_der"),
        ] {
            let mut compiler = crate::snapshot::Compiler::default();
            let refused = compiler.apply(fixture::full(api::Version::first_of(1), &[resource])).expect_err("refused");
            assert!(refused.iter().any(|one| one.field == field), "{field}: {refused:?}");
        }
        let mut compiler = crate::snapshot::Compiler::default();
        let many: Vec<_> = (0..1_001).map(|number| proof(&format!("h{number}.example"), kind)).collect();
        let refused = compiler.apply(fixture::full(api::Version::first_of(1), &many)).expect_err("refused");
        assert!(refused[0].reason.contains("at most 1000"), "{refused:?}");
    }
}

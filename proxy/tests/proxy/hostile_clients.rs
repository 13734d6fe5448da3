//! Row h61: client certificates that are wrong in every way, each refused with the alert that says so, and counted by its
//! reason.

use std::time::{Duration, SystemTime};

use api::fleet::{ClientCertificates, Protocol};
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, NameConstraints, SanType};

use crate::client_certificates::{Asking, Ca, Shown, VERSIONS, refused};
use crate::site::is_as_before;
use crate::support::{HOST, Upstream, hello};

const HOUR: Duration = Duration::from_secs(3_600);

/// One that is certified by an authority below the one that is trusted, and shows both.
fn below(ca: &Ca, change: impl FnOnce(&mut rcgen::CertificateParams), leaf: &[SanType]) -> Shown {
    let between = ca.below(change);
    let mut shown = between.certify(|params| params.subject_alt_names = leaf.to_vec());
    shown.chain.push(between.der.into());
    shown
}

/// A chain with so many authorities.
fn long(ca: &Ca, length: usize) -> Shown {
    let mut authorities = vec![ca.below(|_| {})];
    while authorities.len() < length {
        let next = authorities.last().expect("one").below(|_| {});
        authorities.push(next);
    }
    let mut shown = authorities.last().expect("one").client();
    shown.chain.extend(authorities.into_iter().rev().map(|one| one.der.into()));
    shown
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().expect("ASCII"))
}

fn cases(ca: &Ca, other: &Ca) -> Vec<(&'static str, Option<Shown>, &'static str, &'static str)> {
    let now = SystemTime::now();
    let constrained = |params: &mut rcgen::CertificateParams| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("allowed.example".into())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    };
    let not_text = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0x03, 0x82, 0x01, 0xff]);
    vec![
        ("none", None, "CertificateRequired", "none_shown"),
        ("expired", Some(ca.certify(|p| p.not_after = (now - HOUR / 2).into())), "CertificateExpired", "expired"),
        ("early", Some(ca.certify(|p| p.not_before = (now + HOUR / 2).into())), "CertificateExpired", "not_yet_valid"),
        ("another authority's", Some(other.client()), "UnknownCA", "unknown_issuer"),
        ("an authority's of the same name", Some(ca.double().client()), "DecryptError", "certificate"),
        (
            "beyond its constraints",
            Some(below(ca, constrained, &[dns("a.example")])),
            "CertificateUnknown",
            "certificate",
        ),
        (
            "for servers",
            Some(ca.certify(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
            "UnsupportedCertificate",
            "not_for_clients",
        ),
        (
            "NUL in a name",
            Some(ca.certify(|p| p.subject_alt_names = vec![dns("a.example\0.b.example")])),
            "BadCertificate",
            "unreadable",
        ),
        (
            "a field in a name",
            Some(ca.certify(|p| p.subject_alt_names = vec![uri("spiffe://a/b\";URI=spiffe://a/c")])),
            "BadCertificate",
            "unreadable",
        ),
        (
            "no text in a name",
            Some(ca.certify(|p| {
                p.subject_alt_names.clear();
                p.custom_extensions.push(not_text);
            })),
            "BadCertificate",
            "unreadable",
        ),
        ("a chain of 20", Some(long(ca, 20)), "CertificateUnknown", "certificate"),
        ("revoked", Some(ca.certify(|p| p.serial_number = Some(666_u64.into()))), "CertificateRevoked", "revoked"),
        (
            "of an authority without a list",
            Some(below(ca, |_| {}, &[dns("a.example")])),
            "UnknownCA",
            "revocation_unknown",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h61_certificates_of_clients_are_refused_with_the_alert_that_says_why() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let asking = Asking::start(folder.path()).await;
    let (ca, other) = (Ca::new(), Ca::new());
    let state = || hello(Protocol::H1, &[(1, upstream.address, 1)]);
    let listed = ClientCertificates { crl_der: vec![ca.list(&[666], SystemTime::now() - HOUR / 2)], ..ca.asks(true) };
    let good = ca.client();
    for version in VERSIONS {
        for (what, shown, alert, reason) in cases(&ca, &other) {
            // With a list all of a chain needs one: only where it is about lists.
            let about_lists = matches!(reason, "revoked" | "revocation_unknown");
            asking.apply(state(), Some(if about_lists { listed.clone() } else { ca.asks(true) }), None);
            let before = asking.refused(reason).await;
            let error = asking.asks(shown.as_ref(), version, HOST).await.expect_err(what);
            assert!(error.to_string().contains(alert), "{what}, {version:?}: {error}");
            refused(&asking.proxy, reason, before + 1).await;
            assert!(asking.asks(Some(&good), version, HOST).await.is_ok(), "after {what}");
        }
        // Within its constraints, and a chain of five, are fine.
        asking.apply(state(), Some(ca.asks(true)), None);
        assert!(asking.asks(Some(&long(&ca, 4)), version, HOST).await.is_ok());
    }
    asking.apply(state(), None, None);
    is_as_before(&asking.proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h61_lists_that_are_expired_forged_or_garbage_let_nobody_in() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let asking = Asking::start(folder.path()).await;
    let (ca, other) = (Ca::new(), Ca::new());
    let shown = ca.client();
    let state = || hello(Protocol::H1, &[(1, upstream.address, 1)]);
    let now = SystemTime::now();
    let asks = |list: Vec<u8>| ClientCertificates { crl_der: vec![list], ..ca.asks(true) };
    let mut forged = ca.list(&[], now - HOUR / 2);
    *forged.last_mut().expect("a signature") ^= 1;
    for version in VERSIONS {
        for (what, list, alert) in [
            ("expired", ca.list(&[], now - 2 * HOUR), "UnknownCA"),
            ("another authority's", other.list(&[], now - HOUR / 2), "UnknownCA"),
            ("forged", forged.clone(), "HandshakeFailure"),
        ] {
            asking.apply(state(), Some(asks(list)), None);
            let before = asking.refused("revocation_unknown").await;
            let error = asking.asks(Some(&shown), version, HOST).await.expect_err(what);
            assert!(error.to_string().contains(alert), "{what}, {version:?}: {error}");
            refused(&asking.proxy, "revocation_unknown", before + 1).await;
        }
        asking.apply(state(), Some(asks(ca.list(&[], now - HOUR / 2))), None);
        assert!(asking.asks(Some(&shown), version, HOST).await.is_ok());
        // Without authorities, as when the list that should be there is not: nobody, with a certificate or without.
        asking.apply(state(), Some(ClientCertificates::default()), None);
        for (shown, alert, reason) in
            [(Some(&shown), "UnknownCA", "unknown_issuer"), (None, "CertificateRequired", "none_shown")]
        {
            let before = asking.refused(reason).await;
            let error = asking.asks(shown, version, HOST).await.expect_err("nobody is let in");
            assert!(error.to_string().contains(alert), "{version:?}: {error}");
            refused(&asking.proxy, reason, before + 1).await;
        }
    }
    asking.apply(state(), None, None);
    is_as_before(&asking.proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h61_the_log_says_who_was_refused_and_why() {
    crate::log::listen();
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let asking = Asking::start(folder.path()).await;
    let ca = Ca::new();
    let state = || hello(Protocol::H1, &[(1, upstream.address, 1)]);
    asking.apply(state(), Some(ca.asks(true)), None);
    // At most a line a second: the first, of many at once.
    let host = "logged.staging.example.com";
    let late = ca.certify(|params| params.not_after = (SystemTime::now() - HOUR / 2).into());
    for _ in 0..3 {
        assert!(asking.asks(Some(&late), VERSIONS[0], host).await.is_err());
    }
    crate::log::says(&["INFO", "the certificate of a client was refused", host, "expired", "127.0.0.1"]).await;
    // What was accepted and is not any more.
    let shown = ca.certify(|params| params.subject_alt_names = vec![uri("spiffe://example.com/logged")]);
    let mut open = asking.shake(Some(&shown), VERSIONS[0], (host, "http/1.1")).await.expect("shaken");
    let listed = ClientCertificates { crl_der: vec![ca.list(&[7], SystemTime::now() - HOUR / 2)], ..ca.asks(true) };
    asking.apply(state(), Some(listed), None);
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut open, request.as_bytes()).await.expect("sent");
    crate::log::says(&["INFO", "is not any more", "spiffe://example.com/logged", "Revoked"]).await;
    drop(open);
    asking.apply(state(), None, None);
    is_as_before(&asking.proxy, upstream.address).await;
}

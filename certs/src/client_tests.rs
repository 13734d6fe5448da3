use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::CertificateError;

use super::*;

fn read(change: impl FnOnce(&mut CertificateParams)) -> Option<Client> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("signed");
    Client::read(std::slice::from_ref(certificate.der()))
}

fn names(params: &mut CertificateParams, uris: &[&str], dns: &[&str]) {
    let uri = |uri: &&str| SanType::URI((*uri).try_into().expect("ASCII"));
    let dns_name = |name: &&str| SanType::DnsName((*name).try_into().expect("ASCII"));
    params.subject_alt_names = uris.iter().map(uri).chain(dns.iter().map(dns_name)).collect();
}

/// What is told behind the hash.
fn told(client: &Client) -> &str {
    let (hash, rest) = client.header().split_once(';').expect("more");
    let digits = hash.strip_prefix("Hash=").expect("a hash");
    assert!(digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    rest
}

#[test]
fn a_client_is_told_as_envoy_does() {
    let client = read(|params| {
        params.distinguished_name.push(DnType::CountryName, "AU");
        params.distinguished_name.push(DnType::OrganizationName, "A \"B\", C;D=E\\");
        params.distinguished_name.push(DnType::CommonName, " hello\n\u{fc} ");
        names(params, &["spiffe://example.com/a"], &["a.example.com", "b.example.com"]);
    });
    let client = client.expect("readable");
    assert_eq!(
        told(&client),
        "Subject=\"CN=\\20hello\\0A\\C3\\BC\\20,O=A \\22B\\22\\2C C\\3BD\\3DE\\5C,C=AU\";URI=spiffe://example.com/a;\
         DNS=a.example.com;DNS=b.example.com"
    );
    assert_eq!((client.spiffe_id(), client.name()), (Some("spiffe://example.com/a"), "spiffe://example.com/a"));
}

#[test]
fn a_spiffe_id_is_the_only_uri() {
    for (uris, id) in [
        (&["spiffe://a/b"][..], Some("spiffe://a/b")),
        (&["spiffe://a/b", "spiffe://a/c"], None),
        (&["spiffe://a/b", "https://a/"], None),
        (&["https://a/"], None),
        (&[], None),
    ] {
        let client = read(|params| names(params, uris, &[])).expect("readable");
        assert_eq!(client.spiffe_id(), id, "{uris:?}");
        assert_eq!(client.header().matches("URI=").count(), uris.len());
    }
    let client = read(|params| names(params, &["https://a/?x=1,2;3"], &[])).expect("readable");
    assert_eq!(told(&client), "Subject=\"\";URI=\"https://a/?x=1,2;3\"");
}

#[test]
fn hostile_h61_names_that_are_none_have_no_reading() {
    for dns in
        ["a\0.example.com", "a.example.com;URI=spiffe://a/b", "a,b", "a=b", "a\"b", "a b", "a\\b", "", "a\r\nb: c"]
    {
        assert!(read(|params| names(params, &[], &[dns])).is_none(), "{dns:?}");
    }
    for uri in ["spiffe://a/b\0", "spiffe://a/\"", "spiffe://a/ b", "", "spiffe://a/\\"] {
        assert!(read(|params| names(params, &[uri], &[])).is_none(), "{uri:?}");
    }
    // Bytes that are no text, and more than goes along with a request.
    let not_text = [0x30, 0x03, 0x82, 0x01, 0xff];
    let san = |content: &[u8]| CustomExtension::from_oid_content(&[2, 5, 29, 17], content.to_vec());
    assert!(read(|params| params.custom_extensions.push(san(&not_text))).is_none());
    let long = "a".repeat(HEADER_BYTES);
    assert!(read(|params| names(params, &[], &[&long])).is_none());
    assert!(Client::read(&[]).is_none() && Client::read(&[CertificateDer::from(vec![0x30; 9])]).is_none());
}

fn authority() -> (Vec<u8>, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::KeyCertSign];
    // Lists are told apart by the names of those who made them.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    params.distinguished_name.push(DnType::CommonName, format!("authority {}", NUMBER.fetch_add(1, Relaxed)));
    let der = params.self_signed(&key).expect("signed").der().to_vec();
    (der, Issuer::new(params, key))
}

fn list(issuer: &Issuer<'static, KeyPair>, revoked: &[u64]) -> Vec<u8> {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: rcgen::date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2040, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).expect("signed").der().to_vec()
}

#[test]
fn hostile_h61_authorities_and_lists_that_are_none_are_refused_with_their_place() {
    crate::install_provider();
    let public = Public::new();
    let (ca, issuer) = authority();
    let crl = list(&issuer, &[]);
    let (_, other) = authority();
    let cut = crl[..crl.len() - 1].to_vec();
    let one = |der: &[u8]| vec![der.to_vec()];
    for (ca_der, crl_der, expected) in [
        (one(&ca), vec![], &[][..]),
        (vec![ca.clone(); MOST], vec![crl.clone(), list(&other, &[])], &[]),
        (vec![], vec![], &[]),
        (vec![ca.clone(); MOST + 1], vec![], &["ca_der"]),
        (vec![ca.clone(), b"x".to_vec(), vec![]], vec![], &["ca_der[1]", "ca_der[2]"]),
        (one(&ca), vec![crl.clone(), cut, ca.clone(), vec![]], &["crl_der[1]", "crl_der[2]", "crl_der[3]"]),
        (one(&ca), vec![crl; MOST + 1], &["crl_der"]),
        (one(&ca), vec![vec![0x30; CRL_BYTES / 2 + 1]; 2], &["crl_der"]),
        (one(&ca), one(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), &["crl_der[0]"]),
    ] {
        let asked = ClientCertificates { ca_der, crl_der, required: true };
        let wrong = Clients::of(&asked, &public).map(drop).err().unwrap_or_default();
        let first = wrong.first().map(|(field, why)| format!("{field} {why}"));
        assert_eq!(check(&asked).err(), first, "a controller sees the same");
        let fields: Vec<&str> = wrong.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, expected, "{wrong:?}");
    }
}

#[test]
fn hostile_h61_without_an_authority_everybody_is_asked_and_nobody_is_let_in() {
    crate::install_provider();
    let asked = ClientCertificates::default();
    check(&asked).expect("accepted");
    let clients = Clients::of(&asked, &Public::new()).expect("accepted");
    assert!(clients.is_required() && clients.verifier.offer_client_auth() && clients.verifier.client_auth_mandatory());
    let client = read(|params| names(params, &["spiffe://a/b"], &[])).expect("readable");
    assert_eq!(
        clients.verify(&client, UnixTime::now()).expect_err("refused"),
        Error::InvalidCertificate(CertificateError::UnknownIssuer)
    );
}

#[test]
fn hostile_h61_a_second_list_of_an_issuer_is_refused_because_nobody_would_look_into_it() {
    crate::install_provider();
    let (ca, issuer) = authority();
    let (_, other) = authority();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(7));
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let shown = params.signed_by(&key, &issuer).expect("signed");
    let client = Client::read(std::slice::from_ref(shown.der())).expect("readable");
    let asks = |crl_der| ClientCertificates { ca_der: vec![ca.clone()], crl_der, required: true };
    let revoked = Error::InvalidCertificate(CertificateError::Revoked);
    for (lists, expected) in
        [(vec![list(&issuer, &[])], Ok(())), (vec![list(&other, &[]), list(&issuer, &[7])], Err(revoked))]
    {
        let clients = Clients::of(&asks(lists), &Public::new()).expect("accepted");
        assert_eq!(clients.verify(&client, UnixTime::now()), expected);
    }
    let twice = asks(vec![list(&issuer, &[]), list(&other, &[]), list(&issuer, &[7])]);
    let wrong = Clients::of(&twice, &Public::new()).expect_err("refused");
    let [(field, why)] = &wrong[..] else { panic!("{wrong:?}") };
    assert!(field == "crl_der[2]" && why.contains("the same issuer as crl_der[0]"), "{wrong:?}");
}

#[test]
fn a_client_counts_to_the_last_second_of_its_certificate() {
    let client = read(|params| params.not_after = rcgen::date_time_ymd(2030, 1, 1));
    // 2030-01-01T00:00:00Z is within.
    assert_eq!(client.expect("readable").until_s(), 1_893_456_001);
}

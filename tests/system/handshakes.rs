//! Handshakes with proxies that a controller leads: sessions that resume anywhere, and clients that show certificates.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::{HOST, House, until};

fn roots(house: &House) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(house.authority().as_bytes()).expect("a certificate")).expect("usable");
    roots
}

/// One request on a connection of its own: how the handshake went, and the answer's status.
async fn asks(config: &Arc<ClientConfig>, at: SocketAddr, host: &str) -> Result<(HandshakeKind, String), String> {
    let tcp = TcpStream::connect(at).await.expect("connected");
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let told = |error: std::io::Error| error.to_string();
    let mut stream = TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(told)?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(told)?;
    let kind = stream.get_ref().1.handshake_kind().expect("it is over");
    Ok((kind, answer.lines().next().unwrap_or_default().to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumption_works_on_another_proxy_than_the_first() {
    let mut house = House::with_hello().await;
    let _upstreams = house.two_releases().await;
    let (first, second) = (house.proxy("p1", 2).await, house.proxy("p2", 2).await);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = ClientConfig::builder_with_protocol_versions(&[version]);
        let config = Arc::new(config.with_root_certificates(roots(&house)).with_no_client_auth());
        let (kind, answer) = asks(&config, first.https, HOST).await.expect("answered");
        assert_eq!((kind, answer.as_str()), (HandshakeKind::Full, "HTTP/1.1 200 OK"), "{version:?}");
        for proxy in [second, first, second] {
            let (kind, answer) = asks(&config, proxy.https, HOST).await.expect("answered");
            assert_eq!((kind, answer.as_str()), (HandshakeKind::Resumed, "HTTP/1.1 200 OK"), "{version:?}");
        }
        // A controller and proxies that start again forget none of it.
        house.stop_controller().await;
        house.kill("p2");
        house.start("p2").await;
        until("it serves", async || asks(&config, second.https, HOST).await.ok()).await;
        let (kind, _) = asks(&config, second.https, HOST).await.expect("answered");
        assert_eq!(kind, HandshakeKind::Resumed, "{version:?}");
        house.start_controller(&[]).await;
        house.follows("p2").await;
        let (kind, _) = asks(&config, second.https, HOST).await.expect("answered");
        assert_eq!(kind, HandshakeKind::Resumed, "{version:?}");
    }
}

/// An authority for clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, "applications");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Key and certificate of an application.
    fn issue(&self, name: &str, serial: u64) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let id = format!("spiffe://example.com/{name}");
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().expect("a URI"))];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
    }

    /// Who is revoked, PEM.
    fn list(&self, number: u64, revoked: &[u64]) -> String {
        let now = time::OffsetDateTime::now_utc();
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now - time::Duration::hours(1),
            next_update: now + time::Duration::days(1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("signed").pem().expect("PEM")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_clients_are_asked_for_told_and_revoked() {
    let mut house = House::with_hello().await;
    let (upstream, _) = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    let authority = Authority::new();
    let list = house.path("revoked.pem");
    let environment = format!(
        "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\ntarget = {{ kind = \"static\" }}\n\
         [client_certificates]\nca = \"\"\"\n{}\"\"\"\ncrl_file = {:?}\n",
        authority.pem,
        list.display().to_string()
    );
    // Without its list nobody could say who is revoked: it is not taken.
    std::fs::write(house.path("production.toml"), &environment).expect("written");
    let refused = house.run(&["apply", "-f", "production.toml"]).await.ends(1);
    assert!(refused.err.contains("`crl_file`") && refused.err.contains("revoked.pem"), "{refused:?}");
    std::fs::write(&list, authority.list(1, &[])).expect("written");
    house.apply(&[("production.toml", &environment)]).await;

    let anonymous = ClientConfig::builder().with_root_certificates(roots(&house)).with_no_client_auth();
    let anonymous = Arc::new(anonymous);
    let shows = |(chain, key)| {
        let config = ClientConfig::builder().with_root_certificates(roots(&house));
        Arc::new(config.with_client_auth_cert(chain, key).expect("usable"))
    };
    let (good, bad) = (shows(authority.issue("shop", 7)), shows(authority.issue("old", 8)));
    until("it is asked for", async || asks(&anonymous, proxy.https, HOST).await.err()).await;
    // Hosts that lead nowhere ask as well: nobody can tell one from the other.
    let unknown = "nobody.production.localhost";
    asks(&anonymous, proxy.https, unknown).await.expect_err("it has none");
    for config in [&good, &bad] {
        let (kind, answer) = asks(config, proxy.https, HOST).await.expect("answered");
        assert_eq!((kind, answer.as_str()), (HandshakeKind::Full, "HTTP/1.1 200 OK"), "and it never resumes");
    }
    assert!(asks(&good, proxy.https, unknown).await.expect("answered").1.contains("404"));
    let seen = upstream.heads();
    let told = seen.last().expect("asked").get("x-forwarded-client-cert").expect("told").to_str().expect("text");
    assert!(told.contains("URI=spiffe://example.com/old") && told.contains("Subject=\"CN=old\""), "{told}");

    // One is revoked: from the next handshake on, without anybody's doing.
    std::fs::write(&list, authority.list(2, &[8])).expect("written");
    until("it is refused", async || asks(&bad, proxy.https, HOST).await.err()).await;
    asks(&good, proxy.https, HOST).await.expect("the other one goes on");
    // A list that is none changes nothing, and is told.
    std::fs::write(&list, "nonsense").expect("written");
    until("it is told", async || {
        house.run(&["status"]).await.out.contains("the lists of revoked certificates").then_some(())
    })
    .await;
    asks(&bad, proxy.https, HOST).await.expect_err("it is still revoked");
    asks(&good, proxy.https, HOST).await.expect("and the other one is not");
}

//! Clients that show who they are: whom a proxy asks, whom it lets in, and what a service is told of them.
//!
//! Main types: [`Ca`], who certifies clients; [`Shown`], a certificate with its chain; [`Asking`], a proxy that asks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use api::fleet::{ClientCertificates, Protocol, Resource, ResourceSet, Stage, Zone};
use certs::development::DevelopmentCa;
use prost::Message;
use proxy::LogTarget;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::recorder::{OK, Recorder, fields};
use crate::support::{Client, HOST, TestProxy, Upstream, endpoints, hello, resource, settings, stage, until, weights};
use crate::tls::{certificate, roots_of};
use crate::wire::{PATIENCE, table};

pub(crate) const ID: &str = "spiffe://example.com/caller";

/// Certifies clients, and says whom it does not stand for any more.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
    name: rcgen::DnValue,
}

/// A certificate as a client shows it.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

fn authority(change: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Each has a name of its own: two of one name are told apart by their keys alone.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    params.distinguished_name.push(DnType::CommonName, format!("authority {}", NUMBER.fetch_add(1, Relaxed)));
    change(&mut params);
    (params, KeyPair::generate().expect("a key"))
}

impl Ca {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        certs::install_provider();
        let (params, key) = authority(change);
        let der = params.self_signed(&key).expect("signed").der().to_vec();
        let name = params.distinguished_name.get(&DnType::CommonName).expect("a name").clone();
        Self { name, der, issuer: Issuer::new(params, key) }
    }

    /// An authority below this one, and its certificate.
    pub(crate) fn below(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = authority(change);
        let der = params.signed_by(&key, &self.issuer).expect("signed").der().to_vec();
        let name = params.distinguished_name.get(&DnType::CommonName).expect("a name").clone();
        Self { name, der, issuer: Issuer::new(params, key) }
    }

    /// Another one of the same name.
    pub(crate) fn double(&self) -> Self {
        Self::with(|params| params.distinguished_name.push(DnType::CommonName, self.name.clone()))
    }

    /// For a client with [`ID`].
    pub(crate) fn client(&self) -> Shown {
        self.certify(|_| {})
    }

    pub(crate) fn certify(&self, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        let (hour, now) = (Duration::from_secs(3_600), SystemTime::now());
        (params.not_before, params.not_after) = ((now - hour).into(), (now + hour).into());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(7));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "caller");
        params.subject_alt_names = vec![SanType::URI(ID.try_into().expect("ASCII"))];
        change(&mut params);
        let chain = vec![params.signed_by(&key, &self.issuer).expect("signed").der().clone()];
        Shown { chain, key: key.serialize_der() }
    }

    /// A list that revokes these, good for an hour from then on.
    pub(crate) fn list(&self, revoked: &[u64], from: SystemTime) -> Vec<u8> {
        let one = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: from.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: from.into(),
            next_update: (from + Duration::from_secs(3_600)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(one).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("signed").der().to_vec()
    }

    /// Asks for those of this one.
    pub(crate) fn asks(&self, required: bool) -> ClientCertificates {
        ClientCertificates { ca_der: vec![self.der.clone()], crl_der: Vec::new(), required }
    }
}

/// A proxy whose zone asks for certificates.
pub(crate) struct Asking {
    pub(crate) proxy: TestProxy,
    pub(crate) server: DevelopmentCa,
}

impl Asking {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::with(folder, |_| {}).await
    }

    async fn with(folder: &Path, change: impl FnOnce(&mut proxy::Settings)) -> Self {
        certs::install_provider();
        let server = DevelopmentCa::open_or_create(&folder.join("ca")).expect("authority");
        let any = "127.0.0.1:0".parse().expect("an address");
        let mut settings = proxy::Settings { https: Some(any), ..settings(&folder.join("data"), 1) };
        change(&mut settings);
        Self { proxy: TestProxy::with(settings).await, server }
    }

    /// Applies a state whose zone and whose one stage ask for this.
    pub(crate) fn apply(
        &self,
        mut state: ResourceSet,
        mut of_zone: Option<ClientCertificates>,
        mut of_stage: Option<ClientCertificates>,
    ) {
        for one in &mut state.upserts {
            if one.kind == "zone" {
                let mut zone = Zone::decode(&*one.body).expect("a zone");
                zone.client_certificates = of_zone.take();
                *one = Resource { schema: api::SCHEMA_SEALED, ..resource("zone", &one.name, &zone) };
            } else if one.kind == "stage" {
                let mut stage = Stage::decode(&*one.body).expect("a stage");
                stage.client_certificates = of_stage.take();
                *one = Resource { schema: api::SCHEMA_SEALED, ..resource("stage", &one.name, &stage) };
            }
        }
        state.upserts.push(certificate(&self.server));
        self.proxy.apply(state);
    }

    /// A handshake. That of TLS 1.3 is over for the client before the proxy has seen its certificate.
    pub(crate) async fn shake(
        &self,
        shown: Option<&Shown>,
        version: &'static SupportedProtocolVersion,
        (host, alpn): (&str, &str),
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let config = rustls::ClientConfig::builder_with_protocol_versions(&[version]);
        let config = config.with_root_certificates(roots_of(&self.server));
        let mut config = match shown {
            Some(Shown { chain, key }) => {
                let key = PrivateKeyDer::try_from(key.clone()).expect("a key");
                config.with_client_auth_cert(chain.clone(), key).expect("usable")
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.proxy.https()).await.expect("connected");
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// What a request over HTTP/1.1 is answered; the error is of the handshake.
    pub(crate) async fn asks(
        &self,
        shown: Option<&Shown>,
        version: &'static SupportedProtocolVersion,
        host: &str,
    ) -> std::io::Result<String> {
        let stream = self.shake(shown, version, (host, "http/1.1")).await?;
        say(stream, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    }

    pub(crate) async fn refused(&self, reason: &str) -> u64 {
        count(&self.proxy, &format!("handshakes_refused_total{{reason=\"{reason}\"}}")).await
    }
}

/// Waits until so many handshakes were refused for a reason: a client knows a moment before it is counted.
pub(crate) async fn refused(proxy: &TestProxy, reason: &str, expected: u64) {
    counted(proxy, &format!("handshakes_refused_total{{reason=\"{reason}\"}}"), expected).await;
}

/// Waits until a counter has a value.
pub(crate) async fn counted(proxy: &TestProxy, name: &str, expected: u64) {
    let begun = std::time::Instant::now();
    loop {
        let counted = count(proxy, name).await;
        if counted == expected {
            return;
        }
        assert!(counted < expected && begun.elapsed() < PATIENCE, "{name}: {counted}, not {expected}");
        tokio::task::yield_now().await;
    }
}

async fn count(proxy: &TestProxy, name: &str) -> u64 {
    let page = Client::http1(proxy.admin).await.get("admin", "/metrics").await.body;
    let start = format!("pointsman_proxy_{name} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{name}: {page}"));
    line.parse().expect("a number")
}

/// Sends, and reads to the end.
async fn say(mut stream: TlsStream<TcpStream>, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
const UNKNOWN: &str = "nobody.staging.example.com";

fn status(answer: &std::io::Result<String>) -> Option<&str> {
    answer.as_ref().ok()?.split(' ').nth(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_are_asked_for_by_a_zone_for_all_names_and_by_a_stage_for_its_own() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let asking = Asking::start(folder.path()).await;
    let (one, other) = (Ca::new(), Ca::new());
    let (known, foreign) = (one.client(), other.client());
    let state = || hello(Protocol::H1, &[(1, upstream.address, 1)]);
    let release = "r1--hello.staging.example.com";
    for version in VERSIONS {
        let ask = async |shown: Option<&Shown>, host: &str| {
            let answer = asking.asks(shown, version, host).await;
            status(&answer).unwrap_or("refused").to_owned()
        };
        // Nobody is asked.
        asking.apply(state(), None, None);
        assert_eq!(ask(None, HOST).await, "200");
        assert_eq!(ask(Some(&foreign), HOST).await, "200", "it is not even shown");
        // All are, and hosts that lead nowhere are no different.
        asking.apply(state(), Some(one.asks(true)), None);
        for (host, found) in [(HOST, "200"), (release, "200"), (UNKNOWN, "404")] {
            assert_eq!(ask(Some(&known), host).await, found, "{host}");
            assert_eq!(ask(None, host).await, "refused", "{host}");
            assert_eq!(ask(Some(&foreign), host).await, "refused", "{host}");
        }
        // All may.
        asking.apply(state(), Some(one.asks(false)), None);
        for (host, found) in [(HOST, "200"), (UNKNOWN, "404")] {
            assert_eq!(ask(Some(&known), host).await, found, "{host}");
            assert_eq!(ask(None, host).await, found, "{host}");
            assert_eq!(ask(Some(&foreign), host).await, "refused", "{host}");
        }
        // A stage asks for others than its zone.
        asking.apply(state(), Some(one.asks(true)), Some(other.asks(true)));
        // Other weights leave it as it is.
        let mut reweighed = state();
        reweighed.upserts.retain(|one| one.kind != "split");
        reweighed.upserts.push(weights("hello/staging", &[(1, 7)]));
        asking.apply(reweighed, Some(one.asks(true)), Some(other.asks(true)));
        for (host, shown, expected) in [
            (HOST, &foreign, "200"),
            (HOST, &known, "refused"),
            (release, &foreign, "200"),
            (release, &known, "refused"),
            (UNKNOWN, &foreign, "refused"),
            (UNKNOWN, &known, "404"),
        ] {
            assert_eq!(ask(Some(shown), host).await, expected, "{host}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_cannot_be_gone_around() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let asking = Asking::start(folder.path()).await;
    let ca = Ca::new();
    let state = || hello(Protocol::H1, &[(1, upstream.address, 1)]);
    asking.apply(state(), None, None);
    // A connection from before anybody asked.
    let mut before = asking.shake(None, VERSIONS[0], (HOST, "http/1.1")).await.expect("nobody is asked");
    let kept = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    before.write_all(kept.as_bytes()).await.expect("sent");
    let mut first = [0; 12];
    before.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    asking.apply(state(), Some(ca.asks(true)), None);
    let served = upstream.requests();
    let late = say(before, &kept).await.expect("an answer");
    assert!(late.contains("HTTP/1.1 421 "), "{late}");
    // Without a name in the handshake, with another's, and in clear; what leads nowhere is answered alike.
    for host in [HOST, UNKNOWN] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let clear = crate::support::raw(asking.proxy.http, request.as_bytes()).await;
        assert!(clear.starts_with("HTTP/1.1 421 "), "{host}: {clear}");
        for name in ["127.0.0.1", "hello.elsewhere.example"] {
            let config = rustls::ClientConfig::builder();
            let verifier = Arc::new(Anyone);
            let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
            let stream = TcpStream::connect(asking.proxy.https()).await.expect("connected");
            let name = ServerName::try_from(name).expect("a name");
            let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
            let answer = say(stream.expect("shaken"), &request).await.expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
        }
    }
    assert_eq!(upstream.requests(), served);
}

/// Believes whoever answers.
#[derive(Debug)]
pub(crate) struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_that_are_revoked_end_connections_that_they_opened() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let asking = Asking::start(folder.path()).await;
    let ca = Ca::new();
    let state = || hello(Protocol::H1, &[(1, upstream.address, 1)]);
    let asks = |revoked: &[u64]| ClientCertificates {
        crl_der: vec![ca.list(revoked, SystemTime::now() - Duration::from_secs(60))],
        ..ca.asks(true)
    };
    asking.apply(state(), Some(asks(&[])), None);
    let [kept, revoked] = [6_u64, 7].map(|serial| ca.certify(|params| params.serial_number = Some(serial.into())));
    let mut senders = Vec::new();
    for shown in [&kept, &revoked] {
        let stream = asking.shake(Some(shown), VERSIONS[0], (HOST, "http/1.1")).await.expect("shaken");
        senders.push(stream);
    }
    let mut ask = async |place: usize| {
        let stream = &mut senders[place];
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut read = Vec::new();
        while !read.windows(4).any(|end| end == b"\r\n\r\n") || read.ends_with(b"\r\n\r\n") {
            let mut more = [0; 4096];
            match stream.read(&mut more).await.expect("an answer") {
                0 => break,
                count => read.extend_from_slice(&more[..count]),
            }
        }
        String::from_utf8_lossy(&read)[9..12].to_owned()
    };
    for place in 0..2 {
        assert_eq!(ask(place).await, "200");
    }
    asking.apply(state(), Some(asks(&[7])), None);
    assert_eq!(ask(0).await, "200", "it is looked at again, and still good");
    assert_eq!(ask(1).await, "421");
    assert!(asking.asks(Some(&revoked), VERSIONS[0], HOST).await.is_err());
    assert!(asking.asks(Some(&revoked), VERSIONS[1], HOST).await.is_err());
    assert_eq!(ask(0).await, "200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_are_resumed_by_no_ticket() {
    use api::fleet::Tickets;
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let asking = Asking::start(folder.path()).await;
    let ca = Ca::new();
    let id = certs::secret::ticket_id(&[1; 16]);
    let secret = certs::secret::seal(&id, &[1; 32], asking.proxy.engine.seal_key()).expect("sealed");
    asking.proxy.engine.take_secrets(vec![secret]);
    let state = || {
        let mut state = hello(Protocol::H1, &[(1, upstream.address, 1)]);
        let tickets = Tickets { current: vec![1; 16], accepted: Vec::new() };
        state.upserts.push(resource("tickets", "tickets", &tickets));
        state
    };
    for version in VERSIONS {
        let shown = ca.client();
        let config = rustls::ClientConfig::builder_with_protocol_versions(&[version]);
        let key = PrivateKeyDer::try_from(shown.key.clone()).expect("a key");
        let config = config.with_root_certificates(roots_of(&asking.server));
        let config = Arc::new(config.with_client_auth_cert(shown.chain.clone(), key).expect("usable"));
        let ask = async || {
            let stream = TcpStream::connect(asking.proxy.https()).await.expect("connected");
            let name = ServerName::try_from(HOST).expect("a name");
            let stream = tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await.expect("shaken");
            let kind = stream.get_ref().1.handshake_kind().expect("shaken");
            let answer = say(stream, &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")).await;
            assert_eq!(status(&answer), Some("200"));
            kind
        };
        asking.apply(state(), None, None);
        assert_eq!((ask().await, ask().await), (rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed));
        // A ticket from before anybody asked is none either.
        for required in [false, true] {
            asking.apply(state(), Some(ca.asks(required)), None);
            for _ in 0..3 {
                assert_eq!(ask().await, rustls::HandshakeKind::Full, "{version:?} {required}");
            }
        }
    }
}

fn spellings() -> impl Iterator<Item = String> {
    let extra =
        ["x-forwarded-client-cert", "X_Forwarded_Client_Cert", "x.forwarded.client-cert", "X-Forwarded-Client-Cert"];
    let listed = table("h41_names.txt").into_iter().map(|(_, name)| String::from_utf8(name).expect("text"));
    listed.chain(extra.map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_are_told_to_the_service_once_and_by_us_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let log = folder.path().join("access.log");
    let target = LogTarget::File(log.clone());
    let asking = Asking::with(folder.path(), |settings| settings.access_log = Some(target)).await;
    let ca = Ca::new();
    let shown = ca.client();
    let hash: String = api::Digest::of(&shown.chain[0]).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let told = format!("Hash={hash};Subject=\"CN=caller\";URI={ID}");

    let recorder = Recorder::answering(|_| OK.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
    let h2c = Upstream::start("r1", Protocol::H2c).await;
    for (shown, expected) in [(Some(&shown), vec![told.as_str()]), (None, vec![])] {
        asking.apply(hello(Protocol::H1, &[(1, recorder.address, 1)]), Some(ca.asks(false)), None);
        let evil: String = spellings().map(|name| format!("{name}: evil\r\n")).collect();
        let stream = asking.shake(shown, VERSIONS[0], (HOST, "http/1.1")).await.expect("shaken");
        let request =
            format!("GET /one HTTP/1.1\r\nHost: {HOST}\r\n{evil}Connection: x-forwarded-client-cert, close\r\n\r\n");
        assert_eq!(status(&say(stream, &request).await), Some("200"));
        let all = recorder.all();
        let head = &all[all.rfind("GET /one").expect("a request")..];
        assert_eq!(fields(head, "x-forwarded-client-cert").collect::<Vec<_>>(), expected, "{head}");
        assert!(!head.contains("evil"), "{head}");

        // HTTP/2 on both sides, and gRPC.
        asking.apply(hello(Protocol::H2c, &[(1, h2c.address, 1)]), Some(ca.asks(false)), None);
        let stream = asking.shake(shown, VERSIONS[0], (HOST, "h2")).await.expect("shaken");
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.expect("ready");
        tokio::spawn(connection);
        let mut client = Client::Http2(sender);
        for kind in ["text/plain", "application/grpc"] {
            let request =
                client.request(HOST, "/call").method("POST").header("content-type", kind).header("te", "trailers");
            let request = spellings().fold(request, |request, name| request.header(name.to_ascii_lowercase(), "evil"));
            let (feed, body) = crate::support::fed();
            drop(feed);
            assert_eq!(client.send(request.body(body).expect("a request")).await.expect("answered").status, 200);
            let (_, headers) = h2c.last();
            let got: Vec<_> = headers.get_all("x-forwarded-client-cert").iter().collect();
            assert_eq!(got, expected, "{kind}");
            assert!(headers.values().all(|value| value != "evil"), "{headers:?}");
        }
    }
    until("all lines are there", || std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 6)).await;
    let text = std::fs::read_to_string(&log).expect("a log");
    assert_eq!(text.matches(&format!("\"client_certificate\":\"{ID}\"")).count(), 3, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_of_one_zone_say_nothing_in_another() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let asking = Asking::start(folder.path()).await;
    let ca = Ca::new();
    let open = Zone { environment: "staging".into(), domain: "open.example".into(), ..Zone::default() };
    let body = Zone { client_certificates: Some(ca.asks(true)), ..Zone::default() };
    let closed = Zone { environment: "staging".into(), domain: "staging.example.com".into(), ..body };
    asking.proxy.apply(crate::support::set(vec![
        resource("zone", "open.example", &open),
        resource("zone", "staging.example.com", &closed),
        stage("hello/staging", Protocol::H1, &[1]),
        weights("hello/staging", &[(1, 1)]),
        endpoints("hello/staging", 1, &[upstream.address]),
        certificate(&asking.server),
    ]));
    // The same service in clear, by the host of either zone.
    let mut client = Client::http1(asking.proxy.http).await;
    assert_eq!(client.get("hello.open.example", "/").await.status, 200);
    assert_eq!(client.get(HOST, "/").await.status, 421);
    assert!(upstream.last().1.get("x-forwarded-client-cert").is_none());
}

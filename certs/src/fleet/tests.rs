use std::time::{Duration, SystemTime};

use api::fleet::joining_server::{Joining, JoiningServer};
use api::fleet::{JoinReply, JoinRequest};
use api::{Digest, JoinToken};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use super::*;

/// Stands for the controller's joining service: signs whatever comes with the right secret.
struct Signs {
    ca: FleetCa,
}

#[tonic::async_trait]
impl Joining for Signs {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let request = request.into_inner();
        if request.secret == "w".repeat(43) {
            std::future::pending::<()>().await;
        }
        if request.secret != "s".repeat(43) {
            return Err(Status::permission_denied("this token was used before"));
        }
        let name = "p1".parse().expect("name");
        let certificate_der = self.ca.sign(&request.csr_der, Role::Proxy, &name, SystemTime::now()).expect("signed");
        Ok(Response::new(JoinReply {
            name: "p1".into(),
            role: "proxy".into(),
            certificate_der,
            ca_der: self.ca.certificate_der().to_vec(),
        }))
    }
}

async fn controller() -> (String, Digest, tempfile::TempDir) {
    crate::install_provider();
    let folder = tempfile::tempdir().expect("folder");
    let ca = FleetCa::open_or_create(folder.path()).expect("authority");
    let (fingerprint, config) = (ca.fingerprint(), ca.server_config(&[]).expect("config"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("address").to_string();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(tls) = acceptor.accept(tcp).await {
                let _ = sender.send(Ok::<_, std::io::Error>(tls)).await;
            }
        }
    });
    let incoming = tokio_stream::wrappers::ReceiverStream::new(receiver);
    tokio::spawn(
        tonic::transport::Server::builder().add_service(JoiningServer::new(Signs { ca })).serve_with_incoming(incoming),
    );
    (address, fingerprint, folder)
}

#[tokio::test]
async fn joining_keeps_a_named_identity() {
    let (controller, ca, _folder) = controller().await;
    let home = tempfile::tempdir().expect("home");
    assert!(Identity::load(home.path()).expect("readable").is_none());
    let token = JoinToken { controller: controller.clone(), ca, secret: "s".repeat(43) };
    join(&token, home.path(), "test").await.expect("joined");
    let kept = Identity::load(home.path()).expect("readable").expect("kept");
    assert_eq!((kept.name(), kept.role(), kept.controller()), ("p1", Role::Proxy, controller.as_str()));
}

#[tokio::test]
async fn joining_refuses_another_authority() {
    let (controller, _, _folder) = controller().await;
    let home = tempfile::tempdir().expect("home");
    let token = JoinToken { controller, ca: Digest::of(b"another"), secret: "s".repeat(43) };
    let Err(error) = join(&token, home.path(), "test").await else { panic!("joined a stranger") };
    assert!(error.to_string().contains("another authority"), "{error}");
    assert!(Identity::load(home.path()).expect("readable").is_none());
}

#[tokio::test]
async fn joining_tells_why_it_was_refused() {
    let (controller, ca, _folder) = controller().await;
    let home = tempfile::tempdir().expect("home");
    let token = JoinToken { controller, ca, secret: "x".repeat(43) };
    let Err(error) = join(&token, home.path(), "test").await else { panic!("joined with a wrong secret") };
    assert!(error.to_string().contains("used before"), "{error}");
    let token = JoinToken { controller: "127.0.0.1:1".into(), ..token };
    let Err(error) = join(&token, home.path(), "test").await else { panic!("joined nobody") };
    assert!(error.to_string().contains("cannot be joined"), "{error}");
}

#[tokio::test]
async fn joining_a_controller_that_never_answers_ends_with_a_sentence() {
    let (controller, ca, _folder) = controller().await;
    let home = tempfile::tempdir().expect("home");
    let token = JoinToken { controller, ca, secret: "w".repeat(43) };
    let joining = identity::join_within(Duration::from_secs(1), &token, home.path(), "test");
    let ended = tokio::time::timeout(Duration::from_secs(30), joining).await.expect("it has a deadline");
    let Err(error) = ended else { panic!("joined nobody") };
    assert!(error.to_string().contains("did not answer within 1s"), "{error}");
    assert!(Identity::load(home.path()).expect("readable").is_none());
}

#[test]
fn a_member_certificate_names_role_and_name_only() {
    let folder = tempfile::tempdir().expect("folder");
    let ca = FleetCa::open_or_create(folder.path()).expect("authority");
    let key = rcgen::KeyPair::generate().expect("key");
    // What the joiner asks for in its request does not count.
    let mut wish = rcgen::CertificateParams::new(vec!["controller.pointsman.internal".into()]).expect("params");
    wish.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = wish.serialize_request(&key).expect("request");
    let name: MemberName = "a1".parse().expect("name");
    let der = ca.sign(request.der(), Role::Agent, &name, SystemTime::now()).expect("signed");
    let (_, parsed) = X509Certificate::from_der(&der).expect("certificate");
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().expect("readable").expect("present");
    assert_eq!(names.value.general_names.len(), 1);
    let seen = peer(&[CertificateDer::from(der)]).expect("a member");
    assert_eq!((seen.who, seen.name), (Who::Member(Role::Agent), name));
    assert!(ca.sign(b"garbage", Role::Agent, &seen_name(), SystemTime::now()).is_err());
}

/// A certificate of `ca` for somebody, made at `made`.
fn made(ca: &FleetCa, who: Who, name: &str, made: SystemTime) -> Vec<u8> {
    let (key, name) = (OperatorKey::generate().expect("key"), name.parse().expect("name"));
    let request = key.request_der().expect("request");
    match who {
        Who::Member(role) => ca.sign(&request, role, &name, made),
        Who::Operator => ca.sign_operator(&request, &name, DAY, made),
    }
    .expect("signed")
}

const DAY: Duration = Duration::from_secs(86_400);

/// A member that has just joined.
async fn joined(home: &tempfile::TempDir) -> (Identity, FleetCa, tempfile::TempDir) {
    let (controller, ca, folder) = controller().await;
    let token = JoinToken { controller, ca, secret: "s".repeat(43) };
    let identity = join(&token, home.path(), "test").await.expect("joined");
    let ca = FleetCa::open_or_create(folder.path()).expect("authority");
    (identity, ca, folder)
}

#[tokio::test]
async fn membership_a_member_takes_over_its_own_certificate_and_no_other() {
    let home = tempfile::tempdir().expect("home");
    let (identity, ca, _folder) = joined(&home).await;
    let kept = || std::fs::read_to_string(home.path().join("identity/identity.json")).expect("kept");
    let (before, later) = (kept(), SystemTime::now() + DAY);
    let key = OperatorKey::generate().expect("key");
    let sign = |who: Who, name: &str| {
        let (request, name) = (key.request_der().expect("request"), name.parse().expect("name"));
        match who {
            Who::Member(role) => ca.sign(&request, role, &name, later),
            Who::Operator => ca.sign_operator(&request, &name, DAY, later),
        }
        .expect("signed")
    };
    let own = Who::Member(Role::Proxy);
    for (what, certificate, key) in [
        ("of another name", sign(own, "p2"), key.pem()),
        ("of another role", sign(Who::Member(Role::Agent), "p1"), key.pem()),
        ("an operator's", sign(Who::Operator, "p1"), key.pem()),
        ("of another key", made(&ca, own, "p1", later), key.pem()),
        ("none", b"garbage".to_vec(), key.pem()),
    ] {
        assert!(identity.renewed(certificate, key).is_err(), "{what}");
        assert_eq!(kept(), before, "{what}");
    }
    identity.renewed(sign(own, "p1"), key.pem()).expect("taken over");
    assert!(identity.shown().current().validity.until > later);
    let loaded = Identity::load(home.path()).expect("readable").expect("kept");
    assert_eq!(loaded.shown().current().validity, identity.shown().current().validity);
}

#[tokio::test]
async fn membership_a_certificate_that_is_shown_past_its_end_is_renewed_at_once() {
    let home = tempfile::tempdir().expect("home");
    let (identity, _ca, _folder) = joined(&home).await;
    let shown = identity.shown();
    let is_told = async || tokio::time::timeout(Duration::from_millis(10), shown.refused.notified()).await.is_ok();
    shown.was_shown(SystemTime::now());
    assert!(!is_told().await, "it is good");
    shown.was_shown(SystemTime::now() + DAY * 2);
    assert!(is_told().await);
    identity.was_refused();
    assert!(is_told().await);
}

#[test]
fn membership_a_certificate_says_who_it_is_for_and_until_when() {
    let folder = tempfile::tempdir().expect("folder");
    let ca = FleetCa::open_or_create(folder.path()).expect("authority");
    let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
    for who in [Who::Member(Role::Proxy), Who::Member(Role::Agent), Who::Operator] {
        let seen = peer(&[CertificateDer::from(made(&ca, who, "x1", now))]).expect("somebody");
        assert_eq!((seen.who, seen.name.as_str(), seen.until), (who, "x1", now + DAY), "{who}");
    }
}

#[test]
fn membership_a_certificate_passes_the_handshake_for_thirty_days_after_its_end() {
    crate::install_provider();
    let (folder, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let ca = FleetCa::open_or_create(folder.path()).expect("authority");
    let stranger = FleetCa::open_or_create(other.path()).expect("authority");
    let roots = authority::roots(&CertificateDer::from(ca.certificate_der().to_vec())).expect("roots");
    let strict = rustls::server::WebPkiClientVerifier::builder(std::sync::Arc::new(roots)).build().expect("verifier");
    let lenient = grace::lenient(strict);
    let start = SystemTime::now();
    let passes = |certificate: Vec<u8>, at: SystemTime| {
        let certificate = CertificateDer::from(certificate);
        rustls::server::danger::ClientCertVerifier::verify_client_cert(&*lenient, &certificate, &[], validity::unix(at))
            .is_ok()
    };
    let member = Who::Member(Role::Proxy);
    for (what, at, expected) in [
        ("before it was made", start - DAY, false),
        ("at once", start, true),
        ("at its end", start + DAY - Duration::from_secs(2), true),
        ("a day after its end", start + DAY * 2, true),
        ("just within the grace", start + DAY * 31 - Duration::from_secs(2), true),
        ("just after the grace", start + DAY * 31 + Duration::from_secs(2), false),
        ("a year later", start + DAY * 365, false),
    ] {
        assert_eq!(passes(made(&ca, member, "p1", start), at), expected, "{what}");
        assert!(!passes(made(&stranger, member, "p1", start), at), "of another authority: {what}");
    }
    assert!(!passes(b"garbage".to_vec(), start));
}

#[test]
fn clock_that_is_wrong_is_said_to_be_and_nothing_else_is() {
    use rustls::client::danger::ServerCertVerifier;
    crate::install_provider();
    let (folder, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let ca = FleetCa::open_or_create(folder.path()).expect("authority");
    let stranger = FleetCa::open_or_create(other.path()).expect("authority");
    let trust = trust::Trust::authority(&CertificateDer::from(ca.certificate_der().to_vec())).expect("trust");
    let own = |ca: &FleetCa| {
        let mut params = leaf(SystemTime::now(), DAY, rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.push(rcgen::SanType::DnsName(CONTROLLER_NAME.try_into().expect("name")));
        ca.sign_own(&params)
    };
    let now = SystemTime::now();
    for (what, certificate, at, is_ok, is_clock) in [
        ("in time", own(&ca), now, true, false),
        ("a day behind", own(&ca), now - DAY, false, true),
        ("two days ahead", own(&ca), now + DAY * 2, false, true),
        ("in time, of another authority", own(&stranger), now, false, false),
        ("two days ahead, of another authority", own(&stranger), now + DAY * 2, false, false),
        ("a member's", made(&ca, Who::Member(Role::Proxy), "p1", now), now + DAY * 2, false, false),
    ] {
        let name = CONTROLLER_NAME.try_into().expect("name");
        let seen = trust.verify_server_cert(&certificate.into(), &[], &name, &[], validity::unix(at));
        let wrong = trust.wrong_clock();
        assert_eq!((seen.is_ok(), wrong.is_some()), (is_ok, is_clock), "{what}: {seen:?}");
        let Some(wrong) = wrong.map(|wrong| wrong.to_string()) else { continue };
        for said in [rfc3339(at), rfc3339(now + DAY), "one of the two clocks is wrong".to_owned()] {
            assert!(wrong.contains(&said), "{wrong}: {said}");
        }
        assert!(trust.wrong_clock().is_none(), "told once");
    }
}

#[test]
fn clock_of_the_controller_that_is_set_back_makes_its_certificate_anew() {
    let (made, minute) = (SystemTime::UNIX_EPOCH + DAY * 20_000, Duration::from_secs(60));
    for (now, expected) in [
        (made, false),
        (made + DAY / 2 - minute, false),
        (made + DAY / 2, true),
        (made + DAY * 100, true),
        (made - minute, false),
        (made - minute * 6, true),
    ] {
        assert_eq!(server_config_is_old(made, now), expected, "{now:?}");
    }
}

#[test]
fn clock_times_are_written_as_people_read_them() {
    let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(at(0), "1970-01-01T00:00:00Z");
    assert_eq!(at(1_795_286_405), "2026-11-21T18:40:05Z");
    assert_eq!(at(1 << 40), "after the year 9999");
}

fn seen_name() -> MemberName {
    "a1".parse().expect("name")
}

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
    assert_eq!((seen.role, seen.name), (Role::Agent, name));
    assert!(ca.sign(b"garbage", Role::Agent, &seen_name(), SystemTime::now()).is_err());
}

fn seen_name() -> MemberName {
    "a1".parse().expect("name")
}

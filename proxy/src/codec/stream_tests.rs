use std::sync::Arc;

use certs::endpoint::{Application, Authorities, Connector};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, server};

use super::*;

/// Both ends of a connection through TLS 1.3, whose server has sent `tickets` right after the handshake.
async fn connected(tickets: usize) -> (Stream, server::TlsStream<TcpStream>) {
    certs::install_provider();
    let made = rcgen::generate_simple_self_signed(vec!["hello.internal".into()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).expect("usable");
    config.send_tls13_tickets = tickets;
    let authorities = Authorities::parse(&made.cert.pem()).expect("a certificate");
    let connector = Connector::new(&authorities, "hello.internal", Application::Http1).expect("a name");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let tcp = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
    let (accepted, _) = listener.accept().await.expect("accepted");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let connector = connector.with_sessions();
    let (client, server) = tokio::join!(connector.connect(tcp), acceptor.accept(accepted));
    (Stream::Tls(Box::new(TlsStream::Client(client.expect("trusted")))), server.expect("shaken"))
}

async fn readable(stream: &Stream) {
    let Stream::Tls(tls) = stream else { panic!("not through TLS") };
    tls.get_ref().0.readable().await.expect("open");
}

#[tokio::test]
async fn tickets_do_not_make_a_connection_stale() {
    let (mut client, mut server) = connected(4).await;
    // The tickets are here, and nobody has read them.
    readable(&client).await;
    assert!(!client.is_stale() && !client.is_stale());
    server.write_all(b"nobody asked").await.expect("written");
    server.flush().await.expect("written");
    readable(&client).await;
    assert!(client.is_stale());
}

#[tokio::test]
async fn an_end_makes_a_connection_stale_whether_it_was_told_or_not() {
    for told in [true, false] {
        let (mut client, mut server) = connected(0).await;
        assert!(!client.is_stale());
        if told {
            server.shutdown().await.expect("told");
        } else {
            drop(server);
        }
        readable(&client).await;
        assert!(client.is_stale(), "told: {told}");
    }
}

//! TCP, TLS and the first bytes, which tell HTTP/2 from HTTP/1: beside each other, each with a deadline, so many at once.

mod greeted;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use certs::fleet::{Who, peer};
use rustls::AlertDescription;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

pub(super) use greeted::{Caller, Greeted};

use crate::fleet::Fleet;

/// What every HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// After a failed accept (no descriptors left, say): long enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a peer may take, and how many there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For TLS, and for the first bytes after it, each (limits by default: TLS handshake 10 s).
    first: Duration,
    /// Handshakes at once: a fleet of hundreds that comes back together waits a moment instead of exhausting memory.
    handshakes: usize,
    /// Connections of peers that show no member's certificate: operators, joiners, and anybody.
    strangers: usize,
    /// Connections of members: proxies and agents have one each. Strangers take none of theirs.
    members: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { first: Duration::from_secs(10), handshakes: 256, strangers: 1_024, members: 8_192 }
    }
}

/// The places that are left.
#[derive(Debug, Clone)]
struct Room {
    handshakes: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    members: Arc<Semaphore>,
}

/// Connections whose handshake is done, by what their peers speak. Both end together.
pub(super) struct Incoming {
    /// HTTP/2: fleet and operators, and monitoring.
    pub(super) http2: ReceiverStream<io::Result<Greeted>>,
    /// HTTP/1: monitoring alone.
    pub(super) http1: mpsc::Receiver<Greeted>,
}

/// Where connections go.
#[derive(Debug, Clone)]
struct Ways {
    http2: mpsc::Sender<io::Result<Greeted>>,
    http1: mpsc::Sender<Greeted>,
}

/// What a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Http1,
    Http2,
}

impl Speech {
    /// As it is named in a handshake (RFC 7301 §6).
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// Accepts for as long as somebody takes what speaks HTTP/2. Each connection is made with the newest of `tls`.
pub(super) fn incoming(
    listener: TcpListener,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    limits: Limits,
    fleet: Arc<Fleet>,
) -> Incoming {
    let ((http2, to_http2), (http1, to_http1)) = (mpsc::channel(64), mpsc::channel(64));
    let ways = Ways { http2, http1 };
    let room = Room {
        handshakes: Arc::new(Semaphore::new(limits.handshakes)),
        strangers: Arc::new(Semaphore::new(limits.strangers)),
        members: Arc::new(Semaphore::new(limits.members)),
    };
    tokio::spawn(async move {
        while !ways.http2.is_closed() {
            let Ok(permit) = room.handshakes.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ways.http2.closed() => return,
            };
            let (tcp, address) = match accepted {
                Ok((tcp, address)) => (tcp, address.ip().to_canonical()),
                Err(problem) => {
                    warn!(%problem, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (acceptor, room, ways) = (TlsAcceptor::from(tls.borrow().clone()), room.clone(), ways.clone());
            let fleet = fleet.clone();
            tokio::spawn(async move {
                let _ = tcp.set_nodelay(true); // Only makes small messages slower when it fails.
                let shaken = tokio::time::timeout(limits.first, acceptor.accept(tcp)).await;
                drop(permit);
                let stream = match shaken {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(problem)) => return failed(&problem, address, &fleet),
                    Err(_) => return debug!("a TLS handshake took too long"),
                };
                // Nobody takes it any more when this controller is ending.
                match greet(stream, address, &room, limits.first).await {
                    Some((Speech::Http2, greeted)) => drop(ways.http2.send(Ok(greeted)).await),
                    Some((Speech::Http1, greeted)) => drop(ways.http1.send(greeted).await),
                    None => {}
                }
            });
        }
    });
    Incoming { http2: ReceiverStream::new(to_http2), http1: to_http1 }
}

/// Takes note of a handshake that came to nothing.
fn failed(problem: &io::Error, address: IpAddr, fleet: &Fleet) {
    let alert = problem.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if matches!(alert, Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired))) {
        fleet.clocks.refused(address, Instant::now());
    }
    debug!(%address, %problem, "a TLS handshake failed");
}

/// A connection up to its first bytes; `None` when it comes to nothing.
async fn greet(
    mut stream: TlsStream<TcpStream>,
    address: IpAddr,
    room: &Room,
    first: Duration,
) -> Option<(Speech, Greeted)> {
    let certificates = stream.get_ref().1.peer_certificates().map(|chain| {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Arc::new(chain)
    });
    let shown = certificates.as_deref().and_then(|chain| peer(chain));
    let is_member = shown.is_some_and(|shown| matches!(shown.who, Who::Member(_)));
    let places = if is_member { &room.members } else { &room.strangers };
    let Ok(place) = places.clone().try_acquire_owned() else {
        warn!(is_member, "a connection is refused: there are too many");
        return None;
    };
    let Ok(Ok((speech, said))) = tokio::time::timeout(first, first_words(&mut stream)).await else {
        debug!("a peer said nothing, or not enough in time");
        return None;
    };
    let agreed = stream.get_ref().1.alpn_protocol();
    if agreed.is_some_and(|agreed| agreed != speech.alpn()) {
        debug!(?speech, "a peer speaks otherwise than it agreed to");
        return None;
    }
    Some((speech, Greeted::new(stream, certificates, address, said, place)))
}

/// Reads until it is clear what a peer speaks, and no further than the preface of HTTP/2; with all that was read.
async fn first_words(stream: &mut TlsStream<TcpStream>) -> io::Result<(Speech, Bytes)> {
    let mut said = [0; PREFACE.len()];
    let mut read = 0;
    while read < said.len() {
        let more = stream.read(&mut said[read..]).await?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read += more;
        // Any other method differs within its first four bytes.
        if said[..read] != PREFACE[..read] {
            return Ok((Speech::Http1, Bytes::copy_from_slice(&said[..read])));
        }
    }
    Ok((Speech::Http2, Bytes::from_static(PREFACE)))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, ServerName};
    use tokio::io::AsyncWriteExt;
    use tokio_rustls::{TlsConnector, client};
    use tokio_stream::StreamExt;

    use super::*;

    const FIRST: Duration = Duration::from_millis(300);
    /// Longer than a deadline on a machine that is merely slow.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct World {
        address: std::net::SocketAddr,
        connector: TlsConnector,
        incoming: Incoming,
        renewed: watch::Sender<Arc<rustls::ServerConfig>>,
        ca: certs::fleet::FleetCa,
        _folder: tempfile::TempDir,
    }

    async fn world(strangers: usize) -> World {
        certs::install_provider();
        let folder = tempfile::tempdir().expect("folder");
        let ca = certs::fleet::FleetCa::open_or_create(folder.path()).expect("made");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(ca.certificate_der().to_vec())).expect("a root");
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (renewed, tls) = watch::channel(ca.server_config(&["127.0.0.1".to_owned()]).expect("a certificate"));
        let fleet = Arc::new(Fleet::new());
        let limits = Limits { first: FIRST, strangers, ..Limits::default() };
        let (connector, incoming) = (TlsConnector::from(Arc::new(config)), incoming(listener, tls, limits, fleet));
        World { address, connector, incoming, renewed, ca, _folder: folder }
    }

    impl World {
        /// From now on clients offer this and nothing else.
        fn agrees_to(&mut self, alpn: Option<&str>) -> &Self {
            let mut config = rustls::ClientConfig::clone(self.connector.config());
            config.alpn_protocols = alpn.into_iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
            self.connector = TlsConnector::from(Arc::new(config));
            self
        }

        async fn connects(&self) -> client::TlsStream<TcpStream> {
            let tcp = TcpStream::connect(self.address).await.expect("connected");
            let name = ServerName::try_from("127.0.0.1").expect("an address");
            self.connector.connect(name, tcp).await.expect("a handshake")
        }
    }

    /// The other side closed it, with or without a word.
    async fn ends(mut stream: client::TlsStream<TcpStream>) {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("it is held for ever");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_or_nonsense_is_let_go() {
        let world = world(8).await;
        ends(world.connects().await).await;
        for said in [&PREFACE[..5], b"P", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
            // With h2 agreed on, HTTP/1 is nonsense.
            let mut client = world.connects().await;
            client.write_all(said).await.expect("written");
            ends(client).await;
        }
    }

    #[tokio::test]
    async fn what_a_peer_speaks_is_told_by_its_first_bytes_and_what_it_agreed_to() {
        let mut world = world(8).await;
        let shortest = &b"GET / HTTP/1.0\r\n\r\n"[..];
        for (alpn, said, http1) in [
            (None, PREFACE, false),
            (None, shortest, true),
            (None, b"PUT /x", true),
            (Some("http/1.1"), shortest, true),
            (Some("h2"), PREFACE, false),
        ] {
            let mut client = world.agrees_to(alpn).connects().await;
            client.write_all(said).await.expect("written");
            let mut greeted = tokio::select! {
                Some(greeted) = world.incoming.http2.next() => (false, greeted.expect("whole")),
                Some(greeted) = world.incoming.http1.recv() => (true, greeted),
            };
            let mut heard = vec![0; said.len()];
            greeted.1.read_exact(&mut heard).await.expect("there");
            assert_eq!((greeted.0, &heard[..]), (http1, said), "{alpn:?}");
        }
        let mut other = world.agrees_to(Some("http/1.1")).connects().await;
        other.write_all(PREFACE).await.expect("written");
        ends(other).await;
    }

    #[tokio::test]
    async fn what_was_read_first_is_read_again() {
        let mut world = world(8).await;
        let mut client = world.connects().await;
        client.write_all(PREFACE).await.expect("written");
        client.write_all(b"then more").await.expect("written");
        let mut greeted = world.incoming.http2.next().await.expect("one").expect("whole");
        let mut said = vec![0; PREFACE.len() + 9];
        for part in said.chunks_mut(7) {
            greeted.read_exact(part).await.expect("there");
        }
        assert_eq!(said, [PREFACE, b"then more"].concat());
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_to_the_next() {
        let world = world(8).await;
        let leaf =
            |stream: &client::TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().map(|all| all[0].clone());
        let (first, second) = (world.connects().await, world.connects().await);
        assert_eq!(leaf(&first), leaf(&second));
        world.renewed.send_replace(world.ca.server_config(&["127.0.0.1".to_owned()]).expect("a certificate"));
        // One may have been waiting to be accepted.
        drop(world.connects().await);
        assert_ne!(leaf(&first), leaf(&world.connects().await));
    }

    #[tokio::test]
    async fn strangers_have_so_many_places() {
        let mut world = world(2).await;
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut client = world.connects().await;
            client.write_all(PREFACE).await.expect("written");
            held.push((client, world.incoming.http2.next().await.expect("one").expect("whole")));
        }
        ends(world.connects().await).await;
        held.clear();
        let mut client = world.connects().await;
        client.write_all(PREFACE).await.expect("written");
        assert!(world.incoming.http2.next().await.is_some(), "there is a place again");
    }
}

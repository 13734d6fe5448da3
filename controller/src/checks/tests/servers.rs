//! A small server that behaves as a test wants.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// How it answers.
#[derive(Clone)]
pub(super) enum Manner {
    /// With this, then it closes.
    Answer(Vec<u8>),
    /// With this, and leaves the connection open.
    Then(Vec<u8>),
    /// Never.
    Hang,
    /// Without a word.
    Close,
    /// With a body that never ends.
    Endless(&'static str),
    /// One byte of a head now and then, for ever.
    Drip,
    /// As soon as so many have asked: 200.
    Gate(usize),
    /// 200 as long as the switch is off, then 500 with this.
    Switch(Arc<std::sync::atomic::AtomicBool>, &'static str),
}

impl Manner {
    pub(super) fn answer(status: &str, fields: &str, body: &str) -> Self {
        let length = body.len();
        Self::Answer(
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{fields}\r\n{body}")
                .into_bytes(),
        )
    }
}

#[derive(Default)]
struct Seen {
    asked: Mutex<Vec<String>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    full: Notify,
}

/// Ends when it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start(manner: Manner) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), manner).await
    }

    pub(super) async fn start_at(address: IpAddr, manner: Manner) -> Self {
        Self::listen(address, manner, None).await
    }

    pub(super) async fn start_tls(manner: Manner, config: &rustls::ServerConfig) -> Self {
        let mut config = config.clone();
        config.alpn_protocols = Vec::new();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::listen(Ipv4Addr::LOCALHOST.into(), manner, Some(acceptor)).await
    }

    async fn listen(address: IpAddr, manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let told = seen.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (manner, seen, tls) = (manner.clone(), told.clone(), tls.clone());
                let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most_open.fetch_max(open, Ordering::SeqCst);
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, &manner, &seen).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &manner, &seen).await,
                            Err(_) => drop(seen.open.fetch_sub(1, Ordering::SeqCst)),
                        },
                    }
                });
            }
        });
        Self { address, seen, task }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Heads of requests.
    pub(super) fn asked(&self) -> Vec<String> {
        self.seen.asked.lock().expect("whole").clone()
    }

    pub(super) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    pub(super) fn most_open(&self) -> usize {
        self.seen.most_open.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, manner: &Manner, seen: &Seen) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => {
                seen.open.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        }
    }
    let count = {
        let mut asked = seen.asked.lock().expect("whole");
        asked.push(String::from_utf8_lossy(&head).into_owned());
        asked.len()
    };
    let open_until_the_end = answer(&mut stream, manner, seen, count).await;
    if open_until_the_end {
        // The other side ends it.
        let _ = stream.read_u8().await;
    }
    // Before it closes: whoever is answered may ask again.
    seen.open.fetch_sub(1, Ordering::SeqCst);
    let _ = stream.shutdown().await;
}

/// Whether the connection is left open.
async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    manner: &Manner,
    seen: &Seen,
    count: usize,
) -> bool {
    const WELL: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    match manner {
        Manner::Answer(bytes) => stream.write_all(bytes).await.is_err(),
        Manner::Then(bytes) => {
            let _ = stream.write_all(bytes).await;
            true
        }
        Manner::Hang => true,
        Manner::Close => false,
        Manner::Endless(status) => {
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await;
            while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
            false
        }
        Manner::Drip => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-long: ").await;
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            false
        }
        Manner::Gate(least) => {
            let full = seen.full.notified();
            tokio::pin!(full);
            full.as_mut().enable();
            if count < *least {
                full.await;
            }
            seen.full.notify_waiters();
            stream.write_all(WELL).await.is_err()
        }
        Manner::Switch(is_bad, body) => match is_bad.load(Ordering::SeqCst) {
            false => stream.write_all(WELL).await.is_err(),
            true => {
                let Manner::Answer(bytes) = Manner::answer("500 Internal Server Error", "", body) else { return false };
                stream.write_all(&bytes).await.is_err()
            }
        },
    }
}

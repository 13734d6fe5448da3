//! An upstream on a raw socket: it keeps every byte that it got, and answers what the test says.
//!
//! Main types: [`Recorder`], the server; [`Peer`], one of its connections; [`Asked`], a request as it came.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::reading::Reading;

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// See the module.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    open: Arc<AtomicUsize>,
}

/// One connection. It closes when it is dropped.
pub(crate) struct Peer {
    stream: TcpStream,
    /// Read and not used yet.
    ahead: Vec<u8>,
    number: usize,
    recorder: Recorder,
}

/// A request as it came: the head with its empty line, the body without its framing, and the lines behind it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
}

impl Recorder {
    /// Runs `script` for each connection.
    pub(crate) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let recorder = Self { address, seen: Arc::default(), open: Arc::default() };
        let shared = recorder.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                stream.set_nodelay(true).expect("set");
                let number = {
                    let mut seen = shared.seen.lock().expect("whole");
                    seen.push(Vec::new());
                    seen.len() - 1
                };
                shared.open.fetch_add(1, Relaxed);
                tokio::spawn(script(Peer { stream, ahead: Vec::new(), number, recorder: shared.clone() }));
            }
        });
        recorder
    }

    /// Answers every request with "ok".
    pub(crate) async fn ok() -> Self {
        Self::answering(|_| OK.to_owned()).await
    }

    /// Answers each request with bytes that depend on its head. An answer that says `connection: close` ends with it.
    pub(crate) async fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::start(move |mut peer| {
            let answer = answer.clone();
            async move {
                while let Some(asked) = peer.request().await {
                    let answer = answer(&asked.head);
                    peer.send(&answer).await;
                    if answer.contains("connection: close") {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// What came on each connection so far, but for those of health checks, on which nothing comes.
    pub(crate) fn connections(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("whole");
        seen.iter().filter(|bytes| !bytes.is_empty()).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// Everything that came, connection by connection.
    pub(crate) fn all(&self) -> String {
        self.connections().concat()
    }

    /// Connections that are open on this side.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// How often something came.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.connections().iter().map(|bytes| bytes.matches(text).count()).sum()
    }
}

impl Reading for Peer {
    fn ahead(&mut self) -> &mut Vec<u8> {
        &mut self.ahead
    }

    async fn more(&mut self) -> bool {
        let before = self.ahead.len();
        self.ahead.reserve(64 * 1024);
        let count = self.stream.read_buf(&mut self.ahead).await.unwrap_or(0);
        self.recorder.seen.lock().expect("whole")[self.number].extend_from_slice(&self.ahead[before..]);
        count > 0
    }
}

impl Peer {
    pub(crate) async fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n").await
    }

    /// The next request to its end; `None`: the connection ended before.
    pub(crate) async fn request(&mut self) -> Option<Asked> {
        let head = self.head().await?;
        let (body, trailers) = self.framed(&head).await?.unwrap_or_default();
        Some(Asked { head, body, trailers })
    }

    /// Sends; that the other side is gone is no fault of the test.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Waits until the proxy ends the connection.
    pub(crate) async fn ended(&mut self) {
        while self.more().await {}
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.recorder.open.fetch_sub(1, Relaxed);
    }
}

/// The value of the only field with this lower-case name, whatever its case in the head.
pub(crate) fn field(head: &str, name: &str) -> Option<String> {
    let mut found = fields(head, name);
    let first = found.next();
    assert_eq!(found.next(), None, "two {name} in {head}");
    first
}

/// The values of all fields with a lower-case name.
pub(crate) fn fields<'a>(head: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(move |(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

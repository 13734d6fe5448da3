//! A client on a raw socket, what it gets back, and tables of what it sends.
//!
//! Main types: [`Wire`], a connection; [`Said`], an answer; [`table`], the lines of a data file.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::reading::Reading;
use crate::recorder::field;
use crate::support::HOST;

/// Longer than anything in these tests takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Wire {
    reader: OwnedReadHalf,
    writer: Arc<Mutex<OwnedWriteHalf>>,
    ahead: Vec<u8>,
}

/// An answer as it came: the head with its empty line, the body without its framing, and the lines behind it.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
}

impl Reading for Wire {
    fn ahead(&mut self) -> &mut Vec<u8> {
        &mut self.ahead
    }

    async fn more(&mut self) -> bool {
        self.ahead.reserve(64 * 1024);
        let read = tokio::time::timeout(PATIENCE, self.reader.read_buf(&mut self.ahead)).await;
        read.expect("something comes, or the end").unwrap_or(0) > 0
    }
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        Self::of(stream)
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("set");
        let (reader, writer) = stream.into_split();
        Self { reader, writer: Arc::new(Mutex::new(writer)), ahead: Vec::new() }
    }

    /// With a small window: what is not read is soon not taken either.
    pub(crate) async fn narrow(address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("set");
        Self::of(socket.connect(address).await.expect("connected"))
    }

    /// Sends; a proxy that has closed already will show in what it answered.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> bool {
        self.writer.lock().await.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Sends while something is read: neither side has to hold all of it.
    pub(crate) fn send_meanwhile(&self, bytes: Vec<u8>) -> JoinHandle<bool> {
        let writer = self.writer.clone();
        tokio::spawn(async move { writer.lock().await.write_all(&bytes).await.is_ok() })
    }

    /// Sends byte by byte, until it is told to stop or nobody takes it any more.
    pub(crate) fn drip(&self, bytes: Vec<u8>) -> JoinHandle<()> {
        let writer = self.writer.clone();
        tokio::spawn(async move {
            for byte in bytes {
                if writer.lock().await.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    /// Sends a request line with fields, each with its line end, and the host.
    pub(crate) async fn ask(&self, line: &str, fields: &str) {
        self.send(format!("{line}\r\nHost: {HOST}\r\n{fields}\r\n")).await;
    }

    pub(crate) async fn shut(&self) {
        self.writer.lock().await.shutdown().await.expect("shut");
    }

    pub(crate) fn reset(self) {
        let writer = Arc::into_inner(self.writer).expect("nothing is being sent").into_inner();
        writer.as_ref().set_zero_linger().expect("set");
        writer.forget();
    }

    /// The next head, interim ones as well; `None`: the connection ended instead.
    pub(crate) async fn head(&mut self) -> Option<(u16, String)> {
        let head = self.until("\r\n\r\n").await?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Some((status.unwrap_or_else(|| panic!("no status: {head:?}")), head))
    }

    /// The next answer to its end, interim ones passed over; `None`: it was cut, or there is none.
    pub(crate) async fn answer(&mut self) -> Option<Said> {
        let (mut status, mut head) = self.head().await?;
        while status < 200 && status != 101 {
            (status, head) = self.head().await?;
        }
        let (body, trailers) = match status {
            101 | 204 | 304 => Default::default(),
            _ => match self.framed(&head).await? {
                Some(framed) => framed,
                None => (self.rest().await, String::new()),
            },
        };
        Some(Said { status, head, body, trailers })
    }

    /// Everything until the connection ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.ahead)
    }

    /// Whether the connection ends with a reset, whatever comes before that.
    pub(crate) async fn is_reset(&mut self) -> bool {
        let ended = tokio::time::timeout(PATIENCE, self.reader.read_to_end(&mut self.ahead)).await.expect("an end");
        ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    }

    /// Whether the connection ends without another byte.
    pub(crate) async fn is_over(&mut self) -> bool {
        self.ahead.is_empty() && !self.more().await
    }
}

impl Said {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn field(&self, name: &str) -> Option<String> {
        field(&self.head, name)
    }
}

/// The lines of `tests/data/<name>` but for empty ones and comments, escapes resolved; the first word says what is
/// expected of the rest. `{host}` is a host that is served, `{get}` and `{post}` a request line with it, `{chunked}` a
/// head that announces a chunked body.
pub(crate) fn table(name: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = lines.map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{name}: one word: {line}")));
    let filled = |rest: &str| {
        rest.replace("{chunked}", "{post}Transfer-Encoding: chunked\\r\\n\\r\\n")
            .replace("{get}", "GET /hostile HTTP/1.1\\r\\nHost: {host}\\r\\n")
            .replace("{post}", "POST /hostile HTTP/1.1\\r\\nHost: {host}\\r\\n")
            .replace("{host}", HOST)
    };
    split.map(|(expected, rest)| (expected.to_owned(), bytes(&filled(rest)))).collect()
}

/// `\r`, `\n`, `\t`, `\\`, `\xHH` and `\*N{text}`, N times the text.
fn bytes(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        let mut length = 1;
        match escaped.as_bytes().first() {
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'\\') => out.push(b'\\'),
            Some(b'x') => {
                out.push(u8::from_str_radix(&escaped[1..3], 16).expect("two digits"));
                length = 3;
            }
            Some(b'*') => {
                let (times, behind) = escaped[1..].split_once('{').expect("a brace");
                let (repeated, _) = behind.split_once('}').expect("its end");
                out.extend(bytes(repeated).repeat(times.parse().expect("a number")));
                length = times.len() + repeated.len() + 3;
            }
            other => panic!("unknown escape {other:?} in {text}"),
        }
        rest = &escaped[length..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

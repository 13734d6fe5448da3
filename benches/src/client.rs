//! One connection over which requests are sent, one after the other: HTTP/1.1 with as little of its own as possible.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs as crypto;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Problem;

/// A request that takes longer has no answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    /// Lines that every request has besides its host.
    fields: String,
}

/// What requests carry besides their host: names and values.
pub type Fields = [(&'static str, String)];

#[derive(Debug)]
enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// How a client does TLS: 1.3 alone, AES-128-GCM, X25519, a full handshake each time, so that every server does the same.
#[derive(Debug, Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Trusts what one authority signed.
    ///
    /// # Errors
    /// `authority_der` is no certificate.
    pub fn new(authority_der: Vec<u8>) -> Result<Self, Problem> {
        let provider = rustls::crypto::CryptoProvider {
            cipher_suites: vec![crypto::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![crypto::kx_group::X25519],
            ..crypto::default_provider()
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority_der.into())?;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Stream::Clear(stream), buffer: Vec::new(), fields: String::new() })
    }

    /// Connects; the handshake goes with the first request. `name` is whose certificate is expected.
    ///
    /// # Errors
    /// Nobody listens there, or `name` is none.
    pub fn open_tls(address: SocketAddr, tls: &Tls, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(tls.0.clone(), name).map_err(io::Error::other)?;
        let Self { stream: Stream::Clear(stream), buffer, fields } = Self::open(address)? else {
            unreachable!("it is clear")
        };
        Ok(Self { stream: Stream::Tls(Box::new(StreamOwned::new(session, stream))), buffer, fields })
    }

    /// Has every request carry these.
    pub fn with(mut self, fields: &Fields) -> Self {
        self.fields.extend(fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        self
    }

    /// Asks for `/` at a host and reads the whole answer; returns its status.
    ///
    /// # Errors
    /// The connection was closed, or what came is no answer with a length.
    pub fn get(&mut self, host: &str) -> io::Result<u16> {
        self.ask(host, "/").map(|(status, _)| status)
    }

    /// Asks for a path at a host and reads the whole answer: its status and its body.
    ///
    /// # Errors
    /// The connection was closed, or what came is no answer with a length.
    pub fn ask(&mut self, host: &str, path: &str) -> io::Result<(u16, Vec<u8>)> {
        let fields = &self.fields;
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n").as_bytes())?;
        self.buffer.clear();
        loop {
            if let Some((status, head, body)) = read_head(&self.buffer)?
                && self.buffer.len() >= head + body
            {
                return Ok((status, self.buffer[head..head + body].to_vec()));
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.buffer.extend_from_slice(&piece[..read]),
            }
        }
    }

    /// Closes it as TLS wants it: with a word to the other side.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn close(self) -> io::Result<()> {
        if let Stream::Tls(mut stream) = self.stream {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.read(buf),
            Self::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.write(buf),
            Self::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Status, length of the head and of the body; `None` while the head is not whole.
fn read_head(bytes: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| bad("a head that is no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| bad("an answer without a status"))?;
    let fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim());
    let length: usize = length.last().and_then(|length| length.parse().ok()).ok_or_else(|| bad("no content-length"))?;
    Ok(Some((status, end + 4, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_how_long_the_answer_is() {
        let head = |text: &str| read_head(text.as_bytes()).ok();
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"), Some(None));
        assert_eq!(head("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"), Some(Some((404, 45, 2))));
        assert_eq!(head("HTTP/1.1 200 OK\r\n\r\n"), None);
        assert_eq!(head("\r\n\r\n"), None);
    }
}

//! One connection over which requests are sent, one after the other: HTTP/1.1 with as little of its own as possible.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A request that takes longer has no answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
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
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Asks for `/` at a host and reads the whole answer; returns its status.
    ///
    /// # Errors
    /// The connection was closed, or what came is no answer with a length.
    pub fn get(&mut self, host: &str) -> io::Result<u16> {
        self.stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        self.buffer.clear();
        loop {
            if let Some((status, whole)) = read_head(&self.buffer)?
                && self.buffer.len() >= whole
            {
                return Ok(status);
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.buffer.extend_from_slice(&piece[..read]),
            }
        }
    }
}

/// Status and length of the whole answer; `None` while its head is not whole.
fn read_head(bytes: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| bad("a head that is no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| bad("an answer without a status"))?;
    let fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim());
    let length: usize = length.last().and_then(|length| length.parse().ok()).ok_or_else(|| bad("no content-length"))?;
    Ok(Some((status, end + 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_how_long_the_answer_is() {
        let head = |text: &str| read_head(text.as_bytes()).ok();
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"), Some(None));
        assert_eq!(head("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"), Some(Some((404, 47))));
        assert_eq!(head("HTTP/1.1 200 OK\r\n\r\n"), None);
        assert_eq!(head("\r\n\r\n"), None);
    }
}

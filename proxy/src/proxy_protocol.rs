//! The PROXY protocol, versions 1 and 2: a load balancer before us says whose connection this is, before anything else.
//!
//! Must not know: who is trusted to say so. Not a byte behind the header is read. Source: HAProxy,
//! "The PROXY protocol", 2020; the header itself is read by `ppp`.
//!
//! Main function: [`read`], from any stream that is [`Peek`].

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

/// What version 2 begins with; version 1 is longer than this as well.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1, with its line end.
const TEXT_BYTES: usize = 107;
/// Longest part of version 2 behind the first 16 bytes: addresses are 216 at most, the rest are notes nobody reads here.
const BINARY_BYTES: usize = 2048;

/// A stream whose next bytes can be looked at and left where they are.
pub(crate) trait Peek: AsyncRead + Unpin {
    /// Waits for bytes and copies the first of them; 0 at the end.
    async fn peek(&mut self, first: &mut [u8]) -> io::Result<usize>;
}

impl Peek for TcpStream {
    async fn peek(&mut self, first: &mut [u8]) -> io::Result<usize> {
        Self::peek(self, first).await
    }
}

/// Reads a header. The client's address; `None`: the balancer speaks for itself, as its health checks do.
///
/// # Errors
/// It is malformed, or the connection ended within it.
pub(crate) async fn read(stream: &mut impl Peek) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_binary(stream, &mut header).await?
    } else {
        read_text(stream, &mut header).await?
    }
    client(&header)
}

async fn read_binary(stream: &mut impl Peek, header: &mut Vec<u8>) -> io::Result<()> {
    header.resize(16, 0);
    stream.read_exact(&mut header[12..]).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if length > BINARY_BYTES {
        return Err(malformed());
    }
    header.resize(16 + length, 0);
    stream.read_exact(&mut header[16..]).await.map(drop)
}

async fn read_text(stream: &mut impl Peek, header: &mut Vec<u8>) -> io::Result<()> {
    if !header.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    let mut ahead = [0; TEXT_BYTES];
    loop {
        let room = TEXT_BYTES - header.len();
        let seen = stream.peek(&mut ahead[..room]).await?;
        let line = ahead[..seen].iter().position(|b| *b == b'\n').map(|at| at + 1);
        let take = line.unwrap_or(seen);
        if take == 0 {
            return Err(malformed());
        }
        let from = header.len();
        header.resize(from + take, 0);
        // Peeked, so it is there.
        stream.read_exact(&mut header[from..]).await?;
        if line.is_some() {
            return Ok(());
        }
    }
}

fn client(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let address = |ip: IpAddr, port| Some(SocketAddr::new(ip.to_canonical(), port));
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(tcp) => address(tcp.source_address.into(), tcp.source_port),
            v1::Addresses::Tcp6(tcp) => address(tcp.source_address.into(), tcp.source_port),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            v2::Addresses::IPv4(ip) => address(ip.source_address.into(), ip.source_port),
            v2::Addresses::IPv6(ip) => address(ip.source_address.into(), ip.source_port),
            v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(malformed()),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed PROXY protocol header")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is read of `bytes`, sent in pieces, and what is left behind the header.
    async fn reads(bytes: &[u8], piece: usize) -> io::Result<(Option<SocketAddr>, Vec<u8>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let (mut server, _) = listener.accept().await.expect("accepted");
        let bytes = bytes.to_vec();
        let sending = tokio::spawn(async move {
            for piece in bytes.chunks(piece) {
                client.write_all(piece).await.expect("sent");
                tokio::task::yield_now().await;
            }
        });
        let address = read(&mut server).await?;
        let mut rest = Vec::new();
        sending.await.expect("sent");
        server.read_to_end(&mut rest).await.expect("read");
        Ok((address, rest))
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
        header.extend(body);
        header
    }

    #[tokio::test]
    async fn proxy_protocol_headers_are_read_to_their_end_and_no_further() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let with_notes = [&v4[..], &[4, 0, 3, 1, 2, 3]].concat();
        let mapped = [&[0u8; 10][..], &[0xff, 0xff, 192, 0, 2, 1], &[0; 16], &[0x12, 0x34, 0, 80]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(), Some("192.0.2.1:4660")),
            (b"PROXY TCP6 2001:db8::1 ::1 4660 80\r\n".to_vec(), Some("[2001:db8::1]:4660")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (binary(0x21, 0x11, &v4), Some("192.0.2.1:4660")),
            (binary(0x21, 0x11, &with_notes), Some("192.0.2.1:4660")),
            (binary(0x21, 0x21, &mapped), Some("192.0.2.1:4660")),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, &v4), None),
        ] {
            for piece in [1, 13, 4096] {
                let bytes = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
                let (address, rest) = reads(&bytes, piece).await.expect("a header");
                assert_eq!(address, expected.map(|text| text.parse().expect("an address")), "{header:?} by {piece}");
                assert_eq!(rest, b"GET / HTTP/1.1\r\n", "{header:?} by {piece}");
            }
        }
    }

    #[tokio::test]
    async fn hostile_h43_malformed_or_cut_headers_are_refused() {
        let v4 = binary(0x21, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80]);
        let mut cases = vec![
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.300 10.0.0.1 4660 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 80\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 ::1 4660 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80".to_vec(),
            b"PROXY  TCP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(),
            b"PROXY TCP9 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(),
            format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).into_bytes(),
            binary(0x11, 0x11, &[0; 12]),
            binary(0x2f, 0x11, &[0; 12]),
            binary(0x21, 0x11, &[0; 4]),
            binary(0x21, 0x21, &[0; 12]),
            binary(0x21, 0x11, &[0; 2049]),
        ];
        cases.extend((0..v4.len()).map(|length| v4[..length].to_vec()));
        for case in cases {
            assert!(reads(&case, 4096).await.is_err(), "{:?}", case.escape_ascii().to_string());
        }
    }
}

//! The PROXY protocol: a header is read to its end and no further.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use crate::proxy_protocol::{Peek, read};

/// - What is read, and how much, does not depend on how the bytes come.
/// - A header is all that is used: at most 107 bytes of text up to its first line end, or 16 bytes and the length in
///   them.
/// - It is one without anything behind it as well, and none without its last byte.
/// - The address is in its one form: what IPv6 wraps round IPv4 is IPv4.
pub fn proxy_protocol(bytes: &[u8]) {
    let (address, used) = introduced(bytes, usize::MAX);
    for piece in [1, 7, 13] {
        assert_eq!(introduced(bytes, piece), (address, used), "in pieces of {piece}");
    }
    let Ok(address) = address else { return };
    let header = &bytes[..used];
    if let Some(text) = header.strip_prefix(b"PROXY ") {
        assert!(used <= 107 && text.iter().position(|b| *b == b'\n') == Some(text.len() - 1), "{used}");
    } else {
        assert_eq!(used, 16 + usize::from(u16::from_be_bytes([header[14], header[15]])));
    }
    assert_eq!(introduced(header, usize::MAX), (Ok(address), used), "on its own");
    assert!(introduced(&header[..used - 1], usize::MAX).0.is_err(), "without its last byte");
    assert!(address.is_none_or(|address| address.ip() == address.ip().to_canonical()), "{address:?}");
}

/// Bytes that come piece by piece.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
    /// So many were taken.
    used: usize,
    /// So many have come.
    seen: usize,
}

impl Pieces<'_> {
    fn come(&mut self) -> &[u8] {
        if self.used == self.seen {
            self.seen = self.seen.saturating_add(self.piece).min(self.bytes.len());
        }
        &self.bytes[self.used..self.seen]
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let here = self.come();
        let count = here.len().min(buf.remaining());
        buf.put_slice(&here[..count]);
        self.used += count;
        Poll::Ready(Ok(()))
    }
}

impl Peek for Pieces<'_> {
    async fn peek(&mut self, first: &mut [u8]) -> io::Result<usize> {
        let here = self.come();
        let count = here.len().min(first.len());
        first[..count].copy_from_slice(&here[..count]);
        Ok(count)
    }
}

/// What is read of `bytes`, and how many of them are used. Why there is nothing is of no interest.
fn introduced(bytes: &[u8], piece: usize) -> (Result<Option<SocketAddr>, ()>, usize) {
    let mut stream = Pieces { bytes, piece, used: 0, seen: 0 };
    let polled = pin!(read(&mut stream)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(read) = polled else { panic!("it waits for what is there") };
    let read = read.map_err(drop);
    // Whoever sends no header is not heard further: how far it was read does not matter.
    let used = if read.is_ok() { stream.used } else { 0 };
    (read, used)
}

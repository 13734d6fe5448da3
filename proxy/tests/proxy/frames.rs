//! An HTTP/2 client made of frames by hand: it says what no library would, and reads only what it wants to.
//!
//! Main types: [`Frames`], a connection; [`Frame`], as it came. Sources: RFC 9113 §4 and §6, RFC 7541 §6.2.2.

use std::net::SocketAddr;

use tokio::task::JoinHandle;

use crate::reading::Reading;
use crate::support::HOST;
use crate::wire::Wire;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW: u8 = 8;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// See the module.
pub(crate) struct Frames {
    wire: Wire,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// Fields of a head, in order.
pub(crate) type Fields = Vec<(&'static [u8], &'static [u8])>;

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Answered(u16),
    Reset,
    /// The whole connection.
    Closed,
}

impl Frames {
    /// Says hello with settings, each a number and a value.
    pub(crate) async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let frames = Self { wire: Wire::narrow(address).await };
        frames.wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let settings = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        frames.send(SETTINGS, 0, 0, &settings.collect::<Vec<u8>>()).await;
        frames
    }

    pub(crate) async fn send(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.wire.send(frame(kind, flags, stream, payload)).await;
    }

    /// Sends frames at once; false when nobody takes them any more.
    pub(crate) async fn send_all(&self, frames: Vec<u8>) -> bool {
        self.wire.send(frames).await
    }

    /// The same while something is read.
    pub(crate) fn send_meanwhile(&self, frames: Vec<u8>) -> JoinHandle<bool> {
        self.wire.send_meanwhile(frames)
    }

    /// Opens a stream with these fields.
    pub(crate) async fn open(&self, stream: u32, flags: u8, fields: &[(&[u8], &[u8])]) {
        self.send(HEADERS, flags | END_HEADERS, stream, &block(fields)).await;
    }

    /// The next frame; `None`: the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let head = self.wire.bytes(9).await;
        if head.len() < 9 {
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0u32, |n, b| n << 8 | u32::from(*b));
        let length = number(&head[..3]) as usize;
        let payload = self.wire.bytes(length).await;
        let frame = Frame { kind: head[3], flags: head[4], stream: number(&head[5..]), payload };
        if frame.kind == SETTINGS && frame.flags == 0 {
            self.send(SETTINGS, 1, 0, &[]).await;
        }
        (frame.payload.len() == length).then_some(frame)
    }

    /// Reads until a stream has an answer's head, or never will.
    pub(crate) async fn ended(&mut self, stream: u32) -> Ended {
        while let Some(frame) = self.next().await {
            match frame.kind {
                HEADERS if frame.stream == stream => return Ended::Answered(status(&frame.payload)),
                RESET if frame.stream == stream => return Ended::Reset,
                GOAWAY if number_of(&frame.payload[4..8]) != 0 => return Ended::Closed,
                _ => {}
            }
        }
        Ended::Closed
    }
}

/// A frame's bytes, whatever is in it.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) fn number_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

/// A good head.
pub(crate) fn request(method: &'static str, path: &'static [u8]) -> Fields {
    vec![(b":method", method.as_bytes()), (b":scheme", b"http"), (b":authority", HOST.as_bytes()), (b":path", path)]
}

/// Literal fields with literal names, neither compressed nor indexed.
pub(crate) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            // RFC 7541 §5.1, with a prefix of seven bits.
            let mut left = text.len();
            if left < 127 {
                out.push(left as u8);
            } else {
                out.push(127);
                left -= 127;
                while left >= 128 {
                    out.push((left % 128) as u8 | 128);
                    left /= 128;
                }
                out.push(left as u8);
            }
            out.extend_from_slice(text);
        }
    }
    out
}

/// The status, which stands first: from the static table, or in digits that may be compressed.
fn status(block: &[u8]) -> u16 {
    match block[0] {
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        // A literal whose name is in the table; its value takes three digits.
        _ if block[1] & 0x80 == 0 => String::from_utf8_lossy(&block[2..5]).parse().expect("a status"),
        _ => {
            let coded = block[2..2 + usize::from(block[1] & 0x7f)].iter().fold(0u32, |n, b| n << 8 | u32::from(*b));
            let mut left = 8 * u32::from(block[1] & 0x7f);
            let mut take = |count: u32| {
                left -= count;
                coded >> left & ((1 << count) - 1)
            };
            // RFC 7541, appendix B: 0, 1 and 2 have five bits, 3 to 9 six, from 0b011001 on.
            (0..3).fold(0, |status, _| {
                let five = take(5);
                let digit = if five <= 2 { five } else { (five << 1 | take(1)) - 0b01_1001 + 3 };
                status * 10 + u16::try_from(digit).expect("a digit")
            })
        }
    }
}

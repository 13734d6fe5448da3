//! The gRPC origin behind every contender: HTTP/2 without TLS, on the level of frames, so that it costs a fraction of
//! what it measures.
//!
//! It answers each request, when its last frame is there, with one empty message and the trailer `grpc-status: 0`. It
//! keeps the rules that it needs (RFC 9113: acknowledgements, both flow control windows of the connection) and reads no
//! header fields: whether those are right is asked of other servers, in the tests.

use std::io;
use std::net::SocketAddr;

use pointsman_benches::Problem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags and stream of a frame.
const FRAME_HEAD: usize = 9;
/// What we never raise, so nobody may send more (RFC 9113 §6.5.2).
const LONGEST_FRAME: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// SETTINGS_MAX_CONCURRENT_STREAMS = 128.
const OUR_SETTINGS: &[u8] = &[0, 3, 0, 0, 0, 128];
/// `:status: 200` (static 8) and `content-type` (static 31, not indexed).
const HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// One message of no bytes, not compressed.
const MESSAGE: &[u8] = &[0; 5];
/// `grpc-status: 0`, a name of its own, not indexed.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";
const ANSWER: [(u8, u8, &[u8]); 3] =
    [(HEADERS, END_HEADERS, HEAD), (DATA, 0, MESSAGE), (HEADERS, END_HEADERS | END_STREAM, TRAILERS)];
/// Window that is given back at once: half of what a client has at first.
const GIVE_BACK: u32 = 32 * 1024;

fn main() -> Result<(), Problem> {
    let address: SocketAddr = std::env::args().nth(1).ok_or("usage: grpc-origin ADDRESS")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, peer) = listener.accept().await?;
            tokio::spawn(async move {
                if let Err(error) = serve(stream).await {
                    eprintln!("{peer}: {error}");
                }
            });
        }
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    kind: u8,
    flags: u8,
    id: u32,
    payload: &'a [u8],
}

/// What is left to say on a connection.
#[derive(Debug)]
struct Connection {
    out: Vec<u8>,
    /// Streams whose request is whole.
    owed: Vec<u32>,
    /// Bytes of bodies that we may send.
    window: i64,
    /// Bytes of bodies that came and were not given back yet.
    taken: u32,
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = Connection { out: Vec::new(), owed: Vec::new(), window: 65_535, taken: 0 };
    let mut seen = Vec::with_capacity(64 * 1024);
    while seen.len() < PREFACE.len() {
        // A health check connects and leaves.
        if stream.read_buf(&mut seen).await? == 0 {
            return Ok(());
        }
    }
    if !seen.starts_with(PREFACE) {
        return Err(wrong("no HTTP/2 preface"));
    }
    connection.frame(SETTINGS, 0, 0, OUR_SETTINGS);
    let mut begin = PREFACE.len();
    loop {
        while let Some(frame) = Frame::first(&seen[begin..])? {
            begin += FRAME_HEAD + frame.payload.len();
            connection.take(&frame)?;
        }
        seen.drain(..begin);
        begin = 0;
        connection.answer();
        stream.write_all(&connection.out).await?;
        connection.out.clear();
        if stream.read_buf(&mut seen).await? == 0 {
            return Ok(());
        }
    }
}

impl<'a> Frame<'a> {
    /// The first in `bytes`, when it is whole.
    fn first(bytes: &'a [u8]) -> io::Result<Option<Self>> {
        let Some((&[a, b, c, kind, flags, i, j, k, l], rest)) = bytes.split_first_chunk::<FRAME_HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > LONGEST_FRAME {
            return Err(wrong("a frame that is too long"));
        }
        let id = u32::from_be_bytes([i & 0x7f, j, k, l]);
        Ok(rest.get(..length).map(|payload| Self { kind, flags, id, payload }))
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Connection {
    fn take(&mut self, &Frame { kind, flags, id, payload }: &Frame<'_>) -> io::Result<()> {
        match kind {
            DATA => self.taken += payload.len() as u32,
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            WINDOW_UPDATE if id == 0 => {
                let bytes = payload.try_into().map_err(|_| wrong("a window that is no number"))?;
                self.window += i64::from(u32::from_be_bytes(bytes));
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            self.owed.push(id);
        }
        Ok(())
    }

    /// Answers what is whole, as far as the window reaches; a stream's own window is never smaller than one message.
    ///
    /// All heads, then all messages, then all trailers, which is how hyper's servers interleave streams. Servers that
    /// write each answer in one piece keep the same rules, but cost HAProxy 2.6 a window update of its own for each.
    fn answer(&mut self) {
        let room = usize::try_from(self.window).unwrap_or_default() / MESSAGE.len();
        let mut whole = std::mem::take(&mut self.owed);
        self.owed = whole.split_off(room.min(whole.len()));
        self.window -= (whole.len() * MESSAGE.len()) as i64;
        for (kind, flags, payload) in ANSWER {
            whole.iter().for_each(|id| self.frame(kind, flags, *id, payload));
        }
        if self.taken >= GIVE_BACK {
            let taken = std::mem::take(&mut self.taken);
            self.frame(WINDOW_UPDATE, 0, 0, &taken.to_be_bytes());
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        self.out.extend_from_slice(&length[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&id.to_be_bytes());
        self.out.extend_from_slice(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_when_they_are_whole() {
        let ping = [0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let whole = Frame { kind: PING, flags: 0, id: 0, payload: &ping[9..] };
        assert_eq!(Frame::first(&ping[..8]).expect("short"), None);
        assert_eq!(Frame::first(&ping[..16]).expect("short"), None);
        assert_eq!(Frame::first(&ping).expect("whole"), Some(whole));
        assert!(Frame::first(&[1, 0, 0, DATA, 0, 0, 0, 0, 1]).is_err());
    }

    #[test]
    fn answers_wait_for_the_window() {
        let mut connection = Connection { out: Vec::new(), owed: vec![1, 3], window: 5, taken: 0 };
        connection.answer();
        assert_eq!((connection.window, connection.owed.len()), (0, 1));
        let more = Frame { kind: WINDOW_UPDATE, flags: 0, id: 0, payload: &[0, 0, 0, 5] };
        connection.take(&more).expect("a window");
        connection.answer();
        assert_eq!((connection.window, connection.owed.len()), (0, 0));
    }
}

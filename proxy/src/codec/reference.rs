//! The reference: the same bytes through the HTTP/1 library and through our codec, and every difference has a reason.
//!
//! The cases are in `proxy/tests/data/reference.txt`, which says how it is written. Ours is the codec with the head
//! check behind it: what a request has to pass before anything looks at it.
//!
//! Main types: [`cases::Case`], one of the file; [`Outcome`], what a side made of it.

mod cases;
mod library;
mod ours;

use cases::{Case, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::flow::Source;

/// What a side made of a connection's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    messages: Vec<Seen>,
    /// Something was refused behind them, and why.
    refused: Option<String>,
}

/// One message as a side saw it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Method, or status and reason.
    first: String,
    /// Empty in answers.
    target: String,
    version: &'static str,
    /// Sorted by name; those of one name in their order.
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    /// The body came to its end.
    whole: bool,
}

impl Outcome {
    /// As the file has it: one word for each message, in order.
    fn verdict(&self) -> String {
        let messages = self.messages.iter().map(|seen| if seen.whole { "taken" } else { "broken" });
        let words: Vec<&str> = messages.chain(self.refused.iter().map(|_| "refused")).collect();
        if words.is_empty() { "nothing".into() } else { words.join(", ") }
    }

    /// The parts of messages taken by both sides that they see differently.
    fn differing(&self, other: &Self) -> Vec<&'static str> {
        let mut parts = Vec::new();
        for (one, two) in self.messages.iter().zip(&other.messages) {
            let both = one.whole && two.whole;
            for (part, differs) in [
                ("first", one.first != two.first),
                ("target", one.target != two.target),
                ("version", one.version != two.version),
                ("fields", one.fields != two.fields),
                ("body", both && one.body != two.body),
                ("trailers", both && one.trailers != two.trailers),
            ] {
                if differs && !parts.contains(&part) {
                    parts.push(part);
                }
            }
        }
        parts
    }
}

fn sorted<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> = fields.map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn in_map(map: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    sorted(map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
}

/// Reads a body of ours to its end, or to where it breaks.
async fn read(body: &mut impl Source, seen: &mut Seen) {
    seen.whole = std::future::poll_fn(|cx| {
        loop {
            match std::task::ready!(body.poll_ready(cx)) {
                Ok(true) => {
                    let count = body.with(|piece| {
                        seen.body.extend_from_slice(piece);
                        piece.len()
                    });
                    body.consume(count);
                }
                end => return std::task::Poll::Ready(end.is_ok()),
            }
        }
    })
    .await;
    seen.trailers = body.take_trailers().as_ref().map(in_map).unwrap_or_default();
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.expect("connected"), far.expect("accepted").0);
    near.set_nodelay(true).expect("set");
    (near, far)
}

/// Sends bytes in pieces and then nothing more; reads until the other side has enough.
async fn send(mut stream: TcpStream, bytes: &[u8], piece: usize) {
    let (mut from, mut to) = stream.split();
    let sending = async {
        for piece in bytes.chunks(piece) {
            // Whoever refuses may close before all was sent.
            if to.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = to.shutdown().await;
    };
    let mut read = Vec::new();
    let _ = tokio::join!(sending, from.read_to_end(&mut read));
}

/// Plays an endpoint: waits for a request, then as [`send`].
async fn answer(mut stream: TcpStream, bytes: &[u8], piece: usize) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut asked).await.is_ok_and(|read| read == 0) {
            return;
        }
    }
    send(stream, bytes, piece).await;
}

async fn both(case: &Case<'_>) -> (Outcome, Outcome) {
    let bytes = &case.bytes;
    // A byte at a time, or what TCP would make of more.
    let small = bytes.len() / 400 + 1;
    match case.kind {
        Kind::Request => {
            let ours = ours::requests(bytes, usize::MAX).await;
            assert_eq!(ours::requests(bytes, small).await, ours, "{}: in pieces", case.name);
            (ours, library::requests(bytes).await)
        }
        Kind::Response { head_only } => {
            let ours = ours::response(bytes, usize::MAX, head_only).await;
            assert_eq!(ours::response(bytes, small, head_only).await, ours, "{}: in pieces", case.name);
            (ours, library::response(bytes, head_only).await)
        }
    }
}

#[tokio::test]
async fn every_difference_from_the_library_is_known_and_has_a_reason() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/reference.txt");
    let text = std::fs::read_to_string(file).expect("the file of cases");
    let cases = cases::read(&text);
    let count = |kind: fn(&Kind) -> bool| cases.iter().filter(|case| kind(&case.kind)).count();
    assert!(count(|kind| matches!(kind, Kind::Request)) >= 80);
    assert!(count(|kind| matches!(kind, Kind::Response { .. })) >= 40);
    let mut wrong = String::new();
    for case in &cases {
        let (ours, library) = both(case).await;
        let found = (ours.verdict(), library.verdict(), ours.differing(&library));
        let listed = (case.ours.clone(), case.library.clone(), case.differ.clone());
        if (&found.0, &found.1) != (&listed.0, &listed.1) || found.2 != listed.2 {
            let (one, two, differ) = found;
            wrong += &format!("{}\nours: {one}\nhyper: {two}\ndiffer: {}\n", case.name, differ.join(", "));
            wrong += &format!("  ours: {ours:?}\n  hyper: {library:?}\n\n");
        }
    }
    assert!(wrong.is_empty(), "other than listed:\n\n{wrong}");
}

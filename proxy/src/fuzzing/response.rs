//! Answers of endpoints: what is read, where they end, and what goes on to a client.

use std::rc::Rc;

use super::head::check_framing;
use super::{Verdict, check_beginnings, check_lines, chunks};
use crate::codec::connection::{Connection, Flight};
use crate::codec::http1::framing::{self, Framing};
use crate::codec::http1::head::{Parsed, ResponseHead};
use crate::codec::rewrite::{Keep, Written, write_answer};
use crate::codec::testing::connection;
use crate::codec::view::AnswerHead;

/// - A head that is whole, or refused, is so whatever follows; it is never longer than what is there.
/// - Its version, status, reason and fields, written down again, are the lines that came, but for the case of names and
///   for blanks round values.
/// - A body has a length or is chunked only if exactly one field says so; without one it ends with the connection.
/// - The answer to HEAD, and one without a body by its status, ends with its head or is refused, whatever it says.
/// - What goes on to a client is exactly one head, of the same status, with the framing it was written for.
/// - A chunked body behind the head keeps what [`chunks`] promises.
pub fn response(bytes: &[u8]) {
    check_beginnings(bytes, |bytes| Verdict::of(&ResponseHead::parse(bytes)));
    let Ok(Parsed::Whole(head, length)) = ResponseHead::parse(bytes) else { return };
    check_first(check_lines(&bytes[..length], head.fields().iter()), &head);
    let framing = framing::of_response(&head, false);
    let bodiless = matches!(head.status, 100..=199 | 204 | 304);
    if !bodiless {
        check_framing(&bytes[..length], head.fields(), head.minor, framing);
    }
    let to_head = framing::of_response(&head, true);
    assert_eq!(to_head.map_err(drop), framing.map(|_| Framing::Length(0)).map_err(drop), "to HEAD");
    assert!(!bodiless || framing == to_head, "without a body by its status");
    let _ = framing::is_persistent(head.fields(), head.minor);
    if framing == Ok(Framing::Chunked) {
        chunks(&bytes[length..]);
    }
    if let Ok(framing) = framing
        && head.status >= 200
    {
        relay(head, bodiless, framing, length);
    }
}

fn check_first(line: &[u8], head: &ResponseHead) {
    let rest = line.strip_prefix(format!("HTTP/1.{} {}", head.minor, head.status).as_bytes()).expect("both");
    match rest.strip_prefix(b" ") {
        None => assert!(rest.is_empty() && head.reason().is_empty(), "{}", rest.escape_ascii()),
        // A reason that is not ASCII is left out.
        Some(reason) => assert!(head.reason().as_bytes() == reason || (head.reason().is_empty() && !reason.is_ascii())),
    }
}

/// To clients that read it by length, chunk by chunk, or to the end, and to HEAD.
fn relay(head: ResponseHead, bodiless: bool, framing: Framing, length: usize) {
    thread_local! {
        /// Kept: its key costs more than all the rest.
        static CONNECTION: Rc<Connection> = connection("192.0.2.1", &[]);
    }
    let (status, flight) = (head.status, CONNECTION.with(Flight::begin));
    let fields = head.fields().iter().len();
    let head = AnswerHead::Http1(head);
    let to_head = Framing::Length(0);
    for (framing, bodiless) in
        [(framing, bodiless), (Framing::Chunked, bodiless), (Framing::Close, bodiless), (to_head, true)]
    {
        for keep in [Keep::Open, Keep::Asked, Keep::Close] {
            let mut written = Vec::new();
            write_answer(&head, Written { framing, bodiless, keep, flight: &flight }, &mut written);
            let (sent, end) = match ResponseHead::parse(&written) {
                Ok(Parsed::Whole(sent, end)) => (sent, end),
                _ if fields > 90 || length > 30_000 => return,
                other => panic!("{other:?}: {}", written.escape_ascii()),
            };
            assert_eq!((sent.status, end), (status, written.len()), "{}", written.escape_ascii());
            let expected = if bodiless { Framing::Length(0) } else { framing };
            assert_eq!(framing::of_response(&sent, bodiless), Ok(expected), "{}", written.escape_ascii());
        }
    }
}

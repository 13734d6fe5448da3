//! Requests' heads: what is read, where the request ends, and what goes on to an endpoint.

use super::host_and_path::check_host;
use super::{Verdict, check_beginnings, check_lines};
use crate::codec::http1::framing::{self, Framing, Unclear};
use crate::codec::http1::head::{Fields, Parsed, RequestHead};
use crate::codec::told::{Calls, Told};
use crate::codec::upload::Upload;
use crate::codec::view::Head;
use crate::codec::{Inbound, Prepared, testing};
use crate::head_check;
use crate::request_id::RequestId;
use crate::snapshot::Protocol;

/// - A head that is whole, or refused, is so whatever follows; it is never longer than what is there.
/// - Its method, target, version and fields, written down again, are the lines that came, but for the case of names and
///   for blanks round values.
/// - A body has a length or is chunked only if exactly one field says so, in one spelling that nobody reads otherwise.
/// - What the head check lets pass has the host that its one host field names.
/// - What goes on to an endpoint is exactly one head, of the same method and path, with that one host and with the
///   framing it was written for.
pub fn head(bytes: &[u8]) {
    check_beginnings(bytes, |bytes| Verdict::of(&RequestHead::parse(bytes)));
    let Ok(Parsed::Whole(head, length)) = RequestHead::parse(bytes) else { return };
    let first = check_lines(&bytes[..length], head.fields().iter());
    assert_eq!(first, format!("{} {} HTTP/1.{}", head.method(), head.target(), head.minor).as_bytes());
    let framing = framing::of_request(&head);
    check_framing(&bytes[..length], head.fields(), head.minor, framing);
    let _ = framing::is_persistent(head.fields(), head.minor);
    if let Ok(framing) = framing {
        forward(bytes, head, framing);
    }
}

/// What says where a message ends says it once, in the plainest form.
pub(super) fn check_framing(whole: &[u8], fields: &Fields, minor: u8, framing: Result<Framing, Unclear>) {
    let mut said: Vec<(&str, &[u8])> = Vec::new();
    said.extend(fields.iter().filter(|(name, _)| matches!(*name, "content-length" | "transfer-encoding")));
    let Ok(framing) = framing else {
        assert!(!said.is_empty(), "unclear, and nothing was said");
        return;
    };
    match (framing, &said[..]) {
        (Framing::Length(0) | Framing::Close, []) => {}
        (Framing::Length(length), [("content-length", value)]) => {
            let digits = std::str::from_utf8(value).expect("digits");
            assert!(!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()), "{digits}");
            assert_eq!(digits.parse(), Ok(length));
        }
        (Framing::Chunked, [("transfer-encoding", value)]) => {
            assert!(value.eq_ignore_ascii_case(b"chunked") && minor == 1);
        }
        other => panic!("{other:?}"),
    }
    for line in whole.split(|b| *b == b'\n') {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        if said.iter().any(|(said, _)| name.eq_ignore_ascii_case(said.as_bytes())) {
            assert!(!line.contains(&b'\t'), "a tab beside what says where the message ends");
        }
    }
}

fn forward(bytes: &[u8], head: RequestHead, framing: Framing) {
    let fields = head.fields().iter().len();
    let head = Head::Http1(head);
    let view = head.view();
    let Ok(checked) = head_check::check(view, None) else { return };
    check_host(&checked);
    let authority = checked.authority.into_owned();
    let (method, path) = (view.method().to_owned(), view.path().to_owned());
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let Ok(Parsed::Whole(again, _)) = RequestHead::parse(bytes) else { unreachable!("parsed before") };
        let inbound = Box::new(Inbound { head: Head::Http1(again), upload: Upload::nothing(), upgrade: None });
        let id = RequestId::given(b"id").expect("a name");
        let told =
            Told::new(inbound.head.view(), testing::connection("192.0.2.7", &["192.0.2.0/24"]), id, Calls::default());
        let prepared = Prepared::new(inbound, Some(authority.as_str().into()), told, protocol, http::uri::Scheme::HTTP);
        let Ok(Prepared::Http1(mut outgoing)) = prepared else { continue };
        let mut written = Vec::new();
        outgoing.parts().0.write(framing, &mut written);
        let (sent, length) = match RequestHead::parse(&written) {
            Ok(Parsed::Whole(sent, length)) => (sent, length),
            // Ours come on top of what came, which may have been all that a head may have.
            _ if fields > 80 || bytes.len() > 30_000 => return,
            other => panic!("{other:?}: {}", written.escape_ascii()),
        };
        assert_eq!(length, written.len(), "more than one head: {}", written.escape_ascii());
        assert_eq!((sent.method(), sent.target()), (&*method, &*path));
        assert_eq!(framing::of_request(&sent), Ok(framing));
        assert!(sent.fields().all("host").eq([authority.as_bytes()]), "{}", written.escape_ascii());
    }
}

//! gRPC-Web: what browsers send as text, and what they are answered.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::codec::grpc_web::{Base64, NotBase64, Web, is_grpc};

/// A content type on the first line, fields of trailers on those behind it, and behind an empty line a body.
///
/// - A content type of gRPC-Web has one of gRPC, from which it is found again.
/// - A body in Base64 says what it says group by group, however it comes; a group that says nothing ends it.
/// - After each piece all whole groups were read: less than one is held back, and no more comes out than went in.
/// - What goes out as text is read as what it was, however it is cut on the way out and on the way in.
/// - Trailers are one frame, as long as it says, from which their names and values are read again in their order.
pub fn grpc_web(bytes: &[u8]) {
    let empty = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = empty.map_or((&bytes[..0], bytes), |at| (&bytes[..at], &bytes[at + 2..]));
    let mut lines = head.split(|b| *b == b'\n');
    content_type(lines.next().unwrap_or_default());
    trailers(lines);
    read(body);
    written(body);
}

fn content_type(given: &[u8]) {
    let Some(web) = Web::of(given) else { return };
    let grpc = web.to_grpc(given);
    assert!(is_grpc(&grpc) && Web::of(&grpc).is_none());
    assert!(web.of_grpc(&grpc).eq_ignore_ascii_case(given));
}

fn trailers<'a>(lines: impl Iterator<Item = &'a [u8]>) {
    let mut fields = HeaderMap::new();
    for line in lines.take(100) {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            fields.append(name, value);
        }
    }
    let frame = Web::Binary.trailers(&fields);
    assert_eq!(all(&Web::Text.trailers(&fields), 5), Ok((frame.to_vec(), true)));
    let (head, mut rest) = frame.split_at(5);
    assert_eq!((head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize), (0x80, rest.len()));
    let mut again = fields.iter();
    while !rest.is_empty() {
        let end = rest.windows(2).position(|two| two == b"\r\n").expect("a line's end");
        let colon = rest.iter().position(|b| *b == b':').expect("a colon");
        let (name, value) = again.next().expect("no more lines than fields");
        assert_eq!((&rest[..colon], &rest[colon + 1..end]), (name.as_str().as_bytes(), value.as_bytes()));
        rest = &rest[end + 2..];
    }
    assert_eq!(again.next(), None, "a field without its line");
}

/// What a whole text says, and whether it ends where it may; it comes in pieces of this size.
fn all(text: &[u8], piece: usize) -> Result<(Vec<u8>, bool), NotBase64> {
    let (mut decoder, mut said) = (Base64::default(), Vec::new());
    for piece in text.chunks(piece) {
        said.extend_from_slice(&decoder.decode(piece)?);
    }
    Ok((said, decoder.is_complete()))
}

fn read(text: &[u8]) {
    for piece in [1, 3, 7, 64, usize::MAX] {
        let mut decoder = Base64::default();
        let (mut seen, mut refused) = (0, false);
        for part in text.chunks(piece) {
            // What whole groups were there before were said before.
            let from = seen / 4 * 4;
            seen += part.len();
            let groups: Option<Vec<_>> = text[from..seen].chunks_exact(4).map(plain).collect();
            let expected = groups.map(|groups| Bytes::from(groups.concat())).ok_or(NotBase64);
            assert_eq!(decoder.decode(part), expected, "up to {seen} in pieces of {piece}");
            refused = expected.is_err();
            if refused {
                break;
            }
        }
        assert!(refused || decoder.is_complete() == text.len().is_multiple_of(4), "half a group");
    }
}

/// What a group of four letters says (RFC 4648 §4), read without any finesse.
fn plain(group: &[u8]) -> Option<Vec<u8>> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padding = group.iter().rev().take_while(|b| **b == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bits = 0u32;
    for letter in &group[..4 - padding] {
        bits = bits << 6 | LETTERS.iter().position(|known| known == letter)? as u32;
    }
    bits <<= 6 * padding;
    let bytes = bits.to_be_bytes();
    // Bits that belong to no byte are none.
    (bytes[4 - padding..].iter().all(|b| *b == 0)).then(|| bytes[1..4 - padding].to_vec())
}

fn written(body: &[u8]) {
    for (out, back) in [(1, 1), (5, 3), (64, 7)] {
        let pieces = body.chunks(out).map(Bytes::copy_from_slice);
        let text: Vec<u8> = pieces.clone().flat_map(|piece| Web::Text.encode(piece)).collect();
        assert_eq!(all(&text, back), Ok((body.to_vec(), true)), "out in pieces of {out}, in in pieces of {back}");
        assert!(pieces.flat_map(|piece| Web::Binary.encode(piece)).eq(body.iter().copied()));
    }
}

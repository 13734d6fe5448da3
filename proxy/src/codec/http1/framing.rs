//! Where a message ends: by its length, by its last chunk, or with the connection; and which messages leave that open.
//!
//! Must not know: bytes or sockets. Main types: [`Framing`]; [`of_request`] and [`of_response`], which decide it.
//! Source: RFC 9112 §6.3, in its strictest reading: whatever two servers could read differently has no framing.

use super::head::{Fields, RequestHead, ResponseHead};

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes; 0: there is none.
    Length(u64),
    Chunked,
    /// When the connection ends. Answers only.
    Close,
}

/// The message has no certain end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unclear(pub(crate) &'static str);

/// Where a request ends.
pub(crate) fn of_request(head: &RequestHead) -> Result<Framing, Unclear> {
    let framing = declared(head.fields(), head.minor)?;
    Ok(framing.unwrap_or(Framing::Length(0)))
}

/// Where the answer to a request ends. `head_only`: the request was HEAD.
pub(crate) fn of_response(head: &ResponseHead, head_only: bool) -> Result<Framing, Unclear> {
    let declared = declared(head.fields(), head.minor)?;
    if head_only || matches!(head.status, 100..=199 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    Ok(declared.unwrap_or(Framing::Close))
}

fn declared(fields: &Fields, minor: u8) -> Result<Option<Framing>, Unclear> {
    if !fields.may_have("content-length") && !fields.may_have("transfer-encoding") {
        return Ok(None);
    }
    let (mut length, mut chunked) = (None, false);
    for (place, (name, value)) in fields.iter().enumerate() {
        match name {
            "content-length" | "transfer-encoding" if fields.has_tab(place) => {
                return Err(Unclear("a tab beside what says where the message ends"));
            }
            "content-length" if length.is_some() => return Err(Unclear("two content-length fields")),
            "content-length" => {
                length = Some(number(value).ok_or(Unclear("content-length is not a number"))?);
            }
            "transfer-encoding" => {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Unclear("transfer-encoding is not exactly chunked"));
                }
                chunked = true;
            }
            _ => {}
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(Unclear("both content-length and transfer-encoding")),
        (_, true) if minor == 0 => Err(Unclear("transfer-encoding in HTTP/1.0")),
        (_, true) => Ok(Some(Framing::Chunked)),
        (length, false) => Ok(length.map(Framing::Length)),
    }
}

/// Digits and nothing else, below 2^63: servers that count with a sign read larger ones as negative.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let number = value.iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')));
    number.filter(|number| i64::try_from(*number).is_ok())
}

/// Whether the connection may carry another message after this one.
pub(crate) fn is_persistent(fields: &Fields, minor: u8) -> bool {
    let mut keep = minor >= 1;
    for token in tokens(fields, "connection") {
        if token.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keep |= token.eq_ignore_ascii_case(b"keep-alive");
    }
    keep
}

/// The members of a comma-separated field (RFC 9110 §5.6.1), across all its lines.
pub(crate) fn tokens<'a>(fields: &'a Fields, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let split = fields.all(name).flat_map(|value| value.split(|b| *b == b','));
    split.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::head::Parsed;
    use super::*;

    fn request(fields: &str, minor: u8) -> Result<Framing, Unclear> {
        let text = format!("POST / HTTP/1.{minor}\r\nhost: a\r\n{fields}\r\n");
        let Ok(Parsed::Whole(head, _)) = RequestHead::parse(text.as_bytes()) else { panic!("no head: {text:?}") };
        of_request(&head)
    }

    fn response(status: u16, fields: &str, head_only: bool) -> Result<Framing, Unclear> {
        let text = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let Ok(Parsed::Whole(head, _)) = ResponseHead::parse(text.as_bytes()) else { panic!("no head: {text:?}") };
        of_response(&head, head_only)
    }

    #[test]
    fn hostile_h01_a_length_has_one_reading_or_none() {
        for (fields, expected) in [
            ("", 0),
            ("content-length: 0\r\n", 0),
            ("Content-Length: 5\r\n", 5),
            ("content-length:   7  \r\n", 7),
            ("content-length: 0005\r\n", 5),
            ("content-length: 9223372036854775807\r\n", 9_223_372_036_854_775_807),
        ] {
            assert_eq!(request(fields, 1), Ok(Framing::Length(expected)), "{fields:?}");
        }
        for fields in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            "content-length: 5\r\ncontent-length: 5\r\n",
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: +5\r\n",
            "content-length: -5\r\n",
            "content-length: 5, 5\r\n",
            "content-length: 5,\r\n",
            "content-length: 0x5\r\n",
            "content-length: 5 5\r\n",
            "content-length: 5.0\r\n",
            "content-length: 5e1\r\n",
            "content-length: \r\n",
            "content-length: 9223372036854775808\r\n",
            "content-length: 18446744073709551616\r\n",
            "content-length: 99999999999999999999\r\n",
        ] {
            assert!(request(fields, 1).is_err(), "{fields:?}");
            assert!(response(200, fields, false).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn hostile_h02_only_chunked_is_chunked() {
        assert_eq!(request("transfer-encoding: chunked\r\n", 1), Ok(Framing::Chunked));
        assert_eq!(request("Transfer-Encoding:CHUNKED  \r\n", 1), Ok(Framing::Chunked));
        assert!(request("transfer-encoding: chunked\r\n", 0).is_err(), "HTTP/1.0");
        for value in [
            "xchunked",
            "chunked, identity",
            "identity, chunked",
            "identity",
            "gzip, chunked",
            "chunked,",
            ",chunked",
            "chunked, chunked",
            "\"chunked\"",
            "chunked;q=1",
            "",
        ] {
            assert!(request(&format!("transfer-encoding: {value}\r\n"), 1).is_err(), "{value}");
        }
        for fields in [
            "transfer-encoding:\tchunked\r\n",
            "transfer-encoding: chunked\t\r\n",
            "content-length: \t5\r\n",
            "content-length: \t 5\r\n",
            "content-length: 5 \t\r\n",
            "transfer-encoding:\t chunked\r\n",
        ] {
            assert!(request(fields, 1).is_err(), "{fields:?}");
        }
        assert!(request("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", 1).is_err());
        assert!(request("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", 1).is_err());
    }

    #[test]
    fn hostile_h07_answers_without_a_body_have_none_whatever_they_say() {
        for (status, fields, head_only, expected) in [
            (200, "content-length: 5\r\n", true, Framing::Length(0)),
            (204, "content-length: 5\r\n", false, Framing::Length(0)),
            (304, "content-length: 5\r\n", false, Framing::Length(0)),
            (204, "transfer-encoding: chunked\r\n", false, Framing::Length(0)),
            (103, "", false, Framing::Length(0)),
            (200, "content-length: 5\r\n", false, Framing::Length(5)),
            (200, "transfer-encoding: chunked\r\n", false, Framing::Chunked),
            (200, "", false, Framing::Close),
            (404, "", true, Framing::Length(0)),
        ] {
            assert_eq!(response(status, fields, head_only), Ok(expected), "{status} {fields:?} {head_only}");
        }
    }

    #[test]
    fn keep_alive_is_what_both_versions_say() {
        for (minor, value, expected) in [
            (1, "", true),
            (1, "close", false),
            (1, "keep-alive, Close", false),
            (1, "upgrade", true),
            (0, "", false),
            (0, "keep-alive", true),
            (0, "Keep-Alive, x", true),
            (0, "keep-alive, close", false),
        ] {
            let text = format!("GET / HTTP/1.{minor}\r\nconnection: {value}\r\n\r\n");
            let Ok(Parsed::Whole(head, _)) = RequestHead::parse(text.as_bytes()) else { panic!("no head: {text:?}") };
            assert_eq!(is_persistent(head.fields(), minor), expected, "{minor} {value}");
        }
    }
}

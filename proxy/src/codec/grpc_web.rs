//! gRPC-Web and gRPC: the same messages, but a browser gets its trailers as a last frame, and may want all of it as text.
//!
//! Must not know: connections, or what messages say. Source: grpc/doc/PROTOCOL-WEB.md.
//!
//! Main types: [`Web`], the two forms; [`Base64`], which reads the text form piece by piece.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;

/// How a browser speaks gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Web {
    Binary,
    /// Base64, each piece padded by itself.
    Text,
}

impl Web {
    /// By the content type.
    pub(crate) fn of(content_type: &[u8]) -> Option<Self> {
        [Self::Text, Self::Binary].into_iter().find(|web| suffix(content_type, web.content_type()).is_some())
    }

    /// What the endpoint is told instead: "application/grpc-web-text+proto" is "application/grpc+proto".
    pub(crate) fn to_grpc(self, content_type: &[u8]) -> Vec<u8> {
        [GRPC.as_bytes(), suffix(content_type, self.content_type()).unwrap_or_default()].concat()
    }

    /// The way back.
    pub(crate) fn of_grpc(self, content_type: &[u8]) -> Vec<u8> {
        [self.content_type().as_bytes(), suffix(content_type, GRPC).unwrap_or_default()].concat()
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Binary => "application/grpc-web",
            Self::Text => "application/grpc-web-text",
        }
    }

    /// A piece of an answer in this form.
    pub(crate) fn encode(self, piece: Bytes) -> Bytes {
        match self {
            Self::Binary => piece,
            Self::Text => STANDARD.encode(piece).into(),
        }
    }

    /// The last frame of an answer: the trailers, as lines of a head.
    pub(crate) fn trailers(self, trailers: &HeaderMap) -> Bytes {
        let mut lines = Vec::new();
        for (name, value) in trailers {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.extend_from_slice(b":");
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        let length = u32::try_from(lines.len()).expect("trailers are bounded");
        self.encode([&[0x80][..], &length.to_be_bytes(), &lines].concat().into())
    }
}

/// Whether a content type is gRPC's.
pub(crate) fn is_grpc(content_type: &[u8]) -> bool {
    suffix(content_type, GRPC).is_some()
}

const GRPC: &str = "application/grpc";

/// What stands behind a media type, which has no case (RFC 9110 §8.3.1): the form of its messages, or parameters.
fn suffix<'a>(content_type: &'a [u8], media_type: &str) -> Option<&'a [u8]> {
    let (kind, suffix) = content_type.split_at_checked(media_type.len())?;
    let ends = matches!(suffix.first(), None | Some(b'+' | b';' | b' ' | b'\t'));
    (ends && kind.eq_ignore_ascii_case(media_type.as_bytes())).then_some(suffix)
}

/// Reads Base64 that comes in pieces and may be padded in the middle.
#[derive(Debug, Default)]
pub(crate) struct Base64 {
    /// Less than a group of four.
    rest: Vec<u8>,
}

/// Not Base64.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotBase64;

impl Base64 {
    /// What the next piece says, as far as groups are complete.
    pub(crate) fn decode(&mut self, piece: &[u8]) -> Result<Bytes, NotBase64> {
        self.rest.extend_from_slice(piece);
        let mut decoded = Vec::with_capacity(self.rest.len() / 4 * 3);
        let mut from = 0;
        loop {
            let left = &self.rest[from..];
            let padded = left.iter().position(|b| *b == b'=').map(|at| at / 4 * 4 + 4);
            let length = padded.filter(|end| *end <= left.len()).unwrap_or(left.len() / 4 * 4);
            if length == 0 {
                break;
            }
            STANDARD.decode_vec(&left[..length], &mut decoded).map_err(|_| NotBase64)?;
            from += length;
        }
        self.rest.drain(..from);
        Ok(decoded.into())
    }

    /// Whether it ended where it may.
    pub(crate) fn is_complete(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grpc_web_content_types_have_their_counterpart() {
        for (web, kind, grpc) in [
            ("application/grpc-web", Web::Binary, "application/grpc"),
            ("application/grpc-web+proto", Web::Binary, "application/grpc+proto"),
            ("application/grpc-web-text", Web::Text, "application/grpc"),
            ("application/grpc-web-text+proto", Web::Text, "application/grpc+proto"),
        ] {
            assert_eq!(Web::of(web.as_bytes()), Some(kind));
            assert_eq!(kind.to_grpc(web.as_bytes()), grpc.as_bytes());
            assert_eq!(kind.of_grpc(grpc.as_bytes()), web.as_bytes());
        }
        assert_eq!(Web::of(b"Application/gRPC-Web-Text; charset=utf-8"), Some(Web::Text));
        for none in ["application/grpc", "text/plain", "application/grpc-web-web", "application/grpc-webs", ""] {
            assert_eq!(Web::of(none.as_bytes()), None, "{none}");
        }
        for (kind, expected) in [
            ("application/grpc", true),
            ("Application/GRPC+Proto", true),
            ("application/grpc;x=y", true),
            ("application/grpcs", false),
            ("application/grpc-web", false),
            ("application/grp", false),
        ] {
            assert_eq!(is_grpc(kind.as_bytes()), expected, "{kind}");
        }
    }

    #[test]
    fn grpc_web_trailers_are_a_frame() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        trailers.insert("x-a", http::HeaderValue::from_static("b"));
        let frame = Web::Binary.trailers(&trailers);
        assert_eq!(frame[..], b"\x80\0\0\0\x16grpc-status:0\r\nx-a:b\r\n"[..]);
        let mut decoder = Base64::default();
        assert_eq!(decoder.decode(&Web::Text.trailers(&trailers)), Ok(frame));
        assert!(decoder.is_complete());
    }

    #[test]
    fn grpc_web_text_that_is_none_is_refused() {
        for text in ["a$bc", "====", "ab=c", "=abc", "a=bc"] {
            assert_eq!(Base64::default().decode(text.as_bytes()), Err(NotBase64), "{text}");
        }
        let mut cut = Base64::default();
        assert_eq!(cut.decode(b"YWJjZ"), Ok(Bytes::from_static(b"abc")));
        assert!(!cut.is_complete());
    }

    proptest! {
        #[test]
        fn grpc_web_text_is_read_however_it_is_cut_and_padded(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8), cut in 1usize..20,
        ) {
            let text: Vec<u8> = pieces.iter().flat_map(|piece| Web::Text.encode(piece.clone().into())).collect();
            let (mut decoder, mut read) = (Base64::default(), Vec::new());
            for part in text.chunks(cut) {
                read.extend_from_slice(&decoder.decode(part).expect("Base64"));
            }
            prop_assert!(decoder.is_complete());
            prop_assert_eq!(read, pieces.concat());
        }
    }
}

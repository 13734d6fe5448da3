//! The chunked coding (RFC 9112 §7.1), read strictly and written plainly.
//!
//! Must not know: sockets. What it is given may end anywhere; what it does not use has to be given again with more.
//!
//! Main type: [`Decoder`].

use http::{HeaderMap, HeaderName, HeaderValue};

/// Extensions of all chunks of a body together: nobody uses them, and each is read in vain.
const EXTENSION_BYTES: usize = 1024;
/// The line before a chunk: 16 digits at most, and what extensions may take.
const LINE_BYTES: usize = 16 + EXTENSION_BYTES + 2;
/// Most trailers, and their size in all.
pub(crate) const TRAILER_FIELDS: usize = 32;
/// See [`TRAILER_FIELDS`].
pub(crate) const TRAILER_BYTES: usize = 8 * 1024;

/// Reads a chunked body.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    extensions: usize,
    trailers: Option<HeaderMap>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the line that says a chunk's size.
    #[default]
    Size,
    /// Within a chunk; so many bytes are left of it.
    Data(u64),
    /// Behind a chunk, before its line end.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
    End,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes are framing: take them away and ask again.
    Skip(usize),
    /// So many bytes, at least one, are of the body; tell [`Decoder::took`] how many were used.
    Data(usize),
    /// Nothing can be said without more bytes.
    More,
    /// The body is over.
    End,
}

/// Why bytes are no chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A size that is not 1 to 16 hexadecimal digits.
    Size,
    /// An extension that is none.
    Extension,
    /// More than [`EXTENSION_BYTES`].
    TooManyExtensions,
    /// Something else than CR LF where a line has to end.
    LineEnd,
    /// Trailers that are none.
    Trailers,
    /// More than [`TRAILER_FIELDS`] or [`TRAILER_BYTES`].
    TooManyTrailers,
}

impl Decoder {
    /// Looks at what comes next. Never panics, and gives the same for the same bytes.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Step, Wrong> {
        match self.state {
            State::Size => self.size(bytes),
            State::Data(left) if bytes.is_empty() => Ok(if left == 0 { Step::End } else { Step::More }),
            State::Data(left) => Ok(Step::Data(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)))),
            State::DataEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    Ok(Step::Skip(2))
                }
                [] | [b'\r'] => Ok(Step::More),
                _ => Err(Wrong::LineEnd),
            },
            State::Trailers => self.trailers(bytes),
            State::End => Ok(Step::End),
        }
    }

    /// So many bytes of the body were used.
    pub(crate) fn took(&mut self, count: usize) {
        if let State::Data(left) = self.state {
            let left = left.saturating_sub(count as u64);
            self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
        }
    }

    /// So many bytes are left of the chunk that was begun.
    pub(super) fn left(&self) -> u64 {
        if let State::Data(left) = self.state { left } else { 0 }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state == State::End
    }

    /// What stood behind the last chunk.
    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    fn size(&mut self, bytes: &[u8]) -> Result<Step, Wrong> {
        let digits = bytes.iter().take(17).take_while(|b| b.is_ascii_hexdigit()).count();
        if digits > 16 || (digits == 0 && !bytes.is_empty()) {
            return Err(Wrong::Size);
        }
        // Of a size without its line's end nothing can be said yet, but that it may still become one.
        let Some(behind) = bytes.get(digits) else { return Ok(Step::More) };
        let extension = match (behind, bytes.get(digits + 1)) {
            (b'\r', None) => return Ok(Step::More),
            (b'\r', Some(b'\n')) => 0,
            (b'\r', Some(_)) => return Err(Wrong::LineEnd),
            (b';', _) => match self.extension(&bytes[digits..])? {
                Some(length) => length,
                None => return Ok(Step::More),
            },
            _ => return Err(Wrong::Size),
        };
        let size = bytes[..digits].iter().fold(0u64, |n, b| n << 4 | u64::from(hex(*b)));
        // Servers that count with a sign read larger ones as negative.
        if i64::try_from(size).is_err() {
            return Err(Wrong::Size);
        }
        self.extensions += extension;
        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
        Ok(Step::Skip(digits + extension + 2))
    }

    /// Length of the extensions at the beginning of `bytes`, up to the line's end; `None`: it is not there yet.
    ///
    /// Quoted values are refused: where they end is what parsers disagree about.
    fn extension(&self, bytes: &[u8]) -> Result<Option<usize>, Wrong> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~;=".contains(&b);
        let length = bytes.iter().take(LINE_BYTES).take_while(|b| plain(**b)).count();
        if self.extensions + length > EXTENSION_BYTES {
            return Err(Wrong::TooManyExtensions);
        }
        match bytes.get(length..) {
            Some([b'\r', b'\n', ..]) => {
                are_extensions(&bytes[..length]).then_some(Some(length)).ok_or(Wrong::Extension)
            }
            Some([] | [b'\r']) => Ok(None),
            _ => Err(Wrong::Extension),
        }
    }

    fn trailers(&mut self, bytes: &[u8]) -> Result<Step, Wrong> {
        match bytes {
            [] | [b'\r'] => return Ok(Step::More),
            [b'\r', b'\n', ..] => {
                self.state = State::End;
                return Ok(Step::Skip(2));
            }
            [b'\r', _, ..] => return Err(Wrong::LineEnd),
            _ => {}
        }
        let window = &bytes[..bytes.len().min(TRAILER_BYTES + 4)];
        let mut room = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
        let (length, fields) = match httparse::parse_headers(window, &mut room) {
            Ok(httparse::Status::Complete(parsed)) => parsed,
            Ok(httparse::Status::Partial) if window.len() == TRAILER_BYTES + 4 => return Err(Wrong::TooManyTrailers),
            Ok(httparse::Status::Partial) => return Ok(Step::More),
            Err(httparse::Error::TooManyHeaders) => return Err(Wrong::TooManyTrailers),
            Err(_) => return Err(Wrong::Trailers),
        };
        super::head::check_lines(&window[..length]).map_err(|_| Wrong::LineEnd)?;
        // Allocates: trailers are rare outside gRPC, which is HTTP/2.
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Wrong::Trailers)?;
            let value = HeaderValue::from_bytes(field.value.trim_ascii_end()).map_err(|_| Wrong::Trailers)?;
            trailers.append(name, value);
        }
        self.trailers = Some(trailers);
        self.state = State::End;
        Ok(Step::Skip(length))
    }
}

/// Names, each with a value or without (RFC 9112 §7.1.1). The bytes are those of tokens, `;` and `=` already.
fn are_extensions(bytes: &[u8]) -> bool {
    bytes.split(|b| *b == b';').skip(1).all(|extension| {
        let mut parts = extension.split(|b| *b == b'=');
        let filled = parts.by_ref().take(2).all(|part| !part.is_empty());
        filled && parts.next().is_none()
    })
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Writes the line before a chunk.
pub(crate) fn write_size(size: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 16];
    let mut place = digits.len();
    let mut left = size;
    loop {
        place -= 1;
        digits[place] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[place..]);
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk, with trailers.
pub(crate) fn write_end(trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        super::write::field(name.as_str(), value.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
#[path = "chunked_tests.rs"]
mod tests;

//! Heads of HTTP/1 messages: from bytes to names and values, and nothing that could be read in two ways.
//!
//! Must not know: sockets, or what fields mean, but for those that say where a message ends.
//!
//! Main types: [`RequestHead`], [`ResponseHead`], each with its bytes; [`Fields`], the fields of one; [`Malformed`].
//! Sources: RFC 9112 §2 to §5, RFC 9110 §5. Tokens are the business of `httparse`; what it forgives is refused here:
//! lines that end without CR, and empty lines before the first.

use std::mem::MaybeUninit;
use std::ops::Range;

/// Most fields in a head.
pub(crate) const FIELDS: usize = 100;
/// Largest head as it is written. Above the head check's 32 KiB of names and values, so that it can say what was wrong.
pub(super) const HEAD_BYTES: usize = 40 * 1024;
/// Longest first line: whatever the head check lets pass, with the longest host in front of the longest path.
pub(super) const LINE_BYTES: usize = 8 * 1024 + 512;

/// A request's head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    fields: Fields,
    method: Span,
    target: Span,
    /// 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub(crate) minor: u8,
}

/// An answer's head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    fields: Fields,
    reason: Span,
    pub(crate) status: u16,
    pub(crate) minor: u8,
}

/// The fields of a head in the order in which they came. Names are lower case.
#[derive(Debug)]
pub(crate) struct Fields {
    /// The head as it came, but for names. Kept as text, so that nobody has to make sure at every look that it is some.
    text: String,
    /// The head as it came, when it is no text: then the text holds [`NO_TEXT`] for each byte that is none.
    raw: Option<Box<[u8]>>,
    /// Where names and values are.
    places: Vec<(Span, Span)>,
    /// A bit for each name, see [`mark`].
    marks: u64,
}

/// Of the length of a byte, and allowed nowhere.
const NO_TEXT: char = '\u{7f}';

/// A piece of a head. A head is shorter than 64 KiB.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u16,
    end: u16,
}

/// Why bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Something that is not allowed where it stands.
    Syntax(&'static str),
    /// A version other than 1.0 and 1.1.
    Version,
    /// The first line is too long.
    Line,
    /// The head, or the number of its fields, is too large.
    Size,
}

/// What bytes are so far.
#[derive(Debug)]
pub(crate) enum Parsed<T> {
    /// A head, and how many bytes it took.
    Whole(T, usize),
    /// The beginning of one.
    Partial,
}

impl Span {
    /// Of a piece within `all`; of an empty one, which may be anywhere, at the beginning.
    fn of(all: &[u8], piece: &[u8]) -> Self {
        if piece.is_empty() {
            return Self::default();
        }
        let start = piece.as_ptr().addr() - all.as_ptr().addr();
        let narrow = |n: usize| u16::try_from(n).expect("a head is shorter than 64 KiB");
        Self { start: narrow(start), end: narrow(start + piece.len()) }
    }

    fn range(self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }
}

impl RequestHead {
    /// Reads a request's head from the beginning of `bytes`.
    ///
    /// # Errors
    /// It is none, whatever may follow.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed<Self>, Malformed> {
        check_begin(bytes)?;
        let window = &bytes[..bytes.len().min(HEAD_BYTES)];
        // Not cleared: most requests have ten.
        let mut room = [const { MaybeUninit::uninit() }; FIELDS];
        let mut head = httparse::Request::new(&mut []);
        match head.parse_with_uninit_headers(window, &mut room).map_err(malformed)? {
            httparse::Status::Partial => partial(window),
            httparse::Status::Complete(length) => {
                let whole = &window[..length];
                check_first_line(whole)?;
                check_lines(whole)?;
                let of = |piece: Option<&str>| Span::of(whole, piece.unwrap_or_default().as_bytes());
                let (method, target, minor) = (of(head.method), of(head.path), head.version.unwrap_or_default());
                Ok(Parsed::Whole(Self { fields: Fields::copy(whole, head.headers), method, target, minor }, length))
            }
        }
    }

    pub(crate) fn method(&self) -> &str {
        self.fields.text(self.method)
    }

    pub(crate) fn target(&self) -> &str {
        self.fields.text(self.target)
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }
}

impl ResponseHead {
    /// Reads an answer's head from the beginning of `bytes`.
    ///
    /// # Errors
    /// It is none, whatever may follow.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed<Self>, Malformed> {
        check_begin(bytes)?;
        let window = &bytes[..bytes.len().min(HEAD_BYTES)];
        let mut room = [const { MaybeUninit::uninit() }; FIELDS];
        let mut head = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut head, window, &mut room);
        match parsed.map_err(malformed)? {
            httparse::Status::Partial => partial(window),
            httparse::Status::Complete(length) => {
                let whole = &window[..length];
                check_first_line(whole)?;
                check_lines(whole)?;
                let status = head.code.unwrap_or_default();
                if !(100..=599).contains(&status) {
                    return Err(Malformed::Syntax("a status outside 100 to 599"));
                }
                let reason = Span::of(whole, head.reason.unwrap_or_default().as_bytes());
                let (fields, minor) = (Fields::copy(whole, head.headers), head.version.unwrap_or_default());
                Ok(Parsed::Whole(Self { fields, reason, status, minor }, length))
            }
        }
    }

    /// As the endpoint wrote it; often empty.
    pub(crate) fn reason(&self) -> &str {
        self.fields.text(self.reason)
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }
}

impl Fields {
    /// One copy of the head: what follows it in the buffer can then move.
    fn copy(whole: &[u8], parsed: &[httparse::Header<'_>]) -> Self {
        // Allocates: the head, and 8 bytes a field.
        let (mut text, raw) = match std::str::from_utf8(whole) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => {
                let mut text = String::with_capacity(whole.len());
                for chunk in whole.utf8_chunks() {
                    text.push_str(chunk.valid());
                    text.extend(chunk.invalid().iter().map(|_| NO_TEXT));
                }
                (text, Some(whole.into()))
            }
        };
        let mut places = Vec::with_capacity(parsed.len());
        let mut marks = 0;
        for field in parsed {
            marks |= mark(field.name);
            let name = Span::of(whole, field.name.as_bytes());
            text[name.range()].make_ascii_lowercase();
            places.push((name, Span::of(whole, field.value.trim_ascii_end())));
        }
        Self { text, raw, places, marks }
    }

    fn bytes(&self) -> &[u8] {
        self.raw.as_deref().unwrap_or(self.text.as_bytes())
    }

    fn text(&self, span: Span) -> &str {
        &self.text[span.range()]
    }

    /// All of them, in order, repeated ones one by one.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        let bytes = self.bytes();
        self.places.iter().map(move |(name, value)| (self.text(*name), &bytes[value.range()]))
    }

    /// Whether a tab is in the line of the field at `place`, be it among the blanks round its value: allowed there
    /// (RFC 9110 §5.6.3), and not what everybody takes for a blank.
    pub(super) fn has_tab(&self, place: usize) -> bool {
        let Some((name, _)) = self.places.get(place) else { return false };
        let line = &self.bytes()[name.range().end..];
        let line = &line[..memchr::memchr(b'\r', line).unwrap_or(line.len())];
        line.contains(&b'\t')
    }

    /// False when there is no such field, which most questions are about. True says nothing.
    pub(super) fn may_have(&self, name: &str) -> bool {
        self.marks & mark(name) != 0
    }

    /// The values of a field, in order. `name` is lower case.
    pub(crate) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let bytes = self.bytes();
        let is = move |span: &Span| self.text.as_bytes()[span.range()] == *name.as_bytes();
        let places = if self.may_have(name) { &self.places[..] } else { &[] };
        places.iter().filter(move |(name, _)| is(name)).map(move |(_, value)| &bytes[value.range()])
    }

    /// The first value of a field. `name` is lower case.
    pub(crate) fn first(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }
}

/// One of 64 bits for a name, whatever its case: names in use have different ones, nearly always.
fn mark(name: &str) -> u64 {
    let name = name.as_bytes();
    let letter = |place: usize| name.get(place).map_or(0, |b| usize::from(b | 0x20));
    1 << ((name.len() * 7 + letter(0) * 5 + letter(name.len().wrapping_sub(1)) + letter(name.len() / 2) * 3) % 64)
}

fn malformed(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::Size,
        httparse::Error::Version => Malformed::Version,
        httparse::Error::HeaderName => Malformed::Syntax("a field's name is not a token"),
        httparse::Error::HeaderValue => Malformed::Syntax("a field's value holds a control character"),
        httparse::Error::NewLine => Malformed::Syntax("a line does not end in CR LF"),
        httparse::Error::Status => Malformed::Syntax("the status is not a number of three digits"),
        httparse::Error::Token => Malformed::Syntax("the first line is not one"),
    }
}

/// A head begins with its first line. `httparse` passes over empty ones.
fn check_begin(bytes: &[u8]) -> Result<(), Malformed> {
    match bytes.first() {
        Some(b'\r' | b'\n') => Err(Malformed::Syntax("an empty line before the first")),
        _ => Ok(()),
    }
}

/// The first line is not too long, whether all of it is here or not: else the pieces in which it came would decide.
fn check_first_line(window: &[u8]) -> Result<(), Malformed> {
    match window.get(..LINE_BYTES) {
        Some(line) if memchr::memchr(b'\n', line).is_none() => Err(Malformed::Line),
        _ => Ok(()),
    }
}

/// More has to come, unless too much came already.
fn partial<T>(window: &[u8]) -> Result<Parsed<T>, Malformed> {
    check_first_line(window)?;
    if window.len() == HEAD_BYTES { Err(Malformed::Size) } else { Ok(Parsed::Partial) }
}

/// Every line ends in CR LF. `httparse` takes LF alone (RFC 9112 §2.2 lets a recipient), others take it otherwise.
pub(super) fn check_lines(head: &[u8]) -> Result<(), Malformed> {
    let mut rest = head;
    while let Some(place) = memchr::memchr(b'\n', rest) {
        if place == 0 || rest[place - 1] != b'\r' {
            return Err(Malformed::Syntax("a line does not end in CR LF"));
        }
        rest = &rest[place + 1..];
    }
    Ok(())
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;

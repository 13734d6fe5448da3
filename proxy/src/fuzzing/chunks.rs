//! The chunked coding: the same however it comes.

use http::HeaderMap;

use crate::codec::http1::chunked::{Decoder, Step, Wrong, write_end, write_size};

/// What became of a chunked body.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// So many bytes were used.
    used: usize,
    end: Result<End, Wrong>,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Over,
    /// Whole so far.
    More,
}

/// - Body, trailers, end and refusal are the same however the bytes are cut into pieces.
/// - No step uses more than there is, and each uses something, waits for more, or ends.
/// - A body that is over is what a reader without any finesse finds: a line with a size, so many bytes, a line end.
/// - Written again it is read as the same body with the same trailers.
pub fn chunks(bytes: &[u8]) {
    let whole = read(bytes, usize::MAX);
    for piece in [1, 2, 5, 64] {
        assert_eq!(read(bytes, piece), whole, "in pieces of {piece}");
    }
    if whole.end != Ok(End::Over) {
        return;
    }
    let (body, last) = plain(bytes);
    assert_eq!(body, whole.body);
    assert!(bytes[last..whole.used].ends_with(b"\r\n"), "an end without an empty line");

    let mut again = Vec::new();
    for chunk in whole.body.chunks(7) {
        write_size(chunk.len(), &mut again);
        again.extend_from_slice(chunk);
        again.extend_from_slice(b"\r\n");
    }
    write_end(whole.trailers.as_ref(), &mut again);
    let reread = read(&again, 3);
    // A longer line for a trailer than it came with may be too long; none is: ours are the shortest.
    assert_eq!((reread.body, reread.end, reread.used), (whole.body, Ok(End::Over), again.len()));
    assert_eq!(reread.trailers.unwrap_or_default(), whole.trailers.unwrap_or_default());
}

fn read(bytes: &[u8], piece: usize) -> Read {
    let mut decoder = Decoder::default();
    let mut read = Read { body: Vec::new(), trailers: None, used: 0, end: Ok(End::More) };
    let mut seen = 0;
    loop {
        let here = &bytes[read.used..seen];
        match decoder.step(here) {
            Ok(Step::Skip(count)) => {
                assert!((1..=here.len()).contains(&count), "{count} of {}", here.len());
                read.used += count;
            }
            Ok(Step::Data(count)) => {
                assert!((1..=here.len()).contains(&count), "{count} of {}", here.len());
                // As a peer that takes less than it is offered.
                let count = count.div_ceil(2);
                read.body.extend_from_slice(&here[..count]);
                decoder.took(count);
                read.used += count;
            }
            Ok(Step::More) if seen == bytes.len() => break,
            Ok(Step::More) => seen = seen.saturating_add(piece).min(bytes.len()),
            Ok(Step::End) => {
                assert!(decoder.is_over(), "an end that is none");
                read.end = Ok(End::Over);
                break;
            }
            Err(wrong) => {
                read.end = Err(wrong);
                break;
            }
        }
    }
    read.trailers = decoder.take_trailers();
    read
}

/// The body, and where the lines behind it begin.
fn plain(bytes: &[u8]) -> (Vec<u8>, usize) {
    let (mut body, mut place) = (Vec::new(), 0);
    loop {
        let line = bytes[place..].iter().position(|b| *b == b'\n').expect("a line") + place;
        let text = std::str::from_utf8(&bytes[place..line - 1]).expect("ASCII");
        let digits = text.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).expect("a size");
        if size == 0 {
            return (body, line + 1);
        }
        body.extend_from_slice(&bytes[line + 1..line + 1 + size]);
        place = line + 1 + size;
        assert_eq!(&bytes[place..place + 2], b"\r\n");
        place += 2;
    }
}

//! How long a gRPC caller waits for its call, as it says itself.
//!
//! Must not know: calls. Main function: [`read`]. Source: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md), "Timeout".

use std::time::Duration;

use crate::codec::RequestView;
use crate::head_check::Refusal;

/// Most digits of the number.
const DIGITS: usize = 8;

/// The time that a call may take from now on; `None`: as long as it likes.
///
/// # Errors
/// The field is there and is none: a number of at most eight digits and a unit, once.
pub(crate) fn read(view: RequestView<'_>) -> Result<Option<Duration>, Refusal> {
    let mut written = view.header("grpc-timeout");
    let Some(value) = written.next() else { return Ok(None) };
    match parse(value) {
        Some(timeout) if written.next().is_none() => Ok(Some(timeout)),
        _ => Err(Refusal::Ambiguous("grpc-timeout is not a number of at most 8 digits and one of H, M, S, m, u, n")),
    }
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=DIGITS).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3_600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_h25_a_timeout_is_a_number_and_a_unit() {
        for (written, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("1u", Some(Duration::from_micros(1))),
            ("1n", Some(Duration::from_nanos(1))),
            ("0S", Some(Duration::ZERO)),
            ("00000001S", Some(Duration::from_secs(1))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("1h", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("1 S", None),
            (" 1S", None),
            ("100000000S", None),
            ("1SS", None),
            ("\u{661}S", None),
        ] {
            assert_eq!(parse(written.as_bytes()), expected, "{written:?}");
        }
    }

    #[test]
    fn hostile_h25_two_timeouts_are_none() {
        let head = |fields: &str| crate::codec::testing::head(&format!("POST /a HTTP/1.1\nhost: a{fields}"));
        assert_eq!(read(head("").view()), Ok(None));
        assert_eq!(read(head("\ngrpc-timeout: 1S").view()), Ok(Some(Duration::from_secs(1))));
        assert!(read(head("\ngrpc-timeout: 1S\ngrpc-timeout: 1S").view()).is_err());
    }
}

use proptest::prelude::*;

use super::*;

#[test]
fn a_name_has_one_mark_in_any_case() {
    for name in ["host", "content-length", "x-forwarded-for", "a", "te", "x_y"] {
        assert_eq!(mark(name), mark(&name.to_uppercase()), "{name}");
        let text = format!("GET / HTTP/1.1\r\n{}: 1\r\n\r\n", name.to_uppercase());
        let Ok(Parsed::Whole(head, _)) = RequestHead::parse(text.as_bytes()) else { panic!("{text}") };
        assert!(head.fields().may_have(name) && head.fields().first(name) == Some(b"1"), "{name}");
    }
    // A name is never empty; were one, it would be no panic.
    assert_eq!(mark("").count_ones(), 1);
}

fn request(text: &[u8]) -> Result<Parsed<RequestHead>, Malformed> {
    RequestHead::parse(text)
}

fn whole(text: &str) -> (RequestHead, usize) {
    match request(text.as_bytes()) {
        Ok(Parsed::Whole(head, length)) => (head, length),
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn a_head_is_read_with_names_in_lower_case_and_values_trimmed() {
    let text = "GET /a?b=c HTTP/1.1\r\nHost: Example.com\r\nX-Case:  a b \r\nEmpty:\r\nx-case: 2\r\n\r\nrest";
    let (head, length) = whole(text);
    assert_eq!((head.method(), head.target(), head.minor, length), ("GET", "/a?b=c", 1, text.len() - 4));
    let fields: Vec<(&str, &[u8])> = head.fields().iter().collect();
    let expected: [(&str, &[u8]); 4] = [("host", b"Example.com"), ("x-case", b"a b"), ("empty", b""), ("x-case", b"2")];
    assert_eq!(fields, expected);
    assert_eq!(head.fields().all("x-case").count(), 2);
    assert_eq!(head.fields().first("host"), Some(&b"Example.com"[..]));
}

#[test]
fn every_beginning_of_a_head_is_partial() {
    let text = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    for length in 0..text.len() {
        assert!(matches!(request(&text.as_bytes()[..length]), Ok(Parsed::Partial)), "{:?}", &text[..length]);
    }
}

#[test]
fn hostile_h04_what_is_no_head_is_refused() {
    for text in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHo\0st: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\tfolded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost(x): a\r\n\r\n",
        "GET / HTTP/1.1\r\nH\u{f6}st: a\r\n\r\n",
        "GET / HTTP/1.1\r\nnothing\r\n\r\n",
        "GET / HTTP/1.1\r\nx: \u{1}\r\n\r\n",
        "GET / HTTP/1.1\r\nx: \u{7f}\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "G{T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1.1\r\nHost: a\r\n\r\n",
    ] {
        let refused = request(text.as_bytes());
        assert!(matches!(refused, Err(Malformed::Syntax(_) | Malformed::Version)), "{text:?}: {refused:?}");
    }
}

#[test]
fn hostile_h10_other_versions_are_named() {
    for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/1."] {
        let refused = request(format!("GET / {version}\r\nHost: a\r\n\r\n").as_bytes());
        assert!(matches!(refused, Err(Malformed::Version)), "{version}: {refused:?}");
    }
    assert!(matches!(request(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Err(Malformed::Version)));
}

#[test]
fn a_head_has_limits_just_below_and_just_above() {
    let with_fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!(whole(&with_fields(FIELDS)).0.fields().iter().len(), FIELDS);
    assert_eq!(request(with_fields(FIELDS + 1).as_bytes()).err(), Some(Malformed::Size));

    let value = |length: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "v".repeat(length));
    let around = value(0).len();
    assert_eq!(whole(&value(HEAD_BYTES - around)).1, HEAD_BYTES);
    assert_eq!(request(value(HEAD_BYTES - around + 1).as_bytes()).err(), Some(Malformed::Size));

    let endless = format!("GET /{}", "a".repeat(LINE_BYTES));
    assert!(matches!(request(&endless.as_bytes()[..LINE_BYTES - 1]), Ok(Parsed::Partial)));
    assert_eq!(request(endless.as_bytes()).err(), Some(Malformed::Line));

    // A line that is here to its end is judged as one that is not.
    let line = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length));
    let around = "GET / HTTP/1.1\r\n".len();
    assert!(matches!(request(line(LINE_BYTES - around).as_bytes()), Ok(Parsed::Whole(..))));
    assert_eq!(request(line(LINE_BYTES - around + 1).as_bytes()).err(), Some(Malformed::Line));
}

#[test]
fn hostile_h26_an_endpoint_is_read_as_strictly() {
    let parse = |text: &str| ResponseHead::parse(text.as_bytes());
    let Ok(Parsed::Whole(head, length)) = parse("HTTP/1.1 404 Not there\r\nA: \u{fc}\r\n\r\nbody") else {
        panic!("a head")
    };
    assert_eq!((head.status, head.reason(), head.minor, length), (404, "Not there", 1, 33));
    assert_eq!(head.fields().first("a"), Some("\u{fc}".as_bytes()));
    assert!(matches!(parse("HTTP/1.1 200\r\n\r\n"), Ok(Parsed::Whole(..))));
    for text in [
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/1.1 1000 x\r\n\r\n",
        "HTTP/1.1 600 x\r\n\r\n",
        "HTTP/1.1 20 x\r\n\r\n",
        "HTTP/1.1 +20 x\r\n\r\n",
        "HTTP/1.2 200 x\r\n\r\n",
        "HTTP/1.1 200 x\n\r\n",
        "\r\nHTTP/1.1 200 x\r\n\r\n",
        "\nHTTP/1.1 200 x\r\n\r\n",
        "HTTP/1.1 200 x\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 x\r\na : b\r\n\r\n",
        "HTTP/1.1 200 x\r\na: b\0\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "200 OK\r\n\r\n",
    ] {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn hostile_h04_no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = RequestHead::parse(&bytes);
        let _ = ResponseHead::parse(&bytes);
    }

    #[test]
    fn hostile_h04_a_byte_put_anywhere_is_refused_or_is_part_of_what_is_seen(place in 0usize..70, byte in any::<u8>()) {
        let mut bytes = b"POST /path?q=1 HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\nX-A: b\r\n\r\n".to_vec();
        bytes.insert(place, byte);
        if let Ok(Parsed::Whole(head, length)) = RequestHead::parse(&bytes) {
            // Written again from what was seen, it is what came, but for case and blanks.
            let mut again = format!("{} {} HTTP/1.{}\r\n", head.method(), head.target(), head.minor).into_bytes();
            for (name, value) in head.fields().iter() {
                again.extend_from_slice(name.as_bytes());
                again.extend_from_slice(b":");
                again.extend_from_slice(value);
                again.extend_from_slice(b"\r\n");
            }
            again.extend_from_slice(b"\r\n");
            let plain = |bytes: &[u8]| -> Vec<u8> {
                bytes.iter().filter(|b| !matches!(b, b' ' | b'\t')).map(u8::to_ascii_lowercase).collect()
            };
            prop_assert_eq!(plain(&again), plain(&bytes[..length]));
        }
    }
}

//! One strict normal form of a request's head, before anything else looks at it.
//!
//! Must not know: routes, upstreams, or how an answer is written. It sees the head as the codec read it; what the codec
//! itself refuses never gets here.
//!
//! Main types: [`Head`], the normal form; [`Refusal`], why there is none. Sources: RFC 9112 §3.2 and §6, RFC 9113 §8.3,
//! RFC 9110 §7.2.

use std::borrow::Cow;

use crate::codec::RequestView;

/// Longest accepted target, in bytes: what most servers behind us accept as well.
const TARGET_BYTES: usize = 8 * 1024;
/// Most fields in a head; crumbs of a cookie count one by one.
const FIELDS: usize = 100;
/// Largest head, in bytes of decoded names and values.
const HEAD_BYTES: usize = 32 * 1024;
/// RFC 1035 §2.3.4.
const HOST_BYTES: usize = 255;

/// What is decided on and what the upstream gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// Lower case, without port and without a dot at the end. Borrowed when it was written so.
    pub(crate) host: Cow<'a, str>,
    /// `host` with the port, when one was named.
    pub(crate) authority: Cow<'a, str>,
}

/// Why a request is refused before it was routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400: it has more than one reading, or none.
    Ambiguous(&'static str),
    /// 405: TRACE would show credentials to scripts.
    Trace,
    /// 501: we are no forward proxy.
    Connect,
    /// 417: an expectation other than 100-continue.
    Expectation,
    /// 505.
    Version,
    /// 421: the host is not the one that the TLS handshake named.
    Misdirected,
    /// 414.
    TargetTooLong,
    /// 400.
    HostTooLong,
    /// 431.
    HeadTooLarge,
}

/// Checks a head and brings its authority into normal form. `sni`: the host that the TLS handshake named, if it did.
pub(crate) fn check<'a>(request: RequestView<'a>, sni: Option<&str>) -> Result<Head<'a>, Refusal> {
    match request.method() {
        "CONNECT" => return Err(Refusal::Connect),
        "TRACE" => return Err(Refusal::Trace),
        _ => {}
    }
    check_target(request)?;
    check_fields(request)?;
    check_framing(request)?;
    let head = authority(request)?;
    // Whoever was let in for one name is not served under another (RFC 9110 §7.4).
    if sni.is_some_and(|sni| sni != head.host) { Err(Refusal::Misdirected) } else { Ok(head) }
}

fn check_target(request: RequestView<'_>) -> Result<(), Refusal> {
    let path = request.path();
    if path.len() > TARGET_BYTES {
        return Err(Refusal::TargetTooLong);
    }
    let of_server = path == "*" && request.method() == "OPTIONS";
    if !path.starts_with('/') && !of_server {
        return Err(Refusal::Ambiguous("the target does not begin with /"));
    }
    // Servers disagree on what these mean: `\` is a slash to some, the rest has no place in a URI (RFC 3986 §2).
    if path.bytes().fold(false, |bad, b| bad | !(0x21..=0x7e).contains(&b) | (b == b'\\') | (b == b'#')) {
        return Err(Refusal::Ambiguous("the target holds a character that has to be encoded"));
    }
    Ok(())
}

fn check_fields(request: RequestView<'_>) -> Result<(), Refusal> {
    let (mut fields, mut bytes) = (0, request.path().len());
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    for (name, value) in request.fields() {
        // In HTTP/1 the codec has taken them away (RFC 9113 §8.2.1: in HTTP/2 they may not be there).
        if blank(value.first()) || blank(value.last()) {
            return Err(Refusal::Ambiguous("a field begins or ends with a blank"));
        }
        fields += 1;
        bytes += name.len() + value.len() + 4;
        // Not `any`: without a way out in the middle, many bytes are looked at at once.
        if value.iter().fold(false, |bad, b| bad | ((*b < 0x20) & (*b != b'\t')) | (*b >= 0x7f)) {
            return Err(Refusal::Ambiguous("a field holds a control or 8-bit character"));
        }
    }
    if fields > FIELDS || bytes > HEAD_BYTES { Err(Refusal::HeadTooLarge) } else { Ok(()) }
}

/// In HTTP/1 the codec has decided where the request ends; in HTTP/2 a length only has to be one.
fn check_framing(request: RequestView<'_>) -> Result<(), Refusal> {
    if !request.is_http_2() {
        return Ok(());
    }
    let mut lengths = request.header("content-length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(Refusal::Ambiguous("two content-length fields"));
    }
    if length.is_some_and(|length| length.is_empty() || !length.iter().all(u8::is_ascii_digit)) {
        return Err(Refusal::Ambiguous("content-length is not a number"));
    }
    Ok(())
}

fn authority(request: RequestView<'_>) -> Result<Head<'_>, Refusal> {
    let mut hosts = request.header("host");
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::Ambiguous("two host fields"));
    }
    let host = match host {
        Some(bytes) => {
            Some(normal_form(std::str::from_utf8(bytes).map_err(|_| Refusal::Ambiguous("the host is not a name"))?)?)
        }
        None => None,
    };
    match (request.authority(), host) {
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Refusal::Ambiguous("no host")),
        (Some(target), None) if request.is_http_2() => normal_form(target),
        // RFC 9112 §3.2: a request without Host is bad, also in absolute form.
        (Some(_), None) => Err(Refusal::Ambiguous("no host field")),
        (Some(target), Some(host)) => {
            if normal_form(target)? == host {
                Ok(host)
            } else {
                Err(Refusal::Ambiguous("target and host differ"))
            }
        }
    }
}

/// The one form of a host that somebody else named, with its port; `None`: it is none.
pub(crate) fn host_of(written: &str) -> Option<String> {
    normal_form(written).ok().map(|head| head.authority.into_owned())
}

/// The one form of an authority. Default ports are kept: the upstream gets what the client named.
fn normal_form(written: &str) -> Result<Head<'_>, Refusal> {
    let wrong = Refusal::Ambiguous("the host is not a name");
    if written.is_empty() {
        return Err(wrong);
    }
    if written.len() > HOST_BYTES + ":65535".len() {
        return Err(Refusal::HostTooLong);
    }
    let (host, port) = match written.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or(wrong)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong)?;
            (&written[..address.len() + 2], rest.strip_prefix(':'))
        }
        None => match memchr::memchr(b':', written.as_bytes()) {
            Some(at) => (&written[..at], Some(&written[at + 1..])),
            None => (written, None),
        },
    };
    let after_host = written.len() - host.len();
    if after_host != port.map_or(0, |port| port.len() + 1) {
        return Err(wrong);
    }
    if let Some(port) = port {
        let number = port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
        if !number || port.parse::<u16>().is_err() {
            return Err(Refusal::Ambiguous("the port is not a number from 1 to 65535"));
        }
    }
    let bare = host.strip_suffix('.').unwrap_or(host);
    if bare.len() > HOST_BYTES {
        return Err(Refusal::HostTooLong);
    }
    if !(bare.starts_with('[') || is_name(bare)) {
        return Err(wrong);
    }
    if bare.len() == host.len() && !host.bytes().fold(false, |upper, b| upper | b.is_ascii_uppercase()) {
        return Ok(Head { host: Cow::Borrowed(host), authority: Cow::Borrowed(written) });
    }
    // Allocates: a host in capitals or with a dot at the end is rare.
    let bare = bare.to_ascii_lowercase();
    let authority = match port {
        Some(port) => format!("{bare}:{port}"),
        None => bare.clone(),
    };
    Ok(Head { host: Cow::Owned(bare), authority: Cow::Owned(authority) })
}

/// Labels with a dot between each two. A label is never empty (RFC 1035 §2.3.1): `a..` without its dot would still end
/// with one.
fn is_name(host: &str) -> bool {
    let host = host.as_bytes();
    let may = |b: u8| b.is_ascii_alphanumeric() | (b == b'-') | (b == b'_') | (b == b'.');
    let fits = host.iter().fold(true, |fits, b| fits & may(*b));
    let empty = host.windows(2).fold(false, |empty, two| empty | ((two[0] == b'.') & (two[1] == b'.')));
    fits && !empty && !host.is_empty() && !host.starts_with(b".") && !host.ends_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::testing::head;

    fn checked(text: &str) -> Result<(String, String), Refusal> {
        check(head(text).view(), None).map(|head| (head.host.into_owned(), head.authority.into_owned()))
    }

    #[test]
    fn hostile_h05_a_host_has_one_form() {
        for (host, expected) in [
            ("hello.example.com", ("hello.example.com", "hello.example.com")),
            ("HELLO.Example.com", ("hello.example.com", "hello.example.com")),
            ("hello.example.com.", ("hello.example.com", "hello.example.com")),
            ("Hello.example.com.:8443", ("hello.example.com", "hello.example.com:8443")),
            ("hello.example.com:80", ("hello.example.com", "hello.example.com:80")),
            ("[::1]:80", ("[::1]", "[::1]:80")),
            ("127.0.0.1", ("127.0.0.1", "127.0.0.1")),
        ] {
            let expected = Ok((expected.0.to_owned(), expected.1.to_owned()));
            assert_eq!(checked(&format!("GET / HTTP/1.1\nhost: {host}")), expected, "{host}");
        }
        for host in [
            "",
            ".",
            "..",
            ".a",
            "a..",
            "a..b",
            "a..:80",
            "a b",
            "user@hello",
            "a/b",
            "a?b",
            "a:99999",
            "a:0",
            "a:+80",
            "a:",
            "a:80:80",
            "a:8x",
            "[::1",
            "[::1]x",
            "[zz]",
            "a,b",
            "a%41",
            "\u{fc}.example",
        ] {
            let refused = checked(&format!("GET / HTTP/1.1\nhost: {host}"));
            assert!(matches!(refused, Err(Refusal::Ambiguous(_))), "{host}: {refused:?}");
        }
    }

    #[test]
    fn hostile_h05_target_and_host_must_agree() {
        assert!(checked("GET http://Hello.example/ HTTP/1.1\nhost: hello.example").is_ok());
        assert!(checked("GET https://hello.example/ HTTP/2").is_ok());
        for text in [
            "GET / HTTP/1.1",
            "GET / HTTP/2",
            "GET http://hello.example/ HTTP/1.1",
            "GET http://hello.example/ HTTP/1.1\nhost: other.example",
            "GET http://hello.example:81/ HTTP/1.1\nhost: hello.example",
            "GET https://hello.example/ HTTP/2\nhost: other.example",
            "GET / HTTP/1.1\nhost: a\nhost: a",
        ] {
            assert!(matches!(checked(text), Err(Refusal::Ambiguous(_))), "{text}");
        }
    }

    #[test]
    fn hostile_h24_a_length_in_http_2_is_one_number() {
        assert!(checked("POST https://a/ HTTP/2\ncontent-length: 5").is_ok());
        for fields in ["content-length: 5\ncontent-length: 5", "content-length: +5", "content-length: 5, 5"] {
            let text = format!("POST https://a/ HTTP/2\n{fields}");
            assert!(matches!(checked(&text), Err(Refusal::Ambiguous(_))), "{fields}");
        }
    }

    #[test]
    fn hostile_h05_the_host_is_the_one_of_the_handshake() {
        for (host, sni, expected) in [
            ("a.example", "a.example", true),
            ("A.example.:443", "a.example", true),
            ("b.example", "a.example", false),
            ("a.example.evil", "a.example", false),
            ("[::1]", "a.example", false),
        ] {
            let head = head(&format!("GET / HTTP/1.1\nhost: {host}"));
            let checked = check(head.view(), Some(sni)).map(drop);
            assert_eq!(checked, if expected { Ok(()) } else { Err(Refusal::Misdirected) }, "{host} {sni}");
        }
    }

    #[test]
    fn hostile_h10_methods_and_targets() {
        assert_eq!(checked("TRACE / HTTP/1.1\nhost: a"), Err(Refusal::Trace));
        assert_eq!(checked("CONNECT a:80 HTTP/1.1\nhost: a:80"), Err(Refusal::Connect));
        assert!(checked("OPTIONS * HTTP/1.1\nhost: a").is_ok());
        assert!(checked("GET * HTTP/1.1\nhost: a").is_err());
        assert!(checked("PURGE /x HTTP/1.1\nhost: a").is_ok());
    }

    #[test]
    fn limits_name_what_is_too_large() {
        let long = format!("GET /{} HTTP/1.1\nhost: a", "x".repeat(TARGET_BYTES));
        assert_eq!(checked(&long), Err(Refusal::TargetTooLong));
        let many = |crumbs: usize| format!("GET https://a/ HTTP/2{}", "\ncookie: a=1".repeat(crumbs));
        assert!(checked(&many(FIELDS)).is_ok());
        assert_eq!(checked(&many(FIELDS + 1)), Err(Refusal::HeadTooLarge));
        let large = format!("GET / HTTP/1.1\nhost: a\nx: {}", "x".repeat(HEAD_BYTES));
        assert_eq!(checked(&large), Err(Refusal::HeadTooLarge));
    }
}

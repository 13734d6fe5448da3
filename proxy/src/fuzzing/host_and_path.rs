//! The head check: one normal form of a host, and a path that nobody touches.

use std::borrow::Cow;

use http::{HeaderValue, Uri, Version};

use crate::codec::http1::head::{Parsed, RequestHead};
use crate::codec::view::Head;
use crate::head_check::{self, host_of};

/// Three lines: method and target, host, and the name of the TLS handshake if there is a third.
///
/// - A host that passes is in lower case, without port and without a dot at the end; the authority is it, with the port
///   that was named.
/// - A request that passes in HTTP/1 or HTTP/2 passes again with its host in that form, which stays as it is.
/// - The path that is decided on is the target's own bytes from its path on, all of them printable ASCII.
/// - Under a name of the handshake only the request for that very host passes.
pub fn host_and_path(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |b| *b == b'\n');
    let first = lines.next().unwrap_or_default();
    let (host, sni) = (lines.next(), lines.next().and_then(|name| std::str::from_utf8(name).ok()));
    if let Some(host) = host.and_then(|host| std::str::from_utf8(host).ok())
        && let Some(form) = host_of(host)
    {
        assert_eq!(host_of(&form).as_deref(), Some(&*form), "the form of a form is another");
    }
    let space = first.iter().position(|b| *b == b' ').unwrap_or(first.len());
    let (method, target) = (&first[..space], first.get(space + 1..).unwrap_or_default());
    // HTTP/2's library takes a fragment away before anybody sees it.
    let fragment = target.iter().position(|b| *b == b'#').unwrap_or(target.len());
    for (build, target) in [(http1 as Build, target), (http2, &target[..fragment])] {
        let Some(head) = build(method, target, host) else { continue };
        let checked = head_check::check(head.view(), sni);
        if let Ok(checked) = &checked {
            check_host(checked);
            assert!(sni.is_none_or(|sni| sni == checked.host), "served under another name");
            assert!(head_check::check(head.view(), None).is_ok(), "passes only under a name");
            check_path(head.view().path(), target);
            check_again(&head, checked, build, method, host.is_some());
        }
    }
}

/// Host and authority are in their one form.
pub(super) fn check_host(head: &head_check::Head<'_>) {
    let host = &*head.host;
    assert!(!host.is_empty() && !host.ends_with('.'), "{host}");
    assert!(
        !host.bytes().any(|b| b.is_ascii_uppercase() || b <= b' ' || b >= 0x7f || b"/?#@,\\%".contains(&b)),
        "{host}"
    );
    let port = head.authority.strip_prefix(host).expect("the authority begins with the host");
    assert!(
        port.is_empty() || port[1..].parse::<std::num::NonZeroU16>().is_ok_and(|n| format!(":{n}") == port),
        "{port}"
    );
    assert_eq!(host_of(&head.authority).as_deref(), Some(&*head.authority));
}

fn check_path(path: &str, target: &[u8]) {
    assert!(path.bytes().all(|b| (0x21..=0x7e).contains(&b)), "{path:?}");
    // Of an absolute target without a path it is "/" (RFC 9112 §3.2.1); HTTP/2's library writes that before a query too.
    let is_end = target.ends_with(path.as_bytes());
    let is_put = target.ends_with(&path.as_bytes()[1..]);
    assert!(is_end || is_put, "{path:?} of {}", target.escape_ascii());
}

fn check_again(head: &Head, checked: &head_check::Head<'_>, build: Build, method: &[u8], has_host: bool) {
    let path = head.view().path();
    let target = match head.view().authority() {
        Some(_) => Cow::Owned(format!("http://{}{path}", checked.authority)),
        None => Cow::Borrowed(path),
    };
    let host = has_host.then_some(checked.authority.as_bytes());
    let again = build(method, target.as_bytes(), host).expect("a head in normal form is one");
    let twice = head_check::check(again.view(), None).expect("it passed before");
    assert_eq!((&twice, again.view().path()), (checked, path));
    assert!(matches!(twice.host, Cow::Borrowed(_)), "the normal form was brought into normal form");
}

type Build = fn(&[u8], &[u8], Option<&[u8]>) -> Option<Head>;

fn http1(method: &[u8], target: &[u8], host: Option<&[u8]>) -> Option<Head> {
    let mut bytes = [method, b" ", target, b" HTTP/1.1\r\n"].concat();
    if let Some(host) = host {
        bytes.extend([b"host: ", host, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    match RequestHead::parse(&bytes) {
        // Lines within what was given would be another head.
        Ok(Parsed::Whole(head, length)) if length == bytes.len() => Some(Head::Http1(head)),
        _ => None,
    }
}

/// As the HTTP/2 library would give it, and a little beyond.
fn http2(method: &[u8], target: &[u8], host: Option<&[u8]>) -> Option<Head> {
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::from_bytes(method).ok()?;
    *request.uri_mut() = Uri::try_from(target).ok()?;
    *request.version_mut() = Version::HTTP_2;
    if let Some(host) = host {
        request.headers_mut().insert("host", HeaderValue::from_bytes(host).ok()?);
    }
    Some(Head::Http2(Box::new(request.into_parts().0)))
}

//! What tests of rooms above the codec need of it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::connection::{Connection, Listener};
use super::http1::head::{Parsed, RequestHead};
use super::view::Head;
use crate::deadline::Deadlines;
use crate::forwarded::Trusted;
use crate::request_id::{IdKey, Ids};

/// A head from text: a request line and `name: value` lines. `HTTP/2` gives one without the library's own checks.
#[cfg_attr(not(test), expect(dead_code, reason = "fuzzers bring heads of their own"))]
pub(crate) fn head(text: &str) -> Head {
    if !text.lines().next().expect("a request line").ends_with("HTTP/2") {
        let bytes = format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
        return match RequestHead::parse(bytes.as_bytes()) {
            Ok(Parsed::Whole(head, _)) => Head::Http1(head),
            other => panic!("{text:?} is no head: {other:?}"),
        };
    }
    let mut lines = text.split('\n');
    let mut first = lines.next().expect("a request line").split(' ');
    let (method, target) = (first.next().expect("a method"), first.next().expect("a target"));
    let mut request = http::Request::builder().method(method).uri(target).version(http::Version::HTTP_2);
    for line in lines {
        let (name, value) = line.split_once(": ").expect("name: value");
        request = request.header(name, http::HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    Head::Http2(Box::new(request.body(()).expect("a request").into_parts().0))
}

/// A connection over TLS on port 443, without a log.
pub(crate) fn connection(peer: &str, trusted: &[&str]) -> Rc<Connection> {
    let key = IdKey::draw().expect("random bytes");
    let networks = trusted.iter().map(|network| network.parse().expect("a network")).collect();
    let listener = Listener {
        complained: Default::default(),
        tls: true,
        port: "443".into(),
        proxy_protocol: false,
        trusted: Trusted::new(networks),
        limits: Rc::default(),
        deadlines: Deadlines::new(),
        ids: Rc::new(Ids::new(&key, 0)),
        log: None,
        outstanding: Rc::default(),
        totals: Arc::default(),
    };
    Rc::new(Connection::new(SocketAddr::new(peer.parse().expect("an address"), 4000), Rc::new(listener), 0))
}

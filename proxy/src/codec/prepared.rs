//! A request as it goes to an endpoint: hop-by-hop fields end here, and who the client is said once, by us.
//!
//! The rules are those of `forward_headers`; this applies them to what comes in on either protocol and goes out on
//! either.
//!
//! Main type: [`Prepared`].

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{Method, Request, Version};

use super::flow::Frames;
use super::grpc_web::Web;
use super::http1::framing::Framing;
use super::http1::head::ResponseHead;
use super::http1::write;
use super::told::Told;
use super::upload::Upload;
use super::view::{Head, RequestView};
use super::{Dialect, Inbound, Upgrade};
use crate::answer::Own;
use crate::forward_headers::{Fate, fate, is_protected, names_others};
use crate::head_check::Refusal;
use crate::snapshot::Protocol;

/// See the module.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// The head is written when there is a connection, and again when that turns out to be closed.
    Http1(Outgoing),
    /// As the library takes it; away while the library has it.
    Http2(Option<Box<Request<Frames<Upload>>>>),
}

/// A request to an HTTP/1 endpoint.
#[derive(Debug)]
pub(crate) struct Outgoing {
    inbound: Box<Inbound>,
    /// The host as it was decided on, when it was not written so.
    authority: Option<Box<str>>,
    told: Told,
    /// How often it went out.
    sent: u8,
}

/// Its head, which is written to a connection as often as it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutgoingHead<'a> {
    head: RequestView<'a>,
    authority: Option<&'a str>,
    told: &'a Told,
    upgrade: Option<&'a Upgrade>,
}

impl Prepared {
    /// Of a request whose head was checked. `authority`: the host as it was decided on, unless it was written so.
    /// `scheme`: how the endpoint is reached.
    pub(crate) fn new(
        inbound: Box<Inbound>,
        authority: Option<Box<str>>,
        told: Told,
        protocol: Protocol,
        scheme: Scheme,
    ) -> Result<Self, Own> {
        if protocol == Protocol::Http1 {
            return Ok(Self::Http1(Outgoing { inbound, authority, told, sent: 0 }));
        }
        let Inbound { head, mut upload, .. } = *inbound;
        let dialect = head.view().dialect();
        // The library cannot ask the endpoint whether the body may come.
        upload.invite();
        // Allocates unless the authority was decided on in another form than it came in.
        let authority = authority.unwrap_or_else(|| String::from_utf8_lossy(head.view().named_host()).into());
        let parts = match head {
            Head::Http1(_) => from_http1(head.view(), &told)?,
            Head::Http2(head) => from_http2(*head, &told),
        };
        let parts = to_grpc(parts, dialect, &mut upload)?;
        let request = finish(parts, (scheme, authority.as_bytes()), &told, upload)?;
        Ok(Self::Http2(Some(Box::new(request))))
    }
}

impl Prepared {
    /// Whether it went out a second time, because a connection had ended meanwhile.
    pub(crate) fn was_repeated(&self) -> bool {
        matches!(self, Self::Http1(outgoing) if outgoing.sent > 1)
    }
}

impl Outgoing {
    /// Whether it may be sent twice without harm (RFC 9110 §9.2.2), and all of it is still here.
    pub(crate) fn can_repeat(&self) -> bool {
        let method = self.inbound.head.view().method();
        matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE") && self.inbound.upload.is_untouched()
    }

    /// The head as it is written, and the body that follows it.
    pub(crate) fn parts(&mut self) -> (OutgoingHead<'_>, &mut Upload) {
        self.sent = self.sent.saturating_add(1);
        let Inbound { head, upload, upgrade } = &mut *self.inbound;
        let (authority, told, upgrade) = (self.authority.as_deref(), &self.told, upgrade.as_ref());
        (OutgoingHead { head: head.view(), authority, told, upgrade }, upload)
    }
}

impl OutgoingHead<'_> {
    /// HEAD: the answer has no body.
    pub(crate) fn is_head(&self) -> bool {
        self.head.method() == "HEAD"
    }

    /// An `Upgrade` goes with it.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Whether an answer is one to this request: to a key of ours it is a change of protocol with what belongs to the key,
    /// or a refusal. Neither caches nor servers of something else answer so, and to our client any other 2xx would mean
    /// that the protocol has changed (RFC 8441 §5).
    pub(crate) fn is_answered_by(&self, answer: &ResponseHead) -> bool {
        let Some(accept) = self.upgrade.and_then(|upgrade| upgrade.accept.as_deref()) else { return true };
        match answer.status {
            101 => answer.fields().first("sec-websocket-accept") == Some(accept.as_bytes()),
            status => status >= 300,
        }
    }

    /// Writes it, for a body of this framing.
    pub(crate) fn write(&self, framing: Framing, out: &mut Vec<u8>) {
        let view = self.head;
        for part in [view.method(), " ", view.path(), " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        let authority = self.authority.map_or_else(|| view.named_host(), str::as_bytes);
        write::field("host", authority, out);
        let named = names_others(view.header("connection"));
        for (name, value) in view.fields() {
            let passes = match name {
                "host" | "content-length" => false,
                // HTTP/2 cuts it into crumbs (RFC 9113 §8.2.3).
                "cookie" if view.is_http_2() => false,
                _ => fate(name) == Fate::Passes && !self.told.replaces(name) && !(named && is_named(view, name)),
            };
            if passes {
                write::field(name, value, out);
            }
        }
        self.write_rest(view, authority, framing, out);
    }

    fn write_rest(&self, view: RequestView<'_>, authority: &[u8], framing: Framing, out: &mut Vec<u8>) {
        if view.is_http_2() {
            cookies(view, out);
        }
        if framing != Framing::Length(0) || view.header("content-length").next().is_some() {
            write::framing(framing, out);
        }
        if wants_trailers(view) {
            out.extend_from_slice(b"te: trailers\r\n");
        }
        if view.is_http_1_1() && view.header("expect").next().is_some() {
            out.extend_from_slice(b"expect: 100-continue\r\n");
        }
        match self.upgrade {
            Some(upgrade) => {
                out.extend_from_slice(b"connection: upgrade\r\n");
                write::field("upgrade", upgrade.protocol.as_bytes(), out);
            }
            None if wants_trailers(view) => out.extend_from_slice(b"connection: te\r\n"),
            None => {}
        }
        self.told.each(authority, |name, pieces| write::pieces(name, pieces, out));
        out.extend_from_slice(b"\r\n");
    }
}

fn wants_trailers(view: RequestView<'_>) -> bool {
    view.has_token("te", b"trailers")
}

/// Whether `Connection` takes a field away: not one that says who asks for what.
fn is_named(view: RequestView<'_>, name: &str) -> bool {
    view.has_token("connection", name.as_bytes()) && !is_protected(name)
}

fn cookies(view: RequestView<'_>, out: &mut Vec<u8>) {
    let mut crumbs = view.header("cookie").peekable();
    if crumbs.peek().is_none() {
        return;
    }
    out.extend_from_slice(b"cookie: ");
    while let Some(crumb) = crumbs.next() {
        out.extend_from_slice(crumb);
        out.extend_from_slice(if crumbs.peek().is_some() { b"; " } else { b"\r\n" });
    }
}

/// A call in gRPC-Web goes on as gRPC.
fn to_grpc((method, path, mut headers): Parts, dialect: Dialect, upload: &mut Upload) -> Result<Parts, Own> {
    let Dialect::GrpcWeb(web) = dialect else { return Ok((method, path, headers)) };
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| web.to_grpc(kind.as_bytes())).unwrap_or_default();
    let wrong = |_| Own::Refused(Refusal::Ambiguous("the content type cannot be written"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_bytes(&kind).map_err(wrong)?);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.remove(header::ACCEPT);
    headers.remove("x-grpc-web");
    if web == Web::Text {
        headers.remove(header::CONTENT_LENGTH);
        upload.decode_base64();
    }
    Ok((method, path, headers))
}

type Parts = (Method, PathAndQuery, HeaderMap);

fn from_http1(view: RequestView<'_>, told: &Told) -> Result<Parts, Own> {
    let wrong = |_| Own::Refused(Refusal::Ambiguous("the head cannot be written as HTTP/2"));
    let method = Method::from_bytes(view.method().as_bytes()).map_err(|_| wrong(()))?;
    let path = PathAndQuery::try_from(view.path()).map_err(|_| wrong(()))?;
    let named = names_others(view.header("connection"));
    // Allocates: names, values and the map, for an HTTP/2 endpoint behind an HTTP/1 client.
    let mut headers = HeaderMap::with_capacity(24);
    for (name, value) in view.fields() {
        let passes = !matches!(name, "host" | "content-length") && fate(name) == Fate::Passes && !told.replaces(name);
        if passes && !(named && is_named(view, name)) {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong(()))?;
            headers.append(name, HeaderValue::from_bytes(value).map_err(|_| wrong(()))?);
        }
    }
    if wants_trailers(view) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok((method, path, headers))
}

fn from_http2(head: http::request::Parts, told: &Told) -> Parts {
    let view = RequestView::Http2(&head);
    let wants_trailers = view.dialect() == Dialect::Grpc || wants_trailers(view);
    // Allocates when there is anything to take away: the map cannot be changed while it is read.
    let goes = |name: &HeaderName| {
        fate(name.as_str()) != Fate::Passes || *name == header::HOST || told.replaces(name.as_str())
    };
    let gone: Vec<HeaderName> = head.headers.keys().filter(|name| goes(name)).cloned().collect();
    let mut headers = head.headers;
    for name in gone {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let path = head.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    (head.method, path, headers)
}

fn finish(
    (method, path, mut headers): Parts,
    (scheme, authority): (Scheme, &[u8]),
    told: &Told,
    upload: Upload,
) -> Result<Request<Frames<Upload>>, Own> {
    let wrong = Own::Refused(Refusal::Ambiguous("the host is not a name"));
    told.each(authority, |name, pieces| {
        // Allocates: the library wants to own each value. Ours are always valid.
        if let Ok(value) = HeaderValue::from_bytes(&pieces.concat()) {
            headers.insert(name, value);
        }
    });
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    // Allocates: the library gives no way to an authority without a copy.
    parts.authority = Some(http::uri::Authority::try_from(authority).map_err(|_| wrong)?);
    parts.path_and_query = Some(path);
    let mut request = Request::new(Frames(upload));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| wrong)?;
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

#[cfg(test)]
#[path = "prepared_tests.rs"]
mod tests;

//! The seam: the only place that knows how HTTP looks on the wire, and the libraries that read and write it.
//!
//! Must not know: routes, splits, policies. Rooms see a request through [`RequestView`] and never a body; they hand an
//! [`Outbound`] back.
//!
//! Main types: [`Inbound`], a request as it came; [`RequestView`], what rooms see of it; [`pool::Pools`], connections
//! to endpoints; [`server::serve`], one connection of a client.

pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod page;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod relay;
pub(crate) mod rewrite;
pub(crate) mod server;

use http::Version;
use http::request::Parts;
use hyper::body::Incoming;

use body::AnswerBody;

/// An answer on its way to the client.
pub(crate) type Outbound = http::Response<AnswerBody>;

/// The authority that was decided on, as it goes upstream.
pub(crate) type Authority = http::HeaderValue;

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Inbound {
    head: Parts,
    body: Incoming,
}

/// How errors are told to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Http,
    Grpc,
    /// gRPC that also passes over HTTP/1.1.
    GrpcWeb,
}

/// What rooms see of a request: borrowed, and nothing of the body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestView<'a> {
    head: &'a Parts,
}

impl Inbound {
    pub(crate) fn new(request: http::Request<Incoming>) -> Self {
        let (head, body) = request.into_parts();
        Self { head, body }
    }

    pub(crate) fn view(&self) -> RequestView<'_> {
        RequestView::of(&self.head)
    }

    pub(crate) fn is_http_2(&self) -> bool {
        self.head.version == Version::HTTP_2
    }

    /// By the content type alone: that is what gRPC servers go by.
    pub(crate) fn dialect(&self) -> Dialect {
        match self.head.headers.get(http::header::CONTENT_TYPE) {
            Some(kind) if kind.as_bytes().starts_with(b"application/grpc-web") => Dialect::GrpcWeb,
            Some(kind) if kind.as_bytes().starts_with(b"application/grpc") => Dialect::Grpc,
            _ => Dialect::Http,
        }
    }
}

impl<'a> RequestView<'a> {
    pub(crate) fn of(head: &'a Parts) -> Self {
        Self { head }
    }

    pub(crate) fn method(self) -> &'a str {
        self.head.method.as_str()
    }

    /// The authority of the target: absolute form in HTTP/1, `:authority` in HTTP/2.
    pub(crate) fn authority(self) -> Option<&'a str> {
        self.head.uri.authority().map(http::uri::Authority::as_str)
    }

    /// Path and query, byte for byte as the upstream will get them.
    pub(crate) fn path(self) -> &'a str {
        self.head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str)
    }

    pub(crate) fn is_http_2(self) -> bool {
        self.head.version == Version::HTTP_2
    }

    pub(crate) fn is_http_1_1(self) -> bool {
        self.head.version == Version::HTTP_11
    }

    /// All values of a field, in order. The name is lower case.
    pub(crate) fn header(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)
    }

    /// All fields, each value on its own.
    pub(crate) fn fields(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
}

/// Spawns on the worker's own thread, so that nothing has to be `Send`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move { drop(task.await) });
    }
}

#[cfg(test)]
pub(crate) mod testing {
    /// A head from text: a request line and `name: value` lines, without the codec's own checks.
    pub(crate) fn head(text: &str) -> http::request::Parts {
        let mut lines = text.split('\n');
        let mut first = lines.next().expect("a request line").split(' ');
        let (method, target, version) = (first.next(), first.next(), first.next());
        let version = match version.expect("a version") {
            "HTTP/1.0" => http::Version::HTTP_10,
            "HTTP/1.1" => http::Version::HTTP_11,
            _ => http::Version::HTTP_2,
        };
        let mut request =
            http::Request::builder().method(method.expect("a method")).uri(target.expect("a target")).version(version);
        for line in lines {
            let (name, value) = line.split_once(": ").expect("name: value");
            let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            request = request.header(name, value);
        }
        request.body(()).expect("a request").into_parts().0
    }
}

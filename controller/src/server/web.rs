//! Whatever is no call of gRPC, over HTTP/1 and beside gRPC on HTTP/2: a webhook or a page of monitoring.
//!
//! Must not know: what either does. It looks at the path alone.
//!
//! Main type: [`Web`].

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Buf;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Body;
use tonic::codegen::{BoxFuture, Service};

use super::hooks::{HOOKS, Hooks};
use super::monitoring::Monitoring;

/// Largest head (limits by default: 32 KiB; of 100 fields at most, which is the library's own limit).
pub(super) const HEAD_BYTES: usize = 32 * 1024;

/// Answers whatever is no call of gRPC.
#[derive(Clone)]
pub(super) struct Web {
    pub(super) monitoring: Monitoring,
    pub(super) hooks: Hooks,
}

impl<B> Service<Request<B>> for Web
where
    B: Body<Data: Buf + Send> + Send + 'static,
{
    type Response = Response<String>;
    type Error = Infallible;
    type Future = BoxFuture<Response<String>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let web = self.clone();
        let (head, body) = request.into_parts();
        Box::pin(async move {
            Ok(match head.uri.path().starts_with(HOOKS) {
                true => web.hooks.answer(head, body).await,
                false => {
                    drop(body);
                    web.monitoring.answer(head).await
                }
            })
        })
    }
}

/// A sentence, or some, as a text.
pub(super) fn text(status: StatusCode, sentences: &str) -> Response<String> {
    response(status, "text/plain; charset=utf-8", format!("{sentences}\n"))
}

/// An answer of this kind.
pub(super) fn response(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    response.headers_mut().extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

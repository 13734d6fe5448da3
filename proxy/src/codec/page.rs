//! Small pages for operators and machines, on the admin runtime: metrics and readiness.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once: scrapers are few.
const AT_ONCE: usize = 64;

/// A page: status, content type, text.
pub(crate) struct Page(pub(crate) u16, pub(crate) &'static str, pub(crate) String);

/// Serves pages by path until it is dropped.
pub(crate) async fn serve(listener: TcpListener, page: impl Fn(&str) -> Page + Send + Sync + 'static) {
    let (page, permits) = (Arc::new(page), Arc::new(Semaphore::new(AT_ONCE)));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the admin address");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let page = page.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let Page(status, kind, text) = page(request.uri().path());
                let answer = Response::builder()
                    .status(status)
                    .header(http::header::CONTENT_TYPE, kind)
                    .body(Full::new(Bytes::from(text)));
                async move { Ok::<_, Infallible>(answer.unwrap_or_default()) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(Duration::from_secs(300), connection).await;
            drop(permit);
        });
    }
}

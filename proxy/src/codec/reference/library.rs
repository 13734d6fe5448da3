//! The library's side, as it comes: its defaults, but that a client may close its sending side before the answer.

use std::cell::RefCell;
use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::{Outcome, Seen, answer, in_map, pair, send};

/// What becomes of the bytes of a client.
pub(super) async fn requests(bytes: &[u8]) -> Outcome {
    let (near, far) = pair().await;
    let messages = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        let (head, body) = request.into_parts();
        let mut seen = Seen {
            first: head.method.to_string(),
            target: head.uri.to_string(),
            version: version(head.version),
            fields: in_map(&head.headers),
            ..Seen::default()
        };
        read(body, &mut seen).await;
        messages.borrow_mut().push(seen);
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let serving =
        hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(TokioIo::new(far), service);
    let ((), served) = tokio::join!(send(near, bytes, usize::MAX), serving);
    let messages = messages.take();
    let is_broken = messages.last().is_some_and(|last| !last.whole);
    // A head that does not come to its end is nothing; a body that does not is told above.
    let refused = served.err().filter(|error| !error.is_incomplete_message() && !is_broken);
    Outcome { messages, refused: refused.map(|error| error.to_string()) }
}

/// What becomes of the bytes of an endpoint that was asked for something.
pub(super) async fn response(bytes: &[u8], head_only: bool) -> Outcome {
    let (near, far) = pair().await;
    let asking = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(near)).await.expect("nothing is said yet");
        let method = if head_only { "HEAD" } else { "GET" };
        let request = Request::builder().method(method).uri("/").header("host", "a").body(Empty::<Bytes>::new());
        let exchange = async move {
            let (head, body) = sender.send_request(request.expect("a request")).await?.into_parts();
            let reason = match head.extensions.get::<hyper::ext::ReasonPhrase>() {
                Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
                None => head.status.canonical_reason().unwrap_or_default().into(),
            };
            let mut seen = Seen {
                first: format!("{} {reason}", head.status.as_u16()),
                version: version(head.version),
                fields: in_map(&head.headers),
                ..Seen::default()
            };
            read(body, &mut seen).await;
            Ok::<_, hyper::Error>(seen)
        };
        let (seen, _) = tokio::join!(exchange, connection);
        match seen {
            Ok(seen) => Outcome { messages: vec![seen], refused: None },
            Err(error) => Outcome { refused: Some(error.to_string()), ..Outcome::default() },
        }
    };
    tokio::join!(asking, answer(far, bytes, usize::MAX)).0
}

async fn read(mut body: Incoming, seen: &mut Seen) {
    seen.whole = true;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) if frame.is_trailers() => {
                seen.trailers = frame.trailers_ref().map(in_map).unwrap_or_default();
            }
            Ok(frame) => seen.body.extend_from_slice(frame.data_ref().expect("data or trailers")),
            Err(_) => {
                seen.whole = false;
                return;
            }
        }
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        _ => "other",
    }
}

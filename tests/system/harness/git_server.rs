//! Repositories of the test's folder over HTTP: git's own `http-backend` behind a server with every trouble one can have.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;

type Answer = Response<BoxBody<Bytes, io::Error>>;

/// How a server of repositories behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hosting {
    Well,
    /// Wants these credentials, `user:password`.
    Private(String),
    /// Answers every request so.
    Answers(u16),
    /// Accepts and never answers.
    Silent,
    /// Says where things are, and closes in the middle of what is asked for.
    Cut,
}

/// A server that runs until the test ends.
pub(crate) struct GitServer {
    /// Repositories are below it by their path in the folder.
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    hosting: Mutex<Hosting>,
    looks: AtomicU64,
    credentials: Mutex<Vec<String>>,
}

impl GitServer {
    /// Serves all repositories in `folder`.
    pub(crate) async fn start(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (hosting, credentials) = (Mutex::new(Hosting::Well), Mutex::default());
        let shared = Arc::new(Shared { folder, hosting, looks: AtomicU64::new(0), credentials });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(shared.clone(), request));
                    // However the other side ends it.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, shared }
    }

    /// Behaves so from now on.
    pub(crate) fn is(&self, hosting: Hosting) {
        *self.shared.hosting.lock().expect("whole") = hosting;
    }

    /// How often somebody asked what branches and tags there are.
    pub(crate) fn looks(&self) -> u64 {
        self.shared.looks.load(Relaxed)
    }

    /// All credentials that were sent, `user:password`.
    pub(crate) fn credentials(&self) -> Vec<String> {
        self.shared.credentials.lock().expect("whole").clone()
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Answer> {
    let hosting = shared.hosting.lock().expect("whole").clone();
    if request.uri().path().ends_with("/info/refs") {
        shared.looks.fetch_add(1, Relaxed);
    }
    let shown = shown(request.headers());
    shared.credentials.lock().expect("whole").extend(shown.clone());
    match hosting {
        Hosting::Answers(status) => return Ok(plain(StatusCode::from_u16(status).expect("a status"))),
        Hosting::Silent => tokio::time::sleep(Duration::from_secs(3_600)).await,
        Hosting::Private(wanted) if shown.as_ref() != Some(&wanted) => return Ok(plain(StatusCode::UNAUTHORIZED)),
        Hosting::Cut if request.method() == http::Method::POST => {
            let whole = backend(&shared, request).await?;
            return cut(whole).await;
        }
        Hosting::Well | Hosting::Private(_) | Hosting::Cut => {}
    }
    backend(&shared, request).await
}

/// An answer without its second half.
async fn cut(whole: Answer) -> io::Result<Answer> {
    let (head, body) = whole.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let half = Frame::data(bytes.slice(..bytes.len() / 2));
    let pieces = [Ok(half), Err(io::Error::other("the server has had enough"))];
    Ok(Response::from_parts(head, StreamBody::new(tokio_stream::iter(pieces)).boxed()))
}

fn body(bytes: impl Into<Bytes>) -> BoxBody<Bytes, io::Error> {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn plain(status: StatusCode) -> Answer {
    let answer = Response::builder().status(status).header("www-authenticate", "Basic realm=\"git\"");
    answer.body(body("no\n")).expect("an answer")
}

/// `user:password` of a request.
fn shown(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("authorization")?.to_str().ok()?.strip_prefix("Basic ")?;
    String::from_utf8(base64::prelude::BASE64_STANDARD.decode(text).ok()?).ok()
}

/// What git's own server says (git-http-backend(1)).
async fn backend(shared: &Shared, request: Request<Incoming>) -> io::Result<Answer> {
    let (head, sent) = request.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let sent = sent.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut command = Command::new("git");
    command.arg("http-backend").env("GIT_PROJECT_ROOT", &shared.folder).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("REQUEST_METHOD", head.method.as_str()).env("PATH_INFO", head.uri.path());
    command.env("QUERY_STRING", head.uri.query().unwrap_or_default()).env("CONTENT_TYPE", header("content-type"));
    command.env("HTTP_CONTENT_ENCODING", header("content-encoding")).env("GIT_PROTOCOL", header("git-protocol"));
    command.env("CONTENT_LENGTH", sent.len().to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut input = child.stdin.take().expect("piped");
    let written = tokio::spawn(async move { input.write_all(&sent).await });
    let output = child.wait_with_output().await?;
    let _ = written.await; // A backend that has read enough closes its input.
    answer_of(&output.stdout).ok_or_else(|| {
        let _ = io::stderr().write_all(&output.stdout); // For whoever looks at the failed test.
        io::Error::other("git http-backend")
    })
}

/// What a CGI program wrote (RFC 3875 §6).
fn answer_of(output: &[u8]) -> Option<Answer> {
    let end = output.windows(4).position(|part| part == b"\r\n\r\n")?;
    let mut answer = Response::builder();
    for line in std::str::from_utf8(&output[..end]).ok()?.lines() {
        let (name, value) = line.split_once(": ")?;
        answer = match name {
            "Status" => answer.status(value.get(..3)?),
            name => answer.header(name, value),
        };
    }
    answer.body(body(output[end + 4..].to_vec())).ok()
}

//! A registry that keeps to the letter of the specification, keeps what came of a request that was cut, and fails, lies or
//! asks for tokens as it is told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use api::Digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Whom it lets in.
#[derive(Clone, Default)]
pub(crate) enum Asks {
    #[default]
    Nothing,
    Basic(&'static str, &'static str),
    /// Bearer tokens, given for a password or an identity token.
    Tokens {
        password: (&'static str, &'static str),
        identity: &'static str,
        /// How many requests a token is good for.
        good_for: u32,
    },
}

/// What it does that no registry should.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lie {
    #[default]
    None,
    ManifestWithoutEnd,
    BlobWithoutEnd,
    TokenWithoutEnd,
    ErrorWithoutEnd,
    HeadersWithoutEnd,
    Silence,
    /// Every range begins somewhere else.
    Ranges,
    /// An error that quotes what let us in.
    Quotes,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) asks: Asks,
    pub(crate) lie: Lie,
    /// Connections of uploads are cut after so many bytes in all, one after the other.
    pub(crate) cuts: Vec<u64>,
    /// Where uploads, and blobs, are to be found instead.
    pub(crate) uploads_at: Option<String>,
    pub(crate) blobs_at: Option<String>,
    /// Where tokens are handed out instead.
    pub(crate) tokens_at: Option<String>,
    /// Bytes of uploads that came.
    pub(crate) received: u64,
    /// Method, path, and what let it in.
    pub(crate) log: Vec<(Method, String, Option<String>)>,
    pub(crate) blobs: HashMap<String, Bytes>,
    pub(crate) manifests: HashMap<String, Bytes>,
    pub(crate) sessions: HashMap<u64, Vec<u8>>,
    /// Tokens with the requests that they are still good for.
    pub(crate) tokens: HashMap<String, u32>,
    pub(crate) numbers: u64,
}

pub(crate) struct Strict {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Strict {
    pub(crate) async fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                let service = hyper::service::service_fn(move |request| answer(shared.clone(), port, request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { port, state, accepting }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("whole")
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An error of this ends the connection.
async fn answer(state: Arc<Mutex<State>>, port: u16, request: Request<Incoming>) -> Result<Answer, &'static str> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let pass = head.headers.get("authorization").map(|pass| pass.to_str().expect("text").to_owned());
    let lie = {
        let mut state = state.lock().expect("whole");
        state.log.push((head.method.clone(), path.clone(), pass.clone()));
        state.lie
    };
    match lie {
        Lie::Silence => std::future::pending().await,
        Lie::ErrorWithoutEnd => return Ok(said(StatusCode::BAD_REQUEST, Endless.boxed_unsync())),
        Lie::HeadersWithoutEnd => {
            let mut answer = Response::builder().status(200);
            for number in 0..90 {
                answer = answer.header(format!("x-{number}"), "x".repeat(10_000));
            }
            return Ok(answer.body(full("")).expect("an answer"));
        }
        Lie::Quotes => {
            let pass = pass.unwrap_or_else(|| "nobody".to_owned());
            let quoted = format!(r#"{{"errors":[{{"code":"DENIED","message":"you are {pass}\u001b[31m"}}]}}"#);
            return Ok(said(StatusCode::FORBIDDEN, full(&quoted)));
        }
        _ => {}
    }
    if path == "/token" {
        let form = body.collect().await.map_err(|_| "cut")?.to_bytes();
        return Ok(token(&mut state.lock().expect("whole"), pass.as_deref(), &form));
    }
    if let Some(refused) = refused(&mut state.lock().expect("whole"), port, pass.as_deref()) {
        return Ok(refused);
    }
    let (_, what) = path.trim_start_matches("/v2/").rsplit_once("/manifests/").unwrap_or_default();
    if !what.is_empty() {
        let body = body.collect().await.map_err(|_| "cut")?.to_bytes();
        return Ok(manifest(&mut state.lock().expect("whole"), &head.method, what, body));
    }
    match path.rsplit_once("/blobs/").map(|(_, what)| what) {
        Some("uploads/") => Ok(begun(&mut state.lock().expect("whole"), &path)),
        Some(what) if what.starts_with("uploads/") => uploaded(&state, &head, body).await,
        Some(what) => Ok(blob(&state.lock().expect("whole"), &head, what)),
        None => Ok(said(StatusCode::NOT_FOUND, full(""))),
    }
}

fn refused(state: &mut State, port: u16, pass: Option<&str>) -> Option<Answer> {
    let realm = state.tokens_at.clone().unwrap_or_else(|| format!("http://127.0.0.1:{port}/token"));
    let challenge = match state.asks {
        Asks::Nothing => return None,
        Asks::Basic(user, password) if pass == Some(basic(user, password).as_str()) => return None,
        Asks::Basic(..) => "Basic realm=\"strict\"".to_owned(),
        Asks::Tokens { .. } => {
            let token = pass.and_then(|pass| pass.strip_prefix("Bearer ")).unwrap_or_default();
            if let Some(left) = state.tokens.get_mut(token).filter(|left| **left > 0) {
                *left -= 1;
                return None;
            }
            format!("Bearer realm=\"{realm}\",service=\"strict\",scope=\"repository:ours:pull,push\"")
        }
    };
    let answer = Response::builder().status(401).header("www-authenticate", challenge);
    Some(answer.body(full("")).expect("an answer"))
}

fn token(state: &mut State, pass: Option<&str>, form: &[u8]) -> Answer {
    if state.lie == Lie::TokenWithoutEnd {
        return said(StatusCode::OK, Endless.boxed_unsync());
    }
    let Asks::Tokens { password: (user, password), identity, good_for } = state.asks else {
        return said(StatusCode::NOT_FOUND, full(""));
    };
    let form = String::from_utf8_lossy(form);
    let by_identity = form.contains("grant_type=refresh_token")
        && form.contains("service=strict")
        && form.split('&').any(|field| field == format!("refresh_token={identity}"));
    if pass != Some(basic(user, password).as_str()) && !by_identity {
        return said(StatusCode::UNAUTHORIZED, full(""));
    }
    state.numbers += 1;
    let token = format!("secret-token-{}", state.numbers);
    state.tokens.insert(token.clone(), good_for);
    said(StatusCode::OK, full(&format!(r#"{{"token":"{token}","expires_in":300}}"#)))
}

fn manifest(state: &mut State, method: &Method, what: &str, body: Bytes) -> Answer {
    if method == Method::PUT {
        let digest = Digest::of(&body).to_string();
        state.manifests.extend([(what.to_owned(), body.clone()), (digest, body)]);
        return said(StatusCode::CREATED, full(""));
    }
    if state.lie == Lie::ManifestWithoutEnd {
        return said(StatusCode::OK, Endless.boxed_unsync());
    }
    match state.manifests.get(what) {
        Some(body) => said(StatusCode::OK, Full::new(body.clone()).boxed_unsync()),
        None => said(StatusCode::NOT_FOUND, full("")),
    }
}

fn begun(state: &mut State, path: &str) -> Answer {
    state.numbers += 1;
    let number = state.numbers;
    state.sessions.insert(number, Vec::new());
    let location = format!("{}{path}{number}", state.uploads_at.clone().unwrap_or_default());
    let answer = Response::builder().status(202).header("location", location);
    answer.body(full("")).expect("an answer")
}

async fn uploaded(
    state: &Mutex<State>,
    head: &http::request::Parts,
    mut body: Incoming,
) -> Result<Answer, &'static str> {
    let path = head.uri.path();
    let number = path.rsplit('/').next().and_then(|number| number.parse::<u64>().ok()).expect("a session of ours");
    let Some(offset) = state.lock().expect("whole").sessions.get(&number).map(Vec::len) else {
        return Ok(said(StatusCode::NOT_FOUND, full("")));
    };
    if head.method != Method::GET && body.size_hint().exact() != Some(0) {
        let begins = range(&head.headers).unwrap_or(0);
        if begins != offset {
            return Ok(said(StatusCode::RANGE_NOT_SATISFIABLE, full("")));
        }
    }
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(|_| "cut by the client")?.into_data().unwrap_or_default();
        let mut state = state.lock().expect("whole");
        let room = state.cuts.first().map_or(u64::MAX, |cut| cut - state.received);
        let taken = data.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        state.received += taken as u64;
        state.sessions.get_mut(&number).expect("there").extend_from_slice(&data[..taken]);
        if taken as u64 == room {
            state.cuts.remove(0);
            return Err("cut as told");
        }
    }
    let mut state = state.lock().expect("whole");
    let length = state.sessions[&number].len();
    let digest = head.uri.query().and_then(|query| query.split('&').find_map(|field| field.strip_prefix("digest=")));
    let Some(digest) = digest.filter(|_| head.method == Method::PUT) else {
        let status = if head.method == Method::GET { 204 } else { 202 };
        let range = format!("0-{}", length.saturating_sub(1));
        let answer = Response::builder().status(status).header("location", path).header("range", range);
        return Ok(answer.body(full("")).expect("an answer"));
    };
    let bytes = Bytes::from(state.sessions.remove(&number).expect("there"));
    if Digest::of(&bytes).to_string() != digest {
        return Ok(said(StatusCode::BAD_REQUEST, full(r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#)));
    }
    state.blobs.insert(digest.to_owned(), bytes);
    Ok(said(StatusCode::CREATED, full("")))
}

fn blob(state: &State, head: &http::request::Parts, what: &str) -> Answer {
    if let Some(elsewhere) = &state.blobs_at {
        let location = format!("{elsewhere}{}", head.uri.path());
        return Response::builder().status(307).header("location", location).body(full("")).expect("an answer");
    }
    if state.lie == Lie::BlobWithoutEnd && head.method == Method::GET {
        return said(StatusCode::OK, Endless.boxed_unsync());
    }
    let Some(bytes) = state.blobs.get(what) else { return said(StatusCode::NOT_FOUND, full("")) };
    let first =
        head.headers.get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-'));
    if let Some(first) = first.and_then(|first| first.parse::<usize>().ok()) {
        let first = if state.lie == Lie::Ranges { first / 2 } else { first };
        let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
        let answer = Response::builder().status(206).header("content-range", range);
        return answer.body(Full::new(bytes.slice(first..)).boxed_unsync()).expect("an answer");
    }
    said(StatusCode::OK, Full::new(bytes.clone()).boxed_unsync())
}

/// Where a request's `Content-Range: <first>-<last>` begins.
fn range(headers: &HeaderMap) -> Option<usize> {
    headers.get("content-range")?.to_str().ok()?.split_once('-')?.0.parse().ok()
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn said(status: StatusCode, body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    Response::builder().status(status).body(body).expect("an answer")
}

fn full(text: &str) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed_unsync()
}

/// A body that never ends.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 16 * 1024])))))
    }
}

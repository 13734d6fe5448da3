//! One registry's requests, with what lets us in: the one place where credentials are added.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use serde::Deserialize;

use super::Settings;
use super::body::Outgoing;
use super::connection::{Answer, Connections, Origin};
use super::error::{Why, shown};
use super::pass::{Asking, Passes, Scope};
use crate::credentials::Credentials;
use crate::place::Place;

/// Longest error that is read, and longest answer without content.
const MOST_BYTES: usize = 64 * 1024;
/// Redirects in a row.
const MOST_REDIRECTS: usize = 3;

/// What is done at a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    Pull,
    Push,
    Delete,
}

/// Sends requests to registries.
pub(super) struct Client {
    pub(super) connections: Connections,
    credentials: Credentials,
    /// The registry that credentials were given for.
    ours: String,
    passes: Passes,
    /// One download of a file at a time.
    files: Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<ErrorSaid>,
}

#[derive(Deserialize)]
struct ErrorSaid {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Client {
    pub(super) fn new(settings: Settings) -> Self {
        let Settings { place, authorities, credentials, clear, silence, .. } = settings;
        let connections = Connections::new(authorities, clear, silence);
        let ours = place.host().to_owned();
        Self { connections, credentials, ours, passes: Passes::default(), files: Mutex::default() }
    }

    /// The URL of something in a repository: `/v2/<repository>/<rest>`.
    pub(super) fn url(&self, at: &Place, rest: &str) -> Uri {
        // Docker Hub's registry has another name than its images.
        let host = if at.host() == "docker.io" { "registry-1.docker.io" } else { at.host() };
        let url = format!("{}://{host}/v2/{}/{rest}", self.connections.scheme(host), at.repository());
        url.parse().expect("a place has the form of a URL's parts")
    }

    /// Sends a request about a repository; whatever the status, unless it is 401 after a new pass.
    ///
    /// What lets us in goes to the repository's registry only. `make` is asked again for each attempt.
    pub(super) async fn send(
        &self,
        at: &Place,
        may: May,
        make: impl Fn() -> Result<Request<Outgoing>, Why>,
    ) -> Result<Answer, Why> {
        let request = make()?;
        let home = Origin::of(&self.url(at, ""));
        if Origin::of(request.uri()) != home {
            return self.connections.send(request).await;
        }
        let scope = Scope { host: at.host().to_owned(), repository: at.repository().to_owned(), may: may.word() };
        let last = self.passes.last(&scope).await;
        let answer = self.connections.send(with(request, last.as_ref())).await?;
        if answer.head.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let (head, _) = self.connections.read(answer, MOST_BYTES).await?;
        let asking = Asking {
            connections: &self.connections,
            credentials: &self.credentials,
            is_ours: at.host() == self.ours,
            is_clear: self.connections.scheme(at.host()) == "http",
        };
        let fresh = self.passes.renew(&scope, last.as_ref(), &head.headers, &asking).await?;
        let answer = self.connections.send(with(make()?, Some(&fresh))).await?;
        match answer.head.status {
            StatusCode::UNAUTHORIZED => Err(Why::Unauthorized),
            _ => Ok(answer),
        }
    }

    /// As [`Client::send`] with GET, following redirects: registries keep blobs elsewhere.
    pub(super) async fn get(&self, at: &Place, rest: &str, headers: &HeaderMap) -> Result<Answer, Why> {
        let mut url = self.url(at, rest);
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.send(at, May::Pull, || get(&url, headers)).await?;
            if !answer.head.status.is_redirection() {
                return Ok(answer);
            }
            url = located(&answer.head.headers, &url)?;
        }
        Err(Why::Strange(format!("it redirects more than {MOST_REDIRECTS} times")))
    }

    /// The head of an answer whose status is one of `expected`; otherwise what the registry says is wrong.
    pub(super) async fn settle(&self, answer: Answer, expected: &[u16]) -> Result<http::response::Parts, Why> {
        let pass = answer.pass.clone();
        let (head, body) = self.connections.read(answer, MOST_BYTES).await?;
        match expected.contains(&head.status.as_u16()) {
            true => Ok(head),
            false => Err(refused(&head, &body, pass.as_ref())),
        }
    }

    /// What a registry says is wrong.
    pub(super) async fn refusal(&self, answer: Answer) -> Why {
        let pass = answer.pass.clone();
        match self.connections.read(answer, MOST_BYTES).await {
            Ok((head, body)) => refused(&head, &body, pass.as_ref()),
            Err(why) => why,
        }
    }

    /// What is to be held while a file is written.
    pub(super) fn file(&self, path: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|_, file| file.strong_count() > 0);
        if let Some(file) = files.get(path).and_then(Weak::upgrade) {
            return file;
        }
        let file = Arc::default();
        files.insert(path.to_owned(), Arc::downgrade(&file));
        file
    }
}

impl May {
    fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "delete",
        }
    }
}

/// A request without a body.
pub(super) fn bare(method: http::Method, url: &Uri) -> Result<Request<Outgoing>, Why> {
    let request = Request::builder().method(method).uri(url).body(Outgoing::empty());
    request.map_err(|error| Why::Strange(error.to_string()))
}

fn get(url: &Uri, headers: &HeaderMap) -> Result<Request<Outgoing>, Why> {
    let mut request = bare(http::Method::GET, url)?;
    request.headers_mut().extend(headers.clone());
    Ok(request)
}

fn with(mut request: Request<Outgoing>, pass: Option<&HeaderValue>) -> Request<Outgoing> {
    if let Some(pass) = pass {
        request.headers_mut().insert(AUTHORIZATION, pass.clone());
    }
    request
}

/// Where an answer points, resolved against what was asked (RFC 9110 §10.2.2).
///
/// Absolute, with an absolute path, or with neither: the latter only where it adds to no path of ours.
pub(super) fn located(headers: &HeaderMap, asked: &Uri) -> Result<Uri, Why> {
    let strange = || Why::Strange("it does not say where to go on".to_owned());
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok()).ok_or_else(strange)?;
    let scheme = asked.scheme_str().unwrap_or("https");
    let authority = asked.authority().ok_or_else(strange)?;
    let absolute = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => location.to_owned(),
    };
    let located: Uri = absolute.parse().map_err(|_| strange())?;
    // From TLS nobody is led into the clear.
    let is_downgrade = scheme == "https" && located.scheme_str() != Some("https");
    if located.authority().is_none() || is_downgrade { Err(strange()) } else { Ok(located) }
}

fn refused(head: &http::response::Parts, body: &Bytes, pass: Option<&HeaderValue>) -> Why {
    let said: Option<Errors> = serde_json::from_slice(body).ok();
    let said = said.and_then(|said| said.errors.into_iter().next());
    let said = said.filter(|said| pass.is_none_or(|pass| !quotes(&format!("{} {}", said.code, said.message), pass)));
    let (code, message) = said.map_or_else(Default::default, |said| (shown(&said.code), shown(&said.message)));
    let after = head.headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok());
    let retry_after = after.and_then(|after| after.parse().ok()).map(Duration::from_secs);
    match head.status {
        StatusCode::UNAUTHORIZED => Why::Unauthorized,
        StatusCode::NOT_FOUND => Why::Unknown,
        status => Why::Refused { status: status.as_u16(), code, message, retry_after },
    }
}

/// Whether a text shows what let us in, as it was sent or as it is.
fn quotes(text: &str, pass: &HeaderValue) -> bool {
    let pass = String::from_utf8_lossy(pass.as_bytes());
    let (scheme, secret) = pass.split_once(' ').unwrap_or(("", &pass));
    let decoded = BASE64_STANDARD.decode(secret).ok().filter(|_| scheme == "Basic");
    let decoded = decoded.map(|decoded| String::from_utf8_lossy(&decoded).into_owned()).unwrap_or_default();
    let password = decoded.split_once(':').map_or("", |(_, password)| password);
    text.contains(secret) || (!password.is_empty() && text.contains(password))
}

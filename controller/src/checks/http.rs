//! A check by HTTP: any answer of 2xx is well. Verified where its URL is https, bounded; redirects are not followed.
//!
//! Must not know: what a check is for.

use std::net::IpAddr;
use std::time::Duration;

use api::Host;
use bytes::Bytes;
use certs::call::{Caller, Clear, Excess, Unanswered};
use certs::endpoint::Authorities;
use http::header::{ACCEPT, HeaderName, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode, Uri};
use policies::credential::denial;

use super::ask::Outcome;
use super::line;

/// As much of an answer is read: of a problem the first line counts, and of what is well nothing.
pub(super) const MOST_BYTES: usize = 64 * 1024;
/// Where applications present their keys.
const KEY: HeaderName = HeaderName::from_static("x-api-key");
/// How `http_body_util::LengthLimitError` says it.
const TOO_LONG: &str = "length limit exceeded";

/// How a server is asked.
#[derive(Clone)]
pub(super) struct Way<'a> {
    /// Who is believed about it.
    pub(super) authorities: &'a Authorities,
    /// Which addresses its name may lead to.
    pub(super) may_reach: fn(IpAddr) -> bool,
    pub(super) timeout: Duration,
    /// The key of the application that it is; none: it is a stranger.
    pub(super) key: Option<HeaderValue>,
    /// It is the stage's own host: who takes connections there is one of our proxies, and not the release.
    pub(super) is_own: bool,
}

/// What came of a try.
pub(super) struct Asked {
    pub(super) outcome: Outcome,
    /// Why one of our proxies may have answered in place of the release.
    pub(super) door: Option<Door>,
}

/// What a door that is closed looks like.
pub(super) enum Door {
    /// An answer 404 with such an id as our proxies make.
    Hidden(String),
    /// An answer 401 or 403, in one line. Our proxies' look like a release's own.
    Closed { said: String },
}

/// Asks once.
pub(super) async fn ask(url: &str, way: &Way<'_>) -> Asked {
    let (outcome, door) = match get(url, "*/*", way, MOST_BYTES, Excess::Cut).await {
        Ok(answer) if answer.status().is_success() => (Outcome::Well, None),
        Ok(answer) => (Outcome::Failed(refusal(&answer)), door(&answer)),
        Err(NoAnswer { why, is_ours: true }) => (Outcome::Silent(why), None),
        Err(NoAnswer { why, is_ours: false }) => (Outcome::Failed(why), None),
    };
    Asked { outcome, door }
}

fn door(answer: &Response<Bytes>) -> Option<Door> {
    match answer.status() {
        StatusCode::NOT_FOUND => {
            let id = answer.headers().get("x-request-id").and_then(|id| id.to_str().ok());
            id.filter(|id| id.len() == denial::LENGTH).map(|id| Door::Hidden(id.to_owned()))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(Door::Closed { said: refusal(answer) }),
        _ => None,
    }
}

/// Why there is no answer, in one line.
pub(super) struct NoAnswer {
    pub(super) why: String,
    /// The release was not asked.
    pub(super) is_ours: bool,
}

impl NoAnswer {
    fn of(why: &str, is_ours: bool) -> Self {
        Self { why: line::one(why), is_ours }
    }
}

/// One GET, and its answer.
///
/// # Errors
/// There was none, or none in time, from whom it should be, or, unless it is to be cut, as short as it should be.
pub(super) async fn get(
    url: &str,
    accept: &'static str,
    way: &Way<'_>,
    most_bytes: usize,
    excess: Excess,
) -> Result<Response<Bytes>, NoAnswer> {
    let request = Request::get(url).header(ACCEPT, accept).body(String::new());
    let mut request = request.map_err(|error| NoAnswer::of(&format!("{url} is no URL: {error}"), true))?;
    if let Some(key) = &way.key {
        request.headers_mut().insert(KEY, key.clone());
    }
    let uri = request.uri().clone();
    let host = uri.host().unwrap_or_default();
    let Way { authorities, may_reach, timeout, .. } = way.clone();
    // In clear where the file says so: whoever wrote it did, and what is asked in clear holds no secret.
    let (authorities, clear) = (authorities.clone(), Clear::Anywhere);
    let caller = Caller { authorities, clear, may_reach, deadline: timeout, most_bytes, excess };
    caller.ask(request).await.map_err(|Unanswered { why, is_ours, is_reached }| match why.ends_with(TOO_LONG) {
        true => NoAnswer::of(&format!("{host} answered more than {} KiB", most_bytes / 1024), false),
        false => NoAnswer::of(&why, is_ours || way.is_own && !is_reached),
    })
}

/// What an answer says that is not well.
pub(super) fn refusal(answer: &Response<Bytes>) -> String {
    let status = answer.status();
    if status.is_redirection() {
        let to = answer.headers().get(LOCATION).map_or_else(|| "elsewhere".into(), |to| line::first(to.as_bytes()));
        return line::one(&format!("it answered {status} and leads to {to}: redirects are not followed"));
    }
    match line::first(answer.body()).as_str() {
        "" => line::one(&format!("it answered {status}")),
        // Escaped already.
        said => cut(format!("it answered {status}: {said}")),
    }
}

/// Cut, and not escaped again.
fn cut(line: String) -> String {
    match line.char_indices().nth(line::MOST) {
        Some(_) => line.chars().take(line::MOST - 1).chain(['…']).collect(),
        None => line,
    }
}

/// Whether the URL's host lies within a zone.
pub(super) fn is_within(url: &str, zone: &Host) -> bool {
    host_of(url).strip_suffix(zone.as_str()).is_some_and(|rest| rest.ends_with('.'))
}

/// In lower case; empty: it has none.
pub(super) fn host_of(url: &str) -> String {
    let url = url.parse::<Uri>().ok();
    url.as_ref().and_then(Uri::host).unwrap_or_default().to_ascii_lowercase()
}

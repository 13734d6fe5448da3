//! How the library's requests reach the server: HTTP/1.1 over verified TLS, one connection each, bounded in time and size.
//!
//! Must not know: what is asked or answered, but for three things that the library would lose or stumble over: refusals
//! (with `Retry-After`), URLs that are none, and times that no clock can hold.
//!
//! Main types: [`Client`]; [`Failure`], which comes back through the library's `Error::Other`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Uri};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::renewal::LONGEST_RETRY_AFTER;
use crate::call::{Caller, Clear, Excess, is_plain};
use crate::endpoint::Authorities;

/// What a request may take, as long as nobody says otherwise.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// Chains and orders have some kilobytes.
const LONGEST_ANSWER: usize = 1024 * 1024;
/// When to ask again about renewal where the server does not say (RFC 9773 §4.3.3).
const ASK_AGAIN: &str = "21600";
/// What the directory names (RFC 8555 §7.1.1, RFC 9773 §4).
const DIRECTORY: [&str; 7] =
    ["newNonce", "newAccount", "newOrder", "newAuthz", "revokeCert", "keyChange", "renewalInfo"];

/// Sends the library's requests.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) roots: Authorities,
    /// The directory's URL, whose answer is looked at before the library sees it.
    pub(super) directory: String,
    /// For one request, from looking up the name to the last byte.
    pub(super) deadline: Duration,
}

/// What became of a request that has no answer for the library.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The server answered with an error.
    Refused { status: StatusCode, problem: Option<Problem>, retry_after: Option<Duration> },
    /// No answer, or one that cannot be taken.
    Broken(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, problem: Some(problem), .. } => write!(f, "{status}: {problem}"),
            Self::Refused { status, problem: None, .. } => write!(f, "it answered {status}"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Other(Box::new(failure))
    }
}

// === impl Client ===

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let (directory, get) = (*request.uri() == *client.directory, request.method() == Method::GET);
            let answer = client.exchange(request).await.map_err(Failure::Broken)?;
            let mut answer = refused(answer, SystemTime::now())?;
            if directory {
                check_directory(answer.body())?;
            } else if get && !answer.headers().contains_key(RETRY_AFTER) {
                // The only other GET. The library takes a missing one for an error.
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(ASK_AGAIN));
            }
            let (parts, body) = answer.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

impl Client {
    async fn exchange(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, String> {
        https(&request.uri().to_string())?;
        let caller = Caller {
            authorities: self.roots.clone(),
            clear: Clear::Never,
            may_reach: |_| true,
            deadline: self.deadline,
            most_bytes: LONGEST_ANSWER,
            excess: Excess::Refused,
        };
        caller.call(request).await
    }
}

/// An answer that is an error becomes one here, because the library forgets its `Retry-After`; all but a refused nonce,
/// which the library answers itself.
fn refused(mut answer: Response<Bytes>, now: SystemTime) -> Result<Response<Bytes>, Failure> {
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|said| wait(said.to_str().ok()?, now));
    match retry_after {
        // Bounded: the library adds what is said to a clock.
        Some(wait) => {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        None => {
            answer.headers_mut().remove(RETRY_AFTER);
        }
    }
    let status = answer.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(answer);
    }
    let problem = serde_json::from_slice::<Problem>(answer.body()).ok();
    let kind = problem.as_ref().and_then(|problem| problem.r#type.as_deref());
    if status == StatusCode::BAD_REQUEST && kind == Some("urn:ietf:params:acme:error:badNonce") {
        return Ok(answer);
    }
    Err(Failure::Refused { status, problem, retry_after })
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds or a date; at most 7 days.
fn wait(said: &str, now: SystemTime) -> Option<Duration> {
    let said = said.trim();
    let wait = match said.bytes().all(|byte| byte.is_ascii_digit()) && !said.is_empty() {
        // More seconds than fit are long enough.
        true => said.parse().map_or(LONGEST_RETRY_AFTER, Duration::from_secs),
        false => {
            let date = SystemTime::from(OffsetDateTime::parse(said, &Rfc2822).ok()?);
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// The library takes the directory's URLs for well-formed.
fn check_directory(body: &[u8]) -> Result<(), Failure> {
    let directory: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| Failure::Broken("it is not a directory: not JSON".into()))?;
    for name in DIRECTORY {
        if let Some(url) = directory.get(name).and_then(|url| url.as_str()) {
            https(url).map_err(|why| Failure::Broken(format!("its directory's {name}: {why}")))?;
        }
    }
    Ok(())
}

/// A URL with `https`, a host and no credentials.
pub(super) fn https(url: &str) -> Result<Uri, String> {
    let shown = || super::error::plain(url);
    let uri: Uri = url.parse().map_err(|_| format!("\"{}\" is not a URL", shown()))?;
    match uri.scheme_str() {
        Some("https") if uri.authority().is_some_and(is_plain) => Ok(uri),
        _ => Err(format!("\"{}\" is not an https URL such as https://acme.example.com/directory", shown())),
    }
}

#[cfg(test)]
mod tests;

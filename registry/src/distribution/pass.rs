//! What lets us in: the header for one registry and scope, made anew when it is refused or ends; one at a time.
//!
//! Source: distribution's "Token Authentication Specification" and "OAuth2 Token Authentication".

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use serde::Deserialize;
use tokio::time::Instant;

use super::body::Outgoing;
use super::challenge::{self, Challenge};
use super::connection::Connections;
use super::error::Why;
use crate::credentials::{Credentials, Login};

/// Longest answer with a token.
const MOST_BYTES: usize = 64 * 1024;
/// What a token counts for when nobody says (the specification's default).
const LEAST_LIFETIME: Duration = Duration::from_secs(60);
/// A token that ends so soon is not used any more.
const MARGIN: Duration = Duration::from_secs(10);
/// Lifetimes above this are not believed: an error of a server must not become a token that nobody renews.
const MOST_LIFETIME: Duration = Duration::from_secs(3_600);

/// What is asked for: a repository, and whether it is written to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub(super) host: String,
    pub(super) repository: String,
    pub(super) may: &'static str,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repository:{}:{}", self.repository, self.may)
    }
}

/// What let us in last.
#[derive(Default)]
struct Slot {
    header: Option<HeaderValue>,
    /// When it ends, if it does.
    until: Option<Instant>,
}

/// The headers of all scopes.
#[derive(Default)]
pub(super) struct Passes(Mutex<HashMap<Scope, Arc<tokio::sync::Mutex<Slot>>>>);

/// Whom to ask for a pass, and as whom.
pub(super) struct Asking<'a> {
    pub(super) connections: &'a Connections,
    pub(super) credentials: &'a Credentials,
    /// Whether the credentials were given for this registry.
    pub(super) is_ours: bool,
    /// Whether the registry is asked in clear, so that who hands out its tokens may be.
    pub(super) is_clear: bool,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Passes {
    fn slot(&self, scope: &Scope) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(scope.clone()).or_default().clone()
    }

    /// What let us in last, unless it ends now. Waits while somebody asks for it.
    pub(super) async fn last(&self, scope: &Scope) -> Option<HeaderValue> {
        let slot = self.slot(scope);
        let slot = slot.lock().await;
        let fits = slot.until.is_none_or(|until| Instant::now() < until);
        slot.header.clone().filter(|_| fits)
    }

    /// Another header than `refused`, by what the registry asks for in `head`.
    ///
    /// # Errors
    /// [`Why::Unauthorized`] when there is no other.
    pub(super) async fn renew(
        &self,
        scope: &Scope,
        refused: Option<&HeaderValue>,
        head: &HeaderMap,
        asking: &Asking<'_>,
    ) -> Result<HeaderValue, Why> {
        let slot = self.slot(scope);
        let mut slot = slot.lock().await;
        // Somebody else was refused with the same one, and has brought another.
        if let Some(header) = slot.header.as_ref().filter(|header| refused.is_some_and(|refused| refused != header)) {
            return Ok(header.clone());
        }
        let login = asking.credentials.login(&scope.host, asking.is_ours).await.map_err(Why::Credentials)?;
        let (header, lifetime) = asking.pass(scope, &login, head).await?;
        if refused == Some(&header) {
            return Err(Why::Unauthorized);
        }
        slot.until = lifetime.map(|lifetime| Instant::now() + lifetime.saturating_sub(MARGIN));
        slot.header = Some(header.clone());
        Ok(header)
    }
}

impl Asking<'_> {
    async fn pass(
        &self,
        scope: &Scope,
        login: &Login,
        head: &HeaderMap,
    ) -> Result<(HeaderValue, Option<Duration>), Why> {
        if let Login::Token(token) = login {
            return Ok((secret(&format!("Bearer {token}"))?, None));
        }
        let headers = head.get_all(WWW_AUTHENTICATE).iter().filter_map(|header| header.to_str().ok());
        let challenges: Vec<Challenge> = headers.flat_map(challenge::read).collect();
        for asked in challenges {
            match (asked, login) {
                (Challenge::Basic, Login::Password { user, password }) => return Ok((basic(user, password)?, None)),
                (Challenge::Basic, _) => {}
                (Challenge::Bearer { realm, service, scope: asked }, _) => {
                    // What is asked for may be more than what we thought of.
                    let wanted = asked.unwrap_or_else(|| scope.to_string());
                    return self.token(&realm, service.as_deref(), &wanted, login).await;
                }
            }
        }
        Err(Why::Unauthorized)
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        login: &Login,
    ) -> Result<(HeaderValue, Option<Duration>), Why> {
        let strange = || Why::Strange("it names no place where it hands out tokens".to_owned());
        let realm: Uri = realm.parse().map_err(|_| strange())?;
        let is_clear = realm.scheme_str() != Some("https");
        if is_clear && !(self.is_clear && self.connections.may_ask(&realm)) {
            return Err(Why::Strange("it wants our credentials to be told in clear".to_owned()));
        }
        let mut asked = format!("scope={}", encoded(scope));
        if let Some(service) = service {
            asked.push_str(&format!("&service={}", encoded(service)));
        }
        let answer = self.connections.send(token_request(&realm, &asked, login)?).await?;
        let status = answer.head.status;
        let (_, body) = self.connections.read(answer, MOST_BYTES).await?;
        if matches!(status.as_u16(), 400..=404) {
            return Err(Why::Unauthorized);
        }
        if !status.is_success() {
            let message = "when it was asked for a token".to_owned();
            return Err(Why::Refused { status: status.as_u16(), code: String::new(), message, retry_after: None });
        }
        let strange = || Why::Strange("there is no token in the answer to our question for one".to_owned());
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| strange())?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(strange)?;
        let lifetime = answer.expires_in.map_or(LEAST_LIFETIME, Duration::from_secs).min(MOST_LIFETIME);
        Ok((secret(&format!("Bearer {token}"))?, Some(lifetime)))
    }
}

/// With an identity by POST, otherwise by GET.
fn token_request(realm: &Uri, asked: &str, login: &Login) -> Result<Request<Outgoing>, Why> {
    let request = Request::builder().header(ACCEPT, "application/json");
    let strange = |error: http::Error| Why::Strange(error.to_string());
    if let Login::Identity(token) = login {
        let form = format!("grant_type=refresh_token&client_id=pointsman&{asked}&refresh_token={}", encoded(token));
        let request = request.method(Method::POST).uri(realm);
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        return request.body(Outgoing::bytes(Bytes::from(form))).map_err(strange);
    }
    let sign = if realm.query().is_some() { '&' } else { '?' };
    let mut request = request.method(Method::GET).uri(format!("{realm}{sign}{asked}"));
    if let Login::Password { user, password } = login {
        request = request.header(AUTHORIZATION, basic(user, password)?);
    }
    request.body(Outgoing::empty()).map_err(strange)
}

/// RFC 7617 §2.
fn basic(user: &str, password: &str) -> Result<HeaderValue, Why> {
    secret(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
}

/// A header that is not shown.
fn secret(text: &str) -> Result<HeaderValue, Why> {
    let header = HeaderValue::from_str(text);
    let mut header =
        header.map_err(|_| Why::Credentials("a token has characters that no header may have".to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Percent-encoded, but for what needs it nowhere in a URL (RFC 3986 §2.3).
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

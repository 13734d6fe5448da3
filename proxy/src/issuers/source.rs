//! Where an issuer's keys come from, and how they are fetched.
//!
//! Must not know: when, or what becomes of them. Every server is verified; redirects are not followed: the addresses
//! are the operator's and the issuer's own.
//!
//! Sources: OpenID Connect Discovery 1.0 §4, RFC 7517 §5. Main types: [`Source`]; [`Failure`], of one fetch.

use std::fmt;
use std::time::Duration;

use api::fleet;
use bytes::Bytes;
use certs::call::{Caller, Clear, Excess, is_loopback};
use certs::endpoint::Authorities;
use http::header::ACCEPT;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use policies::credential::KeySet;
use serde::Deserialize;

/// For everything that one fetch asks.
const DEADLINE: Duration = Duration::from_secs(5);
/// A set of a hundred keys with their certificates has less.
const MOST_BYTES: usize = 256 * 1024;
/// Relative to the issuer (Discovery §4).
const CONFIGURATION: &str = "/.well-known/openid-configuration";

/// Where the keys of one issuer are.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) issuer: String,
    /// Empty: its configuration says.
    pub(super) jwks_url: String,
    ca_pem: String,
    caller: Caller,
}

/// What was fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    /// As it came.
    pub(super) text: Bytes,
}

/// Why a fetch brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No whole answer.
    Unreachable(String),
    /// An answer that says that there are none, or that they are elsewhere.
    Refused(String),
    /// They are no keys that can be used, or another issuer's.
    Unusable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unreachable(why) | Self::Refused(why) | Self::Unusable(why)) = self;
        f.write_str(why)
    }
}

/// What of an issuer's configuration counts here (Discovery §3).
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

impl Source {
    /// `machine`: who is believed where the issuer does not say.
    ///
    /// # Errors
    /// The field that is wrong, and what is accepted.
    pub(super) fn new(issuer: &fleet::Issuer, machine: &Authorities) -> Result<Self, (&'static str, String)> {
        url(&issuer.issuer).map_err(|why| ("issuer", why))?;
        if !issuer.jwks_url.is_empty() {
            url(&issuer.jwks_url).map_err(|why| ("jwks_url", why))?;
        }
        let authorities = match issuer.ca_pem.as_str() {
            "" => machine.clone(),
            text => Authorities::parse(text).map_err(|error| ("ca_pem", error.to_string()))?,
        };
        let caller = Caller {
            authorities,
            clear: Clear::OnLoopback,
            may_reach: |_| true,
            deadline: DEADLINE,
            most_bytes: MOST_BYTES,
            excess: Excess::Refused,
        };
        let (ca_pem, jwks_url) = (issuer.ca_pem.clone(), issuer.jwks_url.clone());
        Ok(Self { issuer: issuer.issuer.clone(), jwks_url, ca_pem, caller })
    }

    /// Whether nothing has to be fetched anew: the same addresses, and the same authorities.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.has_same_keys(other) && self.ca_pem == other.ca_pem
    }

    /// Whether keys from there are keys from here.
    pub(super) fn has_same_keys(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.jwks_url == other.jwks_url
    }

    /// Fetches the keys.
    pub(super) async fn fetch(&self) -> Result<Fetched, Failure> {
        let fetched = tokio::time::timeout(DEADLINE, async {
            let address = match self.jwks_url.as_str() {
                "" => self.discover().await?,
                url => url.to_owned(),
            };
            self.ask(&address).await.map(|text| (address, text))
        });
        let late = |_| Failure::Unreachable(format!("there was no answer within {} s", DEADLINE.as_secs()));
        let (address, text) = fetched.await.map_err(late)??;
        let keys = KeySet::read(&text).map_err(|why| Failure::Unusable(format!("{address}: {why}")))?;
        Ok(Fetched { keys, text })
    }

    /// Asks the issuer where its keys are.
    async fn discover(&self) -> Result<String, Failure> {
        let address = format!("{}{CONFIGURATION}", self.issuer.strip_suffix('/').unwrap_or(&self.issuer));
        let text = self.ask(&address).await?;
        let unusable = |why: String| Failure::Unusable(format!("{address}: {why}"));
        let read = serde_json::from_slice::<Configuration>(&text);
        let Configuration { issuer, jwks_uri } =
            read.map_err(|_| unusable("it is no configuration with \"issuer\" and \"jwks_uri\"".into()))?;
        // Discovery §4.3: exactly the same.
        if issuer != self.issuer {
            return Err(unusable(format!("it is the configuration of {:?}", shown(&issuer))));
        }
        url(&jwks_uri).map_err(|why| unusable(format!("its jwks_uri {why}")))?;
        if self.issuer.starts_with("https:") && !jwks_uri.starts_with("https:") {
            return Err(unusable("its jwks_uri is not https, as itself is".into()));
        }
        Ok(jwks_uri)
    }

    async fn ask(&self, address: &str) -> Result<Bytes, Failure> {
        let request = Request::get(address).header(ACCEPT, "application/json").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| Failure::Unusable(format!("{}: {error}", shown(address))))?;
        let answer = self.caller.call(request).await.map_err(Failure::Unreachable)?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status if status.is_redirection() => {
                let why = "it leads elsewhere, and redirects are not followed: name the address itself as jwks";
                Err(Failure::Refused(format!("{address}: {why} ({status})")))
            }
            status => Err(Failure::Refused(format!("{address}: it answered {status}"))),
        }
    }
}

/// An address that keys may come from.
fn url(text: &str) -> Result<(), String> {
    let wrong =
        || format!("{:?} is no URL such as https://login.example.com; http is for this machine only", shown(text));
    let url: Uri = text.parse().map_err(|_| wrong())?;
    let plain =
        url.authority().is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    let good = plain && (url.scheme_str() == Some("https") || is_loopback(&url));
    if good { Ok(()) } else { Err(wrong()) }
}

/// Cut for a message.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

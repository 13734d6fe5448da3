//! What a request presents, weighed into who that is.
//!
//! Must not know: policies, stages, or how fields came over the wire.
//!
//! Main types: [`Presented`], [`Identity`], [`Standing`].

use std::sync::Arc;

use super::fault::Fault;
use super::{Access, Application, User};

/// A field of a request, as often as it was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Given<'a> {
    /// Not at all.
    #[default]
    Nothing,
    /// Once.
    One(&'a [u8]),
    /// More than once, which is refused: two readers could take different ones.
    Several,
}

/// What a request presents. The same in HTTP headers and gRPC metadata.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presented<'a> {
    /// `x-api-key`.
    pub api_key: Given<'a>,
    /// `authorization`.
    pub authorization: Given<'a>,
    /// `proxy-authorization`: counts in place of `authorization` when it is there, which is the application's own then.
    pub proxy_authorization: Given<'a>,
    /// Names in the certificate that the client showed in the handshake, and that was verified: URIs and DNS names.
    pub certificate: &'a [String],
    /// The first second, since the Unix epoch, in which that certificate does not count any more. Default: it has no end.
    pub certificate_until_s: Option<u64>,
}

/// Who asks: what is known of both credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Through what.
    pub application: Standing<Arc<Application>>,
    /// For whom.
    pub user: Standing<Arc<User>>,
    /// The first second, since the Unix epoch, in which it has to be established anew: the token, the key or the certificate
    /// that is valid now is not any more. None: nothing of it ends.
    pub until_s: Option<u64>,
    /// The field that carried the user's token was `proxy-authorization`.
    pub by_proxy_authorization: bool,
}

/// What became of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing<T> {
    /// None was presented.
    Absent,
    /// It is valid.
    Valid(T),
    /// It is not.
    Refused(Fault),
    /// It cannot be told now: the issuer's keys are not there.
    Unavailable(Fault),
}

impl<T> Standing<T> {
    /// What is valid.
    pub fn valid(&self) -> Option<&T> {
        match self {
            Self::Valid(known) => Some(known),
            _ => None,
        }
    }

    /// Why it is not valid, though it was presented.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Refused(fault) | Self::Unavailable(fault) => Some(*fault),
            Self::Absent | Self::Valid(_) => None,
        }
    }
}

impl Access {
    /// Who that is, at `now_s` in seconds since the Unix epoch. `user` verifies a token, such as
    /// [`Issuers::user`](super::Issuers::user) does, or remembers that it did; it is asked at most once.
    ///
    /// A client certificate that stands for no application counts as absent. An API key counts before a certificate, a
    /// certificate before the client of a token; a key that is refused is never made up for by the others. A field that came
    /// more than once is refused, and so is one in which somebody joined several with commas (RFC 9110 §5.2).
    pub fn identify(
        &self,
        presented: &Presented<'_>,
        now_s: u64,
        mut user: impl FnMut(&[u8]) -> Standing<Arc<User>>,
    ) -> Identity {
        let by_proxy_authorization = presented.proxy_authorization != Given::Nothing;
        let field = if by_proxy_authorization { presented.proxy_authorization } else { presented.authorization };
        let user = match field {
            Given::Nothing => Standing::Absent,
            Given::Several => Standing::Refused(Fault::Repeated),
            Given::One(value) => bearer(value).map_or_else(Standing::Refused, &mut user),
        };
        let (application, application_until_s) = self.application(presented, &user, now_s);
        let until_s = [application_until_s, user.valid().map(|user| user.until_s)].into_iter().flatten().min();
        Identity { application, user, until_s, by_proxy_authorization }
    }

    /// The application, and until when its key or certificate counts.
    fn application(
        &self,
        presented: &Presented<'_>,
        user: &Standing<Arc<User>>,
        now_s: u64,
    ) -> (Standing<Arc<Application>>, Option<u64>) {
        let known = &self.applications;
        match presented.api_key {
            Given::Nothing => {}
            Given::Several => return (Standing::Refused(Fault::Repeated), None),
            Given::One(key) => {
                return match known.by_key(key, now_s) {
                    Ok((application, until_s)) => (Standing::Valid(Arc::clone(application)), until_s),
                    Err(fault) => (Standing::Refused(fault), None),
                };
            }
        }
        let standing = match known.by_certificate(presented.certificate) {
            Ok(Some(_)) if presented.certificate_until_s.is_some_and(|until_s| until_s <= now_s) => {
                Standing::Refused(Fault::CertificateExpired)
            }
            Ok(Some(application)) => return (Standing::Valid(Arc::clone(application)), presented.certificate_until_s),
            Err(fault) => Standing::Refused(fault),
            Ok(None) => match user {
                Standing::Valid(user) => {
                    known.by_client(user).map_or(Standing::Absent, |app| Standing::Valid(Arc::clone(app)))
                }
                // The token may say which application it is, and nobody can tell now.
                Standing::Unavailable(fault) if known.has_clients() => Standing::Unavailable(*fault),
                _ => Standing::Absent,
            },
        };
        (standing, None)
    }
}

/// The token of "Bearer TOKEN" (RFC 6750 §2.1; the scheme without case: RFC 9110 §11.1).
///
/// # Errors
/// It is none, or one that is not looked at further: longer than [`TOKEN_BYTES`](super::TOKEN_BYTES), or several in one field.
pub fn bearer(value: &[u8]) -> Result<&[u8], Fault> {
    let is_bearer = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"bearer");
    let space = value.iter().take(8).position(|byte| *byte == b' ').ok_or(Fault::NotBearer)?;
    let (scheme, token) = value.split_at(space);
    if !is_bearer(scheme) {
        return Err(Fault::NotBearer);
    }
    let token = token.trim_ascii_start();
    if token.len() > super::TOKEN_BYTES {
        return Err(Fault::TokenLength);
    }
    if token.contains(&b',') {
        return Err(Fault::Repeated);
    }
    Ok(token)
}

#[cfg(test)]
mod tests;

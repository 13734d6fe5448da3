//! What a token claims, checked against a clock that is given (RFC 7519 §4.1), and what an issuer's rules make of it.
//!
//! Must not know: signatures, keys.
//!
//! Main types: [`Terms`], [`Path`], [`GroupRule`], [`AttributeRule`].

use std::collections::BTreeMap;
use std::sync::Arc;

use api::fleet::claim_attribute::Type;

use super::Attribute;
use super::fault::Fault;
use super::json::{Json, Object};

/// How far `exp` may be: tokens that never end are a mistake of somebody's, or a theft that never ends.
const LONGEST_S: u64 = 400 * 24 * 60 * 60;

/// Numbers above it are not the same in every reader (RFC 7493 §2.2).
const LARGEST: i64 = (1 << 53) - 1;

/// Longest `sub`, `azp` and `client_id`, in bytes. OpenID Connect Core 1.0 §2: `sub` has at most 255.
const NAME_BYTES: usize = 255;

/// What an issuer's tokens have to say.
#[derive(Debug)]
pub(crate) struct Terms {
    /// One of these is for us.
    pub(crate) audiences: Vec<String>,
    /// By how much clocks may differ.
    pub(crate) leeway_s: u64,
}

/// What counts of a token's claims besides groups and attributes.
pub(crate) struct Claimed {
    pub(crate) subject: String,
    pub(crate) client: Option<String>,
    /// The first second in which it does not count any more.
    pub(crate) until_s: u64,
}

impl Terms {
    /// Checks the claims, except for `iss`, by which these terms were found.
    pub(crate) fn check(&self, claims: &Object<'_>, now_s: u64) -> Result<Claimed, Fault> {
        self.check_audience(claims)?;
        let until_s = self.check_times(claims, now_s)?;
        let subject = claims.get("sub").and_then(Json::text).ok_or(Fault::SubjectMissing)?;
        if !(1..=NAME_BYTES).contains(&subject.len()) {
            return Err(Fault::SubjectLength);
        }
        let client = match claims.get("azp").or_else(|| claims.get("client_id")) {
            None => None,
            Some(Json::Text(client)) if (1..=NAME_BYTES).contains(&client.len()) => Some(client.clone().into_owned()),
            Some(_) => return Err(Fault::ClientType),
        };
        Ok(Claimed { subject: subject.to_owned(), client, until_s })
    }

    /// RFC 7519 §4.1.3.
    fn check_audience(&self, claims: &Object<'_>) -> Result<(), Fault> {
        let meant_for = claims.get("aud").ok_or(Fault::AudienceMissing)?.texts().ok_or(Fault::AudienceType)?;
        let is_ours = |audience: &&str| self.audiences.iter().any(|ours| ours == audience);
        if meant_for.iter().any(is_ours) { Ok(()) } else { Err(Fault::OtherAudience) }
    }

    /// RFC 7519 §4.1.4 to §4.1.6, in whole seconds. `iat` and `nbf` may be as long ago as they like.
    fn check_times(&self, claims: &Object<'_>, now_s: u64) -> Result<u64, Fault> {
        let expires_s = seconds(claims, "exp", Fault::ExpiryType)?.ok_or(Fault::ExpiryMissing)?;
        let until_s = expires_s + self.leeway_s;
        if now_s >= until_s {
            return Err(Fault::Expired);
        }
        if expires_s > now_s.saturating_add(LONGEST_S) {
            return Err(Fault::ExpiryFar);
        }
        let latest_s = now_s.saturating_add(self.leeway_s);
        if seconds(claims, "nbf", Fault::NotBeforeType)?.is_some_and(|from_s| from_s > latest_s) {
            return Err(Fault::NotYet);
        }
        if seconds(claims, "iat", Fault::IssuedAtType)?.is_some_and(|issued_s| issued_s > latest_s) {
            return Err(Fault::IssuedLater);
        }
        Ok(until_s)
    }
}

/// A time: 0 to 2^53 - 1. RFC 7519 §2 would allow fractions; nobody needs them here, and readers round them differently.
fn seconds(claims: &Object<'_>, name: &str, fault: Fault) -> Result<Option<u64>, Fault> {
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Whole(value @ 0..=LARGEST)) => Ok(Some(value.unsigned_abs())),
        Some(_) => Err(fault),
    }
}

/// Where a claim is: its name; dots lead into objects.
///
/// A claim whose own name has dots ("https://example.com/roles") is found by it: the longest name that is there counts.
#[derive(Debug)]
pub(crate) struct Path(String);

impl Path {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The claim's value. Something else than an object on the way is `fault`.
    fn find<'c, 'j>(&self, claims: &'c Object<'j>, fault: Fault) -> Result<Option<&'c Json<'j>>, Fault> {
        let (mut object, mut rest) = (claims, &*self.0);
        loop {
            if let Some(value) = object.get(rest) {
                return Ok(Some(value));
            }
            let at_dots = rest.rmatch_indices('.').map(|(place, _)| (&rest[..place], &rest[place + 1..]));
            let Some((value, behind)) =
                at_dots.into_iter().find_map(|(name, behind)| Some((object.get(name)?, behind)))
            else {
                return Ok(None);
            };
            let Json::Object(inner) = value else { return Err(fault) };
            (object, rest) = (inner, behind);
        }
    }
}

/// A claim that puts users into groups.
#[derive(Debug)]
pub(crate) struct GroupRule {
    pub(crate) claim: Path,
    pub(crate) into: Into,
}

/// Which groups.
#[derive(Debug)]
pub(crate) enum Into {
    /// One, for those whose claim holds the value.
    One { value: String, group: Arc<str> },
    /// One for each value, behind a prefix.
    Each { prefix: String },
}

impl GroupRule {
    /// Adds the groups of a token with these claims. A claim that is not there adds none.
    pub(crate) fn apply(&self, claims: &Object<'_>, groups: &mut Vec<Arc<str>>) -> Result<(), Fault> {
        let Some(claim) = self.claim.find(claims, Fault::GroupClaimType)? else { return Ok(()) };
        let values = claim.texts().ok_or(Fault::GroupClaimType)?;
        match &self.into {
            Into::One { value, group } => groups.extend(values.contains(&&**value).then(|| Arc::clone(group))),
            Into::Each { prefix } => {
                groups.extend(
                    values.iter().filter(|value| !value.is_empty()).map(|value| [prefix, *value].concat().into()),
                );
            }
        }
        Ok(())
    }
}

/// A claim that policies may read.
#[derive(Debug)]
pub(crate) struct AttributeRule {
    pub(crate) name: Arc<str>,
    pub(crate) claim: Path,
    pub(crate) kind: Type,
}

impl AttributeRule {
    /// Adds the attribute of a token with these claims. A claim that is not there adds none.
    pub(crate) fn apply(
        &self,
        claims: &Object<'_>,
        attributes: &mut BTreeMap<Arc<str>, Attribute>,
    ) -> Result<(), Fault> {
        let Some(claim) = self.claim.find(claims, Fault::AttributeClaimType)? else { return Ok(()) };
        let value = match (self.kind, claim) {
            (Type::String, Json::Text(text)) => Attribute::String(text.clone().into_owned()),
            (Type::Long, Json::Whole(whole)) => Attribute::Long(*whole),
            (Type::Bool, Json::Bool(bool)) => Attribute::Bool(*bool),
            (Type::Strings, value) => {
                let texts = value.texts().ok_or(Fault::AttributeClaimType)?;
                Attribute::Strings(texts.into_iter().map(str::to_owned).collect())
            }
            _ => return Err(Fault::AttributeClaimType),
        };
        attributes.insert(Arc::clone(&self.name), value);
        Ok(())
    }
}

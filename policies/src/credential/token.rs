//! A token's form (RFC 7515 §7.1): taken apart strictly, before anything in it is believed.
//!
//! Must not know: issuers, keys, or what claims mean.
//!
//! Main types: [`Parts`], [`Header`].

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::algorithm::Algorithm;
use super::fault::Fault;
use super::json::{self, Json, NotRead, Object};
use super::keys::KEY_ID_BYTES;

/// The longest token that is looked at, in bytes. A request's head has 32 KiB in all.
pub const TOKEN_BYTES: usize = 16 * 1024;

/// A token in its three parts, decoded. The claims are bytes still, so that what is read of them may borrow.
pub(crate) struct Parts<'t> {
    /// What was signed: header and claims as they were sent, with the dot between.
    pub(crate) signed: &'t [u8],
    pub(crate) header: Vec<u8>,
    pub(crate) claims: Vec<u8>,
    /// In base64url, as it came.
    pub(crate) signature: &'t str,
}

/// What counts of a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: Option<String>,
}

impl<'t> Parts<'t> {
    /// Takes a token apart. The length is looked at before anything else.
    pub(crate) fn of(token: &'t [u8]) -> Result<Self, Fault> {
        if token.len() > TOKEN_BYTES {
            return Err(Fault::TokenLength);
        }
        let mut dots = token.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(place, _)| place);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(Fault::TokenShape);
        };
        // Without padding, and with zeros in bits that do not count: so no other spelling of a token is the same token.
        let decode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::TokenEncoding);
        let signature = &token[second + 1..];
        decode(signature)?;
        Ok(Self {
            signed: &token[..second],
            header: decode(&token[..first])?,
            claims: decode(&token[first + 1..second])?,
            signature: std::str::from_utf8(signature).map_err(|_| Fault::TokenEncoding)?,
        })
    }

    /// Reads the claims.
    pub(crate) fn claims(&self) -> Result<Object<'_>, Fault> {
        json::object(&self.claims).map_err(|not_read| match not_read {
            NotRead::NoObject => Fault::ClaimsJson,
            NotRead::Repeated => Fault::ClaimsRepeated,
        })
    }

    /// Reads the header (RFC 7515 §4.1).
    ///
    /// Keys that a token brings along or points at are refused, not passed over: nobody who means well sends them here, and
    /// nothing is ever fetched from where a token says (RFC 8725 §3.10). `typ`, `cty` and fingerprints (`x5t`) say nothing.
    pub(crate) fn header(&self) -> Result<Header, Fault> {
        let header = json::object(&self.header).map_err(|not_read| match not_read {
            NotRead::NoObject => Fault::HeaderJson,
            NotRead::Repeated => Fault::HeaderRepeated,
        })?;
        let algorithm = match header.get("alg").and_then(Json::text).ok_or(Fault::HeaderType)? {
            none if none.eq_ignore_ascii_case("none") => return Err(Fault::AlgorithmNone),
            symmetric if symmetric.starts_with("HS") => return Err(Fault::AlgorithmSymmetric),
            named => Algorithm::named(named).ok_or(Fault::AlgorithmUnknown)?,
        };
        for (names, fault) in [
            (["crit"].as_slice(), Fault::Critical),
            (&["b64"], Fault::Unencoded),
            (&["jwk", "jku", "x5c", "x5u"], Fault::KeyInHeader),
        ] {
            if names.iter().any(|name| header.contains_key(*name)) {
                return Err(fault);
            }
        }
        let key = match header.get("kid") {
            None => None,
            Some(Json::Text(key)) if (1..=KEY_ID_BYTES).contains(&key.len()) => Some(key.clone().into_owned()),
            Some(Json::Text(_)) => return Err(Fault::KeyIdLength),
            Some(_) => return Err(Fault::HeaderType),
        };
        Ok(Header { algorithm, key })
    }
}

//! Who calls, by the word of the proxy: it adds an assertion to each request of a known caller (a JWT, RFC 7519).
//!
//! Its signature is not looked at here, because nobody but the proxy reaches this port. A service that others reach verifies
//! it with the keys that `pointsman access jwks` prints, and that `aud` names its own stage.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::header::HeaderMap;
use serde_json::Value;

/// The user's name, if there is a user.
pub fn user(headers: &HeaderMap) -> Option<String> {
    let claims = headers.get("x-pointsman-assertion")?.to_str().ok()?.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    claims["sub"].as_str().map(str::to_owned)
}

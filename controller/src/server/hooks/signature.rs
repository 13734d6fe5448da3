//! Whether a webhook comes from whom it should: an HMAC over its body, which is hashed as it comes (pure).
//!
//! Must not know: names, or what follows. What is missing or malformed costs the same work as what is wrong.
//!
//! GitHub: <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use http::HeaderMap;

use crate::core::spec::WebhookKind;

/// Where GitHub puts its signature: `sha256=` and 64 hex digits.
const GITHUB: &str = "x-hub-signature-256";
/// Where everybody else does: `t=` and seconds since the Unix epoch, `,v1=` and 64 hex digits, over time, dot and body.
const SIGNED: &str = "x-pointsman-signature";
/// How far the time of a signature may be from ours: a recorded delivery is worth nothing later.
const AWAY_S: u64 = 300;

/// A signature that is being looked at.
pub(super) struct Check {
    context: hmac::Context,
    given: Option<[u8; 32]>,
}

impl Check {
    /// Begins with the head of a request, at `now_s` since the Unix epoch.
    pub(super) fn begin(kind: WebhookKind, key: &[u8], headers: &HeaderMap, now_s: u64) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        let given = match kind {
            WebhookKind::Github => one(headers, GITHUB).and_then(|text| hex(text.strip_prefix("sha256=")?)),
            WebhookKind::Signed => {
                let signed = one(headers, SIGNED).and_then(timed);
                context.update(signed.map(|(at, _)| format!("{at}.")).unwrap_or_default().as_bytes());
                signed.filter(|(at, _)| at.abs_diff(now_s) <= AWAY_S).map(|(_, given)| given)
            }
        };
        Self { context, given }
    }

    /// The next piece of the body.
    pub(super) fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
    }

    /// Whether the signature was there and right.
    pub(super) fn finish(self) -> bool {
        let made = self.context.sign();
        let equal = verify_slices_are_equal(made.as_ref(), &self.given.unwrap_or_default()).is_ok();
        equal && self.given.is_some()
    }
}

/// A field that is there once.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(first)
}

/// `t=SECONDS,v1=HEX`, written in one way only.
fn timed(text: &str) -> Option<(u64, [u8; 32])> {
    let (at, given) = text.strip_prefix("t=")?.split_once(",v1=")?;
    let at = at.parse::<u64>().ok().filter(|number| number.to_string() == at)?;
    Some((at, hex(given)?))
}

/// 64 hex digits in lower case.
fn hex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

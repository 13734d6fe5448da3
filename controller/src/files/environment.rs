//! Environment files: `production.toml`, the operator's.

use std::num::NonZeroU16;

use api::Span;

use crate::core::spec::{EnvironmentSpec, HttpsSpec, KEEP_WARM, Target};

use super::walk::{Section, Walk, nearest, shown};
use super::{access, certificates};

const KEYS: [&str; 13] = [
    "schema",
    "environment",
    "zone",
    "time_zone",
    "target",
    "tls",
    "client_certificates",
    "https",
    "keep_warm",
    "reason_required",
    "denial",
    "credentials",
    "public",
];
const LATER: [&str; 3] = ["windows", "at_close", "approvals"];

/// Where https is when nobody says otherwise (RFC 9110 §4.2.2).
const HTTPS_PORT: NonZeroU16 = NonZeroU16::new(443).expect("443 is not 0");
/// Shortest time that can be told to browsers.
const HSTS_LEAST: Span = Span::from_ms(1_000).expect("a second is a span");

/// Reads the file; `None` when a value without a default is missing or wrong.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<EnvironmentSpec> {
    root.check_keys(walk, &KEYS, &LATER);
    schema(walk, root);
    let name = root.required(walk, "environment");
    let zone = root.required(walk, "zone");
    let time_zone = time_zone(walk, root).unwrap_or_else(|| "UTC".to_owned());
    let target = target(walk, root);
    let certificates = certificates::source(walk, root);
    let client_certificates = certificates::clients(walk, root);
    let https = https(walk, root);
    let keep_warm = root.parsed(walk, "keep_warm").unwrap_or(KEEP_WARM);
    let reason_required = root.boolean(walk, "reason_required").unwrap_or(false);
    let denial = access::denial(walk, root).unwrap_or_default();
    let credentials = access::credentials(walk, root).unwrap_or_default();
    let may_be_public = root.boolean(walk, "public").unwrap_or(true);
    Some(EnvironmentSpec {
        name: name?,
        zone: zone?,
        time_zone,
        target: target?,
        keep_warm,
        reason_required,
        https,
        certificates,
        client_certificates,
        denial,
        credentials,
        may_be_public,
    })
}

/// Every file says in which schema it is written, so that a later version can read it as it was meant.
pub(super) fn schema(walk: &mut Walk<'_>, root: &Section<'_>) {
    if root.require(walk, "schema") {
        root.number(walk, "schema", 1..=1);
    }
}

/// Reads `time_zone = "Australia/Sydney"`.
pub(super) fn time_zone(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<String> {
    let (name, at) = section.text(walk, "time_zone")?;
    // The time zone database also resolves names in other spellings; one spelling is kept.
    match jiff::tz::db().get(&name) {
        Ok(zone) => Some(zone.iana_name().unwrap_or("UTC").to_owned()),
        Err(_) => {
            let message = "is not a time zone: accepted are names of the IANA database, such as \"Australia/Sydney\"";
            walk.wrong(at, format!("\"{}\" {message}", shown(&name)));
            None
        }
    }
}

fn target(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<Target> {
    if !root.require(walk, "target") {
        return None;
    }
    let section = root.section(walk, "target", "`target`")?;
    section.check_keys(walk, &["kind", "group"], &[]);
    if !section.require(walk, "kind") {
        return None;
    }
    let (kind, at) = section.text(walk, "kind")?;
    match kind.as_str() {
        "agent" => Some(Target::Agent { group: section.required(walk, "group")? }),
        "static" => {
            if section.has("group") {
                walk.wrong(section.place("group"), "only a target of kind \"agent\" has a group");
            }
            Some(Target::Static)
        }
        "kubernetes" => {
            walk.wrong(
                at,
                "the target kind \"kubernetes\" is not available yet: accepted are \"agent\" and \"static\"",
            );
            None
        }
        other => {
            let near = nearest(other, &["agent", "static"]).map(|near| format!(", did you mean \"{near}\"?"));
            let message = format!("\"{}\" is not a target kind{}", shown(other), near.unwrap_or_default());
            walk.wrong(at, format!("{message} (accepted: \"agent\", \"static\")"));
            None
        }
    }
}

/// `https = { redirect = true, port = 8443, hsts = "365d" }`.
fn https(walk: &mut Walk<'_>, root: &Section<'_>) -> HttpsSpec {
    let Some(section) = root.section(walk, "https", "`https`") else { return HttpsSpec::default() };
    section.check_keys(walk, &["redirect", "port", "hsts"], &[]);
    let redirect = section.boolean(walk, "redirect").unwrap_or(false);
    let port = section.number(walk, "port", 1..=65_535);
    if section.has("port") && !redirect {
        walk.wrong(section.place("port"), "`port` is where requests in clear are sent to: it needs `redirect = true`");
    }
    let hsts: Option<Span> = section.parsed(walk, "hsts");
    if hsts.is_some_and(|hsts| hsts < HSTS_LEAST) {
        walk.wrong(section.place("hsts"), format!("`hsts` is at least {HSTS_LEAST}: browsers count it in seconds"));
    }
    let port = port.and_then(|port| NonZeroU16::new(u16::try_from(port).ok()?)).unwrap_or(HTTPS_PORT);
    HttpsSpec { redirect_port: redirect.then_some(port), hsts }
}

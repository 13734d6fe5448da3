//! How the endpoints of a component are verified: `tls` in a `[component.*]`.
//!
//! Authorities stand in the file itself. It is read where an operator applies it and in the repository at a release's
//! commit, and only what is in it is the same in both.

use certs::endpoint::{Authorities, server_name};

use crate::core::spec::{Protocol, TlsSpec};

use super::walk::{Section, Walk, shown};

/// Longest accepted text of authorities: some thirty. It goes to every proxy with each release of a stage.
const CA_BYTES: usize = 64 * 1024;

/// Reads it; `protocol` is the component's, when that was understood.
pub(super) fn read(walk: &mut Walk<'_>, component: &Section<'_>, protocol: Option<Protocol>) -> Option<TlsSpec> {
    let section = component.section(walk, "tls", "`tls`")?;
    section.check_keys(walk, &["ca", "name", "spiffe"], &[]);
    // A protocol that was not understood may have been meant to be one of them.
    if protocol.is_some_and(|protocol| !protocol.is_tls()) || !component.has("protocol") {
        let message = "`tls` says how endpoints are verified: accepted beside `protocol = \"tls\"` or \"h2\" only";
        walk.wrong(component.place("tls"), message);
    }
    Some(TlsSpec { ca: ca(walk, &section), name: name(walk, &section), spiffe: spiffe(walk, &section) })
}

/// What keeps a text from being certificates of authorities; `key` is for the sentence.
pub(super) fn not_a_ca(key: &str, text: &str) -> Option<String> {
    if text.len() > CA_BYTES {
        return Some(format!("`{key}` has {} bytes: accepted are {CA_BYTES}", text.len()));
    }
    let error = Authorities::parse(text).err();
    error.map(|error| format!("`{key}` is not usable: {error} (accepted are certificates in PEM)"))
}

/// Certificates of authorities, as text in the file itself.
pub(super) fn ca(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<String> {
    let (text, at) = section.text(walk, "ca")?;
    let wrong = if text.len() <= CA_BYTES && !text.contains("-----BEGIN") {
        let message = "is not a certificate: accepted is the text of a PEM file itself, between \"\"\" and \"\"\", because \
                       no other file goes along with this one";
        Some(format!("\"{}\" {message}", shown(&text)))
    } else {
        not_a_ca("ca", &text)
    };
    if let Some(wrong) = wrong {
        walk.wrong(at, wrong);
    }
    Some(text)
}

fn name(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<String> {
    let (name, at) = section.text(walk, "name")?;
    if server_name(&name).is_err() {
        let message = "is not a name that a certificate can be for: accepted is a DNS name or an IP address without a \
                       port, such as \"hello.internal\"";
        walk.wrong(at, format!("\"{}\" {message}", shown(&name)));
    }
    Some(name)
}

fn spiffe(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<String> {
    let (id, at) = section.text(walk, "spiffe")?;
    if !is_spiffe_id(&id) {
        let message = "is not a SPIFFE ID: accepted is a trust domain in lower case and a path, such as \
                       \"spiffe://example.com/hello\"";
        walk.wrong(at, format!("\"{}\" {message}", shown(&id)));
    }
    Some(id)
}

/// SPIFFE-ID §2: at most 2,048 bytes; neither port, query nor fragment, no empty or dotted segment.
fn is_spiffe_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://").filter(|_| text.len() <= 2_048) else { return false };
    let (domain, path) = rest.split_once('/').unwrap_or((rest, "a"));
    let trust = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(inner);
    !domain.is_empty() && domain.bytes().all(trust) && path.split('/').all(segment)
}

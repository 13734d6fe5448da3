//! Fields of requests and answers that stages name: insiders, and answers that say of themselves that they failed.

use crate::core::spec::{INSIDERS_BYTES, Insiders};
use crate::files::walk::{Section, Walk, shown};

/// Longest name.
const NAME_BYTES: usize = 64;

/// Reads `failure_header`, in lower case.
pub(super) fn failure(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<String> {
    let (text, at) = section.text(walk, "failure_header")?;
    name(walk, "failure_header", &text, "x-app-failed", at)
}

/// Reads `insiders = "x-insider: yes"`.
pub(super) fn insiders(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Insiders> {
    let (text, at) = section.text(walk, "insiders")?;
    let Some((header, value)) = text.split_once(':') else {
        let message = "is not a field with its value: accepted is a text such as \"x-insider: yes\"";
        walk.wrong(at, format!("`insiders`: \"{}\" {message}", shown(&text)));
        return None;
    };
    // Blanks round a value are not part of it (RFC 9110 §5.5).
    let value = value.trim_matches([' ', '\t']);
    let header = name(walk, "insiders", header, "x-insider", at);
    if !(1..=INSIDERS_BYTES).contains(&value.len()) || !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        let message =
            format!("accepted are 1 to {INSIDERS_BYTES} printable ASCII characters, such as \"x-insider: yes\"");
        walk.wrong(at, format!("`insiders`: \"{}\" is not the value of such a field: {message}", shown(value)));
        return None;
    }
    Some(Insiders { header: header?, value: value.to_owned() })
}

/// A field's name (RFC 9110 §5.1) that is nobody else's, in lower case.
fn name(walk: &mut Walk<'_>, key: &str, text: &str, example: &str, at: usize) -> Option<String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > NAME_BYTES || !text.bytes().all(token) {
        let message = format!("accepted are 1 to {NAME_BYTES} letters, digits and hyphens, such as \"{example}\"");
        walk.wrong(at, format!("`{key}`: \"{}\" is not the name of a field: {message}", shown(text)));
        return None;
    }
    let name = text.to_ascii_lowercase();
    if !api::is_the_services(&name) {
        let message = "is a field of HTTP's or the proxy's own: accepted is one of the service's";
        walk.wrong(at, format!("`{key}`: \"{name}\" {message}, such as \"{example}\""));
        return None;
    }
    Some(name)
}

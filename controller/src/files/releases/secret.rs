//! Where secrets are: `[secret.NAME]`, and wherever else a file needs one.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use api::NotAccepted;
use toml::de::DeValue;

use crate::core::spec::{SecretRef, SecretSpec};
use crate::files::value::check_variable;
use crate::files::walk::{Section, Walk, a_kind, shown};

const FORMS: [&str; 3] = ["file", "environment", "command"];
const EXAMPLE: &str =
    "{ file = \"/etc/pointsman/token\" }, { environment = \"NAME\" } or { command = [\"vault\", \"read\", \"...\"] }";

/// What every command of a build is given anyway.
const TAKEN: [&str; 3] = ["PATH", "HOME", "LANG"];
/// Longest name.
const NAME_BYTES: usize = 64;

/// Name of a secret: it becomes a variable and a file.
struct SecretName(String);

/// Reads all `[secret.NAME]`.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> BTreeMap<String, SecretSpec> {
    let mut secrets = BTreeMap::new();
    for (SecretName(name), section) in root.named::<SecretName>(walk, "secret") {
        section.check_keys(walk, &["from", "services"], &[]);
        let from = if section.require(walk, "from") { reference(walk, &section, "from") } else { None };
        let services = super::services(walk, &section);
        secrets.extend(from.map(|from| (name, SecretSpec { from, services })));
    }
    secrets
}

/// Reads where a secret is, if the key is there. A text in its place may be the secret itself: it is not repeated.
pub(super) fn reference(walk: &mut Walk<'_>, section: &Section<'_>, key: &str) -> Option<SecretRef> {
    let value = section.value(key)?;
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        let message = format!("`{key}` says where a secret is, and is not {}", a_kind(value.get_ref()));
        walk.wrong(value.span().start, format!("{message}: accepted is {EXAMPLE}, because files are kept and shown"));
        return None;
    }
    let section = section.section(walk, key, &format!("`{key}`"))?;
    section.check_keys(walk, &FORMS, &[]);
    let given: Vec<&str> = FORMS.into_iter().filter(|form| section.has(form)).collect();
    match given[..] {
        // Another key was told, with those that are accepted.
        [] if section.entries().next().is_some() => {}
        [] => walk.missing(section.at, format!("`{key}` does not say where the secret is: accepted is {EXAMPLE}")),
        [_] => {}
        [first, ..] => {
            for form in &given[1..] {
                walk.wrong(section.place(form), format!("a secret is in one place: `{form}` stands beside `{first}`"));
            }
        }
    }
    let file = section.machine_path(walk, "file").map(SecretRef::File);
    let environment = environment(walk, &section).map(SecretRef::Environment);
    let command = command(walk, &section).map(SecretRef::Command);
    file.or(environment).or(command)
}

/// Reads `user` and `password` of a section: both or neither.
pub(super) fn basic(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<(String, SecretRef)> {
    if !section.has("user") && !section.has("password") {
        return None;
    }
    let there = (section.require(walk, "user"), section.require(walk, "password"));
    let user = section.text(walk, "user").map(|(user, at)| {
        // RFC 7617 §2: a colon ends it.
        if user.is_empty() || user.len() > NAME_BYTES * 4 || user.contains(':') || user.chars().any(char::is_control) {
            let message = "is not a user's name: accepted are 1 to 256 bytes without colons and control characters";
            walk.wrong(at, format!("`user`: \"{}\" {message}", shown(&user)));
        }
        user
    });
    let password = reference(walk, section, "password");
    if there == (true, true) { user.zip(password) } else { None }
}

fn environment(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<String> {
    let (name, at) = section.text(walk, "environment")?;
    check_variable(walk, &name, at);
    Some(name)
}

/// A program that is looked for in PATH, or stands at an absolute path.
fn command(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Vec<String>> {
    let words = section.command(walk, "command")?;
    let good = |program: &String| !program.is_empty() && (!program.contains('/') || Path::new(program).is_absolute());
    if !words.first().is_some_and(good) {
        let message = "`command` begins with the name of a program of the controller's machine, or its absolute path";
        walk.wrong(section.place("command"), message);
    }
    Some(words)
}

// === impl SecretName ===

impl FromStr for SecretName {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let good = text.bytes().next().is_some_and(letter) && text.bytes().all(|b| letter(b) || b.is_ascii_digit());
        if good && text.len() <= NAME_BYTES && !TAKEN.contains(&text) && !text.starts_with("POINTSMAN_") {
            return Ok(Self(text.to_owned()));
        }
        let accepted = "up to 64 letters, digits and underscores as names of variables have them, such as \"NPM_TOKEN\", but \
                        neither PATH, HOME, LANG nor what begins with POINTSMAN_";
        Err(NotAccepted { what: "the name of a secret", written: shown(text), accepted })
    }
}

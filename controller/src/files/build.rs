//! How a commit becomes artifacts: `[build]`, with the commands that judge what was built.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use api::{ComponentName, NotAccepted, Span};
use toml::de::DeValue;

use crate::core::spec::{BUILD_CHECKS_MOST, BuildCheck, BuildSpec, WORKSPACE_BYTES};

use super::value::check_variable;
use super::walk::{Section, Walk, a_kind, shown};

const KEYS: [&str; 9] =
    ["command", "timeout", "environment", "pass", "secrets", "registry", "size", "contain", "check"];

const BUILD_TIMEOUT: Span = Span::from_ms(15 * 60_000).expect("15 minutes");
const CHECK_TIMEOUT: Span = Span::from_ms(5 * 60_000).expect("5 minutes");

/// Most secrets of one build: each of its logs is searched for all of them.
const SECRETS_MOST: usize = 64;

/// Bytes as they are written: `20GiB`, from 1 MiB to 16 TiB.
struct Bytes(u64);

const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Reads it; `None` without the section.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<BuildSpec> {
    let section = root.section(walk, "build", "[build]")?;
    section.check_keys(walk, &KEYS, &[]);
    let command = command(walk, &section);
    let timeout = section.parsed(walk, "timeout").unwrap_or(BUILD_TIMEOUT);
    let environment = section.variables(walk, "environment");
    let pass = pass(walk, &section, &environment);
    let secrets = secrets(walk, &section, &environment, &pass);
    let registry = section.boolean(walk, "registry").unwrap_or(false);
    let size = section.parsed(walk, "size").map_or(WORKSPACE_BYTES, |Bytes(bytes)| bytes);
    let contain = section.boolean(walk, "contain").unwrap_or(true);
    let checks = checks(walk, &section);
    Some(BuildSpec { command, timeout, environment, pass, secrets, registry, size_bytes: size, contain, checks })
}

/// Program and arguments; empty when that is a mistake.
fn command(walk: &mut Walk<'_>, section: &Section<'_>) -> Vec<String> {
    let command = if section.require(walk, "command") { section.command(walk, "command") } else { None };
    if command.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
        walk.wrong(section.place("command"), "`command` names no program: accepted is a list such as [\"./build.sh\"]");
    }
    command.unwrap_or_default()
}

fn pass(walk: &mut Walk<'_>, section: &Section<'_>, environment: &BTreeMap<String, String>) -> Vec<String> {
    let pass = section.list(walk, "pass").unwrap_or_default();
    for (name, at) in &pass {
        check_variable(walk, name, *at);
        if environment.contains_key(name) {
            walk.wrong(*at, format!("`{}` is both set by `environment` and passed on by `pass`", shown(name)));
        }
    }
    pass.into_iter().map(|(name, _)| name).collect()
}

fn secrets(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    environment: &BTreeMap<String, String>,
    pass: &[String],
) -> Vec<String> {
    let given = section.list(walk, "secrets").unwrap_or_default();
    if given.len() > SECRETS_MOST {
        let message = format!("`secrets` names {} secrets: accepted are at most {SECRETS_MOST}", given.len());
        walk.wrong(section.place("secrets"), message);
        return Vec::new();
    }
    let mut secrets: Vec<String> = Vec::new();
    for (name, at) in given {
        check_variable(walk, &name, at);
        let other = match () {
            () if environment.contains_key(&name) => Some("set by `environment`"),
            () if pass.contains(&name) => Some("passed on by `pass`"),
            () => None,
        };
        if let Some(other) = other {
            let message = "names a secret of the operator, which is its value";
            walk.wrong(at, format!("`{}` is {other}, too: `secrets` {message}", shown(&name)));
        } else if secrets.contains(&name) {
            walk.wrong(at, format!("`secrets` names \"{}\" twice", shown(&name)));
        }
        secrets.push(name);
    }
    secrets
}

/// `[[build.check]]`.
fn checks(walk: &mut Walk<'_>, build: &Section<'_>) -> Vec<BuildCheck> {
    let Some(value) = build.value("check") else { return Vec::new() };
    match value.get_ref() {
        DeValue::Array(items) if items.len() <= BUILD_CHECKS_MOST => {}
        DeValue::Array(items) => {
            let message = format!("a build has at most {BUILD_CHECKS_MOST} checks, not {}", items.len());
            walk.wrong(build.place("check"), message);
            return Vec::new();
        }
        other => {
            let message = format!("`check` is a list of tables, not {}: accepted is [[build.check]]", a_kind(other));
            walk.wrong(value.span().start, message);
            return Vec::new();
        }
    }
    let mut names = BTreeSet::new();
    build.sections(walk, "check").iter().filter_map(|section| check(walk, section, &mut names)).collect()
}

fn check(walk: &mut Walk<'_>, section: &Section<'_>, names: &mut BTreeSet<String>) -> Option<BuildCheck> {
    section.check_keys(walk, &["name", "command", "timeout"], &[]);
    // It is a part of its log's name.
    let name = section.required::<ComponentName>(walk, "name").map(|name| name.to_string());
    if let Some(name) = name.as_ref().filter(|name| !names.insert((*name).clone())) {
        walk.wrong(section.place("name"), format!("the build has a check named \"{name}\" already"));
    }
    let command = command(walk, section);
    let timeout = section.parsed(walk, "timeout").unwrap_or(CHECK_TIMEOUT);
    Some(BuildCheck { name: name?, command, timeout })
}

// === impl Bytes ===

impl FromStr for Bytes {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let accepted = "a whole number with KiB, MiB, GiB or TiB, from 1MiB to 16TiB, such as \"20GiB\"";
        let wrong = || NotAccepted::new("a size", text, accepted);
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or_else(wrong)?;
        if (1 << 20..=16 << 40).contains(&bytes) { Ok(Self(bytes)) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests;

//! The operator's file of releases as a whole: `releases.toml`, one for the controller.
//!
//! Must not know: a secret. It says where each is, and whoever needs one looks there.

mod registry;
mod repository;
mod secret;

use std::str::FromStr;

use api::{NotAccepted, ServiceName};

use crate::core::spec::{BUILDERS, BUILDERS_MOST, KeepSpec, ReleasesSpec, ServicePattern};

use super::environment::schema;
use super::walk::{Section, Walk, shown};

/// Keys that tell the file from others.
pub(super) const KEYS: [&str; 5] = ["builders", "registry", "repository", "secret", "keep"];

/// Most patterns of one list.
const PATTERNS_MOST: usize = 256;
/// Most releases of a service that are kept in any way.
const KEPT_MOST: u32 = 100_000;
/// Most that each stage can go back.
const BACK_MOST: u32 = 1_000;

/// Reads the file.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> ReleasesSpec {
    root.check_keys(walk, &["schema", "builders", "registry", "repository", "secret", "keep"], &[]);
    schema(walk, root);
    ReleasesSpec {
        builders: root.number(walk, "builders", 1..=BUILDERS_MOST).unwrap_or(BUILDERS),
        registry: registry::read(walk, root),
        repositories: repository::read(walk, root),
        secrets: secret::read(walk, root),
        keep: keep(walk, root),
    }
}

fn keep(walk: &mut Walk<'_>, root: &Section<'_>) -> KeepSpec {
    let defaults = KeepSpec::default();
    let Some(section) = root.section(walk, "keep", "[keep]") else { return defaults };
    section.check_keys(walk, &["releases", "logs", "artifacts", "back", "in_registry"], &[]);
    KeepSpec {
        releases: section.number(walk, "releases", 1..=KEPT_MOST).unwrap_or(defaults.releases),
        logs: section.parsed(walk, "logs").unwrap_or(defaults.logs),
        artifacts: section.number(walk, "artifacts", 1..=KEPT_MOST).unwrap_or(defaults.artifacts),
        back: section.number(walk, "back", 1..=BACK_MOST).unwrap_or(defaults.back),
        in_registry: section.boolean(walk, "in_registry").unwrap_or(defaults.in_registry),
    }
}

/// Reads `services = ["shop", "shop-*"]`, without which nobody is meant.
fn services(walk: &mut Walk<'_>, section: &Section<'_>) -> Vec<ServicePattern> {
    let given = if section.require(walk, "services") { section.list(walk, "services") } else { None };
    let Some(given) = given else { return Vec::new() };
    if given.is_empty() || given.len() > PATTERNS_MOST {
        let message = format!("`services` has {} names: accepted are 1 to {PATTERNS_MOST}", given.len());
        walk.wrong(section.place("services"), format!("{message}, such as [\"shop\", \"shop-*\"], or [\"*\"] for all"));
        return Vec::new();
    }
    let mut patterns: Vec<ServicePattern> = Vec::new();
    for (text, at) in given {
        match pattern(&text) {
            Ok(pattern) if patterns.contains(&pattern) => {
                walk.wrong(at, format!("`services` names \"{}\" twice", shown(&text)));
            }
            Ok(pattern) => patterns.push(pattern),
            Err(error) => walk.wrong(at, format!("`services`: {error}")),
        }
    }
    patterns
}

fn pattern(text: &str) -> Result<ServicePattern, NotAccepted> {
    let accepted = "the name of a service, the beginning of one and a \"*\", or \"*\" for all, such as \"shop-*\"";
    let is_name = |text: &str| ServiceName::from_str(text).is_ok();
    let good = match text.strip_suffix('*') {
        // What a name begins with is one when it goes on.
        Some(beginning) => is_name(&format!("{beginning}a")),
        None => is_name(text),
    };
    if good {
        Ok(ServicePattern(text.to_owned()))
    } else {
        Err(NotAccepted::new("a pattern of services", text, accepted))
    }
}

#[cfg(test)]
mod tests;

//! Environment files: `production.toml`, the operator's.

use crate::core::spec::{EnvironmentSpec, KEEP_WARM, Target};

use super::walk::{Section, Walk, nearest, shown};

const KEYS: [&str; 8] = ["schema", "environment", "zone", "time_zone", "target", "tls", "keep_warm", "reason_required"];
const LATER: [&str; 4] = ["denial", "windows", "at_close", "approvals"];

/// Reads the file; `None` when a value without a default is missing or wrong.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<EnvironmentSpec> {
    root.check_keys(walk, &KEYS, &LATER);
    schema(walk, root);
    let name = root.required(walk, "environment");
    let zone = root.required(walk, "zone");
    let time_zone = time_zone(walk, root);
    let target = target(walk, root);
    tls(walk, root);
    let keep_warm = root.parsed(walk, "keep_warm").unwrap_or(KEEP_WARM);
    let reason_required = root.boolean(walk, "reason_required").unwrap_or(false);
    Some(EnvironmentSpec { name: name?, zone: zone?, time_zone, target: target?, keep_warm, reason_required })
}

/// Every file says in which schema it is written, so that a later version can read it as it was meant.
pub(super) fn schema(walk: &mut Walk<'_>, root: &Section<'_>) {
    if root.require(walk, "schema") {
        root.number(walk, "schema", 1..=1);
    }
}

fn time_zone(walk: &mut Walk<'_>, root: &Section<'_>) -> String {
    let Some((name, at)) = root.text(walk, "time_zone") else { return "UTC".to_owned() };
    // The time zone database also resolves names in other spellings; one spelling is kept.
    match jiff::tz::db().get(&name) {
        Ok(zone) => zone.iana_name().unwrap_or("UTC").to_owned(),
        Err(_) => {
            let message = "is not a time zone: accepted are names of the IANA database, such as \"Australia/Sydney\"";
            walk.wrong(at, format!("\"{}\" {message}", shown(&name)));
            name
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

fn tls(walk: &mut Walk<'_>, root: &Section<'_>) {
    let Some(section) = root.section(walk, "tls", "`tls`") else { return };
    section.check_keys(walk, &["source"], &[]);
    if !section.require(walk, "source") {
        return;
    }
    match section.text(walk, "source") {
        Some((source, at)) if source != "development" => {
            let later = ["acme", "files"].contains(&source.as_str());
            let what = if later { "is not available yet" } else { "is not a source of certificates" };
            walk.wrong(at, format!("\"{}\" {what}: accepted is \"development\"", shown(&source)));
        }
        _ => {}
    }
}

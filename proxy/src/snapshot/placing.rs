//! Header rules and callers' places: what a split says besides weights.
//!
//! Must not know: requests, or which release is worth more.
//!
//! Main type: [`HeaderRule`]. What callers keep is [`Sticky`].

use std::collections::{BTreeMap, HashSet};

use api::HEADER_RULES_MOST;
use api::fleet::{self, sticky};

use super::Backend;
use super::check::Problems;
use crate::split::Split;
use crate::sticky::{By, KEY_BYTES, Shares, Sticky};

/// Longest value of a header rule, and longest name of a header or cookie.
const TEXT_BYTES: usize = 256;
/// Most releases that stand in an order. More than can have weight: those that left may still be named.
const MOST_ORDERED: usize = 16 * Split::MOST;

/// Requests with this field go to this backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeaderRule {
    /// In lower case.
    pub(crate) name: Box<str>,
    pub(crate) value: Box<[u8]>,
    /// Its place among the stage's.
    pub(crate) backend: usize,
}

/// Checks what a split says on its own.
pub(super) fn check(split: &fleet::Split, problems: &mut Problems<'_>) {
    let count = split.rules.len();
    if count > HEADER_RULES_MOST {
        problems.add("rules", format!("there are {count}, at most {HEADER_RULES_MOST} are accepted"));
    }
    for (place, rule) in split.rules.iter().enumerate().take(HEADER_RULES_MOST) {
        check_rule(rule, &format!("rules[{place}]"), problems);
    }
    if let Some(sticky) = &split.sticky {
        check_sticky(sticky, problems);
    }
}

fn check_rule(rule: &fleet::HeaderRule, field: &str, problems: &mut Problems<'_>) {
    let fleet::HeaderRule { name, value, .. } = rule;
    if !is_token(name) || name.bytes().any(|b| b.is_ascii_uppercase()) {
        problems.add(format!("{field}.name"), format!("{name:?} is not a header's name in lower case, \"x-insider\""));
    } else if !api::is_the_services(name) {
        problems.add(format!("{field}.name"), format!("{name:?} is a field that frames, or that is ours"));
    }
    let is_value = (1..=TEXT_BYTES).contains(&value.len()) && value.bytes().all(|b| (0x20..=0x7e).contains(&b));
    if !is_value {
        let reason = format!("{value:?} is not 1 to {TEXT_BYTES} printable ASCII characters");
        problems.add(format!("{field}.value"), reason);
    }
}

fn check_sticky(sticky: &fleet::Sticky, problems: &mut Problems<'_>) {
    match sticky.by() {
        sticky::By::Identity => {}
        sticky::By::Cookie if is_token(&sticky.cookie) => {}
        sticky::By::Cookie => {
            problems.add("sticky.cookie", format!("{:?} is not a cookie's name, such as \"release\"", sticky.cookie));
        }
        sticky::By::Unspecified => {
            let known = "is none of BY_IDENTITY (1) and BY_COOKIE (2)";
            problems.add("sticky.by", format!("{} {known}", sticky.by));
        }
    }
    if sticky.key.len() != KEY_BYTES {
        problems.add("sticky.key", format!("has {} bytes, not {KEY_BYTES}", sticky.key.len()));
    }
    let count = sticky.order.len();
    if count > MOST_ORDERED {
        problems.add("sticky.order", format!("there are {count}, at most {MOST_ORDERED} are accepted"));
    }
    let mut releases = HashSet::new();
    for (place, release) in sticky.order.iter().enumerate().take(MOST_ORDERED) {
        if *release == 0 || !releases.insert(*release) {
            problems.add(format!("sticky.order[{place}]"), format!("{release} is 0 or stands twice"));
        }
    }
}

/// Checks that the stage has the releases to which rules lead.
pub(super) fn check_releases(split: &fleet::Split, backends: &[Backend], problems: &mut Problems<'_>) {
    for (place, rule) in split.rules.iter().enumerate() {
        if position(backends, rule.release).is_none() {
            let reason = format!("r{} is no backend of the stage", rule.release);
            problems.add(format!("rules[{place}].release"), reason);
        }
    }
}

/// The rules of a split that was found good, in their order.
pub(super) fn rules(split: &fleet::Split, backends: &[Backend]) -> Box<[HeaderRule]> {
    let rule = |rule: &fleet::HeaderRule| {
        let backend = position(backends, rule.release)?;
        Some(HeaderRule { name: rule.name.as_str().into(), value: rule.value.as_bytes().into(), backend })
    };
    split.rules.iter().filter_map(rule).collect()
}

/// Who keeps what, of a split that was found good. `weighted`: weight and place among `backends`, by release.
pub(super) fn sticky(split: &fleet::Split, backends: &[Backend], weighted: &[(u32, usize)]) -> Option<Sticky> {
    let told = split.sticky.as_ref()?;
    let by = match told.by() {
        sticky::By::Identity => By::Identity,
        sticky::By::Cookie => By::Cookie(told.cookie.as_str().into()),
        sticky::By::Unspecified => return None,
    };
    let key = told.key.as_slice().try_into().ok()?;
    let ranks: BTreeMap<u32, usize> = told.order.iter().copied().zip(0..).collect();
    let mut ordered = weighted.to_vec();
    // Stable: those that are not named stay by number.
    ordered.sort_by_key(|(_, place)| {
        let release = backends.get(*place).map(|backend| backend.release);
        release.and_then(|release| ranks.get(&release).copied()).unwrap_or(usize::MAX)
    });
    Some(Sticky::new(by, key, Shares::new(ordered.into_iter())))
}

fn position(backends: &[Backend], release: u32) -> Option<usize> {
    backends.binary_search_by_key(&release, |backend| backend.release).ok()
}

/// Names of fields (RFC 9110 §5.6.2) and of cookies (RFC 6265 §4.1.1).
fn is_token(name: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=TEXT_BYTES).contains(&name.len()) && name.bytes().all(is_tchar)
}

#[cfg(test)]
#[path = "placing_tests.rs"]
mod tests;

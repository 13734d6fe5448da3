//! The steps of a canary: each by itself, then what holds between them.

use api::{HEADER_RULES_MOST, Share};
use toml::de::DeValue;

use crate::core::spec::{STEP_REQUESTS_MOST, STEP_TIME_MOST, STEPS_MOST, Step};
use crate::files::walk::{Section, Walk};

use super::{LEAST, header, share};

const KEYS: [&str; 5] = ["share", "insiders", "for", "requests", "pause"];

/// A step and where it is written.
struct Written<'t> {
    section: Section<'t>,
    step: Step,
}

impl Written<'_> {
    /// Whether what it does is known, as far as shares go.
    fn has_known_share(&self) -> bool {
        self.step.share.is_some() || !self.section.has("share")
    }

    fn is_whole(&self) -> bool {
        self.step.share == Some(Share::ALL)
    }
}

/// Reads `steps = [{ share = "1%", for = "10m" }, { share = "100%" }]`.
pub(super) fn read(walk: &mut Walk<'_>, stage: &Section<'_>) -> Vec<Step> {
    if let Some(DeValue::Array(items)) = stage.value("steps").map(|value| value.get_ref())
        && !(1..=STEPS_MOST).contains(&items.len())
    {
        let message = format!("`steps` has {} steps: accepted are 1 to {STEPS_MOST}", items.len());
        walk.wrong(stage.place("steps"), format!("{message}, such as [{{ share = \"100%\" }}]"));
        return Vec::new();
    }
    let before = walk.count();
    let sections = stage.sections(walk, "steps");
    let are_all = walk.count() == before;
    let steps: Vec<Written<'_>> =
        sections.into_iter().map(|section| Written { step: step(walk, &section), section }).collect();
    check_shares(walk, &steps);
    // What is no table was told; which one is the last cannot be.
    if are_all {
        check_last(walk, &steps);
    }
    check_ends(walk, &steps, stage.has("check"));
    check_insiders(walk, &steps);
    steps.into_iter().map(|written| written.step).collect()
}

fn step(walk: &mut Walk<'_>, section: &Section<'_>) -> Step {
    section.check_keys(walk, &KEYS, &[]);
    let pause = section.boolean(walk, "pause");
    if !section.has("share") && !section.has("insiders") && (!section.has("pause") || section.is_false("pause")) {
        walk.missing(section.at, "a step does something: it needs `share`, `insiders` or `pause = true`");
    }
    Step {
        share: share(walk, section, "share", Share::ALL),
        insiders: header::insiders(walk, section),
        least_time: section.within(walk, "for", LEAST, STEP_TIME_MOST),
        requests: section.number(walk, "requests", 1..=STEP_REQUESTS_MOST).map(u64::from),
        pause: pause.unwrap_or(false),
    }
}

/// Shares never fall.
fn check_shares(walk: &mut Walk<'_>, steps: &[Written<'_>]) {
    let mut most = Share::NONE;
    for Written { section, step } in steps {
        let Some(share) = step.share else { continue };
        if share < most {
            let message = "shares never fall from step to step (`rollback` takes a release out)";
            walk.wrong(section.place("share"), format!("`share` is {share} after {most}: {message}"));
        }
        most = most.max(share);
    }
}

/// The last step is everything, and nothing else.
fn check_last(walk: &mut Walk<'_>, steps: &[Written<'_>]) {
    let Some((last, before)) = steps.split_last() else { return };
    for written in before.iter().filter(|written| written.is_whole()).take(1) {
        let message = "`share = \"100%\"` completes the rollout: no step can follow it";
        walk.wrong(written.section.place("share"), message);
    }
    if !before.iter().any(Written::is_whole) && !last.is_whole() && last.has_known_share() {
        let message = "the last step brings everything: accepted is { share = \"100%\" }";
        walk.wrong(last.section.place("share"), message);
    }
    let never_read = ["for", "requests", "pause", "insiders"].into_iter().filter(|key| last.section.has(key));
    for key in never_read.filter(|_| last.is_whole()) {
        let message = "once everything goes to the release the rollout is complete, and waits for nothing";
        walk.wrong(last.section.place(key), format!("`{key}`: {message}: accepted is {{ share = \"100%\" }} alone"));
    }
}

/// Every step can be over.
fn check_ends(walk: &mut Walk<'_>, steps: &[Written<'_>], has_checks: bool) {
    for Written { section, .. } in steps.iter().take_while(|written| !written.section.has("share")) {
        if section.has("requests") {
            let message = "counts what is dealt out by share, and nothing is before the first step with a `share`";
            walk.wrong(
                section.place("requests"),
                format!("`requests` {message}: accepted are `for` and `pause = true`"),
            );
        }
        let pauses = section.has("pause") && !section.is_false("pause");
        let waits = pauses || ["for", "requests"].iter().any(|key| section.has(key));
        if section.has("insiders") && !waits && !has_checks {
            let message = "a step with insiders alone is over by time, by hand or by a check";
            walk.missing(section.at, format!("{message}: it needs `for`, `pause = true` or a `check` of the stage"));
        }
    }
}

/// Each is a rule for proxies, to the end of the rollout.
fn check_insiders(walk: &mut Walk<'_>, steps: &[Written<'_>]) {
    let mut with = steps.iter().filter(|written| written.section.has("insiders"));
    if let Some(written) = with.nth(HEADER_RULES_MOST) {
        let message = format!("accepted are at most {HEADER_RULES_MOST} steps with `insiders`");
        walk.wrong(written.section.place("insiders"), message);
    }
}

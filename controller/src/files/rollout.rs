//! How a release enters a stage: the keys of `[stage.NAME]` that say so.
//!
//! Must not know: what a rollout does with them; what proxies would refuse is refused here, with its place.

mod check;
mod header;
mod steps;
#[cfg(test)]
mod tests;

use api::{Share, Span};

use crate::core::spec::{
    BlueGreen, Bounds, Breach, Meanwhile, Objective, OnWorse, RolloutSpec, SHARE_LEAST, STEP_TIME_MOST, Sticky,
    Strategy,
};

use super::walk::{Section, Walk};

/// The keys of a stage that are read here.
pub(super) const KEYS: [&str; 11] = [
    "strategy",
    "sticky",
    "steps",
    "meanwhile",
    "on_worse",
    "margin",
    "failure_header",
    "objective",
    "pause",
    "watch",
    "check",
];

/// Longest answer that may be called fast.
const SLOW_MOST: Span = Span::from_ms(3_600_000).expect("an hour is a span");
/// Shortest length of time that is read here.
const LEAST: Span = Span::from_ms(1).expect("1 millisecond");

/// The word of `strategy`, without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    AllAtOnce,
    BlueGreen,
    Canary,
}

const WAYS: [(&str, Way); 3] =
    [("all-at-once", Way::AllAtOnce), ("blue-green", Way::BlueGreen), ("canary", Way::Canary)];

/// Reads all of them; what is wrong or missing is as if it were not there.
pub(super) fn read(walk: &mut Walk<'_>, section: &Section<'_>) -> RolloutSpec {
    let strategy = strategy(walk, section);
    let sticky = [("none", Sticky::None), ("identity", Sticky::Identity), ("cookie", Sticky::Cookie)];
    let meanwhile = [("finish", Meanwhile::Finish), ("replace", Meanwhile::Replace), ("queue", Meanwhile::Queue)];
    let on_worse = [("rollback", OnWorse::Rollback), ("freeze", OnWorse::Freeze)];
    RolloutSpec {
        strategy,
        sticky: section.word(walk, "sticky", "a way to keep callers", &sticky).unwrap_or_default(),
        meanwhile: section.word(walk, "meanwhile", "something to do meanwhile", &meanwhile).unwrap_or_default(),
        on_worse: section.word(walk, "on_worse", "something to do with a worse release", &on_worse).unwrap_or_default(),
        bounds: bounds(walk, section),
        failure_header: header::failure(walk, section),
        checks: check::read(walk, section),
        objective: objective(walk, section),
    }
}

/// All of the keys that belong to one strategy are read, also when they stand beside another: their own mistakes are told too.
fn strategy(walk: &mut Walk<'_>, section: &Section<'_>) -> Strategy {
    let steps = steps::read(walk, section);
    let watch = section.within(walk, "watch", LEAST, STEP_TIME_MOST);
    let blue_green = BlueGreen { pause: section.boolean(walk, "pause").unwrap_or(false), watch };
    let way = if section.has("strategy") {
        section.word(walk, "strategy", "a strategy", &WAYS)
    } else {
        Some(Way::AllAtOnce)
    };
    // Of a word that is none it cannot be told what belongs to it.
    let Some(way) = way else { return Strategy::AllAtOnce };
    refuse_foreign(walk, section, way);
    match way {
        Way::AllAtOnce => Strategy::AllAtOnce,
        Way::BlueGreen => Strategy::BlueGreen(blue_green),
        Way::Canary => {
            if !section.has("steps") {
                let message = "`strategy = \"canary\"` needs `steps`, such as [{ share = \"1%\", for = \"10m\" }, \
                               { share = \"100%\" }]";
                walk.missing(section.place("strategy"), message);
            }
            Strategy::Canary(steps)
        }
    }
}

/// Keys that another strategy would read.
fn refuse_foreign(walk: &mut Walk<'_>, section: &Section<'_>, way: Way) {
    let both = "`strategy = \"blue-green\"` and \"canary\", which wait for it";
    let belongs: [(&str, &[Way], &str); 4] = [
        ("steps", &[Way::Canary], "`strategy = \"canary\"` only"),
        (
            "pause",
            &[Way::BlueGreen],
            "`strategy = \"blue-green\"` only (a canary is paused by a step: { pause = true })",
        ),
        ("watch", &[Way::BlueGreen], "`strategy = \"blue-green\"` only (after a canary `objective` is watched)"),
        ("check", &[Way::BlueGreen, Way::Canary], both),
    ];
    let name = WAYS.iter().find(|(_, one)| *one == way).map_or("", |(word, _)| word);
    let default = if section.has("strategy") { "" } else { ", the default" };
    for (key, ways, only) in belongs {
        if section.has(key) && !ways.contains(&way) {
            walk.wrong(section.place(key), format!("`{key}` is for {only}: this stage's is \"{name}\"{default}"));
        }
    }
}

/// `margin = { errors = "0.1%", slow = "300ms", slow_share = "5%" }`.
fn bounds(walk: &mut Walk<'_>, section: &Section<'_>) -> Bounds {
    let default = Bounds::default();
    let Some(section) = section.section(walk, "margin", "`margin`") else { return default };
    section.check_keys(walk, &["errors", "slow", "slow_share"], &[]);
    Bounds {
        errors: share(walk, &section, "errors", Share::ALL).unwrap_or(default.errors),
        slow: section.within(walk, "slow", LEAST, SLOW_MOST),
        slow_share: share(walk, &section, "slow_share", Share::ALL).unwrap_or(default.slow_share),
    }
}

/// `objective = { errors = "0.1%", slow = "300ms", slow_share = "1%", on_breach = "rollback" }`.
fn objective(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Objective> {
    let section = section.section(walk, "objective", "`objective`")?;
    section.check_keys(walk, &["errors", "slow", "slow_share", "on_breach"], &[]);
    // What may happen to everything is no promise.
    let most = Share::from_ppm(Share::ALL.ppm() - 1).expect("below everything");
    let errors = share(walk, &section, "errors", most);
    let slow = section.within(walk, "slow", LEAST, SLOW_MOST);
    let slow_share = share(walk, &section, "slow_share", most);
    let breach = [("ask", Breach::Ask), ("rollback", Breach::Rollback)];
    let on_breach = section.word(walk, "on_breach", "something to do about a breach", &breach).unwrap_or_default();
    for (key, other, what) in
        [("slow", "slow_share", "how many may be that slow"), ("slow_share", "slow", "from when on an answer is slow")]
    {
        if section.has(key) && !section.has(other) {
            walk.missing(section.place(key), format!("`{key}` of an objective needs `{other}` beside it: {what}"));
        }
    }
    if !["errors", "slow", "slow_share"].iter().any(|key| section.has(key)) {
        walk.missing(section.at, "`objective` promises nothing: it needs `errors`, or `slow` with `slow_share`");
    }
    Some(Objective { errors, slow: slow.zip(slow_share), on_breach })
}

/// A share that is not nothing, if the key is there.
fn share(walk: &mut Walk<'_>, section: &Section<'_>, key: &str, most: Share) -> Option<Share> {
    let share: Share = section.parsed(walk, key)?;
    if share == Share::NONE || share > most {
        walk.wrong(section.place(key), format!("`{key}` is {share}: accepted is {SHARE_LEAST} to {most}"));
        return None;
    }
    Some(share)
}

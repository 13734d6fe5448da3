//! A change of traffic as it goes: what was decided, what it waits for, who switched, how it ended.

use api::operator::change_update::Kind;
use api::operator::{ChangeUpdate, Lagging, Outcome, Switched};

use super::{Line, Style, View, numbers, times};

/// What was told already, so that nothing is told twice.
#[derive(Debug, Default)]
pub(crate) struct Told {
    proxies: Vec<String>,
    waiting: String,
    decided: bool,
    event: u64,
}

/// How a change was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Nothing is done, and the words say so.
    pub(crate) plan: bool,
    /// Nobody waits for the proxies.
    pub(crate) no_wait: bool,
}

/// The lines for one update.
pub(crate) fn change_lines(update: &ChangeUpdate, manner: Manner, told: &mut Told, view: &View) -> Vec<Line> {
    match &update.kind {
        Some(Kind::Decided(decided)) if !told.decided => {
            told.decided = true;
            told.event = decided.event;
            let head = manner.plan.then(|| Line::of(Style::Dim, "plan: nothing is changed; this would happen:"));
            let indent = if manner.plan { "  " } else { "" };
            let lines = decided.lines.iter().map(|line| Line::plain(format!("{indent}{line}")));
            head.into_iter().chain(lines).collect()
        }
        Some(Kind::Waiting(what)) if *what != told.waiting => {
            told.waiting.clone_from(what);
            vec![Line::of(Style::Moving, "waiting: ").with(Style::Plain, what)]
        }
        Some(Kind::Switched(proxy)) => switched(proxy, told).into_iter().collect(),
        Some(Kind::Outcome(outcome)) => ended(outcome, manner, told, view),
        Some(Kind::Decided(_) | Kind::Waiting(_)) | None => Vec::new(),
    }
}

fn switched(proxy: &Switched, told: &mut Told) -> Option<Line> {
    if told.proxies.contains(&proxy.proxy) {
        return None;
    }
    told.proxies.push(proxy.proxy.clone());
    Some(
        Line::plain("proxy ")
            .with(Style::Bold, &proxy.proxy)
            .with(Style::Good, " switched")
            .with(Style::Plain, format!(" in {}", numbers::took(proxy.us))),
    )
}

fn ended(outcome: &Outcome, manner: Manner, told: &mut Told, view: &View) -> Vec<Line> {
    let mut lines: Vec<Line> = outcome.switched.iter().filter_map(|proxy| switched(proxy, told)).collect();
    lines.extend(outcome.lagging.iter().map(lagging));
    if !outcome.failed.is_empty() {
        lines.push(Line::of(Style::Bad, "failed: ").with(Style::Plain, &outcome.failed));
    } else {
        lines.push(summary(outcome, manner.no_wait, told.event > 0));
    }
    if outcome.warm_until_ms > 0 {
        let left = release(outcome.from_release).unwrap_or_else(|| "the release before".into());
        lines.push(Line::plain(format!("{left} is kept warm {}", times::until(view, outcome.warm_until_ms))));
    }
    lines.extend(in_flight(outcome));
    if !outcome.undo.is_empty() {
        lines.push(Line::of(Style::Dim, "to undo: ").with(Style::Plain, &outcome.undo));
    }
    lines
}

fn lagging(proxy: &Lagging) -> Line {
    let mut line = Line::plain("proxy ").with(Style::Bold, &proxy.proxy).with(Style::Bad, " lags");
    if let Some(version) = proxy.last {
        line.push(Style::Plain, format!(" at {}", api::Version::from(version)));
    }
    if !proxy.why.is_empty() {
        line.push(Style::Plain, format!(": {}", proxy.why));
    }
    line
}

/// What the release that left still answers; none: nothing, as far as the proxies told.
fn in_flight(outcome: &Outcome) -> Option<Line> {
    let left = release(outcome.from_release).filter(|_| outcome.in_flight > 0)?;
    let requests = match outcome.in_flight {
        1 => "1 request".to_owned(),
        many => format!("{} requests", numbers::count(many)),
    };
    let text = format!("{left} still answers {requests}, as the proxies last told");
    Some(Line::of(Style::Moving, text).with(Style::Plain, ": `pointsman status` shows when they have ended"))
}

/// One sentence for the end: from what to what, on how many proxies.
fn summary(outcome: &Outcome, no_wait: bool, is_change: bool) -> Line {
    let unfinished = no_wait && is_change;
    if !outcome.waits.is_empty() {
        return Line::of(Style::Moving, "waiting").with(Style::Plain, format!(" for {}", outcome.waits));
    }
    if !is_change && outcome.lagging.is_empty() && outcome.to_release == 0 {
        return Line::of(Style::Good, "nothing had to change");
    }
    let (good, all) = (outcome.switched.len(), outcome.switched.len() + outcome.lagging.len());
    let mut line = match outcome.lagging.len() {
        0 if unfinished => Line::of(Style::Moving, "on record"),
        0 => Line::of(Style::Good, "done"),
        _ => Line::of(Style::Moving, "committed"),
    };
    match (release(outcome.from_release), release(outcome.to_release)) {
        (Some(from), Some(to)) if from != to => line.push(Style::Plain, format!(": from {from} to {to}")),
        (_, Some(to)) => line.push(Style::Plain, format!(": {to}")),
        _ => {}
    }
    match all {
        0 if unfinished => line.push(Style::Plain, ", not waited for: `pointsman status` shows how far it is"),
        0 => {}
        1 if good == 1 => line.push(Style::Plain, ", the proxy has switched"),
        _ => line.push(Style::Plain, format!(", {good} of {all} proxies have switched")),
    }
    line
}

fn release(number: u32) -> Option<String> {
    (number > 0).then(|| format!("r{number}"))
}

#[cfg(test)]
mod tests {
    use api::operator::Decided;

    use super::*;
    use crate::render::plain;

    fn told(kinds: Vec<Kind>, manner: Manner) -> String {
        let (mut told, view) = (Told::default(), View::of_tests());
        let lines: Vec<Line> = kinds
            .into_iter()
            .flat_map(|kind| change_lines(&ChangeUpdate { kind: Some(kind) }, manner, &mut told, &view))
            .collect();
        plain(&lines)
    }

    fn by(proxy: &str, us: u64) -> Switched {
        Switched { proxy: proxy.into(), us }
    }

    #[test]
    fn a_rollback_tells_all_that_matters_once() {
        let decided = Decided { event: 7, lines: vec!["roll back hello/production from r42 to r41".into()] };
        let outcome = Outcome {
            switched: vec![by("p1", 3_140), by("p2", 4_000)],
            lagging: vec![Lagging {
                proxy: "p3".into(),
                last: Some(api::Version { term: 1, number: 40 }.into()),
                why: "not heard for 4 s".into(),
            }],
            warm_until_ms: View::of_tests().now_ms + 3_600_000,
            from_release: 42,
            to_release: 41,
            undo: "pointsman unhold hello/production r42 && pointsman promote hello@r42 --to production".into(),
            in_flight: 3,
            ..Outcome::default()
        };
        let kinds = vec![
            Kind::Decided(decided),
            Kind::Switched(by("p1", 3_140)),
            Kind::Waiting("p2, p3".into()),
            Kind::Waiting("p2, p3".into()),
            Kind::Outcome(outcome),
        ];
        let expected = "\
roll back hello/production from r42 to r41
proxy p1 switched in 3.1 ms
waiting: p2, p3
proxy p2 switched in 4.0 ms
proxy p3 lags at 1.40: not heard for 4 s
committed: from r42 to r41, 2 of 3 proxies have switched
r42 is kept warm until 13:00 (1h)
r42 still answers 3 requests, as the proxies last told: `pointsman status` shows when they have ended
to undo: pointsman unhold hello/production r42 && pointsman promote hello@r42 --to production
";
        assert_eq!(told(kinds, Manner::default()), expected);
    }

    #[test]
    fn a_plan_says_that_nothing_is_changed() {
        let decided = Decided { event: 0, lines: vec!["r42 takes 1% of hello/production".into()] };
        let expected = "plan: nothing is changed; this would happen:\n  r42 takes 1% of hello/production\n";
        assert_eq!(told(vec![Kind::Decided(decided)], Manner { plan: true, ..Manner::default() }), expected);
    }

    #[test]
    fn a_failure_says_why() {
        let outcome = Outcome { failed: "r42 did not start on a1: \x1b[1mpanic".into(), ..Outcome::default() };
        assert_eq!(
            told(vec![Kind::Outcome(outcome)], Manner::default()),
            "failed: r42 did not start on a1: \\u{1b}[1mpanic\n"
        );
    }

    #[test]
    fn without_waiting_nothing_is_called_done() {
        let manner = Manner { no_wait: true, ..Manner::default() };
        let outcome = || Kind::Outcome(Outcome { from_release: 41, to_release: 42, ..Outcome::default() });
        let decided = |event| Kind::Decided(Decided { event, lines: vec![] });
        let text = told(vec![decided(7), outcome()], manner);
        assert_eq!(text, "on record: from r41 to r42, not waited for: `pointsman status` shows how far it is\n");
        assert_eq!(told(vec![decided(0), outcome()], manner), "done: from r41 to r42\n");
    }

    #[test]
    fn what_did_not_happen_is_not_called_done() {
        let decided = |event, line: &str| Kind::Decided(Decided { event, lines: vec![line.into()] });
        let already = "r41 serves all of hello/production already";
        let text = told(vec![decided(0, already), Kind::Outcome(Outcome::default())], Manner::default());
        assert_eq!(text, format!("{already}\nnothing had to change\n"));
        // All was so already, and not everywhere.
        let lagging = vec![Lagging { proxy: "p3".into(), last: None, why: "is away".into() }];
        let outcome = Outcome { lagging, ..Outcome::default() };
        let text = told(vec![decided(0, already), Kind::Outcome(outcome)], Manner::default());
        assert!(text.ends_with("committed, 0 of 1 proxies have switched\n"), "{text}");
        for event in [0, 7] {
            let outcome = Outcome { waits: "the rollout of r42 to end".into(), ..Outcome::default() };
            let text = told(vec![decided(event, "r43 waits"), Kind::Outcome(outcome)], Manner::default());
            assert_eq!(text, "r43 waits\nwaiting for the rollout of r42 to end\n");
        }
        let one = Outcome { from_release: 42, in_flight: 1, ..Outcome::default() };
        assert!(
            told(vec![decided(7, "back"), Kind::Outcome(one)], Manner::default())
                .contains("r42 still answers 1 request, ")
        );
    }
}

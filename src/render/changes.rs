//! What is different between two states, a line each: the watch for logs and pipes.

use std::collections::BTreeMap;

use api::operator::{StageRelease, StatusReply};

use super::times::clock_seconds;
use super::{Line, Style, View, numbers};

/// The facts worth a line, by what they are about. Rates and latencies are not among them: they always move.
type Facts = BTreeMap<(String, String), String>;

/// A line for each fact that is new, different or gone. From an empty reply: all there is.
pub(crate) fn changes(before: &StatusReply, after: &StatusReply, view: &View) -> Vec<Line> {
    let (old, new) = (facts(before), facts(after));
    let at = clock_seconds(view, after.at_ms);
    let mut lines = Vec::new();
    let mut tell = |about: &str, what: &str, value: String| {
        let name = if what.is_empty() { about.to_owned() } else { format!("{about} {what}") };
        lines.push(Line::of(Style::Dim, format!("{at} ")).with(Style::Bold, name).with(Style::Plain, value));
    };
    for (key @ (about, what), value) in &new {
        match old.get(key) {
            Some(same) if same == value => {}
            Some(before) => tell(about, what, format!(": {before} -> {value}")),
            None => tell(about, what, format!(": {value}")),
        }
    }
    for ((about, what), value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
        tell(about, what, format!(": {value} -> gone"));
    }
    lines
}

fn facts(reply: &StatusReply) -> Facts {
    let mut facts = Facts::new();
    let mut fact = |about: &str, what: String, value: String| {
        if !value.is_empty() {
            facts.insert((about.to_owned(), what), value);
        }
    };
    for service in &reply.services {
        for release in &service.releases {
            let about = format!("{}@r{}", release.service, release.number);
            let problem = if release.problem.is_empty() { String::new() } else { format!(", {}", release.problem) };
            fact(&about, String::new(), format!("{}{problem}", release.state));
        }
        for stage in &service.stages {
            fact(&stage.stage, "activity".into(), stage.activity.clone());
            fact(&stage.stage, "override".into(), stage.overrides.join(", "));
            for release in &stage.releases {
                fact(&stage.stage, format!("r{}", release.release), serving(release));
                for endpoint in &release.endpoints {
                    let problem =
                        if endpoint.problem.is_empty() { String::new() } else { format!(", {}", endpoint.problem) };
                    let what = format!("r{} {}", release.release, endpoint.address);
                    fact(&stage.stage, what, format!("{}{problem}", endpoint.state));
                }
            }
        }
    }
    for member in &reply.fleet {
        let problem = if member.problem.is_empty() { String::new() } else { format!(", {}", member.problem) };
        fact(&format!("{} {}", member.role, member.name), String::new(), format!("{}{problem}", member.state));
    }
    for warning in &reply.warnings {
        fact("warning", warning.clone(), "raised".into());
    }
    facts
}

fn serving(release: &StageRelease) -> String {
    let mut text = format!("{} {}", release.role, numbers::share_set(release.weight_ppm));
    if release.bad {
        text.push_str(", bad");
    }
    text
}

#[cfg(test)]
mod tests {
    use api::operator::{FleetMember, ServiceStatus, StageEndpoint, StageStatus};

    use super::*;
    use crate::render::plain;

    fn reply(canary_ppm: u32, endpoint: &str, warnings: &[&str]) -> StatusReply {
        let release = |release, role: &str, weight_ppm| StageRelease {
            release,
            role: role.into(),
            weight_ppm,
            rate: f64::from(weight_ppm),
            endpoints: vec![StageEndpoint {
                address: format!("10.0.0.{release}:80"),
                state: endpoint.into(),
                ..StageEndpoint::default()
            }],
            ..StageRelease::default()
        };
        let stage = StageStatus {
            stage: "hello/production".into(),
            releases: vec![release(42, "canary", canary_ppm), release(41, "stable", 1_000_000 - canary_ppm)],
            ..StageStatus::default()
        };
        StatusReply {
            at_ms: View::of_tests().now_ms,
            services: vec![ServiceStatus { service: "hello".into(), stages: vec![stage], releases: vec![] }],
            fleet: vec![FleetMember {
                name: "p1".into(),
                role: "proxy".into(),
                state: "active".into(),
                ..FleetMember::default()
            }],
            warnings: warnings.iter().map(|&warning| warning.into()).collect(),
            ..StatusReply::default()
        }
    }

    #[test]
    fn only_what_changed_is_told() {
        let view = View::of_tests();
        let (first, second) = (reply(10_000, "healthy", &[]), reply(500_000, "healthy", &["disk full"]));
        assert!(changes(&first, &first, &view).is_empty());
        let expected = "\
12:00:00 hello/production r41: stable 99% -> stable 50%
12:00:00 hello/production r42: canary 1% -> canary 50%
12:00:00 warning disk full: raised
";
        assert_eq!(plain(&changes(&first, &second, &view)), expected);
        assert_eq!(
            plain(&changes(&second, &first, &view)).lines().last(),
            Some("12:00:00 warning disk full: raised -> gone")
        );
    }

    #[test]
    fn the_first_reply_tells_all() {
        let expected = "\
12:00:00 hello/production r41: stable 99%
12:00:00 hello/production r41 10.0.0.41:80: healthy
12:00:00 hello/production r42: canary 1%
12:00:00 hello/production r42 10.0.0.42:80: healthy
12:00:00 proxy p1: active
";
        let lines = changes(&StatusReply::default(), &reply(10_000, "healthy", &[]), &View::of_tests());
        assert_eq!(plain(&lines), expected);
    }
}

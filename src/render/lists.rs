//! Environments, services, tokens and fleet members.

use api::operator::{
    CreateJoinReply, Environment, Environments, FleetMember, FleetMembers, Service, ServiceStage, Services,
    StageRollout, Tokens,
};

use super::resolved::registered;
use super::{Line, Style, Table, View, ago, numbers, times};

/// The environments.
pub(crate) fn environments(list: &Environments) -> Vec<Line> {
    let mut table = Table::new(&["environment", "zone", "target", "time zone", "keep warm"]);
    for environment in &list.environments {
        table.row(vec![
            Line::of(Style::Bold, &environment.name),
            Line::plain(&environment.zone),
            Line::plain(target(environment)),
            Line::plain(&environment.time_zone),
            Line::plain(&environment.keep_warm),
        ]);
    }
    table.lines("no environments yet: `pointsman apply -f ENVIRONMENT.toml` describes the first")
}

/// One environment.
pub(crate) fn environment(environment: &Environment) -> Vec<Line> {
    let mut lines = vec![Line::of(Style::Bold, &environment.name)];
    for (name, value) in [
        ("zone", environment.zone.clone()),
        ("target", target(environment)),
        ("time zone", environment.time_zone.clone()),
        ("keep warm", environment.keep_warm.clone()),
        ("https", environment.https.clone()),
        ("tls", environment.certificates.clone()),
        ("clients", client_certificates(environment)),
    ] {
        if !value.is_empty() {
            lines.push(Line::of(Style::Dim, format!("  {name:<10} ")).with(Style::Plain, value));
        }
    }
    lines
}

fn client_certificates(environment: &Environment) -> String {
    match environment.client_certificates.as_str() {
        "" => String::new(),
        whether => format!("certificates {whether}"),
    }
}

fn target(environment: &Environment) -> String {
    match environment.group.as_str() {
        "" => environment.target.clone(),
        group => format!("{} (group {group})", environment.target),
    }
}

/// The services.
pub(crate) fn services(list: &Services) -> Vec<Line> {
    let mut table = Table::new(&["service", "newest", "stages", "repository", "branch"]);
    for service in &list.services {
        let stages: Vec<&str> = service.stages.iter().map(|stage| stage.environment.as_str()).collect();
        table.row(vec![
            Line::of(Style::Bold, &service.name),
            Line::plain(newest(service)),
            Line::plain(stages.join(", ")),
            Line::plain(&service.repository),
            Line::plain(&service.branch),
        ]);
        if !service.problem.is_empty() {
            table.whole(Line::plain("  ").with(Style::Bad, &service.problem));
        }
    }
    table.lines("no services yet: `pointsman apply -f pointsman.toml` describes the first")
}

fn newest(service: &Service) -> String {
    if service.newest_release == 0 { numbers::NONE.into() } else { format!("r{}", service.newest_release) }
}

/// One service with its stages.
pub(crate) fn service(service: &Service) -> Vec<Line> {
    let mut lines = vec![Line::of(Style::Bold, &service.name)];
    for (name, value) in [
        ("repository", service.repository.clone()),
        ("branch", service.branch.clone()),
        ("built", if service.trigger.is_empty() { "by hand".to_owned() } else { service.trigger.clone() }),
        ("registered", registered(&service.registered_by, &service.registered_commit)),
        ("newest", newest(service)),
        ("problem", service.problem.clone()),
    ] {
        if !value.is_empty() {
            lines.push(Line::of(Style::Dim, format!("  {name:<10} ")).with(Style::Plain, value));
        }
    }
    let mut table = Table::new(&["  stage", "from", "hosts"]);
    for stage in &service.stages {
        table.plain(&[&format!("  {}", stage.environment), &from(stage), &stage.hosts.join(" ")]);
    }
    lines.push(Line::default());
    lines.extend(table.lines("  no stages"));
    lines
}

/// What a service's file comes to in each stage, with what its environments add.
pub(crate) fn resolved(service: &Service, environments: &[Environment]) -> Vec<Line> {
    let mut lines = Vec::new();
    for stage in &service.stages {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.push(Line::of(Style::Bold, format!("{}/{}", service.name, stage.environment)));
        let known = environments.iter().find(|environment| environment.name == stage.environment);
        let of = |value: fn(&Environment) -> String| known.map(value).unwrap_or_default();
        for (name, value) in [
            ("from", from(stage)),
            ("hosts", stage.hosts.join(" ")),
            ("keep warm", api::Span::from_ms(stage.keep_warm_ms).map(|span| span.to_string()).unwrap_or_default()),
            ("zone", of(|environment| environment.zone.clone())),
            ("target", of(target)),
            ("time zone", of(|environment| environment.time_zone.clone())),
        ]
        .into_iter()
        .chain(stage.rollout.iter().flat_map(rollout))
        {
            if !value.is_empty() {
                lines.push(Line::of(Style::Dim, format!("  {name:<10} ")).with(Style::Plain, value));
            }
        }
        if known.is_none() {
            let text = format!("  there is no environment {} yet", stage.environment);
            lines.push(Line::of(Style::Moving, text));
        }
    }
    if lines.is_empty() {
        lines.push(Line::of(Style::Dim, format!("{} has no stages", service.name)));
    }
    lines
}

/// How a release enters; an older controller does not say.
fn rollout(rollout: &StageRollout) -> [(&'static str, String); 8] {
    [
        ("strategy", rollout.strategy.clone()),
        ("sticky", rollout.sticky.clone()),
        ("meanwhile", rollout.meanwhile.clone()),
        ("on worse", rollout.on_worse.clone()),
        ("margin", rollout.margin.clone()),
        ("failed by", rollout.failure_header.clone()),
        ("objective", rollout.objective.clone()),
        ("checks", rollout.checks.join(", ")),
    ]
}

fn from(stage: &ServiceStage) -> String {
    if stage.from.is_empty() { "any release".into() } else { stage.from.join(", ") }
}

/// The tokens; never what they are, only what they may do.
pub(crate) fn tokens(list: &Tokens, view: &View) -> Vec<Line> {
    let mut table = Table::new(&["token", "may", "services", "environments", "made", "by", ""]);
    let all_or = |list: &[String]| if list.is_empty() { "all".into() } else { list.join(", ") };
    for token in &list.tokens {
        table.row(vec![
            Line::of(Style::Bold, &token.name),
            Line::plain(token.verbs.join(", ")),
            Line::plain(all_or(&token.services)),
            Line::plain(all_or(&token.environments)),
            Line::plain(if token.created_ms == 0 { String::new() } else { ago(view, token.created_ms) }),
            Line::plain(&token.by),
            if token.revoked { Line::of(Style::Bad, "revoked") } else { Line::default() },
        ]);
    }
    table.lines("no tokens")
}

/// The proxies and agents.
pub(crate) fn fleet(list: &FleetMembers, view: &View) -> Vec<Line> {
    let mut table =
        Table::new(&["name", "role", "group", "state", "version", "heard", "workers", "software"]).right(&[6]);
    for member in &list.members {
        table.row(vec![
            Line::of(Style::Bold, &member.name),
            Line::plain(&member.role),
            Line::plain(&member.group),
            state(&member.state),
            Line::plain(version(member)),
            Line::plain(heard(member, view)),
            Line::plain(if member.workers == 0 { String::new() } else { member.workers.to_string() }),
            Line::of(Style::Dim, &member.software),
        ]);
        if !member.problem.is_empty() {
            table.whole(Line::plain("  ").with(Style::Bad, &member.problem));
        }
    }
    table.lines("no members yet: `pointsman join proxy --name p1` invites the first")
}

fn state(state: &str) -> Line {
    let style = match state {
        "active" | "connected" => Style::Good,
        "lagging" | "invited" => Style::Moving,
        "away" => Style::Bad,
        _ => Style::Dim,
    };
    Line::of(style, state)
}

fn version(member: &FleetMember) -> String {
    member.version.map(|version| api::Version::from(version).to_string()).unwrap_or_default()
}

fn heard(member: &FleetMember, view: &View) -> String {
    match member.last_heard_ms {
        0 if member.connected => "now".into(),
        0 => "never".into(),
        at_ms => ago(view, at_ms),
    }
}

/// Who of a role is in the fleet: neither one that was revoked nor one that has yet to join.
pub(super) fn joined<'a>(members: &'a [FleetMember], role: &'a str) -> impl Iterator<Item = &'a FleetMember> {
    let in_it = |member: &&FleetMember| !matches!(member.state.as_str(), "revoked" | "invited");
    members.iter().filter(move |member| member.role == role).filter(in_it)
}

/// A line for the proxies, one for the agents, and one for each member that is not well.
pub(super) fn fleet_summary(members: &[FleetMember], view: &View) -> Vec<Line> {
    let mut lines = vec![Line::of(Style::Dim, "fleet")];
    for (role, plural, well) in [("proxy", "proxies", "active"), ("agent", "agents", "connected")] {
        let of_role = || members.iter().filter(|member| member.role == role && member.state != "revoked");
        let (all, good) =
            (joined(members, role).count(), joined(members, role).filter(|member| member.state == well).count());
        let style = if good == all { Style::Good } else { Style::Moving };
        let mut line = Line::of(Style::Plain, format!("  {plural:<8} "));
        match all {
            0 => line.push(Style::Dim, "none"),
            _ => line.push(style, format!("{good} of {all} {well}")),
        }
        lines.push(line);
        for member in of_role().filter(|member| member.state != well || !member.problem.is_empty()) {
            let mut line = Line::plain("    ").with(Style::Bold, &member.name).with(Style::Plain, " ");
            line.append(state(&member.state));
            if let Some(version) = member.version {
                line.push(Style::Plain, format!(" at {}", api::Version::from(version)));
            }
            line.push(Style::Dim, format!(", heard {}", heard(member, view)));
            if !member.problem.is_empty() {
                line.push(Style::Bad, format!(": {}", member.problem));
            }
            lines.push(line);
        }
    }
    lines
}

/// A one-time token and what to do with it.
pub(crate) fn invitation(reply: &CreateJoinReply, role: &str, name: &str, view: &View) -> Vec<Line> {
    let valid = times::until(view, reply.expires_ms);
    let mut lines = vec![
        Line::plain("One-time token for ")
            .with(Style::Bold, format!("{role} {name}"))
            .with(Style::Plain, format!(", valid {valid}. It is shown once; on the machine of the {role} run:")),
        Line::default(),
        Line::plain(format!("  pointsman {role} --data ./{name} --join {}", reply.token)),
        Line::default(),
    ];
    if role == "agent" {
        let text = "Proxies reach its releases at the address by which it reaches the controller; where that is another \
                    one, add `--address IP`.";
        lines.extend([Line::plain(text), Line::default()]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    fn member(name: &str, role: &str, state: &str) -> FleetMember {
        FleetMember {
            name: name.into(),
            role: role.into(),
            state: state.into(),
            version: Some(api::Version { term: 1, number: 40 }.into()),
            last_heard_ms: View::of_tests().now_ms - 12_000,
            workers: 2,
            software: "0.1.0".into(),
            ..FleetMember::default()
        }
    }

    #[test]
    fn the_fleet_names_who_is_not_well() {
        let view = View::of_tests();
        let lagging = FleetMember { problem: "the journal is full".into(), ..member("p3", "proxy", "lagging") };
        let members = vec![member("p1", "proxy", "active"), lagging, member("a1", "agent", "connected")];
        let expected = "\
fleet
  proxies  1 of 2 active
    p3 lagging at 1.40, heard 12s ago: the journal is full
  agents   1 of 1 connected
";
        assert_eq!(plain(&fleet_summary(&members, &view)), expected);
        let more = [members.clone(), vec![member("p4", "proxy", "invited"), member("p5", "proxy", "revoked")]].concat();
        let told = plain(&fleet_summary(&more, &view));
        assert!(
            told.contains("proxies  1 of 2 active") && told.contains("p4 invited") && !told.contains("p5"),
            "{told}"
        );
        let expected = "\
name  role   group  state      version  heard    workers  software
p1    proxy         active     1.40     12s ago        2  0.1.0
p3    proxy         lagging    1.40     12s ago        2  0.1.0
  the journal is full
a1    agent         connected  1.40     12s ago        2  0.1.0
";
        assert_eq!(plain(&fleet(&FleetMembers { members }, &view)), expected);
    }

    #[test]
    fn an_invitation_says_what_to_run_and_where_an_agent_is_reached() {
        let reply = CreateJoinReply { token: "pmjoin1.x".into(), ..CreateJoinReply::default() };
        for (role, told) in [("proxy", false), ("agent", true)] {
            let text = plain(&invitation(&reply, role, "m1", &View::of_tests()));
            assert!(text.contains(&format!("\n  pointsman {role} --data ./m1 --join pmjoin1.x\n")), "{text}");
            assert_eq!(text.contains("--address IP"), told, "{text}");
        }
    }

    #[test]
    fn a_resolved_service_tells_what_is_missing() {
        let stage = |environment: &str, from: &[&str]| ServiceStage {
            environment: environment.into(),
            from: from.iter().map(|&from| from.into()).collect(),
            hosts: vec![format!("hello.{environment}.example.com")],
            keep_warm_ms: 3_600_000,
            rollout: None,
        };
        let rollout = StageRollout {
            strategy: "canary: 1% for 10m, 100%".into(),
            sticky: "identity".into(),
            meanwhile: "finish".into(),
            on_worse: "rollback".into(),
            margin: "0.1% more errors".into(),
            checks: vec!["smoke (http, every 30s)".into(), "probe (command, every 1m)".into()],
            ..StageRollout::default()
        };
        let production = ServiceStage { rollout: Some(rollout), ..stage("production", &["dev"]) };
        let service =
            Service { name: "hello".into(), stages: vec![stage("dev", &[]), production], ..Service::default() };
        let dev = Environment {
            name: "dev".into(),
            zone: "dev.example.com".into(),
            target: "agent".into(),
            group: "small".into(),
            ..Environment::default()
        };
        let expected = "\
hello/dev
  from       any release
  hosts      hello.dev.example.com
  keep warm  1h
  zone       dev.example.com
  target     agent (group small)

hello/production
  from       dev
  hosts      hello.production.example.com
  keep warm  1h
  strategy   canary: 1% for 10m, 100%
  sticky     identity
  meanwhile  finish
  on worse   rollback
  margin     0.1% more errors
  checks     smoke (http, every 30s), probe (command, every 1m)
  there is no environment production yet
";
        assert_eq!(plain(&resolved(&service, &[dev])), expected);
    }

    #[test]
    fn tokens_show_what_they_may() {
        let token = api::operator::Token {
            name: "deploy".into(),
            verbs: vec!["read".into(), "promote".into()],
            services: vec!["hello".into()],
            created_ms: View::of_tests().now_ms - 3_600_000,
            by: "operator".into(),
            revoked: true,
            ..api::operator::Token::default()
        };
        let expected = "\
token   may            services  environments  made    by
deploy  read, promote  hello     all           1h ago  operator  revoked
";
        assert_eq!(plain(&tokens(&Tokens { tokens: vec![token] }, &View::of_tests())), expected);
    }
}

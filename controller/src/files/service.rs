//! Service files: `pointsman.toml`, in the service's repository.

use std::collections::BTreeMap;

use api::{ComponentName, Span};

use crate::core::spec::{BuildSpec, ComponentSpec, HEALTH_MOST, HealthSpec, Protocol, ServiceSpec, Source};

use super::environment::schema;
use super::source::{check_reference, check_repository};
use super::value::{check_variable, stays_within};
use super::walk::{Section, Walk, shown};
use super::{stages, tls};

const BUILD_TIMEOUT: Span = Span::from_ms(15 * 60_000).expect("15 minutes");
const STOP: Span = Span::from_ms(30_000).expect("30 seconds");
const HEALTH_EVERY: Span = Span::from_ms(2_000).expect("2 seconds");
const HEALTH_TIMEOUT: Span = Span::from_ms(1_000).expect("1 second");
const HEALTH_LEAST: Span = Span::from_ms(1).expect("1 millisecond");
const HEALTH_FALL: u32 = 3;
const HEALTH_RISE: u32 = 1;

/// Reads the file; `None` when a value without a default is missing or wrong.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<ServiceSpec> {
    root.check_keys(walk, &["schema", "service", "source", "build", "component", "stage"], &["objective"]);
    schema(walk, root);
    let name = root.required(walk, "service");
    let source = source(walk, root);
    let build = build(walk, root);
    let components = components(walk, root);
    let stages = stages::read(walk, root);
    if let (true, true) = (root.has("build"), components.is_empty()) {
        walk.missing(root.place("build"), "[build] makes nothing without a [component.NAME] that says what to keep");
    }
    Some(ServiceSpec { name: name?, source, build, components, stages })
}

fn source(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<Source> {
    let section = root.section(walk, "source", "`source`")?;
    section.check_keys(walk, &["repository", "branch"], &["tags"]);
    let branch = match section.text(walk, "branch") {
        Some((branch, at)) => {
            if let Err(why) = check_reference(&branch) {
                walk.wrong(at, format!("`branch`: {why}"));
            }
            branch
        }
        None => "main".to_owned(),
    };
    if !section.require(walk, "repository") {
        return None;
    }
    let (repository, at) = section.text(walk, "repository")?;
    if let Err(why) = check_repository(&repository) {
        walk.wrong(at, format!("`repository`: {why}"));
    }
    Some(Source { repository, branch })
}

fn build(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<BuildSpec> {
    let section = root.section(walk, "build", "[build]")?;
    section.check_keys(walk, &["command", "timeout", "environment", "pass"], &[]);
    let command = if section.require(walk, "command") { section.command(walk, "command") } else { None };
    if command.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
        walk.wrong(section.place("command"), "`command` names no program: accepted is a list such as [\"./build.sh\"]");
    }
    let timeout = section.parsed(walk, "timeout").unwrap_or(BUILD_TIMEOUT);
    let environment = section.variables(walk, "environment");
    let pass = section.list(walk, "pass").unwrap_or_default();
    for (name, at) in &pass {
        check_variable(walk, name, *at);
        if environment.contains_key(name) {
            walk.wrong(*at, format!("`{}` is both set by `environment` and passed on by `pass`", shown(name)));
        }
    }
    let pass = pass.into_iter().map(|(name, _)| name).collect();
    Some(BuildSpec { command: command.unwrap_or_default(), timeout, environment, pass })
}

fn components(walk: &mut Walk<'_>, root: &Section<'_>) -> BTreeMap<ComponentName, ComponentSpec> {
    let sections: Vec<(ComponentName, Section<'_>)> = root.named(walk, "component");
    let mut routed: Option<&ComponentName> = None;
    for (name, section) in sections.iter().filter(|(_, section)| section.has("protocol")) {
        match routed {
            None => routed = Some(name),
            Some(first) => {
                let message = format!("[component.{first}] has a protocol already: requests go to one component only");
                walk.wrong(section.place("protocol"), message);
            }
        }
    }
    if let (None, Some((_, first))) = (routed, sections.first()) {
        let message =
            "one component needs `protocol = \"h1\"` (or \"h2c\", \"tls\", \"h2\"): requests are routed to it";
        walk.missing(first.at, message);
    }
    sections.iter().map(|(name, section)| (name.clone(), component(walk, section))).collect()
}

fn component(walk: &mut Walk<'_>, section: &Section<'_>) -> ComponentSpec {
    let accepted = ["folder", "run", "protocol", "tls", "health", "environment", "stop"];
    section.check_keys(walk, &accepted, &["image_digest_file"]);
    let folder = folder(walk, section);
    let protocol = protocol(walk, section);
    let tls = tls::read(walk, section, protocol);
    let run = run(walk, section);
    let health = health(walk, section);
    let environment = section.variables(walk, "environment");
    let stop = section.parsed(walk, "stop").unwrap_or(STOP);
    ComponentSpec { folder, run, protocol, tls, health, environment, stop }
}

fn folder(walk: &mut Walk<'_>, section: &Section<'_>) -> String {
    if !section.require(walk, "folder") {
        return String::new();
    }
    let Some((folder, at)) = section.text(walk, "folder") else { return String::new() };
    if !stays_within(&folder) {
        let message = "is not a folder of the checkout: accepted is a relative path without \"..\", such as \"dist\"";
        walk.wrong(at, format!("\"{}\" {message}", shown(&folder)));
    }
    folder
}

fn protocol(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Protocol> {
    let (protocol, at) = section.text(walk, "protocol")?;
    match protocol.as_str() {
        "h1" => Some(Protocol::H1),
        "h2c" => Some(Protocol::H2c),
        "tls" => Some(Protocol::Tls),
        "h2" => Some(Protocol::H2),
        other => {
            let message = "is not a protocol: accepted are \"h1\" (HTTP/1.1), \"h2c\" (HTTP/2 without TLS, gRPC), \
                           \"tls\" (HTTP/1.1 through TLS) and \"h2\" (HTTP/2 through TLS, gRPC)";
            walk.wrong(at, format!("\"{}\" {message}", shown(other)));
            None
        }
    }
}

fn run(walk: &mut Walk<'_>, section: &Section<'_>) -> Vec<String> {
    let run = section.command(walk, "run").unwrap_or_default();
    let Some(program) = run.first() else {
        if section.has("run") {
            walk.wrong(section.place("run"), "`run` is empty: leave it out for a component that is not run");
        }
        return run;
    };
    if !stays_within(program) {
        let message = "is not a program of the artifact: accepted is a path relative to `folder` without \"..\"";
        walk.wrong(section.place("run"), format!("\"{}\" {message}, such as \"./hello\"", shown(program)));
    }
    if section.has("protocol") && !run.iter().any(|word| word.contains("{port}")) {
        let message = "`run` must contain \"{port}\" where the program takes its port, because there is a protocol";
        walk.wrong(section.place("run"), message);
    }
    run
}

fn health(walk: &mut Walk<'_>, section: &Section<'_>) -> HealthSpec {
    let defaults =
        HealthSpec { http: None, every: HEALTH_EVERY, timeout: HEALTH_TIMEOUT, fall: HEALTH_FALL, rise: HEALTH_RISE };
    let Some(section) = section.section(walk, "health", "`health`") else { return defaults };
    section.check_keys(walk, &["http", "every", "timeout", "fall", "rise"], &[]);
    let http = section.text(walk, "http").map(|(path, at)| {
        // It goes into a request line as it is.
        let good =
            path.starts_with('/') && path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if !good {
            let message = "is not a path: accepted is printable ASCII that begins with \"/\", such as \"/healthz\"";
            walk.wrong(at, format!("\"{}\" {message}", shown(&path)));
        }
        path
    });
    HealthSpec {
        http,
        every: section.within(walk, "every", HEALTH_LEAST, HEALTH_MOST).unwrap_or(HEALTH_EVERY),
        timeout: section.within(walk, "timeout", HEALTH_LEAST, HEALTH_MOST).unwrap_or(HEALTH_TIMEOUT),
        fall: section.number(walk, "fall", 1..=100).unwrap_or(HEALTH_FALL),
        rise: section.number(walk, "rise", 1..=100).unwrap_or(HEALTH_RISE),
    }
}

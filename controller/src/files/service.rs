//! Service files: `pointsman.toml`, in the service's repository.

use std::collections::BTreeMap;

use api::{ComponentName, Span};

use crate::core::spec::{ComponentSpec, HEALTH_MOST, HealthSpec, Protocol, ServiceSpec};

use super::environment::schema;
use super::value::stays_within;
use super::walk::{Section, Walk, shown};
use super::{build, output, source, stages, tls, trigger};

const COMPONENT_KEYS: [&str; 9] =
    ["folder", "image_digest_file", "image", "run", "protocol", "tls", "health", "environment", "stop"];

const STOP: Span = Span::from_ms(30_000).expect("30 seconds");
const HEALTH_EVERY: Span = Span::from_ms(2_000).expect("2 seconds");
const HEALTH_TIMEOUT: Span = Span::from_ms(1_000).expect("1 second");
const HEALTH_LEAST: Span = Span::from_ms(1).expect("1 millisecond");
const HEALTH_FALL: u32 = 3;
const HEALTH_RISE: u32 = 1;

/// Reads the file; `None` when a value without a default is missing or wrong.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<ServiceSpec> {
    let accepted = ["schema", "service", "source", "trigger", "build", "component", "stage"];
    root.check_keys(walk, &accepted, &["objective"]);
    schema(walk, root);
    let name = root.required(walk, "service");
    let source = source::read(walk, root);
    let trigger = trigger::read(walk, root);
    let build = build::read(walk, root);
    let components = components(walk, root);
    let stages = stages::read(walk, root);
    if let (true, true) = (root.has("build"), components.is_empty()) {
        walk.missing(root.place("build"), "[build] makes nothing without a [component.NAME] that says what to keep");
    }
    Some(ServiceSpec { name: name?, source, trigger, build, components, stages })
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
    sections.iter().map(|(name, section)| (name.clone(), component(walk, root, section))).collect()
}

fn component(walk: &mut Walk<'_>, root: &Section<'_>, section: &Section<'_>) -> ComponentSpec {
    section.check_keys(walk, &COMPONENT_KEYS, &[]);
    let (folder, image) = output::read(walk, root, section);
    let protocol = protocol(walk, section);
    let tls = tls::read(walk, section, protocol);
    let run = run(walk, section);
    let health = health(walk, section);
    let environment = section.variables(walk, "environment");
    let stop = section.parsed(walk, "stop").unwrap_or(STOP);
    ComponentSpec { folder, image, run, protocol, tls, health, environment, stop }
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
    if section.has("image_digest_file") {
        walk.wrong(section.place("run"), "`run` is for a folder: an image says itself what it runs");
        return run;
    }
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

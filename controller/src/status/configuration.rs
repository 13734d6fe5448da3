//! What is frozen into a release, line by line, by the keys under which people wrote it.
//!
//! Must not know: releases. Structs are taken apart whole, so that nothing new is left out unseen.

use std::collections::BTreeMap;

use crate::build::told;
use crate::core::spec::{BuildCheck, BuildSpec, ComponentSpec, HealthSpec, ImageSpec, Protocol, TlsSpec};
use crate::core::state::Release;

/// Keys with their values; what is not set has no line.
pub(crate) fn configuration(release: &Release) -> BTreeMap<String, String> {
    let mut lines = Lines(BTreeMap::new());
    release.build.iter().for_each(|spec| build(&mut lines, spec));
    for (name, spec) in &release.components {
        component(&mut lines, &format!("component.{name}"), spec);
    }
    lines.0
}

struct Lines(BTreeMap<String, String>);

impl Lines {
    fn put(&mut self, key: String, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.0.insert(key, value);
        }
    }

    fn all(&mut self, key: &str, values: &BTreeMap<String, String>) {
        for (name, value) in values {
            // A variable that is set to nothing is set.
            self.0.insert(format!("{key}.{name}"), value.clone());
        }
    }
}

fn build(lines: &mut Lines, spec: &BuildSpec) {
    let BuildSpec { command, timeout, environment, pass, secrets, registry, size_bytes, contain, checks } = spec;
    lines.put("build.command".into(), told(command));
    lines.put("build.timeout".into(), timeout.to_string());
    lines.all("build.environment", environment);
    lines.put("build.pass".into(), pass.join(", "));
    lines.put("build.secrets".into(), secrets.join(", "));
    lines.put("build.registry".into(), if *registry { "true" } else { "" });
    lines.put("build.size".into(), size(*size_bytes));
    lines.put("build.contain".into(), if *contain { "" } else { "false" });
    for BuildCheck { name, command, timeout } in checks {
        lines.put(format!("build.check.{name}.command"), told(command));
        lines.put(format!("build.check.{name}.timeout"), timeout.to_string());
    }
}

fn component(lines: &mut Lines, key: &str, spec: &ComponentSpec) {
    let ComponentSpec { folder, image, run, protocol, tls, health, environment, stop } = spec;
    lines.put(format!("{key}.folder"), folder.as_str());
    if let Some(ImageSpec { digest_file, repository }) = image {
        lines.put(format!("{key}.image_digest_file"), digest_file.as_str());
        lines.put(format!("{key}.image"), repository.as_ref().map(ToString::to_string).unwrap_or_default());
    }
    lines.put(format!("{key}.run"), told(run));
    lines.put(format!("{key}.protocol"), protocol.map(protocol_word).unwrap_or_default());
    if let Some(TlsSpec { ca, name, spiffe }) = tls {
        // A certificate is some thousand characters: which one it is, its digest says.
        let ca = ca.as_ref().map(|pem| api::Digest::of(pem.as_bytes()).to_string());
        for (word, value) in [("ca", &ca), ("name", name), ("spiffe", spiffe)] {
            lines.put(format!("{key}.tls.{word}"), value.as_deref().unwrap_or_default());
        }
    }
    if protocol.is_some() {
        let HealthSpec { http, every, timeout, fall, rise } = health;
        lines.put(format!("{key}.health.http"), http.as_deref().unwrap_or_default());
        lines.put(format!("{key}.health.every"), every.to_string());
        lines.put(format!("{key}.health.timeout"), timeout.to_string());
        lines.put(format!("{key}.health.fall"), fall.to_string());
        lines.put(format!("{key}.health.rise"), rise.to_string());
    }
    lines.all(&format!("{key}.environment"), environment);
    if !run.is_empty() {
        lines.put(format!("{key}.stop"), stop.to_string());
    }
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::H1 => "h1",
        Protocol::H2c => "h2c",
        Protocol::Tls => "tls",
        Protocol::H2 => "h2",
    }
}

/// Bytes as files have them: the largest unit that divides them.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use api::Span;

    use super::*;
    use crate::core::evolve_test::World;

    fn released() -> Release {
        let world = World::with_built_releases(1);
        world.state.release(&"hello@r1".parse().expect("name")).expect("there").clone()
    }

    #[test]
    fn releases_show_their_configuration_by_the_keys_of_the_file() {
        let mut release = released();
        release.build = Some(BuildSpec {
            command: vec!["./build.sh".into(), "two words".into()],
            timeout: Span::from_ms(900_000).expect("a span"),
            environment: BTreeMap::from([("MODE".into(), String::new())]),
            pass: vec!["CARGO_HOME".into()],
            secrets: vec!["NPM_TOKEN".into()],
            registry: true,
            size_bytes: 20 << 30,
            contain: false,
            checks: vec![BuildCheck {
                name: "fits".into(),
                command: vec!["./fit".into()],
                timeout: Span::from_ms(60_000).expect("a span"),
            }],
        });
        let shown = configuration(&release);
        for (key, value) in [
            ("build.command", r#"./build.sh "two words""#),
            ("build.timeout", "15m"),
            ("build.environment.MODE", ""),
            ("build.pass", "CARGO_HOME"),
            ("build.secrets", "NPM_TOKEN"),
            ("build.registry", "true"),
            ("build.size", "20GiB"),
            ("build.contain", "false"),
            ("build.check.fits.command", "./fit"),
            ("component.web.folder", "dist"),
            ("component.web.run", "./hello --port {port}"),
            ("component.web.protocol", "h1"),
            ("component.web.health.http", "/healthz"),
            ("component.web.health.every", "2s"),
        ] {
            assert_eq!(shown.get(key).map(String::as_str), Some(value), "{key} of {shown:#?}");
        }
        assert!(!shown.contains_key("component.web.tls.ca"), "what is not set has no line: {shown:#?}");
    }

    #[test]
    fn sizes_are_shown_as_files_have_them() {
        for (bytes, shown) in [(20 << 30, "20GiB"), (512 << 20, "512MiB"), (3 << 10, "3KiB"), (1_000, "1000"), (0, "0")]
        {
            assert_eq!(size(bytes), shown);
        }
    }
}

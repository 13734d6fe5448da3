//! What `status` and `history` say, without what differs from run to run.

use serde_json::Value;

/// Who serves what: everything in `status` that is decided rather than measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Serving {
    /// Stage, release, role, parts per million, marked bad.
    pub(crate) stages: Vec<(String, u64, String, u64, bool)>,
    /// Release and state.
    pub(crate) releases: Vec<(String, String)>,
}

impl Serving {
    pub(crate) fn read(status: &Value) -> Self {
        let (mut stages, mut releases) = (Vec::new(), Vec::new());
        for service in list(&status["services"]) {
            for stage in list(&service["stages"]) {
                for release in list(&stage["releases"]) {
                    let number = release["release"].as_u64().expect("a number");
                    let weight = release["weight_ppm"].as_u64().expect("a weight");
                    let bad = release["bad"].as_bool().expect("a flag");
                    stages.push((text(&stage["stage"]), number, text(&release["role"]), weight, bad));
                }
            }
            for release in list(&service["releases"]) {
                let name = format!("{}@r{}", text(&service["service"]), release["number"]);
                releases.push((name, text(&release["state"])));
            }
        }
        Self { stages, releases }
    }

    /// Role and parts per million of a release in a stage.
    pub(crate) fn of(&self, stage: &str, release: u64) -> Option<(&str, u64)> {
        let found = self.stages.iter().find(|(name, number, ..)| name == stage && *number == release);
        found.map(|(_, _, role, weight, _)| (role.as_str(), *weight))
    }
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) event: u64,
    pub(crate) at_ms: u64,
    pub(crate) kind: String,
    pub(crate) about: String,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) what: String,
}

impl Happened {
    pub(crate) fn read(history: &Value) -> Vec<Self> {
        let read = |entry: &Value| Self {
            event: entry["event"].as_u64().expect("a number"),
            at_ms: entry["at_ms"].as_u64().expect("a time"),
            kind: text(&entry["kind"]),
            about: text(&entry["about"]),
            by: text(&entry["by"]),
            reason: text(&entry["reason"]),
            what: text(&entry["what"]),
        };
        list(&history["entries"]).iter().map(read).collect()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

//! What is kept of an instance on disk: its record and its log.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use api::agent::{EnvironmentVariable, Instance};
use api::fleet::{EndpointTls, HealthCheck};
use serde::{Deserialize, Serialize};

use crate::artifact::remove_unpacked;
use crate::file;

/// A log is cut at this size; one older part is kept.
const LOG_BYTES: u64 = 10 * 1024 * 1024;
/// Logs of ended instances that are kept.
const ENDED: usize = 50;
/// How much of a log is searched for its last line.
const TAIL_BYTES: u64 = 4 * 1024;

/// What was started, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) spec: Kept,
    pub(crate) port: Option<u16>,
    /// 0: not started, as far as this file knows.
    pub(crate) pid: u32,
    /// Field 22 of /proc/<pid>/stat: tells a process from a later one with the same pid.
    pub(crate) start_time: u64,
    /// The start of the machine in which pid and start time count.
    #[serde(default)]
    pub(crate) boot: String,
    /// Whether it was healthy: an agent that finds it again goes on from there.
    #[serde(default)]
    pub(crate) healthy: bool,
}

/// An instance as it was wanted, in the form of this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    id: String,
    stage: String,
    release: u32,
    component: String,
    digest: String,
    run: Vec<String>,
    environment: Vec<(String, String)>,
    http_path: String,
    every_ms: u32,
    timeout_ms: u32,
    fall: u32,
    rise: u32,
    stop_ms: u32,
    has_port: bool,
    /// Absent in files of agents that knew HTTP/1.1 only.
    #[serde(default)]
    http2: bool,
    /// Authorities and name, when it is asked through TLS. Absent in files of agents that knew none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<(String, String)>,
    /// The one URI that its certificate may name, in place of the name. Absent in files of agents that knew none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    spiffe_id: String,
}

impl Kept {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

impl From<&Instance> for Kept {
    fn from(instance: &Instance) -> Self {
        let health = instance.health.clone().unwrap_or_default();
        Self {
            id: instance.id.clone(),
            stage: instance.stage.clone(),
            release: instance.release,
            component: instance.component.clone(),
            digest: instance.digest.clone(),
            run: instance.run.clone(),
            environment: instance
                .environment
                .iter()
                .map(|variable| (variable.name.clone(), variable.value.clone()))
                .collect(),
            http_path: health.http_path,
            every_ms: health.every_ms,
            timeout_ms: health.timeout_ms,
            fall: health.fall,
            rise: health.rise,
            stop_ms: instance.stop_ms,
            has_port: instance.has_port,
            http2: instance.http2,
            tls: instance.tls.clone().map(|tls| (tls.ca_pem, tls.server_name)),
            spiffe_id: instance.tls.clone().map(|tls| tls.spiffe_id).unwrap_or_default(),
        }
    }
}

impl From<Kept> for Instance {
    fn from(kept: Kept) -> Self {
        let (every_ms, timeout_ms, fall, rise) = (kept.every_ms, kept.timeout_ms, kept.fall, kept.rise);
        let health = HealthCheck { http_path: kept.http_path, every_ms, timeout_ms, fall, rise };
        Self {
            id: kept.id,
            stage: kept.stage,
            release: kept.release,
            component: kept.component,
            digest: kept.digest,
            run: kept.run,
            environment: kept
                .environment
                .into_iter()
                .map(|(name, value)| EnvironmentVariable { name, value })
                .collect(),
            health: Some(health),
            stop_ms: kept.stop_ms,
            has_port: kept.has_port,
            http2: kept.http2,
            tls: kept.tls.map(|(ca_pem, server_name)| EndpointTls { ca_pem, server_name, spiffe_id: kept.spiffe_id }),
        }
    }
}

impl Record {
    pub(super) fn new(instance: &Instance) -> Self {
        Self { spec: instance.into(), port: None, pid: 0, start_time: 0, boot: String::new(), healthy: false }
    }
}

/// Name of an instance's folder: its id is made of names that contain no `_`.
pub(crate) fn folder_name(id: &str) -> String {
    id.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' }).collect()
}

/// The record in an instance's folder; `None` when there is none that can be read.
pub(super) fn load(folder: &Path) -> Option<Record> {
    file::read(&folder.join("instance.json")).unwrap_or_else(|problem| {
        // Its process is still found by its marks, once it is wanted.
        tracing::warn!(%problem, folder = %folder.display(), "an instance's record cannot be read");
        None
    })
}

pub(super) fn save(folder: &Path, record: &Record) -> Result<(), String> {
    let path = folder.join("instance.json");
    file::folder(folder)
        .and_then(|()| file::write(&path, record))
        .map_err(|problem| format!("{}: {problem}", path.display()))
}

/// All instances on record.
pub(crate) fn records(data: &Path) -> Vec<Record> {
    let folders = fs::read_dir(data.join("instances")).into_iter().flatten().flatten();
    folders.filter_map(|folder| load(&folder.path())).collect()
}

/// Removes an instance's folder and keeps its log among those of the last ended ones.
pub(super) fn retire(data: &Path, folder: &Path) {
    let ended = data.join("ended");
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // A log that cannot be kept must not keep the instance.
    let _ = file::folder(&ended);
    let _ = fs::rename(folder.join("log"), ended.join(format!("{name}.log")));
    let _ = remove_unpacked(folder);
    let _ = fs::remove_dir_all(folder);
    let logs = fs::read_dir(&ended).into_iter().flatten().flatten();
    let mut logs: Vec<_> = logs.filter_map(|log| Some((log.metadata().ok()?.modified().ok()?, log.path()))).collect();
    logs.sort();
    for (_, old) in logs.iter().rev().skip(ENDED) {
        let _ = fs::remove_file(old);
    }
}

/// The log that a process appends to.
pub(super) fn log_path(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// Cuts a log that grew too large, keeping a copy. The process appends, so it goes on at the beginning.
pub(super) fn rotate_log(folder: &Path) {
    let path = log_path(folder);
    if path.metadata().is_ok_and(|data| data.len() > LOG_BYTES) {
        let cut = fs::copy(&path, folder.join("log.1"))
            .and_then(|_| fs::OpenOptions::new().write(true).open(&path)?.set_len(0));
        if let Err(problem) = cut {
            tracing::warn!(%problem, log = %path.display(), "a log could not be cut");
        }
    }
}

/// The last line of a log that is not empty, at most 200 characters, control characters escaped.
///
/// What was before `from` belongs to an earlier process; a log that was cut since begins anew.
pub(super) fn last_line(folder: &Path, from: u64) -> Option<String> {
    let mut file = fs::File::open(log_path(folder)).ok()?;
    let length = file.metadata().ok()?.len();
    let from = if from > length { 0 } else { from };
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES).max(from))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(
        line.chars()
            .take(200)
            .flat_map(|letter| if letter.is_control() { letter.escape_default().collect() } else { vec![letter] })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_records_round_trip() {
        let folder = tempfile::tempdir().expect("folder");
        let instance = Instance {
            id: "hello/dev/r1/web".into(),
            environment: vec![EnvironmentVariable { name: "A".into(), value: "b".into() }],
            health: Some(HealthCheck { http_path: "/healthz".into(), every_ms: 1, timeout_ms: 2, fall: 3, rise: 4 }),
            run: vec!["./hello".into()],
            http2: true,
            tls: Some(EndpointTls {
                ca_pem: "ca".into(),
                server_name: "hello.internal".into(),
                spiffe_id: "spiffe://example.com/hello".into(),
            }),
            ..Instance::default()
        };
        let record = Record { port: Some(7), pid: 8, start_time: 9, ..Record::new(&instance) };
        let home = folder.path().join("instances").join(folder_name(&instance.id));
        save(&home, &record).expect("saved");
        assert_eq!(records(folder.path()), std::slice::from_ref(&record));
        assert_eq!(Instance::from(record.spec), instance);
        assert_eq!(folder_name("../x/ä"), "___x__");
    }

    #[test]
    fn hostile_h48_a_log_line_is_escaped() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(log_path(folder.path()), b"first\n\x1b[2Jboo\xff\x00\n\n").expect("written");
        assert_eq!(last_line(folder.path(), 0).as_deref(), Some("\\u{1b}[2Jboo\u{fffd}\\u{0}"));
    }

    #[test]
    fn agent_a_last_line_is_never_that_of_an_earlier_process() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(log_path(folder.path()), b"first\nsecond\n").expect("written");
        for (from, expected) in [(0, Some("second")), (6, Some("second")), (13, None), (99, Some("second"))] {
            assert_eq!(last_line(folder.path(), from).as_deref(), expected, "from {from}");
        }
    }
}

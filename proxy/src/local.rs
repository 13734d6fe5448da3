//! The break-glass socket: what can be done on the proxy's own machine when no controller is there.
//!
//! Must not know: what an override does; it asks `control`. Who may connect is decided by the file's mode, 0600.
//!
//! One line of JSON each way, then the connection closes. Main types: [`LocalRequest`], [`LocalReply`]; [`request`] is
//! the command's side.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{ReleaseNumber, StageName, Version};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::control::{Control, now_ms};
use crate::overrides::Override;
use crate::settings::ProxyError;

/// Longest request and time for it.
const REQUEST_BYTES: u64 = 64 * 1024;
const DEADLINE: Duration = Duration::from_secs(5);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum LocalRequest {
    /// What is served, and which overrides are in force.
    Status,
    /// One release takes the whole stage on this proxy.
    Override {
        /// The stage.
        stage: StageName,
        /// The release; it must have endpoints.
        release: ReleaseNumber,
        /// For how long, in milliseconds.
        for_ms: u64,
        /// Who asks.
        by: String,
        /// Why.
        reason: String,
    },
    /// Ends the override of a stage.
    End {
        /// The stage.
        stage: StageName,
        /// Who asks.
        by: String,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum LocalReply {
    /// To `Status`.
    Status(LocalStatus),
    /// It is done.
    Done {
        /// When the override ends by itself, in milliseconds since the Unix epoch; 0 when one was ended.
        until_ms: u64,
    },
    /// It is not done, or done but not safe on disk: which and why, as a sentence.
    Refused {
        /// The sentence.
        reason: String,
    },
}

/// What a proxy serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalStatus {
    /// Version that is served; `None`: nothing was ever applied.
    pub version: Option<Version>,
    /// Last version that is safe on disk.
    pub saved: Option<Version>,
    /// Why later ones are not; empty: nothing went wrong.
    pub save_problem: String,
    /// All stages by name.
    pub stages: Vec<LocalStage>,
    /// Overrides in force.
    pub overrides: Vec<Override>,
}

/// One stage as this proxy serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalStage {
    /// The stage.
    pub stage: String,
    /// Weights that count now, by release; under an override only that release.
    pub weights: Vec<(ReleaseNumber, u32)>,
    /// All releases that can serve, with how many of their endpoints are healthy, and how many there are.
    pub releases: Vec<(ReleaseNumber, u32, u32)>,
    /// Whether an override is in force.
    pub overridden: bool,
}

/// Why the proxy could not be asked.
#[derive(Debug)]
pub enum LocalError {
    /// No proxy listens there.
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It did not answer, or not in time.
    NoAnswer(std::io::Error),
    /// It answered something else.
    Unexpected(serde_json::Error),
}

impl std::fmt::Display for LocalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotRunning { path, source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                write!(f, "no permission to use {}: only the user that runs the proxy may", path.display())
            }
            Self::NotRunning { path, source } => {
                write!(f, "no proxy answers at {} ({source}): is it running with this data folder?", path.display())
            }
            Self::NoAnswer(source) => write!(f, "the proxy did not answer: {source}"),
            Self::Unexpected(source) => write!(f, "the proxy's answer cannot be read: {source}"),
        }
    }
}

impl std::error::Error for LocalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotRunning { source, .. } | Self::NoAnswer(source) => Some(source),
            Self::Unexpected(source) => Some(source),
        }
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// Asks the proxy that runs with this data folder.
///
/// # Errors
/// None runs, or it does not answer within 5 s.
pub async fn request(data: &Path, request: LocalRequest) -> Result<LocalReply, LocalError> {
    let path = path(data);
    let exchange = async {
        let stream = UnixStream::connect(&path).await.map_err(|source| LocalError::NotRunning { path, source })?;
        let mut line = serde_json::to_vec(&request).map_err(LocalError::Unexpected)?;
        line.push(b'\n');
        let (read, mut write) = stream.into_split();
        write.write_all(&line).await.map_err(LocalError::NoAnswer)?;
        let mut answer = String::new();
        BufReader::new(read).read_line(&mut answer).await.map_err(LocalError::NoAnswer)?;
        serde_json::from_str(&answer).map_err(LocalError::Unexpected)
    };
    match tokio::time::timeout(DEADLINE, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(LocalError::NoAnswer(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Makes the socket, for the owner alone. A socket that a dead proxy left is replaced.
pub(crate) fn bind(data: &Path) -> Result<UnixListener, ProxyError> {
    let (path, new) = (path(data), data.join("control.new"));
    let failed = |source| ProxyError::File { path: path.clone(), source };
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    // Bound under another name, so that nobody can connect before the mode is set.
    let listener = UnixListener::bind(&new).map_err(failed)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&new, &path).map_err(failed)?;
    Ok(listener)
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: UnixListener, control: Arc<Control>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = control.clone();
                tokio::spawn(async move {
                    if let Ok(Err(error)) = tokio::time::timeout(DEADLINE, talk(stream, &control)).await {
                        tracing::debug!(%error, "the local socket");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the local socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn talk(stream: UnixStream, control: &Control) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_BYTES)).read_line(&mut line).await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => answer(control, request).await,
        Err(error) => LocalReply::Refused { reason: format!("the request cannot be read: {error}") },
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    write.write_all(&line).await
}

async fn answer(control: &Control, request: LocalRequest) -> LocalReply {
    let done = |result: Result<(), String>, until_ms| match result {
        Ok(()) => LocalReply::Done { until_ms },
        Err(reason) => LocalReply::Refused { reason },
    };
    match request {
        LocalRequest::Status => LocalReply::Status(status(control)),
        LocalRequest::Override { stage, release, for_ms, by, reason } => {
            let since_ms = now_ms();
            let until_ms = since_ms.saturating_add(for_ms);
            done(control.set_override(Override { stage, release, since_ms, until_ms, by, reason }).await, until_ms)
        }
        LocalRequest::End { stage, by } => done(control.end_override(&stage, &by).await, 0),
    }
}

fn status(control: &Control) -> LocalStatus {
    let snapshot = control.published().load_full();
    let saved = control.saved().borrow().clone();
    let mut stages: Vec<LocalStage> = snapshot
        .stages()
        .map(|stage| {
            let release = |number: u32| ReleaseNumber::new(number);
            let weights = stage
                .weighted
                .iter()
                .filter_map(|(weight, place)| Some((release(stage.backends.get(*place)?.release)?, *weight)));
            let releases = stage.backends.iter().filter_map(|backend| {
                let healthy = backend.endpoints.iter().filter(|endpoint| endpoint.health.is_healthy()).count();
                Some((release(backend.release)?, healthy as u32, backend.endpoints.len() as u32))
            });
            LocalStage {
                stage: stage.text.to_string(),
                weights: weights.collect(),
                releases: releases.collect(),
                overridden: stage.overridden.is_some(),
            }
        })
        .collect();
    stages.sort_by(|a, b| a.stage.cmp(&b.stage));
    LocalStatus {
        version: snapshot.version,
        saved: saved.version,
        save_problem: saved.problem,
        stages,
        overrides: control.overrides(),
    }
}

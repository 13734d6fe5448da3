//! A registry that is not ours, in clear on this machine, whose disk a test can look into.

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use certs::call::Clear;
use certs::endpoint::Authorities;
use registry::{Credentials, Place, Registry, SILENCE, Settings};

use super::super::process::tests::until;

/// Debian's docker-registry; it ends with its test.
pub(super) struct Served {
    folder: tempfile::TempDir,
    process: Child,
    pub(super) host: String,
}

impl Served {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let (process, host) = serve(folder.path(), "127.0.0.1:0").await;
        Self { folder, process, host }
    }

    /// kill -9.
    pub(super) fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// On the same port, with what is on its disk.
    pub(super) async fn start_again(&mut self) {
        self.stop();
        self.process = serve(self.folder.path(), &self.host).await.0;
    }

    pub(super) fn place(&self, repository: &str) -> Place {
        format!("{}/{repository}", self.host).parse().expect("place")
    }

    pub(super) fn registry(&self) -> Registry {
        of(&self.place("shop"))
    }

    /// Digests of all manifests that a repository was ever sent, by its disk.
    pub(super) fn manifests(&self, repository: &str) -> Vec<String> {
        let found = std::fs::read_dir(self.path(repository, "_manifests/revisions/sha256")).into_iter().flatten();
        found.map(|entry| format!("sha256:{}", entry.expect("entry").file_name().to_string_lossy())).collect()
    }

    /// Tags of a repository, by its disk.
    pub(super) fn tags(&self, repository: &str) -> Vec<String> {
        let found = std::fs::read_dir(self.path(repository, "_manifests/tags")).into_iter().flatten();
        let mut found: Vec<_> =
            found.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        found.sort();
        found
    }

    fn path(&self, repository: &str, rest: &str) -> PathBuf {
        self.folder.path().join("data/docker/registry/v2/repositories").join(repository).join(rest)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts one on this address; where it is.
async fn serve(folder: &Path, address: &str) -> (Child, String) {
    let at = |name: &str| folder.join(name);
    let settings = "version: 0.1\nlog: { level: info }\nhttp: { addr: \"ADDRESS\", secret: fixed }\n\
                    storage: { filesystem: { rootdirectory: DATA }, delete: { enabled: true } }\n";
    let settings = settings.replace("ADDRESS", address).replace("DATA", &at("data").display().to_string());
    std::fs::write(at("config.yml"), settings).expect("written");
    let log = std::fs::File::create(at("log")).expect("log");
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(at("config.yml")).stdout(log.try_clone().expect("log")).stderr(log);
    let process = command.spawn().expect("docker-registry (scripts/setup installs it)");
    let mut host = String::new();
    until("it listens", || {
        let text = std::fs::read_to_string(at("log")).unwrap_or_default();
        let rest = text.split_once("listening on ").map(|(_, rest)| rest);
        let rest = rest.and_then(|rest| rest.split_once(['"', ' ', '\n'])).map(|(found, _)| found.to_owned());
        host = rest.unwrap_or_default();
        !host.is_empty()
    })
    .await;
    (process, host)
}

/// A client in clear on this machine.
pub(super) fn of(place: &Place) -> Registry {
    Registry::new(Settings {
        place: place.clone(),
        authorities: Authorities::of_machine(),
        credentials: Credentials::Anonymous,
        uploads: NonZeroU8::MIN,
        clear: Clear::OnLoopback,
        silence: SILENCE,
    })
}

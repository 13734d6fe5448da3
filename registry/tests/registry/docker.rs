//! Debian's docker-registry as a process of its own, and skopeo beside it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::tls::Tls;

/// A running docker-registry.
pub(crate) struct Docker {
    child: Child,
    config: PathBuf,
    pub(crate) port: u16,
    folder: PathBuf,
}

impl Docker {
    /// Starts one whose files are in `folder`. `user`: a name and a password that it asks for.
    pub(crate) fn start(folder: &Path, tls: Option<&Tls>, user: Option<(&str, &str)>) -> Self {
        let storage = folder.join("storage");
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n",
            storage.display()
        );
        if let Some((name, password)) = user {
            let file = folder.join("htpasswd");
            let made = Command::new("htpasswd").args(["-Bbn", name, password]).output().expect("htpasswd");
            std::fs::write(&file, made.stdout).expect("written");
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display()));
        }
        // A secret that stays: sessions live through a restart by it.
        config.push_str("http: {secret: fixed, addr: 127.0.0.1:PORT");
        if let Some(tls) = tls {
            let (certificate, key) = (tls.certificate.display(), tls.key.display());
            config.push_str(&format!(", tls: {{certificate: {certificate}, key: {key}}}"));
        }
        config.push_str("}\n");
        let path = folder.join("registry.yml");
        std::fs::write(&path, config.replace("PORT", "0")).expect("written");
        let (child, port) = run(&path);
        // From now on it comes back where it was.
        std::fs::write(&path, config.replace("PORT", &port.to_string())).expect("written");
        Self { child, config: path, port, folder: storage }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    pub(crate) fn start_again(&mut self) {
        (self.child, self.port) = run(&self.config);
    }

    /// The manifests that a repository has, by its own disk.
    pub(crate) fn revisions(&self, repository: &str) -> Vec<String> {
        let folder = format!("docker/registry/v2/repositories/{repository}/_manifests/revisions/sha256");
        let entries = std::fs::read_dir(self.folder.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| format!("sha256:{}", entry.file_name().to_string_lossy())).collect()
    }

    /// The file of a blob on its disk.
    pub(crate) fn blob(&self, digest: &api::Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(config: &Path) -> (Child, u16) {
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("docker-registry: scripts/setup installs it");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    });
    // It stops when nobody reads what it logs.
    std::thread::spawn(move || lines.for_each(drop));
    (child, port.expect("it listens"))
}

/// Runs skopeo, with a policy that accepts everything; its output.
pub(crate) fn skopeo(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let policy = folder.join("policy.json");
    std::fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).expect("written");
    let mut command = Command::new("skopeo");
    command.arg("--policy").arg(&policy).args(arguments);
    let output = command.output().expect("skopeo: scripts/setup installs it");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

//! A registry that is not ours: Debian's docker-registry with TLS and passwords, and a disk that a test can look into.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;

use super::{Part, free_port, until};

/// Who may read and write.
pub(crate) const USER: &str = "robot";
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A registry that ends with its test.
pub(crate) struct Registry {
    folder: TempDir,
    port: u16,
    process: Option<Part>,
    starts: u32,
}

impl Registry {
    /// Starts one that knows nothing.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pointsman-registry-").tempdir().expect("a folder");
        let mut registry = Self { folder, port: free_port(), process: None, starts: 0 };
        registry.writes_certificates();
        registry.writes_settings();
        registry.starts_again().await;
        registry
    }

    // === Where it is, and who may use it ===

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Who is believed about its certificate, as a folder (`ca.crt` in it).
    pub(crate) fn authorities(&self) -> PathBuf {
        self.path("authorities")
    }

    /// The same as a file, PEM.
    pub(crate) fn authority(&self) -> PathBuf {
        self.path("authorities/ca.crt")
    }

    /// A folder with the `config.json` that docker's tools write when somebody logs in.
    pub(crate) fn login(&self) -> PathBuf {
        let folder = self.path("login");
        fs::create_dir_all(&folder).expect("a folder");
        let auth = base64::prelude::BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let config = serde_json::json!({ "auths": { self.host(): { "auth": auth } } });
        fs::write(folder.join("config.json"), config.to_string()).expect("written");
        folder
    }

    /// A file with the password alone.
    pub(crate) fn password(&self) -> PathBuf {
        let file = self.path("password");
        fs::write(&file, PASSWORD).expect("written");
        file
    }

    // === Its process ===

    /// Starts it on the same port with what it has on its disk.
    pub(crate) async fn starts_again(&mut self) {
        self.starts += 1;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(self.path("config.yml"));
        let log = self.path(&format!("registry-{}.log", self.starts));
        let mut process = Part::start("docker-registry (scripts/setup installs it)", &log, &mut command);
        process.says("listening on").await;
        self.process = Some(process);
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// All requests that it was asked since its last start, one a line.
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().expect("it runs").log()
    }

    // === What is on its disk ===

    /// Digests of all manifests that a repository was ever sent.
    pub(crate) fn manifests(&self, repository: &str) -> BTreeSet<String> {
        let repositories = self.path("data/docker/registry/v2/repositories");
        let revisions = repositories.join(repository).join("_manifests/revisions/sha256");
        let found = fs::read_dir(revisions).into_iter().flatten().flatten();
        found.map(|entry| format!("sha256:{}", entry.file_name().to_string_lossy())).collect()
    }

    /// Names of all repositories, below any number of folders.
    pub(crate) fn repositories(&self) -> BTreeSet<String> {
        let (root, mut found) = (self.path("data/docker/registry/v2/repositories"), BTreeSet::new());
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.file_name().to_str() {
                    Some("_manifests") => {
                        let name = folder.strip_prefix(&root).expect("below it").to_string_lossy();
                        found.insert(name.into_owned());
                    }
                    Some(name) if !name.starts_with('_') => folders.push(entry.path()),
                    _ => {}
                }
            }
        }
        found
    }

    /// Where the bytes of a blob are.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        self.path(&format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// What skopeo, which is not ours either, says about an image; `arguments` come before its reference.
    pub(crate) async fn skopeo(&self, arguments: &[&str], reference: &str) -> String {
        let mut command = tokio::process::Command::new("skopeo");
        command.args(arguments);
        if arguments.first() != Some(&"copy") {
            command.arg("--cert-dir").arg(self.authorities());
        }
        command.arg("--authfile").arg(self.login().join("config.json"));
        command.arg(format!("docker://{}/{reference}", self.host())).kill_on_drop(true);
        let output = tokio::time::timeout(super::PATIENCE, command.output()).await.expect("it ends");
        let output = output.expect("skopeo is installed (scripts/setup)");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "skopeo {arguments:?} {reference}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Has skopeo copy an image under another name.
    pub(crate) async fn copies(&self, from: &str, to: &str) {
        let certs = self.authorities().display().to_string();
        let source = format!("docker://{}/{from}", self.host());
        self.skopeo(&["copy", "--src-cert-dir", &certs, "--dest-cert-dir", &certs, &source], to).await;
    }

    /// Waits until a repository has so many manifests.
    pub(crate) async fn has(&self, repository: &str, manifests: usize) -> BTreeSet<String> {
        let what = format!("the registry has {manifests} manifests of {repository}");
        until(&what, async || Some(self.manifests(repository)).filter(|found| found.len() == manifests)).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn writes_certificates(&self) {
        let own_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&own_key).expect("signed").pem();
        let issuer = Issuer::new(params, own_key);
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        let certificate = params.signed_by(&key, &issuer).expect("signed").pem();
        fs::create_dir(self.authorities()).expect("a folder");
        for (path, text) in [
            (self.authority(), authority),
            (self.path("cert.pem"), certificate),
            (self.path("key.pem"), key.serialize_pem()),
        ] {
            fs::write(path, text).expect("written");
        }
    }

    fn writes_settings(&self) {
        let people = Command::new("htpasswd").args(["-Bbn", USER, PASSWORD]).output();
        let people = people.expect("htpasswd is installed (scripts/setup)").stdout;
        fs::write(self.path("people"), people).expect("written");
        let text = |path: PathBuf| path.display().to_string();
        // The secret stays, so that an upload goes on after a start.
        let settings = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: false }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {data} }}, delete: {{ enabled: true }} }}\n\
             http: {{ addr: \"{host}\", secret: stays, tls: {{ certificate: {certificate}, key: {key} }} }}\n\
             auth: {{ htpasswd: {{ realm: tests, path: {people} }} }}\n",
            data = text(self.path("data")),
            host = self.host(),
            certificate = text(self.path("cert.pem")),
            key = text(self.path("key.pem")),
            people = text(self.path("people")),
        );
        fs::write(self.path("config.yml"), settings).expect("written");
    }
}

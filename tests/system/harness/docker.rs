//! A docker of the test's own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Part;

/// A docker that ends with its test.
pub(crate) struct Docker {
    folder: TempDir,
    process: Option<Part>,
}

impl Docker {
    /// Starts Debian's dockerd without networks, which it would need rules of the machine's firewall for.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pointsman-docker-").tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut command = Command::new("dockerd");
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
        command.args(["--storage-driver=vfs", "--data-root", &at("data"), "--exec-root", &at("exec")]);
        command.args(["--pidfile", &at("pid"), "--host", &format!("unix://{}", at("socket"))]);
        command.args(["--config-file", &at("daemon.json")]);
        fs::write(at("daemon.json"), "{}").expect("written");
        let mut process =
            Part::start("dockerd (scripts/setup installs it)", &folder.path().join("docker.log"), &mut command);
        process.says("API listen on").await;
        Self { folder, process: Some(process) }
    }

    /// What a build is given to use it.
    pub(crate) fn variables(&self) -> [(&'static str, String); 1] {
        [("DOCKER_HOST", format!("unix://{}", self.folder.path().join("socket").display()))]
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It ends containerd and takes its mounts away; killed, it could not.
            process.signal(rustix::process::Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(20);
            while process.runs() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        unmount(self.folder.path());
    }
}

/// Takes away what is mounted below a folder that is about to be removed, the deepest first.
fn unmount(folder: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let mut below: Vec<_> = places.filter(|place| place.starts_with(folder)).collect();
    below.sort();
    for place in below.into_iter().rev() {
        let _ = Command::new("umount").arg("--lazy").arg(place).status(); // What stays is the machine's to clear.
    }
}

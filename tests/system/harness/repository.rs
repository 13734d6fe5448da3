//! A tiny git repository with a service that a shell script builds and Python runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Answers every request with its release and its process id.
const SERVER: &str = r#"#!/usr/bin/env python3
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RELEASE = os.environ["POINTSMAN_RELEASE"]

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        head = "HTTP/1.1 200 OK\r\nx-release: %s\r\nx-pid: %d\r\ncontent-length: %d\r\n\r\n"
        self.wfile.write((head % (RELEASE, os.getpid(), len(RELEASE)) + RELEASE).encode())

    def log_message(self, *arguments):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

const BUILD: &str = "#!/bin/sh\nset -eu\necho \"building $POINTSMAN_RELEASE\"\nmkdir -p dist\ncp server.py dist/\n";

/// A repository on this machine.
pub(crate) struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// Makes it, with one commit.
    pub(crate) fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("a folder");
        let repository = Self { folder };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.write("server.py", SERVER);
        repository.write("build.sh", BUILD);
        repository.write("pointsman.toml", &repository.service());
        repository.commit("the first");
        repository
    }

    /// Its pointsman.toml, with the one stage `production`.
    pub(crate) fn service(&self) -> String {
        self.service_at(&self.folder.display().to_string())
    }

    /// The same, fetched from elsewhere.
    pub(crate) fn service_at(&self, address: &str) -> String {
        format!(
            r#"schema = 1
service = "hello"
source = {{ repository = "{address}" }}
[build]
command = ["./build.sh"]
timeout = "1m"
[component.web]
folder = "dist"
run = ["./server.py", "{{port}}"]
protocol = "h1"
health = {{ http = "/healthz", every = "500ms" }}
stop = "2s"
[stage.production]
public = true
"#
        )
    }

    /// Writes an executable file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    }

    /// Commits all there is; the commit's hash.
    pub(crate) fn commit(&self, subject: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", subject]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Runs git in it; what it says.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.arg("-C").arg::<&Path>(&self.folder).args([
            "-c",
            "user.name=test",
            "-c",
            "user.email=test@example.com",
        ]);
        command.args(["-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]).args(arguments);
        let output = command.output().expect("git is installed");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

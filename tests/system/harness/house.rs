//! A controller with its proxies and agents in one folder, all of which end with the test.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::command::{self, PROGRAM, Said};
use super::port::{free_port, free_range};
use super::{Clock, Happened, Operator, Part, Repository, Serving, Upstream, until};

/// The stage that most stories are about, and the host that reaches it.
pub(crate) const STAGE: &str = "hello/production";
pub(crate) const HOST: &str = "hello.production.localhost";

/// A service whose releases run elsewhere, and the place for it.
const ENVIRONMENT: &str = r#"schema = 1
environment = "production"
zone = "production.localhost"
target = { kind = "static" }
"#;
pub(crate) const SERVICE: &str = r#"schema = 1
service = "hello"
[component.web]
folder = "dist"
protocol = "h1"
health = { every = "1s" }
[stage.production]
public = true
"#;

/// All processes of a test and their folder.
pub(crate) struct House {
    folder: TempDir,
    controller: Option<Part>,
    controller_port: u16,
    /// Proxies and agents that run.
    parts: BTreeMap<String, Part>,
    /// How each is started.
    known: BTreeMap<String, Vec<String>>,
    /// Variables that proxies and agents are started with.
    given: Vec<(String, String)>,
    /// Variables that everything is started with.
    everywhere: Vec<(String, String)>,
    /// So that every start has a log of its own.
    starts: u32,
}

/// Where a proxy serves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proxy {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
}

impl House {
    /// A folder without any process.
    pub(crate) fn empty() -> Self {
        certs::install_provider();
        let folder = tempfile::Builder::new().prefix("pointsman-system-").tempdir().expect("a folder");
        let controller_port = free_port();
        let (parts, known, given, everywhere) = Default::default();
        Self { folder, controller: None, controller_port, parts, known, given, everywhere, starts: 0 }
    }

    /// A controller that knows nothing yet.
    pub(crate) async fn with_controller() -> Self {
        let mut house = Self::empty();
        house.start_controller(&[]).await;
        house
    }

    /// A controller that knows the service `hello` and its static environment `production`.
    pub(crate) async fn with_hello() -> Self {
        let house = Self::with_controller().await;
        house.learns_hello().await;
        house
    }

    /// Has the controller know the service `hello` and its static environment `production`.
    pub(crate) async fn learns_hello(&self) {
        self.apply(&[("production.toml", ENVIRONMENT), ("pointsman.toml", SERVICE)]).await;
    }

    /// All processes from now on, commands as well, live by this clock.
    pub(crate) fn live_by(&mut self, clock: &Clock) {
        self.everywhere = clock.variables();
    }

    /// Starts everything from now on with a variable, the controller and commands as well.
    pub(crate) fn give_all(&mut self, name: &str, value: &str) {
        self.everywhere.push((name.to_owned(), value.to_owned()));
    }

    // === Folders and files ===

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.path("controller/operator.toml")
    }

    /// The certificate that clients trust.
    pub(crate) fn authority(&self) -> String {
        fs::read_to_string(self.path("controller/development-ca.pem")).expect("the controller wrote it")
    }

    /// Writes files and applies them together.
    pub(crate) async fn apply(&self, files: &[(&str, &str)]) {
        let mut arguments = vec!["apply"];
        for (name, text) in files {
            fs::write(self.path(name), text).expect("written");
            arguments.extend(["-f", name]);
        }
        self.run(&arguments).await.ends(0);
    }

    /// Lets anybody ask a release by its own host: that a stage is public does not say so.
    pub(crate) async fn shows_releases(&self) {
        fs::write(self.path("releases.cedar"), "permit (principal, action == Action::\"use\", resource);")
            .expect("written");
        self.apply(&[("access.toml", "schema = 1\npolicies = [\"releases.cedar\"]\n")]).await;
    }

    // === The command ===

    /// Runs the command as the first operator.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Said {
        command::run(Some(&self.context()), self.folder.path(), &self.everywhere, arguments).await
    }

    /// Runs the command with another operator file.
    pub(crate) async fn run_as(&self, context: &Path, arguments: &[&str]) -> Said {
        command::run(Some(context), self.folder.path(), &self.everywhere, arguments).await
    }

    /// Runs the command without any context.
    pub(crate) async fn run_bare(&self, arguments: &[&str]) -> Said {
        command::run(None, self.folder.path(), &self.everywhere, arguments).await
    }

    /// The result of a command for programs; it must end with 0.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[&["-o", "json"], arguments].concat()).await.ends(0).json()
    }

    /// An operator file with a token of this scope.
    pub(crate) async fn operator_with(&self, name: &str, scope: &[&str]) -> PathBuf {
        let reply = self.json(&[&["token", "create", name], scope].concat()).await;
        let token = reply["token"].as_str().expect("a token").to_owned();
        let mut table: toml::Table = fs::read_to_string(self.context()).expect("a file").parse().expect("TOML");
        table.insert("token".into(), token.into());
        let path = self.path(&format!("{name}.toml"));
        fs::write(&path, table.to_string()).expect("written");
        path
    }

    /// A connection with the first operator's token.
    pub(crate) fn operator(&self) -> Operator {
        Operator::new(&self.context())
    }

    /// What serves, without what changes from second to second.
    pub(crate) async fn serving(&self) -> Serving {
        Serving::read(&self.json(&["status"]).await)
    }

    /// All that happened.
    pub(crate) async fn history(&self) -> Vec<Happened> {
        Happened::read(&self.json(&["history", "-n", "0"]).await)
    }

    // === The controller ===

    pub(crate) fn controller_address(&self) -> String {
        format!("127.0.0.1:{}", self.controller_port)
    }

    /// Starts the controller, again on the same port.
    pub(crate) async fn start_controller(&mut self, more: &[&str]) {
        let mut part = self.launch_controller(more);
        part.says("log in with").await;
        self.controller = Some(part);
    }

    /// Starts the controller without waiting for it.
    pub(crate) fn launch_controller(&mut self, more: &[&str]) -> Part {
        let mut command = Command::new(PROGRAM);
        command.args(["controller", "--listen", &self.controller_address(), "--data"]).arg(self.path("controller"));
        command.args(more);
        command.envs(self.everywhere.iter().cloned());
        self.launch("controller", command)
    }

    pub(crate) fn controller(&mut self) -> &mut Part {
        self.controller.as_mut().expect("the controller runs")
    }

    /// kill -9.
    pub(crate) fn kill_controller(&mut self) {
        self.controller.take().expect("the controller runs").kill();
    }

    /// SIGTERM, and it ends well.
    pub(crate) async fn stop_controller(&mut self) {
        assert_eq!(self.controller.take().expect("the controller runs").stop().await, Some(0));
    }

    /// r2 runs on the agent a1 and serves all of hello/production; r1 has left and would have to start.
    pub(crate) async fn with_a_cold_release() -> Self {
        let mut house = Self::with_controller().await;
        let repository = Repository::new(house.path("hello"));
        let environment = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\nkeep_warm = \"1s\"\n\
                           target = { kind = \"agent\", group = \"prod\" }\n";
        house.apply(&[("production.toml", environment), ("pointsman.toml", &repository.service())]).await;
        house.agent("a1", "prod").await;
        for release in ["hello@r1", "hello@r2"] {
            repository.commit(release);
            house.run(&["release", "build", "hello"]).await.ends(0);
            house.run(&["promote", release, "--to", "production"]).await.ends(0);
        }
        until("r1 has left", async || house.serving().await.of(STAGE, 1).is_none().then_some(())).await;
        house
    }

    /// Waits for a controller with a fault to abort, and starts it without.
    pub(crate) async fn revive_controller(&mut self) {
        use std::os::unix::process::ExitStatusExt;
        let status = self.controller().ended().await;
        assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{status:?}");
        self.controller = None;
        self.start_controller(&[]).await;
    }

    // === Proxies and agents ===

    /// A one-time token.
    pub(crate) async fn invite(&self, arguments: &[&str]) -> String {
        let reply = self.json(&[&["join"], arguments].concat()).await;
        reply["token"].as_str().expect("a token").to_owned()
    }

    /// Has a proxy join, starts it and waits until it serves.
    pub(crate) async fn proxy(&mut self, name: &str, workers: u16) -> Proxy {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        self.proxy_at(name, workers, Proxy { http: address(), https: address() }).await
    }

    /// The same at addresses that somebody else knows.
    pub(crate) async fn proxy_at(&mut self, name: &str, workers: u16, proxy: Proxy) -> Proxy {
        let token = self.invite(&["proxy", "--name", name]).await;
        let (http, https, workers) = (proxy.http.to_string(), proxy.https.to_string(), workers.to_string());
        let line = ["proxy", "--http", &http, "--https", &https, "--admin", "127.0.0.1:0", "--workers", &workers];
        self.known.insert(name.to_owned(), line.map(str::to_owned).to_vec());
        self.start_with(name, Some(&token)).await;
        self.follows(name).await;
        proxy
    }

    /// Has an agent join and starts it.
    pub(crate) async fn agent(&mut self, name: &str, group: &str) {
        let token = self.invite(&["agent", "--name", name, "--group", group]).await;
        let line = ["agent", "--ports", &free_range()].map(str::to_owned).to_vec();
        self.known.insert(name.to_owned(), line);
        self.start_with(name, Some(&token)).await;
    }

    /// Starts every proxy and agent from now on with a variable.
    pub(crate) fn give(&mut self, name: &str, value: &str) {
        self.given.push((name.to_owned(), value.to_owned()));
    }

    /// Starts every proxy and agent from now on with a clock.
    pub(crate) fn give_clock(&mut self, clock: &Clock) {
        self.given.extend(clock.variables());
    }

    /// Starts a proxy or agent again, as it was started first.
    pub(crate) async fn start(&mut self, name: &str) {
        self.start_with(name, None).await;
    }

    async fn start_with(&mut self, name: &str, token: Option<&str>) {
        let line = self.known.get(name).expect("it joined").clone();
        let mut command = Command::new(PROGRAM);
        command.args(&line).arg("--data").arg(self.path(name)).env_remove("POINTSMAN_JOIN");
        command.envs(self.everywhere.iter().chain(&self.given).cloned());
        if let Some(token) = token {
            command.env("POINTSMAN_JOIN", token);
        }
        let mut part = self.launch(name, command);
        part.says(&format!("{} {name}: ", line[0])).await;
        self.parts.insert(name.to_owned(), part);
    }

    pub(crate) fn part(&mut self, name: &str) -> &mut Part {
        self.parts.get_mut(name).expect("it runs")
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, name: &str) {
        self.parts.remove(name).expect("it runs").kill();
    }

    /// SIGTERM, and it ends well.
    pub(crate) async fn stop(&mut self, name: &str) {
        assert_eq!(self.parts.remove(name).expect("it runs").stop().await, Some(0));
    }

    /// Waits until the controller says that a proxy has its newest version.
    pub(crate) async fn follows(&self, name: &str) {
        until(&format!("{name} is active"), async || {
            let fleet = self.json(&["fleet", "list"]).await;
            let members = fleet["members"].as_array()?.clone();
            let member = members.into_iter().find(|member| member["name"] == name)?;
            (member["state"] == "active" && member["connected"] == true).then_some(())
        })
        .await;
    }

    fn launch(&mut self, name: &str, mut command: Command) -> Part {
        self.starts += 1;
        let log = self.path(&format!("{:02}-{name}.log", self.starts));
        Part::start(name, &log, command.current_dir(self.folder.path()))
    }

    // === Releases ===

    /// Adds a release that an upstream serves.
    pub(crate) async fn release(&self, upstream: &Upstream) -> String {
        let address = format!("web={}", upstream.address);
        let arguments = ["release", "add", "hello", "--version", &upstream.name, "--address", &address];
        let release = self.json(&arguments).await;
        format!("hello@r{}", release["number"])
    }

    /// Upstreams `r1` and `r2` as releases; the first has all of the stage.
    pub(crate) async fn two_releases(&self) -> (Upstream, Upstream) {
        let (r1, r2) = (Upstream::start("r1").await, Upstream::start("r2").await);
        assert_eq!(self.release(&r1).await, "hello@r1");
        assert_eq!(self.release(&r2).await, "hello@r2");
        self.run(&["promote", "hello@r1", "--to", "production"]).await.ends(0);
        (r1, r2)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        drop(self.controller.take());
        self.parts.clear();
        // What agents started lives on without them; it carries the agent's folder in its environment.
        end_all_of(self.folder.path());
        // What agents unpacked is read-only, which would keep the folder.
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.folder.path()).status();
    }
}

/// Ends every process that has a path below this folder in its environment.
fn end_all_of(folder: &Path) {
    for pid in running_in(folder) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Processes with a path below this folder in their environment or on their command line.
pub(crate) fn running_in(folder: &Path) -> Vec<rustix::process::Pid> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let holds = |path: PathBuf| {
        let text = fs::read(path).unwrap_or_default();
        text.windows(needle.len()).any(|part| part == needle)
    };
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
    let ours = pids.filter(|pid| ["environ", "cmdline"].iter().any(|file| holds(format!("/proc/{pid}/{file}").into())));
    ours.filter_map(rustix::process::Pid::from_raw).collect()
}

//! What the tests run against: a stand-in for the controller, agents in folders of their own, and a small release.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use api::agent::agent_message::Kind as Up;
use api::agent::agents_server::{Agents, AgentsServer};
use api::agent::controller_message::Kind as Down;
use api::agent::instance_status::State;
use api::agent::{
    AgentMessage, Chunk, ControllerMessage, Desired, EnvironmentVariable, FetchRequest, Instance, InstanceStatus,
    Report,
};
use api::fleet::joining_server::{Joining, JoiningServer};
use api::fleet::{HealthCheck, JoinReply, JoinRequest};
use api::{Digest, JoinToken};
use certs::fleet::{FleetCa, Identity, Role};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Longest wait for something that must happen; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Counts homes, to tell their ports apart.
static NEXT: AtomicU16 = AtomicU16::new(0);
const SECRET: &str = "sssssssssssssssssssssssssssssssssssssssssss";

/// A release that serves `GET` with 200, ends with status 7 on `/crash`, and can be made difficult by its arguments.
const SERVICE: &str = r#"#!/usr/bin/perl
use strict; use IO::Socket::INET;
my ($port, $how) = @ARGV;
$SIG{TERM} = 'IGNORE' if $how eq 'stubborn';
if ($how eq 'slow') { $SIG{TERM} = sub { sleep 1; open(my $f, '>', $ENV{DONE}); exit } }
if ($how eq 'family') {
    # A helper that finishes its work after SIGTERM, one that never ends by itself, one that leaves the group.
    if (!fork) { $SIG{TERM} = sub { select(undef, undef, undef, 0.3); open(my $f, '>', $ENV{DONE}); exit }; sleep 1 while 1 }
    if (!fork) { $SIG{TERM} = 'IGNORE'; sleep 1 while 1 }
    if (!fork) { exec 'setsid', 'sleep', '1000' }
}
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 64, ReuseAddr => 1)
    or die "cannot listen: $!\n";
while (my $client = $listener->accept) {
    my $line = <$client>;
    while (my $header = <$client>) { last if $header =~ /^\r?\n$/ }
    if ($line =~ m{^GET /crash }) { print STDERR "asked to \e[31mcrash\n"; exit 7 }
    my $body = join('', map { "$_=$ENV{$_}\n" } sort keys %ENV);
    print $client "HTTP/1.1 200 OK\r\ncontent-length: " . length($body) . "\r\nconnection: close\r\n\r\n$body";
    close $client;
}
"#;

/// Stands for the controller: certifies agents, says what should run, serves blobs (and spoils them when told to).
#[derive(Clone)]
pub(crate) struct Controller {
    shared: Arc<Shared>,
    token: JoinToken,
    serving: Arc<Serving>,
}

/// A runtime of its own: when it ends, connections end with it, as those of a process do.
struct Serving(Mutex<Option<tokio::runtime::Runtime>>);

impl Serving {
    fn end(&self) {
        if let Some(runtime) = self.0.lock().expect("lock").take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}

struct Shared {
    ca: FleetCa,
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    fetched: Mutex<Vec<FetchRequest>>,
    /// Flip a byte of every layer or manifest.
    flip_layer: AtomicBool,
    flip_manifest: AtomicBool,
    /// Cut the next fetch of a layer after so many bytes; 0: do not.
    cut: AtomicUsize,
    /// Everything that was ever wanted; a connection gets the last and then each that follows.
    desired: watch::Sender<Vec<Desired>>,
    reports: watch::Sender<Vec<Report>>,
    _folder: tempfile::TempDir,
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl Joining for Service {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let (name, request) = ("a1".parse().expect("name"), request.into_inner());
        let certificate = self.0.ca.sign(&request.csr_der, Role::Agent, &name, SystemTime::now()).expect("signed");
        Ok(Response::new(JoinReply {
            name: "a1".into(),
            role: "agent".into(),
            certificate_der: certificate,
            ca_der: self.0.ca.certificate_der().to_vec(),
        }))
    }
}

#[tonic::async_trait]
impl Agents for Service {
    type ConnectStream = ReceiverStream<Result<ControllerMessage, Status>>;
    type FetchStream = ReceiverStream<Result<Chunk, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        assert!(request.peer_certs().is_some_and(|certificates| !certificates.is_empty()), "mutual TLS");
        let (shared, mut up, (sender, receiver)) = (self.0.clone(), request.into_inner(), mpsc::channel(16));
        let mut desired = shared.desired.subscribe();
        desired.mark_changed();
        let mut told = desired.borrow().len().saturating_sub(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = up.message() => match message {
                        Ok(Some(AgentMessage { kind: Some(Up::Report(report)) })) => {
                            shared.reports.send_modify(|reports| reports.push(report));
                        }
                        Ok(Some(_)) => {}
                        _ => break,
                    },
                    _ = desired.changed() => {
                        let news = desired.borrow_and_update()[told..].to_vec();
                        told += news.len();
                        for one in news {
                            let _ = sender.send(Ok(ControllerMessage { kind: Some(Down::Desired(one)) })).await;
                        }
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        self.0.fetched.lock().expect("lock").push(request.clone());
        let blob = self.0.blobs.lock().expect("lock").get(&request.digest).cloned();
        let mut blob = blob.ok_or_else(|| Status::not_found("no such blob"))?;
        let is_layer = blob.first() != Some(&b'{');
        let flip = if is_layer { &self.0.flip_layer } else { &self.0.flip_manifest };
        if flip.load(SeqCst) {
            let middle = blob.len() / 2;
            blob[middle] ^= 1;
        }
        let rest = blob.split_off(usize::try_from(request.offset).expect("small").min(blob.len()));
        let cut = if is_layer { self.0.cut.swap(0, SeqCst) } else { 0 };
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut sent = 0;
            for piece in rest.chunks(1_000) {
                if cut > 0 && sent >= cut {
                    let _ = sender.send(Err(Status::unavailable("the wire was cut"))).await;
                    return;
                }
                let _ = sender.send(Ok(Chunk { data: piece.to_vec() })).await;
                sent += piece.len();
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Controller {
    pub(crate) async fn start() -> Self {
        certs::install_provider();
        let folder = tempfile::tempdir().expect("folder");
        let ca = FleetCa::open_or_create(folder.path()).expect("authority");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        listener.set_nonblocking(true).expect("socket");
        let controller = listener.local_addr().expect("address").to_string();
        let token = JoinToken { controller, ca: ca.fingerprint(), secret: SECRET.into() };
        let shared = Shared {
            ca,
            blobs: Mutex::default(),
            fetched: Mutex::default(),
            flip_layer: AtomicBool::new(false),
            flip_manifest: AtomicBool::new(false),
            cut: AtomicUsize::new(0),
            desired: watch::Sender::new(vec![Desired::default()]),
            reports: watch::Sender::new(Vec::new()),
            _folder: folder,
        };
        let shared = Arc::new(shared);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("runtime");
        runtime.spawn(serve(shared.clone(), listener));
        Self { shared, token, serving: Arc::new(Serving(Mutex::new(Some(runtime)))) }
    }

    /// As after `kill -9`: nothing listens and nothing answers any more.
    pub(crate) fn kill(&self) {
        self.serving.end();
    }

    /// Packs the service as the controller would and returns the manifest's digest.
    pub(crate) fn publish(&self) -> String {
        self.publish_file("serve", SERVICE)
    }

    /// Another release of the same service.
    pub(crate) fn publish_another(&self) -> String {
        self.publish_file("serve", &format!("{SERVICE}# another release\n"))
    }

    /// An artifact of one file, whose name is written as it is, unchecked.
    pub(crate) fn publish_file(&self, name: &str, content: &str) -> String {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        let mut tar = tar::Builder::new(gzip);
        tar.append(&header, content.as_bytes()).expect("packed");
        let layer = tar.into_inner().and_then(flate2::write::GzEncoder::finish).expect("packed");
        let digest = self.keep(layer.clone());
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.pointsman.component.v1",
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": layer.len(),
            }],
        });
        self.keep(manifest.to_string().into_bytes())
    }

    /// The service in parts, as the controller packs what is large.
    pub(crate) fn publish_parts(&self) -> String {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(SERVICE.len() as u64);
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header, "serve", SERVICE.as_bytes()).expect("packed");
        let archive = tar.into_inner().expect("packed");
        let pieces: Vec<&[u8]> = archive.chunks(1_000).collect();
        let part = |(place, piece): (usize, &&[u8])| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut gzip, piece).expect("packed");
            let part = gzip.finish().expect("packed");
            serde_json::json!({
                "mediaType": "application/vnd.pointsman.part.v1.tar+gzip", "size": part.len(),
                "digest": self.keep(part),
                "annotations": { "vnd.pointsman.part": format!("{}/{}", place + 1, pieces.len()) },
            })
        };
        let parts: Vec<_> = pieces.iter().enumerate().map(part).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.pointsman.component.v1",
            "layers": parts,
        });
        self.keep(manifest.to_string().into_bytes())
    }

    fn keep(&self, blob: Vec<u8>) -> String {
        let digest = Digest::of(&blob).to_string();
        self.shared.blobs.lock().expect("lock").insert(digest.clone(), blob);
        digest
    }

    pub(crate) fn flip_layer(&self, flip: bool) {
        self.shared.flip_layer.store(flip, SeqCst);
    }

    pub(crate) fn flip_manifest(&self, flip: bool) {
        self.shared.flip_manifest.store(flip, SeqCst);
    }

    pub(crate) fn cut_after(&self, bytes: usize) {
        self.shared.cut.store(bytes, SeqCst);
    }

    /// How many blobs were asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.shared.fetched.lock().expect("lock").len()
    }

    /// Offsets at which blobs other than `manifest` were asked for.
    pub(crate) fn layer_offsets(&self, manifest: &str) -> Vec<u64> {
        let fetched = self.shared.fetched.lock().expect("lock");
        fetched.iter().filter(|request| request.digest != manifest).map(|request| request.offset).collect()
    }

    /// Wants exactly these from now on and returns the generation.
    pub(crate) fn desire(&self, instances: Vec<Instance>) -> u64 {
        let mut generation = 0;
        self.shared.desired.send_modify(|desired| {
            generation = desired.len() as u64;
            desired.push(Desired { generation, instances });
        });
        generation
    }

    /// Forgets earlier reports.
    pub(crate) fn forget(&self) {
        self.shared.reports.send_modify(Vec::clear);
    }

    pub(crate) fn reports(&self) -> Vec<Report> {
        self.shared.reports.borrow().clone()
    }

    /// Waits until the newest report is as wanted, answers with its only instance.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&InstanceStatus) -> bool) -> InstanceStatus {
        let report = self.until_report(what, |report| report.instances.first().is_some_and(&wanted)).await;
        report.instances[0].clone()
    }

    pub(crate) async fn until_healthy(&self) -> InstanceStatus {
        self.until("healthy", |status| status.state() == State::Healthy).await
    }

    pub(crate) async fn until_report(&self, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        let mut reports = self.shared.reports.subscribe();
        let found =
            async { reports.wait_for(|all| all.last().is_some_and(&wanted)).await.expect("open").last().cloned() };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("never {what}: {:?}", self.reports().last())).expect("there is one")
    }
}

async fn serve(shared: Arc<Shared>, listener: std::net::TcpListener) {
    let listener = TcpListener::from_std(listener).expect("listener");
    let acceptor = tokio_rustls::TlsAcceptor::from(shared.ca.server_config(&[]).expect("config"));
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(tls) = acceptor.accept(tcp).await {
                let _ = sender.send(Ok::<_, std::io::Error>(tls)).await;
            }
        }
    });
    let services = tonic::transport::Server::builder()
        .add_service(JoiningServer::new(Service(shared.clone())))
        .add_service(AgentsServer::new(Service(shared)));
    services.serve_with_incoming(ReceiverStream::new(receiver)).await.expect("served");
}

/// An agent's folder, which outlives the agents that run in it.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    controller: Controller,
    ports: std::ops::RangeInclusive<u16>,
}

/// A running agent.
pub(crate) struct Agent {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), pointsman_agent::AgentError>>,
}

impl Home {
    pub(crate) async fn new(controller: &Controller) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        certs::fleet::join(&controller.token, folder.path(), "test").await.expect("joined");
        // Ports of its own: agents of other tests that look whether one is free would be in the way.
        let block = std::process::id() % 40 * 250 + u32::from(NEXT.fetch_add(1, SeqCst) % 50) * 5;
        let first = 20_000 + u16::try_from(block).expect("below 10,000");
        Self { folder, controller: controller.clone(), ports: first..=first + 4 }
    }

    pub(crate) fn agent(&self) -> Agent {
        self.agent_with(false)
    }

    pub(crate) fn agent_with(&self, end_releases: bool) -> Agent {
        let settings = pointsman_agent::Settings {
            data: self.data(),
            address: "127.0.0.1".parse().expect("address"),
            ports: self.ports.clone(),
            end_releases,
            software: "test".into(),
        };
        let identity = Identity::load(self.folder.path()).expect("readable").expect("joined");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let run = Box::pin(pointsman_agent::run(settings, identity, async { stopped.await.unwrap_or(()) }));
            run.await
        });
        Agent { stop: Some(stop), task }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A file of one instance.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.data().join("instances/hello_dev_r1_web").join(name)
    }

    /// Pids of everything that agents in this folder started and that has not ended.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mark = format!("POINTSMAN_AGENT_DATA={}", self.data().display());
        let pids = std::fs::read_dir("/proc").expect("proc").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let marked = |pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        pids.filter(marked).collect()
    }

    /// One instance of the published service.
    pub(crate) fn instance(&self, digest: &str, how: &str) -> Instance {
        let health = HealthCheck { http_path: "/".into(), every_ms: 200, timeout_ms: 2_000, fall: 3, rise: 1 };
        let done = self.folder.path().join("done").display().to_string();
        Instance {
            id: "hello/dev/r1/web".into(),
            stage: "hello/dev".into(),
            release: 1,
            component: "web".into(),
            digest: digest.into(),
            run: vec!["./serve".into(), "{port}".into(), how.into()],
            environment: vec![EnvironmentVariable { name: "DONE".into(), value: done }],
            health: Some(health),
            stop_ms: 2_000,
            has_port: true,
            http2: false,
            tls: None,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.folder.path().join("done").exists()
    }

    pub(crate) fn controller(&self) -> &Controller {
        &self.controller
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A test that failed leaves no processes behind either. Agents were dropped before, but one may just start
        // something: it is gone when nothing was there for a while.
        let mut quiet = 0;
        for _ in 0..200 {
            let left = self.processes();
            quiet = if left.is_empty() { quiet + 1 } else { 0 };
            if quiet == 5 {
                break;
            }
            left.into_iter().for_each(|pid| kill(pid.cast_unsigned()));
            std::thread::sleep(Duration::from_millis(20));
        }
        // What was unpacked is read-only, which would keep the folder.
        let _ = std::process::Command::new("chmod").args(["-R", "u+w"]).arg(self.folder.path()).status();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    /// Ends it in the middle of whatever it does.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Waits until it ended with an error and says which.
    pub(crate) async fn ends_refused(mut self) -> String {
        (&mut self.task).await.expect("no panic").expect_err("refused").to_string()
    }

    /// Ends it as on SIGTERM.
    pub(crate) async fn stop(mut self) {
        self.stop.take().and_then(|stop| stop.send(()).ok()).expect("it runs");
        (&mut self.task).await.expect("no panic").expect("it ended well");
    }
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// What the service answers to `GET path`; `None` when it does not.
pub(crate) async fn get(port: u32, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut tcp = tokio::net::TcpStream::connect(("127.0.0.1", u16::try_from(port).expect("a port"))).await.ok()?;
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.ok()?;
    (!answer.is_empty()).then_some(answer)
}

/// Waits until `condition` holds, for what no report tells.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let all = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "never: {what}");
}

/// The record of an instance as it is on disk.
pub(crate) fn record(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).expect("a record")).expect("JSON")
}

//! A proxy in a process of its own: what it holds is nobody else's, and its limits can be as well.
//!
//! The process is this same binary, asked for one test alone, [`a_proxy_apart_serves_and_holds_what_it_held`].
//!
//! Main types: [`Apart`], the proxy; [`How`], what it is started with; [`Held`], what it holds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::fleet::Protocol;
use certs::development::DevelopmentCa;
use proxy::LogTarget;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::recorder::{OK, Recorder};
use crate::support::{HOST, TestProxy, hello, settings, until};
use crate::tls::certificate;
use crate::wire::Wire;

/// Set in the other process: a [`How`].
const HOW: &str = "POINTSMAN_TEST_APART";
const NAME: &str = "apart::a_proxy_apart_serves_and_holds_what_it_held";
/// Memory may be so much above what it was.
const SLACK_KIB: u64 = 4 * 1024;

/// What a proxy apart is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct How {
    folder: PathBuf,
    /// `r1` and so on. The last takes everything.
    upstreams: Vec<SocketAddr>,
    /// How long a client may keep it waiting, whatever for.
    pub(crate) patience: Option<Duration>,
    /// Descriptors that it may have, if fewer than this process.
    pub(crate) descriptors: Option<usize>,
    /// Set in its environment.
    pub(crate) environment: Vec<(String, String)>,
}

/// See the module. One worker: whoever is kept waiting waits for the same one.
pub(crate) struct Apart {
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    upstreams: Vec<Recorder>,
    folder: tempfile::TempDir,
    /// What it held before anybody did any harm.
    pub(crate) fresh: Held,
    /// What it has to come back to.
    before: Held,
}

/// What a process holds. Memory without what it has of files, which the kernel may take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) kib: u64,
    pub(crate) descriptors: usize,
}

/// Takes as many descriptors as this process may have; so do proxies that are started later.
#[track_caller]
pub(crate) fn descriptors_for(needed: usize) {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(most >= needed as u64, "this test needs {needed} descriptors and may have {most}: raise `ulimit -Hn`");
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the maximum");
}

impl How {
    /// A place for what the proxy is to read.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn settings(&self) -> proxy::Settings {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut settings = proxy::Settings {
            https: Some(any),
            access_log: Some(LogTarget::File(self.folder.join("access.log"))),
            ..settings(&self.folder.join("data"), 1)
        };
        let limits = &mut settings.limits;
        if let Some(patience) = self.patience {
            for limit in
                [&mut limits.handshake, &mut limits.first_bytes, &mut limits.head, &mut limits.body, &mut limits.idle]
            {
                *limit = patience;
            }
        }
        settings
    }

    /// The other process: a proxy until its standard input ends.
    async fn serve(self) {
        certs::install_provider();
        let ca = DevelopmentCa::open_or_create(&self.folder.join("ca")).expect("authority");
        std::fs::write(self.folder.join("ca.pem"), ca.certificate_pem()).expect("written");
        let proxy = TestProxy::with(self.settings()).await;
        let last = self.upstreams.len() - 1;
        let row = |(place, address): (usize, &SocketAddr)| (place as u32 + 1, *address, u32::from(place == last));
        let mut state = hello(Protocol::H1, &self.upstreams.iter().enumerate().map(row).collect::<Vec<_>>());
        state.upserts.push(certificate(&ca));
        proxy.apply(state);
        std::fs::write(self.folder.join("serves"), "").expect("written");
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        ended.await.expect("ended").expect("read");
    }
}

impl Apart {
    pub(crate) async fn start(upstream: Recorder) -> Self {
        Self::with(vec![upstream], |_| {}).await
    }

    /// With limits of its own.
    pub(crate) async fn with(upstreams: Vec<Recorder>, change: impl FnOnce(&mut How)) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut how = How {
            folder: folder.path().to_owned(),
            upstreams: upstreams.iter().map(|upstream| upstream.address).collect(),
            patience: None,
            descriptors: None,
            environment: Vec::new(),
        };
        change(&mut how);
        let limit = how.descriptors.map(|most| format!("ulimit -n {most} && ")).unwrap_or_default();
        let child = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\" --exact {NAME}")])
            .arg(std::env::current_exe().expect("this binary"))
            .env(HOW, serde_json::to_string(&how).expect("text"))
            .envs(how.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let nothing = Held { kib: 0, descriptors: 0 };
        let mut apart = Self { child, http: any, https: any, upstreams, folder, fresh: nothing, before: nothing };
        let serves = apart.path("serves");
        until("it serves", || serves.exists()).await;
        let bound = std::fs::read(apart.path("data/listening.json")).expect("written");
        let bound: serde_json::Value = serde_json::from_slice(&bound).expect("JSON");
        let address = |name: &str| bound[name].as_str().expect("a text").parse().expect("an address");
        (apart.http, apart.https) = (address("http"), address("https"));
        for _ in 0..20 {
            apart.serves("nothing").await;
        }
        apart.fresh = apart.held();
        apart.before = apart.fresh;
        apart
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Who vouches for its certificates.
    pub(crate) fn roots(&self) -> rustls::RootCertStore {
        let root = std::fs::read(self.path("ca.pem")).expect("written");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&root).expect("a certificate")).expect("usable");
        roots
    }

    pub(crate) fn held(&self) -> Held {
        Held { kib: self.kib("RssAnon:"), descriptors: self.descriptors() }
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// Forgets how much memory it ever had.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("Linux does so since 4.0");
    }

    /// How much memory it had at most since [`Self::forget_peak`], beyond what it had when it was fresh.
    pub(crate) fn peak_growth_kib(&self) -> u64 {
        let files = self.kib("RssFile:") + self.kib("RssShmem:");
        self.kib("VmHWM:").saturating_sub(files).saturating_sub(self.fresh.kib)
    }

    fn kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says so");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// A normal request is served.
    pub(crate) async fn serves(&self, after: &str) {
        let mut wire = Wire::connect(self.http).await;
        wire.send(format!("GET /normal HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")).await;
        let answer = wire.answer().await.unwrap_or_else(|| panic!("no answer after {after}"));
        assert_eq!(answer.status, 200, "after {after}: {answer:?}");
    }

    /// What it holds from now on is compared with what it holds now: an allocator keeps most of what it once had, so that
    /// only what comes on top when the same is done again was never freed.
    pub(crate) fn is_warm(&mut self) {
        self.before.kib = self.before.kib.max(self.held().kib);
    }

    /// What holds after every case: a normal request is served, and descriptors and memory are back where they were.
    pub(crate) async fn is_as_before(&self) {
        self.is_as_before_but(0).await;
    }

    /// The same with connections of clients that the test still holds. Of those to upstreams two may be kept.
    pub(crate) async fn is_as_before_but(&self, connections: usize) {
        self.serves("all of it").await;
        let Held { kib, descriptors } = self.before;
        let most = descriptors + connections + 2;
        until(&format!("{descriptors} descriptors"), || self.descriptors() <= most).await;
        until(&format!("{kib} KiB"), || self.held().kib <= kib + SLACK_KIB).await;
        println!("before: {:?}, after: {:?}", self.before, self.held());
    }

    /// Its upstreams, in order.
    pub(crate) fn upstream(&self, place: usize) -> &Recorder {
        &self.upstreams[place]
    }

    /// All lines of its access log so far.
    pub(crate) fn logged(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("access.log")).expect("a log");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_apart_serves_and_holds_what_it_held() {
    if let Ok(how) = std::env::var(HOW) {
        return serde_json::from_str::<How>(&how).expect("a How").serve().await;
    }
    let apart = Apart::start(Recorder::answering(|_| OK.to_owned()).await).await;
    apart.is_as_before().await;
}

//! What an artifact costs on its way to a registry and back, beside `skopeo copy`: time, and memory of the process.
//!
//! Real processes: Debian's docker-registry with TLS, a fresh one for each turn, because registries mount what another
//! repository has; ours and skopeo in turns, each a process of its own. See the README for the path.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use api::Digest;
use certs::call::Clear;
use certs::endpoint::Authorities;
use clap::{Parser, Subcommand};
use pointsman_benches::Problem;
use pointsman_benches::distribution::Samples;
use pointsman_benches::process::{Running, last_words};
use pointsman_benches::report::{Common, Report};
use registry::{Credentials, Layout, Place, Progress, Registry, SILENCE, Settings};

const REPOSITORY: &str = "bench/hello";
/// Between two looks at a process's memory.
const LOOK: Duration = Duration::from_millis(10);

/// Measure pushing and fetching an artifact of random bytes, beside skopeo.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Turns of each.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u64,
    /// Size of the artifact.
    #[arg(long, value_name = "MIB", default_value_t = 1_024)]
    mib: u64,
    #[command(subcommand)]
    one: Option<One>,
}

/// What a process of its own does, once.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
enum One {
    /// Packs the folder into the layout.
    Pack { content: PathBuf, layout: PathBuf },
    /// Pushes from the layout.
    Push { layout: PathBuf, digest: Digest, place: Place, authority: PathBuf },
    /// Fetches into the layout.
    Fetch { layout: PathBuf, digest: Digest, place: Place, authority: PathBuf },
}

/// Where everything is.
struct Bench {
    folder: PathBuf,
    digest: Digest,
}

/// One way and back.
#[derive(Default)]
struct Figures {
    push: Samples,
    fetch: Samples,
    /// Most memory of any process, in KiB.
    peak: u64,
}

fn main() -> Result<(), Problem> {
    let arguments = Arguments::parse();
    match arguments.one {
        Some(one) => run_one(one),
        None => measure(&arguments),
    }
}

fn measure(arguments: &Arguments) -> Result<(), Problem> {
    let folder = arguments.common.run_folder()?;
    let mut report = Report::new("artifact", &arguments.common);
    let bench = Bench::prepare(folder.path(), arguments.mib, &mut report)?;
    let (mut ours, mut skopeo) = (Figures::default(), Figures::default());
    for round in 0..arguments.rounds {
        // Who is first finds the disk as somebody else left it.
        let turns = if round % 2 == 0 { [true, false] } else { [false, true] };
        for is_ours in turns {
            let figures = if is_ours { &mut ours } else { &mut skopeo };
            bench.turn(is_ours, figures)?;
        }
    }
    for (name, figures) in [("pointsman", &ours), ("skopeo", &skopeo)] {
        report.line(&format!("push, {name}"), &figures.push);
        report.line(&format!("fetch, {name}"), &figures.fetch);
        report.fact(&format!("most memory, {name}, MiB"), figures.peak / 1024);
    }
    for (name, ours, skopeo) in [("push", &ours.push, &skopeo.push), ("fetch", &ours.fetch, &skopeo.fetch)] {
        if let (Some(ours), Some(skopeo)) = (ours.distribution(), skopeo.distribution()) {
            report.fact(&format!("{name}: median, in medians of skopeo"), ours.p50_us as f64 / skopeo.p50_us as f64);
        }
    }
    report.tell(None, arguments.common.json.as_deref())
}

impl Bench {
    /// A layout with one artifact, and a certificate.
    fn prepare(folder: &Path, mib: u64, report: &mut Report) -> Result<Self, Problem> {
        let content = folder.join("content");
        fs::create_dir_all(&content)?;
        let mut random = fs::File::open("/dev/urandom")?.take(mib << 20);
        std::io::copy(&mut random, &mut fs::File::create(content.join("noise"))?)?;
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(folder.join("key.pem"))
            .arg("-out")
            .arg(folder.join("cert.pem"))
            .output()?;
        if !made.status.success() {
            return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        fs::create_dir_all(folder.join("trusted"))?;
        fs::copy(folder.join("cert.pem"), folder.join("trusted/ca.crt"))?;
        fs::write(folder.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
        let mut pack = Command::new(std::env::current_exe()?);
        pack.arg("pack").arg(&content).arg(folder.join("layout"));
        let Done { took, said, peak } = timed(pack)?;
        report.fact("pack, seconds", took.as_secs_f64());
        report.fact("pack, most memory, MiB", peak / 1024);
        let digest = said.lines().find_map(|line| line.strip_prefix("digest ")).ok_or("no digest")?.parse()?;
        fs::remove_dir_all(&content)?;
        Ok(Self { folder: folder.to_owned(), digest })
    }

    /// Pushes to a registry that has nothing yet, and fetches from there.
    fn turn(&self, is_ours: bool, figures: &mut Figures) -> Result<(), Problem> {
        let (storage, fetched) = (self.folder.join("storage"), self.folder.join("fetched"));
        let (registry, port) = self.registry(&storage)?;
        let place = format!("localhost:{port}/{REPOSITORY}");
        for (is_push, samples) in [(true, &mut figures.push), (false, &mut figures.fetch)] {
            let layout = if is_push { self.folder.join("layout") } else { fetched.clone() };
            let command = match is_ours {
                true => self.ours(is_push, &layout, &place)?,
                false => self.skopeo(is_push, &layout, &place),
            };
            // What was written before is not ours to wait for.
            rustix::fs::sync();
            let done = timed(command)?;
            samples.push(done.took);
            figures.peak = figures.peak.max(done.peak);
        }
        let here = Layout::open(&fetched)?;
        let whole = here.check_blob(&self.digest).is_ok();
        drop(registry);
        fs::remove_dir_all(&storage)?;
        fs::remove_dir_all(&fetched)?;
        if whole { Ok(()) } else { Err("what was fetched is another artifact".into()) }
    }

    fn ours(&self, is_push: bool, layout: &Path, place: &str) -> Result<Command, Problem> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(if is_push { "push" } else { "fetch" }).arg(layout).arg(self.digest.to_string()).arg(place);
        command.arg(self.folder.join("cert.pem"));
        Ok(command)
    }

    fn skopeo(&self, is_push: bool, layout: &Path, place: &str) -> Command {
        let (there, here) = (format!("docker://{place}"), format!("oci:{}", layout.display()));
        let (from, to) = match is_push {
            true => (here, format!("{there}:r1")),
            false => (format!("{there}@{}", self.digest), format!("{here}:r1")),
        };
        let side = if is_push { "--dest-cert-dir" } else { "--src-cert-dir" };
        let mut command = Command::new("skopeo");
        command.arg("--policy").arg(self.folder.join("policy.json")).arg("copy");
        command.arg(side).arg(self.folder.join("trusted")).args([from, to]);
        command
    }

    /// A docker-registry without anything.
    fn registry(&self, storage: &Path) -> Result<(Running, u16), Problem> {
        // Free a moment ago; nobody else starts servers here.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{secret: fixed, addr: 127.0.0.1:{port}, tls: {{certificate: {1}/cert.pem, key: {1}/key.pem}}}}\n",
            storage.display(),
            self.folder.display(),
        );
        let (path, log) = (self.folder.join("registry.yml"), self.folder.join("registry.log"));
        fs::File::create(&path)?.write_all(config.as_bytes())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(path);
        let mut running = Running::start(command, &log)?;
        running
            .wait_for(SocketAddr::from(([127, 0, 0, 1], port)))
            .map_err(|problem| format!("docker-registry: {problem}{}", last_words(&log)))?;
        Ok((running, port))
    }
}

/// What a process did.
struct Done {
    took: Duration,
    said: String,
    /// The most memory that it had, in KiB.
    peak: u64,
}

/// Runs a process to its end.
fn timed(mut command: Command) -> Result<Done, Problem> {
    let begun = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let (ended, is_ended) = mpsc::channel::<()>();
    let watching = thread::spawn(move || {
        let mut peak = 0;
        // It has a number, and a status without memory, until it is waited for.
        while is_ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            peak = fs::read_to_string(&status).ok().and_then(|text| memory(&text)).unwrap_or(peak);
        }
        peak
    });
    let output = child.wait_with_output()?;
    let took = begun.elapsed();
    drop(ended);
    let seen = watching.join().map_err(|_| "nobody looked at its memory")?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // By its own word at its end, if it says one.
    let peak = memory(&said).unwrap_or(seen);
    Ok(Done { took, said, peak })
}

/// The line of `/proc/PID/status`, in KiB.
fn memory(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()
}

fn run_one(one: One) -> Result<(), Problem> {
    certs::install_provider();
    // As the controller's.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match one {
        One::Pack { content, layout } => {
            let artifact = Layout::open(&layout)?.pack(&content, &"hello@r1".parse()?, &"web".parse()?)?;
            println!("digest {}", artifact.digest);
        }
        One::Push { layout, digest, place, authority } => {
            let (layout, registry) = (Layout::open(&layout)?, client(&place, &authority)?);
            let tag = "r1".parse()?;
            runtime.block_on(registry.push(&layout, &digest, &place, Some(&tag), &Progress::default()))?;
        }
        One::Fetch { layout, digest, place, authority } => {
            let (layout, registry) = (Layout::open(&layout)?, client(&place, &authority)?);
            runtime.block_on(registry.fetch(&place, &digest, &layout, &Progress::default()))?;
        }
    }
    let status = fs::read_to_string("/proc/self/status")?;
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default());
    Ok(())
}

fn client(place: &Place, authority: &Path) -> Result<Registry, Problem> {
    Ok(Registry::new(Settings {
        place: place.clone(),
        authorities: Authorities::parse(&fs::read_to_string(authority)?)?,
        credentials: Credentials::Anonymous,
        uploads: NonZeroU8::new(4).ok_or("four")?,
        clear: Clear::Never,
        silence: SILENCE,
    }))
}

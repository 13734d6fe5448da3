//! Pebble and its name server, each test its own, on an address of the loopback network that no other test has.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use pointsman_certs::acme::hook::Hook;
use pointsman_certs::acme::{Account, Settings};
use pointsman_certs::endpoint::Authorities;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;

/// Where Pebble looks for what HTTP-01 and TLS-ALPN-01 show.
pub(crate) const HTTP_PORT: u16 = 5002;
pub(crate) const TLS_PORT: u16 = 5001;
const DIRECTORY_PORT: u16 = 14000;
const MANAGEMENT_PORT: u16 = 15000;
const DNS_PORT: u16 = 8053;
const DNS_MANAGEMENT_PORT: u16 = 8055;
/// An account that Pebble knows of where it asks for one.
pub(crate) const EXTERNAL_KEY: (&str, [u8; 32]) = ("kid-1", [7; 32]);

/// What a Pebble is like. Percentages; by default it refuses every fifth nonce and remembers half of what was proved.
#[derive(Clone, Copy)]
pub(crate) struct Temper {
    pub(crate) refused_nonces: u8,
    pub(crate) remembered_proofs: u8,
    pub(crate) external_accounts: bool,
    /// Whether it takes up to 3 s to look at a proof, and not none.
    pub(crate) slow: bool,
}

impl Default for Temper {
    fn default() -> Self {
        Self { refused_nonces: 20, remembered_proofs: 50, external_accounts: false, slow: false }
    }
}

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running ACME server with the name server that it asks, and the folder of its client.
pub(crate) struct Pebble {
    pub(crate) address: Ipv4Addr,
    home: TempDir,
    authority: Issuer<'static, KeyPair>,
    authority_pem: String,
    temper: Temper,
    server: Option<Running>,
    _names: Running,
}

impl Pebble {
    pub(crate) fn start(temper: Temper) -> Self {
        pointsman_certs::install_provider();
        let address = own_address();
        let (authority, authority_pem) = authority();
        let at = |port: u16| SocketAddr::from((address, port)).to_string();
        let names = Command::new("pebble-challtestsrv")
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
            .args(["-dns01", &at(DNS_PORT), "-management", &at(DNS_MANAGEMENT_PORT)])
            .args(["-defaultIPv4", &address.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble-challtestsrv, of the Debian package pebble (scripts/setup)");
        let home = tempfile::tempdir().expect("folder");
        let names = Running(names);
        let mut pebble = Self { address, home, authority, authority_pem, temper, server: None, _names: names };
        pebble.write_configuration();
        until_open(address, DNS_MANAGEMENT_PORT);
        pebble.restart();
        pebble
    }

    /// Ends it, which forgets all accounts, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let log = std::fs::File::create(self.path("pebble.log")).expect("log");
        let server = Command::new("pebble")
            .arg("-config")
            .arg(self.path("pebble.json"))
            .arg("-strict=true")
            .args(["-dnsserver", &SocketAddr::from((self.address, DNS_PORT)).to_string()])
            .envs([if self.temper.slow { ("PEBBLE_VA_SLEEPTIME", "3") } else { ("PEBBLE_VA_NOSLEEP", "1") }])
            .env("PEBBLE_WFE_NONCEREJECT", self.temper.refused_nonces.to_string())
            .env("PEBBLE_AUTHZREUSE", self.temper.remembered_proofs.to_string())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("pebble, of the Debian package pebble (scripts/setup)");
        self.server = Some(Running(server));
        until_open(self.address, DIRECTORY_PORT);
        until_open(self.address, MANAGEMENT_PORT);
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            directory: format!("https://{}/dir", self.directory_address()),
            contact: vec!["mailto:ops@example.com".into()],
            roots: self.trusted(),
            external_account: None,
            profile: None,
        }
    }

    /// An account kept in the client's folder.
    pub(crate) async fn account(&self) -> Account {
        Account::open(&self.client(), &self.settings()).await.expect("an account")
    }

    pub(crate) fn directory_address(&self) -> SocketAddr {
        (self.address, DIRECTORY_PORT).into()
    }

    /// Who is believed about Pebble's own certificate.
    pub(crate) fn trusted(&self) -> Authorities {
        Authorities::parse(self.authority_pem()).expect("an authority")
    }

    /// The same, PEM.
    pub(crate) fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        self.server = None;
    }

    pub(crate) fn management_address(&self) -> SocketAddr {
        (self.address, MANAGEMENT_PORT).into()
    }

    /// Who has signed what Pebble issued since it was started last.
    pub(crate) fn issuer(&self) -> Authorities {
        let url = format!("https://{}/roots/0", self.management_address());
        let answer = Command::new("curl").args(["-ksSf", &url]).output().expect("curl");
        Authorities::parse(&String::from_utf8_lossy(&answer.stdout)).expect("Pebble's root")
    }

    /// Certificate and key (DER) for a server at this address.
    pub(crate) fn server_certificate(&self) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(self.address))];
        let certificate = params.signed_by(&key, &self.authority).expect("signed");
        (certificate.der().to_vec(), key.serialize_der())
    }

    /// The client's folder.
    pub(crate) fn client(&self) -> PathBuf {
        self.path("client")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A command of `script`, which sees `$verb`, `$name` and `$value` and may call `add` and `remove`; each call of it is
    /// written to a file.
    pub(crate) fn hook(&self, script: &str) -> Hook {
        let names = format!("http://{}", SocketAddr::from((self.address, DNS_MANAGEMENT_PORT)));
        let text = format!(
            "set -eu\nverb=$1 name=$2 value=$3\n\
             echo \"$verb $name $value\" >> {calls}\n\
             add() {{ curl -sSf -d \"{{\\\"host\\\":\\\"$name.\\\",\\\"value\\\":\\\"$1\\\"}}\" {names}/set-txt; }}\n\
             remove() {{ curl -sSf -d \"{{\\\"host\\\":\\\"$name.\\\"}}\" {names}/clear-txt; }}\n\
             {script}\n",
            calls = self.path("calls").display()
        );
        let path = self.path("hook");
        std::fs::write(&path, text).expect("hook");
        // Not run directly: while another test forks, the file may count as being written.
        Hook { command: vec!["sh".into(), path.display().to_string()], timeout: Hook::TIMEOUT }
    }

    /// A hook that does what it should.
    pub(crate) fn good_hook(&self) -> Hook {
        self.hook("case $verb in present) add \"$value\" ;; cleanup) remove ;; esac")
    }

    /// The hook's calls: verb, name, value.
    pub(crate) fn calls(&self) -> Vec<[String; 3]> {
        let text = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        let words = |line: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            words.try_into().expect("three words")
        };
        text.lines().map(words).collect()
    }

    fn write_configuration(&self) {
        let write = |name: &str, text: String| std::fs::write(self.path(name), text).expect("written");
        let (certificate, key) = self.server_certificate();
        write("cert.pem", pem::encode(&pem::Pem::new("CERTIFICATE", certificate)));
        write("key.pem", pem::encode(&pem::Pem::new("PRIVATE KEY", key)));
        let (kid, key) = EXTERNAL_KEY;
        let key = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, key);
        let configuration = serde_json::json!({ "pebble": {
            "listenAddress": self.directory_address(),
            "managementListenAddress": self.management_address(),
            "certificate": self.path("cert.pem"),
            "privateKey": self.path("key.pem"),
            "httpPort": HTTP_PORT,
            "tlsPort": TLS_PORT,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.temper.external_accounts,
            "externalAccountMACKeys": { kid: key },
        }});
        write("pebble.json", configuration.to_string());
    }
}

/// All of 127.0.0.0/8 is this machine: the process and a counter make an address that nobody else uses, so that ports can
/// be fixed.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), low, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("signed").pem();
    (Issuer::new(params, key), pem)
}

fn until_open(address: Ipv4Addr, port: u16) {
    until(&format!("port {port} is open"), || TcpStream::connect((address, port)).is_ok());
}

/// Polls until it is so; fails the test when it does not become so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < deadline, "it never came to it that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process is there and not only waiting to be reaped.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}

//! What stands behind every contender, and the certificate that all of them show.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use certs::development::{DevelopmentCa, Material};
use pointsman_benches::Problem;
use pointsman_benches::client::Tls;
use pointsman_benches::process::{Running, last_words, pinned};

use crate::LOAD_CORE;
use crate::credentials::Issuer;

/// More than a contender remembers: each is as good as new when it comes again.
const TOKENS: usize = 60_000;
const ZONE: &str = "production.localhost";
/// Below where the system takes ports for connections, so that none of those is in the way.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// The folder of a run and what runs in it from beginning to end.
pub(crate) struct Stand {
    pub(crate) folder: PathBuf,
    /// The origin for HTTP/1.1.
    pub(crate) http: SocketAddr,
    /// The origin for gRPC.
    pub(crate) grpc: SocketAddr,
    /// Who issues tokens.
    pub(crate) issuer: Issuer,
    /// How clients do TLS.
    pub(crate) tls: Tls,
    /// End with this.
    _running: [Running; 2],
}

impl Stand {
    /// Makes the certificate and starts the origins.
    pub(crate) fn start(folder: &Path) -> Result<Self, Problem> {
        // An nginx that was started by root reads files as somebody else.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let tls = certificate(folder)?;
        let files = folder.join("files");
        fs::create_dir(&files)?;
        let issuer = Issuer::new()?;
        fs::write(files.join("jwks.json"), issuer.jwks())?;
        fs::write(files.join("64k"), vec![b'x'; 64 << 10])?;
        fs::write(files.join("1m"), vec![b'x'; 1 << 20])?;

        let [http, grpc] = free_ports()?;
        let configuration = fill("origin.conf", folder, &[("ORIGIN", http.port())], &[])?;
        let mut nginx = pinned("nginx", LOAD_CORE);
        nginx.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(configuration);
        let mut grpc_origin = pinned(std::env::current_exe()?.with_file_name("grpc-origin"), LOAD_CORE);
        grpc_origin.arg(grpc.to_string());
        let running = [
            started(Running::start(nginx, &folder.join("origin.log"))?, http)?,
            started(Running::start(grpc_origin, &folder.join("grpc-origin.log"))?, grpc)?,
        ];
        Ok(Self { folder: folder.to_owned(), http, grpc, issuer, tls, _running: running })
    }

    /// A file of tokens, more than any contender remembers; made when it is first asked for.
    pub(crate) fn tokens(&self) -> Result<PathBuf, Problem> {
        let path = self.folder.join("tokens");
        if !path.exists() {
            fs::write(&path, self.issuer.tokens(TOKENS)?.join("\n"))?;
        }
        Ok(path)
    }

    /// Gives a controller the authority and the certificate that the others have.
    pub(crate) fn share_authority(&self, data: &Path) -> Result<(), Problem> {
        fs::create_dir_all(data)?;
        fs::set_permissions(data, fs::Permissions::from_mode(0o700))?;
        for file in fs::read_dir(self.folder.join("authority"))? {
            let file = file?;
            fs::copy(file.path(), data.join(file.file_name()))?;
        }
        Ok(())
    }
}

fn started(mut running: Running, at: SocketAddr) -> Result<Running, Problem> {
    match running.wait_for(at) {
        Ok(()) => Ok(running),
        Err(problem) => Err(format!("an origin: {problem}{}", last_words(running.log())).into()),
    }
}

/// Makes the certificate of the zone as pointsman's development authority does, and writes it as peers read it.
fn certificate(folder: &Path) -> Result<Tls, Problem> {
    let authority = DevelopmentCa::open_or_create(&folder.join("authority"))?;
    let zone = ZONE.parse().map_err(|_| "the zone is no name")?;
    let Material { chain_der, key_der, .. } = authority.wildcard(&zone, SystemTime::now())?;
    let chain: String = chain_der.into_iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der))).collect();
    let key = pem::encode(&pem::Pem::new("PRIVATE KEY", key_der));
    for (name, text) in [("certificate.pem", &chain), ("key.pem", &key), ("both.pem", &(chain.clone() + &key))] {
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(name))?;
        std::io::Write::write_all(&mut &file, text.as_bytes())?;
    }
    Tls::new(pem::parse(authority.certificate_pem())?.into_contents())
}

/// Writes a configuration of `benches/peers` into the folder, with the folder, ports and words filled in.
pub(crate) fn fill(
    name: &str,
    folder: &Path,
    ports: &[(&str, u16)],
    words: &[(&str, &str)],
) -> Result<PathBuf, Problem> {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name);
    let text = fs::read_to_string(&template).map_err(|error| format!("{}: {error}", template.display()))?;
    let mut text = text.replace("@WORD@", "A word").replace("@FOLDER@", &folder.display().to_string());
    for (word, port) in ports {
        text = text.replace(&format!("@{word}@"), &port.to_string());
    }
    for (word, value) in words {
        text = text.replace(&format!("@{word}@"), value);
    }
    let is_word = |rest: &&str| rest.starts_with(|first: char| first.is_ascii_uppercase());
    if let Some(line) = text.lines().find(|line| line.split('@').skip(1).any(|rest| is_word(&rest))) {
        return Err(format!("{}: nothing to fill in here: {line}", template.display()).into());
    }
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

/// Addresses at which nobody listens; which somebody else could take before they are used.
pub(crate) fn free_ports<const N: usize>() -> Result<[SocketAddr; N], Problem> {
    let begin = PORTS.start + u16::try_from(std::process::id() % 9_000)?;
    let addresses = (begin..PORTS.end).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let held = addresses.filter_map(|address| Some((TcpListener::bind(address).ok()?, address))).take(N);
    let held: Vec<(TcpListener, SocketAddr)> = held.collect();
    let free: Vec<SocketAddr> = held.iter().map(|(_, address)| *address).collect();
    free.try_into().map_err(|_| "there are no free ports".into())
}

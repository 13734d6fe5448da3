//! `cert`: the certificates that environments are served with.

use std::path::{Path, PathBuf};

use api::EnvironmentName;
use api::operator::{ImportCertificateRequest, ListCertificatesRequest, RenewCertificateRequest};
use clap::{Args, Subcommand};

use crate::cli::Reason;
use crate::exit::{Ended, Exit, Failure};
use crate::operator::{Session, asking};
use crate::render::{self, Line};

/// Longest file that is read: the controller takes no longer ones.
const FILE_BYTES: u64 = 64 * 1024;

/// Show, renew and import certificates.
///
/// Where the certificates of an environment come from stands in its file: `tls = { source = "development" }` (the default),
/// "files", "acme" or "imported".
#[derive(Debug, Args)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    verb: CertVerb,
}

#[derive(Debug, Subcommand)]
enum CertVerb {
    /// List the certificates with their source, expiry and the proxies that serve them.
    #[command(after_long_help = "Example:\n  pointsman cert list")]
    List,
    /// Show the certificates of one environment.
    #[command(after_long_help = "Example:\n  pointsman cert show production\n  pointsman cert show production --chain")]
    Show {
        /// The environment.
        environment: EnvironmentName,
        /// The chains themselves, PEM.
        #[arg(long)]
        chain: bool,
    },
    /// Ask the source of an environment for a new certificate now.
    ///
    /// Files are read, an ACME authority is asked. Returns when it is done or has failed; what was served before is served
    /// on then.
    #[command(after_long_help = "Example:\n  pointsman cert renew production")]
    Renew {
        /// The environment.
        environment: EnvironmentName,
        #[command(flatten)]
        reason: Reason,
    },
    /// Bring a certificate with its key, for an environment whose source is "imported".
    ///
    /// Both are PEM; the chain has the leaf first. They are taken whole or refused whole: the key has to be the leaf's, and
    /// the leaf valid now. The key is kept by the controller and sealed for each proxy.
    #[command(after_long_help = "Example:\n  pointsman cert import production --chain fullchain.pem --key privkey.pem")]
    Import {
        /// The environment.
        environment: EnvironmentName,
        /// File with the certificate and those that lead to its authority.
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
        /// File with the private key: PKCS #8, PKCS #1 or SEC 1.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        #[command(flatten)]
        reason: Reason,
    },
}

pub(crate) async fn run(args: CertArgs, session: &Session) -> Ended {
    let (mut client, output) = (session.client()?, &session.output);
    match args.verb {
        CertVerb::List => {
            let request = ListCertificatesRequest::default();
            let reply = client.calls.list_certificates(asking(request)).await;
            let list = reply.map_err(|status| client.failure(&status))?.into_inner();
            output.show(&list, |view| render::certificates(&list, view))?;
        }
        CertVerb::Show { environment, chain } => {
            let request = ListCertificatesRequest { environment: environment.to_string() };
            let reply = client.calls.list_certificates(asking(request)).await;
            let list = reply.map_err(|status| client.failure(&status))?.into_inner();
            output.show(&list, |view| render::certificate_details(&list, chain, view))?;
        }
        CertVerb::Renew { environment, reason } => {
            let request = RenewCertificateRequest { environment: environment.to_string(), reason: reason.text() };
            // An order takes minutes; the connection is kept alive and checked meanwhile.
            let reply = client.calls.renew_certificate(request).await;
            let list = reply.map_err(|status| client.failure(&status))?.into_inner();
            output.show(&list, |view| render::certificate_details(&list, false, view))?;
        }
        CertVerb::Import { environment, chain, key, reason } => {
            let (chain_pem, key_pem) = (read(&chain)?, read(&key)?);
            let request = ImportCertificateRequest {
                environment: environment.to_string(),
                chain_pem,
                key_pem,
                reason: reason.text(),
            };
            let reply = client.calls.import_certificate(asking(request)).await;
            let list = reply.map_err(|status| client.failure(&status))?.into_inner();
            output.aside(&Line::plain(format!("{environment} is served with it from now on")));
            output.show(&list, |view| render::certificate_details(&list, false, view))?;
        }
    }
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |problem: std::io::Error| Failure::refused(format!("{}: {problem}", path.display()));
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES {
        let path = path.display();
        return Err(Failure::refused(format!("{path}: it has {length} bytes, accepted are {FILE_BYTES}")));
    }
    std::fs::read_to_string(path).map_err(failed)
}

//! TLS material: who signs what, which certificate answers which name, and how the fleet knows its members.
//!
//! Must not know: requests, routes, events, or what a proxy and a controller say to each other beyond joining.
//!
//! Main types: [`fleet::FleetCa`] (the controller's authority over its fleet), [`fleet::Identity`] (a member's own key
//! and certificate), [`development::DevelopmentCa`] (wildcards for zones without a public source),
//! [`resolver::SniResolver`] (the certificate for a name), [`secret::SealKey`] (what travels to one proxy alone) and
//! [`endpoint::Connector`] (verified TLS to an endpoint).

pub mod acme;
mod around;
pub mod call;
pub mod client;
pub mod describe;
pub mod development;
pub mod endpoint;
pub mod fleet;
mod keep;
mod material;
pub mod pair;
pub mod public;
pub mod resolver;
pub mod secret;
pub mod tickets;

use std::path::PathBuf;

/// Makes aws-lc-rs the process-wide provider of cryptography. Idempotent; called once in `main` and in tests.
pub fn install_provider() {
    // An error means that one is installed already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Why TLS material could not be made, read or used.
#[derive(Debug)]
pub enum CertsError {
    /// A file or folder could not be read or written.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is there but is not what it should be.
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A certificate, key or request is unusable.
    Material(String),
    /// Joining did not succeed: why, as a sentence.
    Join(String),
}

impl std::fmt::Display for CertsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Damaged { path, what } => write!(f, "{}: {what}", path.display()),
            Self::Material(what) | Self::Join(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for CertsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<rcgen::Error> for CertsError {
    fn from(error: rcgen::Error) -> Self {
        Self::Material(format!("the certificate could not be made: {error}"))
    }
}

impl From<rustls::Error> for CertsError {
    fn from(error: rustls::Error) -> Self {
        Self::Material(format!("the TLS material is not usable: {error}"))
    }
}

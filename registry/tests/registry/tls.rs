//! An authority for one test, and a certificate for this machine.

use std::path::{Path, PathBuf};

use certs::endpoint::Authorities;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Files of one authority and of one certificate for `localhost`.
pub(crate) struct Tls {
    pub(crate) authority: String,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// As skopeo wants it: a folder with the authority alone.
    pub(crate) folder: PathBuf,
}

impl Tls {
    pub(crate) fn make(folder: &Path, name: &str) -> Self {
        let folder = folder.join("tls");
        let trusted = folder.join("trusted");
        std::fs::create_dir_all(&trusted).expect("folder");
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = ca.self_signed(&ca_key).expect("an authority").pem();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let leaf = leaf.signed_by(&key, &issuer).expect("a certificate").pem();
        let write = |file: &str, text: &str| {
            let path = folder.join(file);
            std::fs::write(&path, text).expect("written");
            path
        };
        write("trusted/ca.crt", &authority);
        let (certificate, key) = (write("server.pem", &leaf), write("server.key", &key.serialize_pem()));
        Self { authority, certificate, key, folder: trusted }
    }

    pub(crate) fn authorities(&self) -> Authorities {
        Authorities::parse(&self.authority).expect("an authority")
    }
}

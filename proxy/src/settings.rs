//! How a proxy is set up, and why it could not start.
//!
//! Main types: [`Settings`], [`Limits`], [`Bound`], [`ProxyError`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, oneshot};

pub use crate::access_log::writer::LogTarget;

/// What a proxy needs to know before it starts; everything else comes from the controller.
#[derive(Debug)]
pub struct Settings {
    /// Folder of its own: identity, journal, secrets and the key that they are sealed for, control socket. Made with mode
    /// 0700 when it is not there.
    pub data: PathBuf,
    /// Where plain HTTP is served; `None`: nowhere. Port 0 takes a free one.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is served; `None`: nowhere. Port 0 takes a free one.
    pub https: Option<SocketAddr>,
    /// Where metrics and readiness are served, in clear. Default `127.0.0.1:0`.
    pub admin: SocketAddr,
    /// Threads that serve requests; 0, the default, for one per core.
    pub workers: usize,
    /// How long requests in flight may go on after a stop. Default 30 s.
    pub drain: Duration,
    /// Version of the software, as the controller shows it.
    pub software: String,
    /// Deadlines on the way of a request.
    pub limits: Limits,
    /// Networks of the peers before this proxy that are believed about who the client is. Default: none.
    pub trusted: Vec<IpNet>,
    /// Connections begin with a PROXY protocol header, and only those of trusted peers are served. Default: no.
    pub proxy_protocol: bool,
    /// Where the access log goes; `None`, the default: nowhere.
    pub access_log: Option<LogTarget>,
    /// Told when the access log's file was moved and a new one is to be begun.
    pub reopen_log: Arc<Notify>,
    /// Told the bound addresses once everything listens.
    pub ready: Option<oneshot::Sender<Bound>>,
}

impl Settings {
    /// Defaults, with nothing but an admin address; set at least one of `http` and `https`.
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            http: None,
            https: None,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            workers: 0,
            drain: Duration::from_secs(30),
            software: String::new(),
            limits: Limits::default(),
            trusted: Vec::new(),
            proxy_protocol: false,
            access_log: None,
            reopen_log: Arc::default(),
            ready: None,
        }
    }
}

/// How long anything on the way of a request may take. No wait is without one.
#[derive(Debug, Clone)]
pub struct Limits {
    /// TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// Until a client's first bytes, or its HTTP/2 preface. Default 10 s.
    pub first_bytes: Duration,
    /// From a head's first byte to its last. Default 10 s.
    pub head: Duration,
    /// Between two pieces of a client's body, and between two that it reads. Default 30 s.
    pub body: Duration,
    /// HTTP/1 connection between two requests. Default 60 s.
    pub idle: Duration,
    /// HTTP/2 connection without requests, and between two pieces of a gRPC or event stream. Default 5 min.
    pub stream_idle: Duration,
    /// Between two PINGs on an HTTP/2 connection, of a client or to an endpoint (RFC 9113 §6.7). Default 30 s.
    pub ping: Duration,
    /// From a PING to its answer; a connection on which there is none is closed. Default 10 s.
    pub ping_answer: Duration,
    /// A client's connection, give or take a tenth: then it takes no further request, so that clients spread anew over
    /// proxies and their workers. Default 1 h.
    pub age: Duration,
    /// TCP connection to an endpoint; then, as long again each, its TLS handshake and its HTTP/2 preface. Default 1 s.
    pub connect: Duration,
    /// From a request to the head of its answer; gRPC has `stream_idle` instead. Also between two pieces of an
    /// answer. Default 60 s.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            handshake: seconds(10),
            first_bytes: seconds(10),
            head: seconds(10),
            body: seconds(30),
            idle: seconds(60),
            stream_idle: seconds(300),
            ping: seconds(30),
            ping_answer: seconds(10),
            age: seconds(3600),
            connect: seconds(1),
            answer: seconds(60),
        }
    }
}

/// Where a proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Bound {
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// HTTPS.
    pub https: Option<SocketAddr>,
    /// Metrics and readiness.
    pub admin: SocketAddr,
}

/// Why a proxy did not start. Each displays as one sentence.
#[derive(Debug)]
pub enum ProxyError {
    /// An address cannot be listened on.
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file or folder cannot be used.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another proxy uses the folder.
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// A thread could not be started.
    Thread(std::io::Error),
    /// The identity is unusable.
    Identity(certs::CertsError),
    /// An algorithm of credentials does not work on this machine.
    Cryptography(String),
}

impl std::fmt::Display for ProxyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::io::ErrorKind;
        match self {
            Self::Listen { address, source } if source.kind() == ErrorKind::AddrInUse => {
                write!(f, "cannot listen on {address}: the port is in use by another process")
            }
            Self::Listen { address, source } if source.kind() == ErrorKind::PermissionDenied => {
                write!(f, "cannot listen on {address}: ports below 1024 need the capability CAP_NET_BIND_SERVICE")
            }
            Self::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::File { path, source } if source.kind() == ErrorKind::PermissionDenied => {
                write!(f, "cannot use {}: no permission", path.display())
            }
            Self::File { path, source } => write!(f, "cannot use {}: {source}", path.display()),
            Self::InUse { path } => write!(f, "{} is in use by another proxy", path.display()),
            Self::Thread(source) => write!(f, "cannot start a thread: {source}"),
            Self::Identity(source) => write!(f, "the identity cannot be used: {source}"),
            Self::Cryptography(what) => write!(f, "credentials cannot be verified on this machine: {what}"),
        }
    }
}

impl std::error::Error for ProxyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::File { source, .. } | Self::Thread(source) => Some(source),
            Self::Identity(source) => Some(source),
            Self::InUse { .. } | Self::Cryptography(_) => None,
        }
    }
}

//! Who we are at a registry: as given, or as docker's `config.json` and its helpers say.
//!
//! Must not know: requests, challenges or tokens that a registry hands out.
//!
//! Main types: [`Credentials`], as configured; [`Login`], what counts at one host. Neither shows its secrets.

mod docker_config;
mod helper;

use std::fmt;
use std::path::PathBuf;

use docker_config::{Config, Entry};

/// How to find out who we are. What is given counts at one registry alone: that of the settings.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nobody: only what everybody may.
    #[default]
    Anonymous,
    /// A user with a password.
    Password {
        /// The user's name, without a colon (RFC 7617 §2).
        user: String,
        /// The password.
        password: String,
    },
    /// A bearer token that is presented as it is.
    Token(String),
    /// An identity token (docker's word for a refresh token), for which registries give bearer tokens.
    Identity(String),
    /// Docker's `config.json` at this path, with the helpers that it names. Counts at every registry that it names.
    Docker(PathBuf),
}

/// What is presented at one host.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Nobody,
    Password { user: String, password: String },
    Token(String),
    Identity(String),
}

impl Credentials {
    /// Who we are at `host`. `is_ours`: whether it is the registry that credentials were given for.
    ///
    /// Read anew each time: helpers hand out what ends soon.
    ///
    /// # Errors
    /// One sentence without a secret: the file or a helper failed.
    pub(crate) async fn login(&self, host: &str, is_ours: bool) -> Result<Login, String> {
        match self {
            Self::Docker(path) => of_docker(path, host).await,
            _ if !is_ours => Ok(Login::Nobody),
            Self::Anonymous => Ok(Login::Nobody),
            Self::Password { user, password } => Ok(Login::Password { user: user.clone(), password: password.clone() }),
            Self::Token(token) => Ok(Login::Token(token.clone())),
            Self::Identity(token) => Ok(Login::Identity(token.clone())),
        }
    }
}

async fn of_docker(path: &std::path::Path, host: &str) -> Result<Login, String> {
    let about = |why: String| format!("{}: {why}", path.display());
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || Config::read(&owned)).await;
    let config = read.map_err(|_| about("it could not be read".into()))?.map_err(about)?;
    match config.entry(host).map_err(about)? {
        Entry::Login(login) => Ok(login),
        Entry::Helper { name, server } => helper::get(&name, &server).await,
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Password { user, .. } => write!(f, "Password({user:?})"),
            Self::Token(_) => f.write_str("Token"),
            Self::Identity(_) => f.write_str("Identity"),
            Self::Docker(path) => write!(f, "Docker({path:?})"),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Password { .. } => "Password",
            Self::Token(_) => "Token",
            Self::Identity(_) => "Identity",
        })
    }
}

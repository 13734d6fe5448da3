//! Contexts: which controllers this user talks to, and which one now.
//!
//! Must not know: connections. A context file holds tokens, so it is of mode 0600 and written whole or not at all.
//! It is `$POINTSMAN_CONFIG`, else `$XDG_CONFIG_HOME/pointsman/contexts.toml`, else
//! `~/.config/pointsman/contexts.toml` (XDG Base Directory specification).
//!
//! Main types: [`Context`] (one controller, as an operator file has it) and [`Contexts`] (the file of them).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use api::MemberName;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// Said where a context is needed and there is none: the two ways to get one.
const NO_CONTEXT: &str = "this command needs to know its controller: run `pointsman login --from FILE` once, where FILE \
is the operator.toml in the controller's data folder, or give that file with `--context FILE`";

const SCHEMA: u32 = 1;

/// A controller, whom to trust about it, and what opens it: a token, or a certificate with its key.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Host and port.
    pub(crate) controller: String,
    /// The fleet CA as PEM.
    pub(crate) ca: String,
    /// Secret; empty when there is a certificate.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) token: String,
    /// PEM, for the token that it stands for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) certificate: String,
    /// Secret: the certificate's key (PKCS #8, PEM).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) key: String,
}

impl Context {
    /// Whether something opens the controller, and only one thing.
    fn is_whole(&self) -> bool {
        let certified = (!self.certificate.is_empty(), !self.key.is_empty());
        certified == (self.token.is_empty(), self.token.is_empty())
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("controller", &self.controller).finish_non_exhaustive()
    }
}

/// An operator file: what the controller writes for its first operator, and `token create --certificate` for others.
#[derive(Serialize, Deserialize)]
struct OperatorFile {
    schema: u32,
    controller: String,
    ca: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    token: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    certificate: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key: String,
}

/// All contexts of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    schema: u32,
    /// The one that counts when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default, rename = "context")]
    pub(crate) all: BTreeMap<String, Context>,
}

impl Default for Contexts {
    fn default() -> Self {
        Self { schema: SCHEMA, current: None, all: BTreeMap::new() }
    }
}

impl Contexts {
    /// Reads the file; none is no contexts.
    ///
    /// # Errors
    /// A file that cannot be read, or is not what was written there.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::file(path, &error)),
        };
        let contexts: Self = toml::from_str(&text).map_err(|error| damaged(path, &text, &error))?;
        check_schema(path, contexts.schema)?;
        Ok(contexts)
    }

    /// Writes the file by way of a temporary one, readable by its owner only.
    ///
    /// # Errors
    /// A folder that cannot be made or written.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let text = toml::to_string(self)
            .map_err(|error| Failure::refused(format!("the contexts could not be written as TOML: {error}")))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| Failure::file(folder, &error))?;
        durable::write(path, text.as_bytes()).map_err(|error| Failure::file(path, &error))
    }

    /// The context of this name, or the current one.
    ///
    /// # Errors
    /// None of that name, or no current one.
    pub(crate) fn choose(&self, name: Option<&str>) -> Result<(&str, &Context), Failure> {
        let Some(name) = name.or(self.current.as_deref()) else { return Err(Failure::refused(NO_CONTEXT)) };
        let found = self.all.get_key_value(name).map(|(name, context)| (name.as_str(), context));
        found.ok_or_else(|| {
            let known: Vec<&str> = self.all.keys().map(String::as_str).collect();
            match known.as_slice() {
                [] => Failure::refused(format!("there is no context {name:?}: {NO_CONTEXT}")),
                known => Failure::refused(format!("there is no context {name:?}: there are {}", known.join(", "))),
            }
        })
    }

    /// Adds a context and makes it the current one.
    ///
    /// # Errors
    /// The name belongs to another controller.
    pub(crate) fn add(&mut self, name: &MemberName, context: Context) -> Result<(), Failure> {
        if let Some(other) = self.all.get(name.as_str())
            && other.controller != context.controller
        {
            return Err(Failure::refused(format!(
                "the context {name} is for the controller at {}: choose another name with `--name`",
                other.controller
            )));
        }
        self.all.insert(name.to_string(), context);
        self.current = Some(name.to_string());
        Ok(())
    }
}

/// Reads an operator file.
///
/// # Errors
/// A file that cannot be read or is no operator file.
pub(crate) fn operator_file(path: &Path) -> Result<Context, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
    let file: OperatorFile = toml::from_str(&text).map_err(|error| damaged(path, &text, &error))?;
    check_schema(path, file.schema)?;
    let OperatorFile { controller, ca, token, certificate, key, .. } = file;
    let context = Context { controller, ca, token: token.trim().to_owned(), certificate, key };
    if context.is_whole() {
        return Ok(context);
    }
    Err(Failure::refused(format!(
        "{}: an operator file has either a `token`, or a `certificate` with its `key`",
        path.display()
    )))
}

/// Writes an operator file, readable by its owner only.
///
/// # Errors
/// A folder that cannot be written.
pub(crate) fn write_operator_file(path: &Path, context: Context) -> Result<(), Failure> {
    let Context { controller, ca, token, certificate, key } = context;
    let text = toml::to_string(&OperatorFile { schema: SCHEMA, controller, ca, token, certificate, key })
        .map_err(|error| Failure::refused(format!("the operator file could not be written as TOML: {error}")))?;
    durable::write(path, text.as_bytes()).map_err(|error| Failure::file(path, &error))
}

/// The context that a command uses: a file when `given` is one, else a name, else the current one.
///
/// # Errors
/// As [`operator_file`] and [`Contexts::choose`].
pub(crate) fn chosen(given: Option<&str>) -> Result<(String, Context), Failure> {
    let given = given_as(given);
    if let Some(file) = given.filter(|given| given.contains('/') || given.ends_with(".toml")) {
        return Ok((file.to_owned(), operator_file(Path::new(file))?));
    }
    let contexts = Contexts::load(&path()?)?;
    let (name, context) = contexts.choose(given)?;
    Ok((name.to_owned(), context.clone()))
}

/// An empty variable is as good as none, as it is for most programs.
fn given_as(given: Option<&str>) -> Option<&str> {
    given.filter(|given| !given.is_empty())
}

/// Where the contexts are kept.
///
/// # Errors
/// An environment that names no home.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    path_in(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)).ok_or_else(|| {
        Failure::refused("there is no place for contexts: set HOME, or POINTSMAN_CONFIG to the path of a file")
    })
}

fn path_in(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let file = "pointsman/contexts.toml";
    variable("POINTSMAN_CONFIG")
        .or_else(|| variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).map(|folder| folder.join(file)))
        .or_else(|| variable("HOME").map(|home| home.join(".config").join(file)))
}

/// A name for a context by its controller: `local` for this machine, else the first label of its host.
pub(crate) fn name_for(controller: &str) -> MemberName {
    let host = controller.rsplit_once(':').map_or(controller, |(host, _)| host).trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let label = if local { "local" } else { host.split('.').next().unwrap_or_default() };
    label.parse().unwrap_or_else(|_| "default".parse().expect("the constant is a name"))
}

/// Where a TOML file is wrong, without quoting it: it holds a secret.
fn damaged(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let line = 1 + text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
    Failure::refused(format!("{}:{line}: {}", path.display(), error.message()))
}

fn check_schema(path: &Path, schema: u32) -> Result<(), Failure> {
    if schema == SCHEMA {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{}: schema {schema} is not known to this version: accepted is {SCHEMA}",
        path.display()
    )))
}

#[cfg(test)]
mod tests;

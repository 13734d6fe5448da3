//! Docker's `config.json`: what it says of one registry. The order is that of docker's own command: a helper for this
//! registry, what the file itself holds, the store for all of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::Login;

/// Longest file that is read. Docker's own have some hundred bytes for each registry.
const MOST_BYTES: u64 = 1024 * 1024;
/// What Docker Hub is called in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What the file says of one registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Login(Login),
    /// `docker-credential-<name>` is to be asked about `server`.
    Helper {
        name: String,
        server: String,
    },
}

impl Config {
    /// Reads the file. Blocks.
    ///
    /// # Errors
    /// Without the path and without anything of its content: both may be shown.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let mut text = Vec::new();
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        })?;
        file.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > MOST_BYTES {
            return Err(format!("it has more than {MOST_BYTES} bytes: accepted are so many"));
        }
        Self::parse(&text)
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        // The library's message may quote what it found, a password too.
        serde_json::from_slice(text).map_err(|error| {
            format!("it is not docker's config.json: line {}, column {}", error.line(), error.column())
        })
    }

    pub(super) fn entry(&self, host: &str) -> Result<Entry, String> {
        let wanted = plain(host);
        let find = |key: &&String| plain(key) == wanted;
        if let Some(key) = self.cred_helpers.keys().find(find) {
            return helper(&self.cred_helpers[key], key);
        }
        let auth = self.auths.iter().find(|(key, _)| find(key)).map(|(_, auth)| auth);
        if let Some(login) = auth.map(Auth::login).transpose()?.flatten() {
            return Ok(Entry::Login(login));
        }
        if self.creds_store.is_empty() {
            return Ok(Entry::Login(Login::Nobody));
        }
        // As docker's command stores it: Docker Hub by its old address, others by their host.
        let server = if wanted == plain(DOCKER_HUB) { DOCKER_HUB } else { host };
        helper(&self.creds_store, server)
    }
}

impl Auth {
    fn login(&self) -> Result<Option<Login>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::Identity(self.identitytoken.clone())));
        }
        if !self.registrytoken.is_empty() {
            return Ok(Some(Login::Token(self.registrytoken.clone())));
        }
        if !self.auth.is_empty() {
            let wrong = || "an \"auth\" in it is not USER:PASSWORD in base64".to_owned();
            let decoded = BASE64_STANDARD.decode(self.auth.trim()).map_err(|_| wrong())?;
            // Some writers end it with a NUL.
            let decoded = String::from_utf8(decoded).map_err(|_| wrong())?;
            let (user, password) = decoded.trim_end_matches('\0').split_once(':').ok_or_else(wrong)?;
            return Ok(Some(Login::Password { user: user.to_owned(), password: password.to_owned() }));
        }
        if !self.username.is_empty() {
            return Ok(Some(Login::Password { user: self.username.clone(), password: self.password.clone() }));
        }
        // What `docker login` leaves beside a store: an entry without anything.
        Ok(None)
    }
}

fn helper(name: &str, server: &str) -> Result<Entry, String> {
    // It becomes the name of a program.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
        return Err("a helper in it is not named by letters, digits, \"-\", \"_\" and \".\"".to_owned());
    }
    Ok(Entry::Helper { name: name.to_owned(), server: server.to_owned() })
}

/// A key as a host: without scheme and path, Docker Hub by one of its names.
fn plain(key: &str) -> String {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let host = key.split('/').next().unwrap_or_default().to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<Entry> {
        Some(Entry::Login(Login::Password { user: user.into(), password: password.into() }))
    }

    fn helped(name: &str, server: &str) -> Option<Entry> {
        Some(Entry::Helper { name: name.into(), server: server.into() })
    }

    #[test]
    fn credentials_are_found_in_the_order_of_docker() {
        let encoded = BASE64_STANDARD.encode("ann:a:b");
        for (text, host, expected) in [
            (r#"{}"#, "a.io", Some(Entry::Login(Login::Nobody))),
            (r#"{"auths":{"a.io":{"auth":"ENC"}}}"#, "a.io", password("ann", "a:b")),
            (r#"{"auths":{"https://a.io/v2/":{"auth":"ENC"}}}"#, "a.io", password("ann", "a:b")),
            (r#"{"auths":{"a.io":{"auth":"ENC"}}}"#, "a.io:5000", Some(Entry::Login(Login::Nobody))),
            (r#"{"auths":{"a.io:5000":{"username":"u","password":"p"}}}"#, "a.io:5000", password("u", "p")),
            (
                r#"{"auths":{"a.io":{"auth":"ENC","identitytoken":"t"}}}"#,
                "a.io",
                Some(Entry::Login(Login::Identity("t".into()))),
            ),
            (r#"{"auths":{"a.io":{"registrytoken":"t"}}}"#, "a.io", Some(Entry::Login(Login::Token("t".into())))),
            (r#"{"auths":{"a.io":{}},"credsStore":"pass"}"#, "a.io", helped("pass", "a.io")),
            (r#"{"auths":{"a.io":{"auth":"ENC"}},"credsStore":"pass"}"#, "a.io", password("ann", "a:b")),
            (r#"{"auths":{"a.io":{"auth":"ENC"}},"credHelpers":{"a.io":"x"}}"#, "a.io", helped("x", "a.io")),
            (r#"{"credHelpers":{"a.io":"x"},"credsStore":"pass"}"#, "b.io", helped("pass", "b.io")),
            (r#"{"credsStore":"pass"}"#, "docker.io", helped("pass", DOCKER_HUB)),
            (r#"{"auths":{"https://index.docker.io/v1/":{"auth":"ENC"}}}"#, "docker.io", password("ann", "a:b")),
            (r#"{"auths":{"a.io":{"auth":"%%"}}}"#, "a.io", None),
            (r#"{"auths":{"a.io":{"auth":"QUJD"}}}"#, "a.io", None),
            (r#"{"credHelpers":{"a.io":"../x"}}"#, "a.io", None),
            (r#"{"credHelpers":{"a.io":""}}"#, "a.io", None),
        ] {
            let config = Config::parse(text.replace("ENC", &encoded).as_bytes()).expect(text);
            assert_eq!(config.entry(host).ok(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_shows_nothing_of_it() {
        for text in [r#"{"auths":{"a.io":"hunter2"}}"#, r#"{"auths":{"a.io":{"auth":hunter2}}}"#, "hunter2"] {
            let Err(error) = Config::parse(text.as_bytes()) else { panic!("read {text}") };
            assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
        }
        assert!(Config::read(Path::new("/nowhere/config.json")).is_err());
        assert!(Config::read(Path::new("/dev/zero")).is_err(), "it never ends");
    }
}

//! What shows a certificate authority that a host is ours, in clear or in the handshake (RFC 8555 §8, RFC 8737).
//!
//! Must not know: connections, or who asked for a certificate.
//!
//! Main type: [`Challenges`]. Nothing else of a host shows in them: they are looked up before anything asks whether there
//! is such a host, and what is not in them goes the usual way.

use std::sync::Arc;

use api::Host;
use api::fleet::{self, challenge};
use certs::CertsError;
use rustls::ServerConfig;

use super::Table;
use super::check::{self, Problems};
use super::resources::{Delta, Kind, Raw, Resources};

/// Most at one time: each is there for seconds while a certificate is issued.
const MOST: usize = 1_000;
/// Longest token, and half of the longest answer: theirs have 43 characters each.
const TOKEN_BYTES: usize = 256;
const PATH: &str = "/.well-known/acme-challenge/";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Challenges {
    /// Token and answer, by host.
    http: Table<Box<str>, (Box<str>, Box<str>)>,
    /// Key authorization and what was made of it, by host.
    handshakes: Table<Box<str>, (Box<str>, Arc<ServerConfig>)>,
}

impl Challenges {
    /// All of them as they will be after a change; `None`: as before.
    pub(super) fn prepare(
        &self,
        delta: &Delta,
        resources: &Resources,
        problems: &mut Vec<fleet::Rejection>,
    ) -> Option<Self> {
        if !delta.entries.keys().any(|(kind, _)| *kind == Kind::Challenge) {
            return None;
        }
        let of_kind = resources.of_kind(Kind::Challenge);
        let kept = of_kind.filter(|(name, _)| !delta.entries.contains_key(&(Kind::Challenge, Arc::clone(name))));
        let new = delta.entries.iter().filter(|((kind, _), _)| *kind == Kind::Challenge);
        let new = new.filter_map(|((_, name), raw)| Some((name, raw.as_ref()?)));
        let all: Vec<_> = kept.chain(new).collect();
        let mut made = Self::default();
        if all.len() > MOST {
            let reason = format!("there would be {}, at most {MOST} are accepted", all.len());
            let resource = Kind::Challenge.as_str().into();
            problems.push(fleet::Rejection { resource, field: String::new(), reason });
            return None;
        }
        for (name, raw) in all {
            made.add(raw, self, &mut Problems { list: problems, kind: Kind::Challenge, name });
        }
        Some(made)
    }

    /// Takes from `before` what was made of the same there: a proof costs a key and a signature.
    fn add(&mut self, raw: &Raw, before: &Self, problems: &mut Problems<'_>) {
        let Some(challenge) = check::decode::<fleet::Challenge>(raw, problems) else { return };
        let fleet::Challenge { host, token, key_authorization, .. } = &challenge;
        let so_far = problems.list.len();
        if let Err(wrong) = host.parse::<Host>() {
            problems.add("host", wrong.to_string());
        }
        if problems.name.split_once('/').is_none_or(|(_, named)| named != host) {
            problems.add("name", format!("{:?} is not KIND/HOST with the host {host:?}", problems.name));
        }
        let is_plain = |text: &str, most: usize, more: &[u8]| {
            let may = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') || more.contains(&b);
            (1..=most).contains(&text.len()) && text.bytes().all(may)
        };
        // RFC 8555 §8.1: base64url, and two of them with a dot between.
        if challenge.kind() == challenge::Kind::Http01 && !is_plain(token, TOKEN_BYTES, b"") {
            problems.add("token", "is not 1 to 256 characters of base64url");
        }
        if !is_plain(key_authorization, 2 * TOKEN_BYTES, b".") {
            problems.add("key_authorization", "is not 1 to 512 characters of base64url with a dot in between");
        }
        if challenge.kind() == challenge::Kind::Unspecified {
            problems.add("kind", format!("{} is none of HTTP_01 (1) and TLS_ALPN_01 (2)", challenge.kind));
        }
        if problems.list.len() > so_far {
            return;
        }
        match challenge.kind() {
            challenge::Kind::TlsAlpn01 => {
                let made = before.handshakes.get(host.as_str()).filter(|(of, _)| **of == **key_authorization).cloned();
                let make = || Ok((key_authorization.as_str().into(), certs::public::proof(host, key_authorization)?));
                match made.map_or_else(make, Ok::<_, CertsError>) {
                    Ok(made) => drop(self.handshakes.insert(host.as_str().into(), made)),
                    Err(error) => problems.add("host", error.to_string()),
                }
            }
            _ => {
                let answer = (token.as_str().into(), key_authorization.as_str().into());
                self.http.insert(host.as_str().into(), answer);
            }
        }
    }

    /// What is answered in clear at this path of this host.
    pub(crate) fn answer(&self, host: &str, path: &str) -> Option<&str> {
        let asked = path.strip_prefix(PATH)?;
        let (token, answer) = self.http.get(host)?;
        (**token == *asked).then_some(answer)
    }

    /// The way to shake hands about this host.
    pub(crate) fn handshake(&self, host: &str) -> Option<&Arc<ServerConfig>> {
        self.handshakes.get(host).map(|(_, config)| config)
    }
}

#[cfg(test)]
mod tests {
    use api::Version;
    use api::fleet::Resource;

    use super::*;
    use crate::snapshot::{Compiler, fixture};

    fn proof(host: &str, key_authorization: &str) -> Resource {
        let kind = challenge::Kind::TlsAlpn01.into();
        let (token, key_authorization) = ("abc".into(), key_authorization.into());
        let body = fleet::Challenge { kind, host: host.into(), token, key_authorization };
        fixture::resource("challenge", &format!("tls-alpn-01/{host}"), &body)
    }

    #[test]
    fn a_proof_is_made_once_as_long_as_what_it_shows_is_the_same() {
        certs::install_provider();
        let mut compiler = Compiler::default();
        let mut made = |number, resources: &[Resource]| {
            compiler.apply(fixture::full(Version { term: 1, number }, resources)).expect("good");
            compiler.snapshot().challenges.handshake("a.example").expect("there").clone()
        };
        let first = made(1, &[proof("a.example", "abc.def")]);
        let beside = made(2, &[proof("a.example", "abc.def"), proof("b.example", "abc.def")]);
        assert!(Arc::ptr_eq(&first, &beside), "another came");
        let other = made(3, &[proof("a.example", "abc.ghi"), proof("b.example", "abc.def")]);
        assert!(!Arc::ptr_eq(&first, &other), "it is another now");
    }
}

//! Where an artifact lies: a registry's host, and a repository there.
//!
//! Must not know: connections, or who may read there.
//!
//! Main types: [`Place`], [`Reference`] (a place and what is meant there), [`Wanted`]. Source: OCI distribution specification
//! 1.1, "Pulling manifests" (names and tags); distribution's reference grammar. Nothing is completed: neither Docker Hub nor
//! `latest` is meant by what does not name them.

use std::fmt;
use std::str::FromStr;

use api::{Digest, NotAccepted};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const PLACE: &str = "HOST[:PORT]/REPOSITORY in lower case, for example registry.example.com:5000/shop/web";
const REFERENCE: &str = "HOST[:PORT]/REPOSITORY:TAG or HOST[:PORT]/REPOSITORY@sha256:DIGEST, \
                         for example registry.example.com:5000/shop/web:v1";
/// Longest name of a repository with its host: what registries keep to.
const LONGEST: usize = 255;

/// A repository of a registry, written `host[:port]/repository`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Host and repository as they are written, `/` between them.
    text: String,
    /// Bytes of the host.
    host: usize,
}

/// What is meant at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The manifest with this digest, and no other.
    Digest(Digest),
    /// Whatever has this tag now.
    Tag(Tag),
}

/// A name that a registry moves as it is told: 1 to 128 letters, digits, `_`, `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

/// A place and what is meant there, written `PLACE:TAG`, `PLACE@DIGEST` or `PLACE:TAG@DIGEST`, where the digest counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where.
    pub place: Place,
    /// What.
    pub wanted: Wanted,
}

// === impl Place ===

impl Place {
    /// The registry, `host[:port]` as it was written.
    pub fn host(&self) -> &str {
        &self.text[..self.host]
    }

    /// The repository's name, without a `/` at either end.
    pub fn repository(&self) -> &str {
        &self.text[self.host + 1..]
    }

    /// A repository below this one: `parts` with `/` between them.
    ///
    /// # Errors
    /// When that is no name of a repository, or too long for one.
    pub fn below(&self, parts: &[&str]) -> Result<Self, NotAccepted> {
        format!("{self}/{}", parts.join("/")).parse()
    }
}

impl FromStr for Place {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let wrong = || NotAccepted::new("a place in a registry", text, PLACE);
        let (host, repository) = text.split_once('/').ok_or_else(wrong)?;
        if text.len() > LONGEST || !is_host(host) || !repository.split('/').all(is_path_part) {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), host: host.len() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

// === impl Wanted ===

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Tag(tag) => f.write_str(&tag.0),
        }
    }
}

// === impl Tag ===

impl Tag {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(is_word);
        if first && text.len() <= 128 && bytes.all(|byte| is_word(byte) || matches!(byte, b'.' | b'-')) {
            return Ok(Self(text.to_owned()));
        }
        let accepted = "1 to 128 letters, digits, \"_\", \".\" and \"-\", not beginning with \".\" or \"-\"";
        Err(NotAccepted::new("a tag", text, accepted))
    }
}

// === impl Reference ===

impl FromStr for Reference {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let wrong = || NotAccepted::new("a reference to an image", text, REFERENCE);
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        // A colon before the last slash is the port's.
        let last = named.rfind('/').ok_or_else(wrong)?;
        let (place, tag) = match named[last..].find(':') {
            Some(colon) => {
                let tag = named[last + colon + 1..].parse().map_err(|_| wrong())?;
                (&named[..last + colon], Some(tag))
            }
            None => (named, None),
        };
        let wanted = digest.map(Wanted::Digest).or(tag.map(Wanted::Tag)).ok_or_else(wrong)?;
        Ok(Self { place: place.parse().map_err(|_| wrong())?, wanted })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if matches!(self.wanted, Wanted::Digest(_)) { '@' } else { ':' };
        write!(f, "{}{sign}{}", self.place, self.wanted)
    }
}

/// Whether a text is `host[:port]`, and cannot be taken for the first part of a repository.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.rfind([':', ']']) {
        Some(at) if text[at..].starts_with(':') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|number| number > 0)
    };
    if port.is_some_and(|port| !is_port(port)) {
        return false;
    }
    if let Some(inner) = name.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let is_label = |label: &str| {
        let mut bytes = label.bytes();
        !label.starts_with('-')
            && !label.ends_with('-')
            && (1..=63).contains(&label.len())
            && bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    name.split('.').all(is_label) && (port.is_some() || name.contains('.') || name == "localhost")
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_part(part: &str) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let bytes = part.as_bytes();
    let ends_plain = bytes.first().is_some_and(is_plain) && bytes.last().is_some_and(is_plain);
    let is_between = |run: &[u8]| match run {
        [] | [b'.'] | [b'_'] | [b'_', b'_'] => true,
        run => run.iter().all(|byte| *byte == b'-'),
    };
    ends_plain && bytes.split(is_plain).all(is_between)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_a_host_and_a_repository() {
        for (text, parts) in [
            ("registry.example.com/shop", Some(("registry.example.com", "shop"))),
            ("registry.example.com:5000/shop/web", Some(("registry.example.com:5000", "shop/web"))),
            ("localhost/a", Some(("localhost", "a"))),
            ("localhost:1/a", Some(("localhost:1", "a"))),
            ("10.0.0.7:5000/a.b_c__d--e", Some(("10.0.0.7:5000", "a.b_c__d--e"))),
            ("[::1]:5000/a", Some(("[::1]:5000", "a"))),
            ("[::1]/a", Some(("[::1]", "a"))),
            ("host:5000/a", Some(("host:5000", "a"))),
            ("nginx", None),
            ("library/nginx", None),
            ("registry.example.com", None),
            ("registry.example.com/", None),
            ("registry.example.com//a", None),
            ("registry.example.com/a/", None),
            ("registry.example.com/../a", None),
            ("registry.example.com/a..b", None),
            ("registry.example.com/a___b", None),
            ("registry.example.com/a-_b", None),
            ("registry.example.com/A", None),
            ("Registry.example.com/a", None),
            ("registry.example.com:/a", None),
            ("registry.example.com:0/a", None),
            ("registry.example.com:65536/a", None),
            ("registry.example.com:+1/a", None),
            ("user@registry.example.com/a", None),
            ("https://registry.example.com/a", None),
            ("registry.example.com/a:v1", None),
            ("registry.example.com/a?b", None),
            ("registry..com/a", None),
            ("-a.com/a", None),
            ("[::1/a", None),
            ("::1/a", None),
            ("registry.example.com/a\n", None),
            ("", None),
        ] {
            let place = text.parse::<Place>().ok();
            assert_eq!(place.as_ref().map(|place| (place.host(), place.repository())), parts, "{text:?}");
        }
        let long = format!("registry.example.com/{}", "a".repeat(300));
        assert!(long.parse::<Place>().is_err());
        let place: Place = "registry.example.com/shop".parse().expect("a place");
        assert_eq!(place.below(&["hello", "web"]).expect("below").to_string(), "registry.example.com/shop/hello/web");
        assert!(place.below(&["../x"]).is_err() && place.below(&[""]).is_err());
    }

    #[test]
    fn references_name_a_tag_or_a_digest() {
        let digest = Digest::of(b"a");
        let read = |text: &str| text.parse::<Reference>().ok().map(|found| found.to_string());
        for text in ["h.io/a:v1", "h.io:5/a/b:1.2.3_x-y", &format!("h.io/a@{digest}"), &format!("h.io:5/a@{digest}")] {
            assert_eq!(read(text).as_deref(), Some(text));
        }
        assert_eq!(read(&format!("h.io/a:v1@{digest}")), Some(format!("h.io/a@{digest}")), "the digest counts");
        for bad in
            ["h.io/a", "h.io:5/a", "h.io/a:", "h.io/a:-x", "h.io/a:a/b", "h.io/a@", "h.io/a@sha256:12", "a:b", ""]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read(&format!("h.io/a:{}", "x".repeat(129))), None);
    }

    proptest! {
        #[test]
        fn place_displays_as_it_was_read(text in "[a-z0-9.:\\[\\]-]{1,20}/[a-z0-9._/-]{1,20}([:@][a-zA-Z0-9:]{1,20})?") {
            if let Ok(place) = text.parse::<Place>() {
                prop_assert_eq!(format!("{}/{}", place.host(), place.repository()), text.clone());
                prop_assert_eq!(place.to_string(), text.clone());
            }
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            }
        }
    }
}

//! Who the client is, when there are proxies before us: what trusted peers say is believed, and nothing else.
//!
//! Must not know: connections, or how fields are written. Main types: [`Trusted`], the peers that are believed;
//! [`Origin`], what they say.
//!
//! Sources: RFC 7239 and common usage of `X-Forwarded-*`. The chain is read from its end: each trusted address vouches
//! for the one before it, the first that is not trusted is the client, and what stands before that anyone can have made up.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::codec::RequestView;

/// Peers that are believed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trusted(Vec<IpNet>);

/// What trusted peers say of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The client.
    pub(crate) client: IpAddr,
    /// From the client to the peer's own client: without the peer itself.
    pub(crate) chain: Vec<IpAddr>,
    /// "https" or "http", when it was said.
    pub(crate) scheme: Option<&'static str>,
    /// When it was said and is a host.
    pub(crate) host: Option<Box<str>>,
    pub(crate) port: Option<u16>,
}

impl Trusted {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// What a request says of its way, which came from the trusted `peer`.
pub(crate) fn origin(view: RequestView<'_>, peer: IpAddr, trusted: &Trusted) -> Origin {
    let mut forwarded = view.header("forwarded").peekable();
    let mut said = if forwarded.peek().is_some() { standard(forwarded) } else { usual(view) };
    // Nearest first: every trusted address vouches for the next.
    let mut chain = Vec::new();
    for hop in said.hops.drain(..).rev() {
        let Some(address) = hop else { break };
        chain.push(address);
        if !trusted.holds(address) {
            break;
        }
    }
    let client = chain.last().copied().unwrap_or(peer);
    chain.reverse();
    Origin { client, chain, scheme: said.scheme, host: said.host, port: said.port }
}

#[derive(Default)]
struct Said {
    /// In the order of the way; `None`: not an address.
    hops: Vec<Option<IpAddr>>,
    scheme: Option<&'static str>,
    host: Option<Box<str>>,
    port: Option<u16>,
}

fn members(value: &[u8]) -> impl Iterator<Item = &str> {
    value.split(|b| *b == b',').map(|part| std::str::from_utf8(part).unwrap_or_default().trim_ascii())
}

/// `X-Forwarded-For` and the like. Of several values of the others the last is the nearest peer's.
fn usual(view: RequestView<'_>) -> Said {
    let last = |name| view.header(name).last().and_then(|value| members(value).last());
    Said {
        hops: view.header("x-forwarded-for").flat_map(members).map(address).collect(),
        scheme: last("x-forwarded-proto").and_then(scheme),
        host: last("x-forwarded-host").and_then(host),
        port: last("x-forwarded-port").and_then(|port| port.parse().ok()).filter(|port| *port > 0),
    }
}

/// `Forwarded` (RFC 7239 §4). Of `proto` and `host` the nearest peer's counts.
fn standard<'a>(values: impl Iterator<Item = &'a [u8]>) -> Said {
    let mut said = Said::default();
    for element in values.flat_map(members) {
        let mut hop = None;
        (said.scheme, said.host) = (None, None);
        for pair in element.split(';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = unquoted(value.trim_ascii());
            match name.trim_ascii() {
                name if name.eq_ignore_ascii_case("for") => hop = address(value),
                name if name.eq_ignore_ascii_case("proto") => said.scheme = scheme(value),
                name if name.eq_ignore_ascii_case("host") => said.host = host(value),
                _ => {}
            }
        }
        said.hops.push(hop);
    }
    said
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// An address, with a port or without, in brackets or without.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.parse().ok();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    plain.or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

fn scheme(text: &str) -> Option<&'static str> {
    ["https", "http"].into_iter().find(|known| text.eq_ignore_ascii_case(known))
}

fn host(text: &str) -> Option<Box<str>> {
    crate::head_check::host_of(text).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::testing::head;

    fn trusted() -> Trusted {
        Trusted::new(["10.0.0.0/8", "2001:db8::/32", "127.0.0.1/32"].map(|net| net.parse().expect("a network")).into())
    }

    fn said(fields: &str) -> Origin {
        let head = head(&format!("GET / HTTP/1.1\nhost: a{fields}"));
        origin(head.view(), "10.0.0.1".parse().expect("an address"), &trusted())
    }

    #[test]
    fn hostile_h43_the_chain_is_believed_as_far_as_it_is_vouched_for() {
        for (fields, client, chain) in [
            ("", "10.0.0.1", ""),
            ("\nx-forwarded-for: 192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("\nx-forwarded-for: 6.6.6.6, 192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("\nx-forwarded-for: 6.6.6.6\nx-forwarded-for: 192.0.2.1, 10.1.1.1", "192.0.2.1", "192.0.2.1 10.1.1.1"),
            ("\nx-forwarded-for: 192.0.2.1, 10.1.1.1, 10.2.2.2", "192.0.2.1", "192.0.2.1 10.1.1.1 10.2.2.2"),
            ("\nx-forwarded-for: 10.1.1.1, 10.2.2.2", "10.1.1.1", "10.1.1.1 10.2.2.2"),
            ("\nx-forwarded-for: 6.6.6.6, evil, 10.2.2.2", "10.2.2.2", "10.2.2.2"),
            ("\nx-forwarded-for: 6.6.6.6,", "10.0.0.1", ""),
            ("\nx-forwarded-for: unknown", "10.0.0.1", ""),
            ("\nx-forwarded-for: 192.0.2.1:4711", "192.0.2.1", "192.0.2.1"),
            ("\nx-forwarded-for: [2001:db8:ffff::1]:80", "2001:db8:ffff::1", "2001:db8:ffff::1"),
            ("\nx-forwarded-for: ::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("\nx-forwarded-for: 192.0.2.300", "10.0.0.1", ""),
            ("\nforwarded: for=192.0.2.1", "192.0.2.1", "192.0.2.1"),
            (
                "\nforwarded: for=6.6.6.6, For=\"[2001:4860::1]:80\";by=x, for=10.1.1.1",
                "2001:4860::1",
                "2001:4860::1 10.1.1.1",
            ),
            ("\nforwarded: for=_hidden, for=10.1.1.1", "10.1.1.1", "10.1.1.1"),
            ("\nforwarded: for=\"192.0.2.1", "10.0.0.1", ""),
            ("\nforwarded: for=192.0.2.1\nx-forwarded-for: 6.6.6.6", "192.0.2.1", "192.0.2.1"),
        ] {
            let origin = said(fields);
            let shown: Vec<String> = origin.chain.iter().map(IpAddr::to_string).collect();
            assert_eq!((origin.client.to_string().as_str(), shown.join(" ").as_str()), (client, chain), "{fields}");
        }
    }

    #[test]
    fn hostile_h43_scheme_host_and_port_are_the_nearest_peers() {
        let origin = said(
            "\nx-forwarded-proto: ftp, HTTPS\nx-forwarded-host: evil, Hello.Example:8443\nx-forwarded-port: 1, 8443",
        );
        assert_eq!(
            (origin.scheme, origin.host.as_deref(), origin.port),
            (Some("https"), Some("hello.example:8443"), Some(8443))
        );
        let origin = said("\nx-forwarded-proto: gopher\nx-forwarded-host: a/b\nx-forwarded-port: 99999");
        assert_eq!((origin.scheme, origin.host, origin.port), (None, None, None));
        let origin = said("\nforwarded: proto=http;host=evil, for=1.1.1.1;proto=https;host=\"a.example:1\"");
        assert_eq!((origin.scheme, origin.host.as_deref()), (Some("https"), Some("a.example:1")));
    }

    #[test]
    fn hostile_h43_only_listed_networks_are_trusted() {
        for (address, expected) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("::ffff:10.0.0.1", true),
            ("2001:db8::5", true),
            ("2001:db9::5", false),
            ("127.0.0.2", false),
        ] {
            assert_eq!(trusted().holds(address.parse().expect("an address")), expected, "{address}");
        }
        assert!(!Trusted::default().holds("127.0.0.1".parse().expect("an address")));
    }
}

//! What is the controller's machine's own to ask: itself, its link, and whoever tells a machine in a cloud who it is. Whoever may
//! apply a service's file may not have such servers asked by its checks, unless it is one that may do everything.
//!
//! Must not know: what a check is for. Addresses of private networks are like any other: Prometheus lives there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;

/// Metadata of clouds that lies outside of what is on a link (RFC 3927, RFC 4291 §2.5.6): Alibaba's, and by IPv6 Amazon's and
/// Google's.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether an address is the machine itself, on its link, no single machine's, or a cloud's metadata.
pub(crate) fn is_near(address: IpAddr) -> bool {
    let address = match address {
        // `::127.0.0.1` is written so, too (RFC 4291 §2.5.5).
        IpAddr::V6(v6) => v6.to_ipv4().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    let is_own = match address {
        // 0.0.0.0/8 is this machine on this network (RFC 1122 §3.2.1.3).
        IpAddr::V4(v4) => v4.is_loopback() || v4.octets()[0] == 0 || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    is_own || address.is_multicast() || METADATA.contains(&address)
}

/// Whether a URL says that its server is one of them. One that does not may have a name that leads there all the same.
pub(crate) fn names_near(url: &str) -> bool {
    let url = url.parse::<Uri>().ok();
    let host = url.as_ref().and_then(Uri::host).unwrap_or_default().to_ascii_lowercase();
    let host = host.trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) => is_near(address),
        // RFC 6761 §6.3.
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollout_checks_know_what_is_near() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("127.255.0.9", true),
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("169.254.169.254", true),
            ("255.255.255.255", true),
            ("224.0.0.1", true),
            ("100.100.100.200", true),
            ("::", true),
            ("::1", true),
            ("::127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("fe80::1", true),
            ("ff02::1", true),
            ("fd00:ec2::254", true),
            ("fd20:ce::254", true),
            ("10.0.0.1", false),
            ("172.17.0.1", false),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("169.253.0.1", false),
            ("1.1.1.1", false),
            ("fd00::1", false),
            ("2001:db8::1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(is_near(address.parse().expect("an address")), expected, "{address}");
        }
    }

    #[test]
    fn rollout_checks_that_name_what_is_near_are_seen() {
        for (url, expected) in [
            ("http://127.0.0.1:9090/x", true),
            ("https://[::1]:8443", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://LocalHost/", true),
            ("http://a.localhost:80/", true),
            ("http://169.254.169.254/latest/meta-data/", true),
            ("http://prometheus:9090", false),
            ("http://10.1.2.3:9090", false),
            ("https://r7--hello.production.example.com/smoke", false),
            ("https://localhost.example.com/", false),
            ("https://a.example/?127.0.0.1", false),
            // Only a look-up tells where it leads.
            ("http://127.1/", false),
            ("no url", false),
        ] {
            assert_eq!(names_near(url), expected, "{url}");
        }
    }
}

//! Which fields of a request go on and which do not: hop-by-hop fields, and those that only we may set.
//!
//! Must not know: values, connections, or how fields are stored. Names are lower case, as every codec gives them.
//!
//! Sources: RFC 9110 §7.6.1 (hop-by-hop), RFC 7239 and common usage (`X-Forwarded-*`).

/// What becomes of a field on its way through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Goes on as it came.
    Passes,
    /// Belongs to this connection alone.
    HopByHop,
    /// Says who the client is, to us or to the endpoint: only ours may arrive, in whatever spelling it came.
    Ours,
}

/// The fate of a field by its name.
pub(crate) fn fate(name: &str) -> Fate {
    match name {
        // `expect` is answered here: the codec sends 100 when the body is first wanted.
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authorization"
        | "proxy-authenticate"
        | "te"
        | "transfer-encoding"
        | "upgrade"
        | "http2-settings"
        | "expect" => Fate::HopByHop,
        _ if is_ours(name) => Fate::Ours,
        _ => Fate::Passes,
    }
}

/// Whether `Connection` names anything that is not hop-by-hop by itself. `values`: of all its lines.
pub(crate) fn names_others<'a>(values: impl Iterator<Item = &'a [u8]>) -> bool {
    let usual: [&[u8]; 5] = [b"", b"close", b"keep-alive", b"upgrade", b"te"];
    let mut tokens = values.flat_map(|value| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    tokens.any(|token| !usual.iter().any(|usual| token.eq_ignore_ascii_case(usual)))
}

/// Whether a field named by `Connection` is kept all the same: taking it away would change who is asking or for what.
pub(crate) fn is_protected(name: &str) -> bool {
    matches!(name, "authorization" | "cookie" | "host" | "content-length" | "content-type" | "trailer")
        || name.starts_with("grpc-")
        || is_ours(name)
}

/// Servers read `X_Forwarded_For` and `x.forwarded.for` as `X-Forwarded-For` (CGI and its heirs).
fn is_ours(name: &str) -> bool {
    let is = |written: &str| {
        name.len() >= written.len()
            && name.bytes().zip(written.bytes()).all(|(b, w)| b == w || (w == b'-' && matches!(b, b'_' | b'.')))
    };
    let whole = |written: &str| name.len() == written.len() && is(written);
    name == "forwarded"
        || is("x-forwarded")
        || is("x-pointsman-")
        || whole("x-real-ip")
        || whole("x-request-id")
        || whole("x-api-key")
}

/// Whether a field may stand in trailers: not one that frames, routes or identifies (RFC 9110 §6.5.1).
pub(crate) fn passes_in_trailers(name: &str) -> bool {
    fate(name) == Fate::Passes
        && !matches!(
            name,
            "content-length"
                | "content-type"
                | "content-encoding"
                | "content-range"
                | "host"
                | "trailer"
                | "authorization"
                | "cookie"
                | "set-cookie"
                | "cache-control"
                | "range"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_h41_every_spelling_of_ours_is_ours() {
        for name in [
            "x-forwarded-for",
            "x_forwarded_for",
            "x.forwarded.for",
            "x-forwarded_for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x_forwarded-host",
            "x-forwarded-port",
            "x-forwarded",
            "forwarded",
            "x-real-ip",
            "x_real.ip",
            "x-request-id",
            "x_request.id",
            "x-api-key",
            "x_api_key",
            "x.api.key",
            "x-api_key",
            "x-pointsman-assertion",
            "x_pointsman_assertion",
            "x.pointsman.assertion",
            "x-pointsman_assertion",
            "x_pointsman-anything",
        ] {
            assert_eq!(fate(name), Fate::Ours, "{name}");
            assert!(!passes_in_trailers(name), "{name}");
        }
        for name in [
            "x-forward",
            "x-request-ids",
            "accept",
            "x-real-ipv6",
            "forwarded-by",
            "te-x",
            "x-api-keys",
            "x-pointsman",
            "api-key",
        ] {
            assert_eq!(fate(name), Fate::Passes, "{name}");
        }
    }

    #[test]
    fn hostile_h08_hop_by_hop_fields_end_here_and_identity_does_not() {
        for name in ["connection", "keep-alive", "te", "upgrade", "transfer-encoding", "proxy-connection"] {
            assert_eq!(fate(name), Fate::HopByHop, "{name}");
        }
        for name in [
            "authorization",
            "cookie",
            "host",
            "x-forwarded-for",
            "content-length",
            "x-api-key",
            "x-pointsman-assertion",
        ] {
            assert!(is_protected(name), "{name}");
        }
        assert!(!is_protected("x-custom"));
    }
}

//! The target of a request (RFC 9112 §3.2): which part names the host and which the resource.
//!
//! Must not know: whether either is acceptable; that is the head check's business.

/// Authority and path of a target. `https://a/b?c` gives `a` and `/b?c`, `https://a` gives `a` and nothing; what is in no form that a proxy serves is all
/// path, and is refused there.
pub(crate) fn split(target: &str) -> (Option<&str>, &str) {
    if target.starts_with('/') {
        return (None, target);
    }
    let Some(rest) = strip_scheme(target) else { return (None, target) };
    match rest.find(['/', '?', '#']) {
        // One with a query only has no path to begin it.
        None => (Some(rest), ""),
        Some(at) => (Some(&rest[..at]), &rest[at..]),
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn hostile_h05_a_target_has_one_host() {
        for (target, authority, path) in [
            ("/", None, "/"),
            ("//evil/x", None, "//evil/x"),
            ("/http://b/", None, "/http://b/"),
            ("*", None, "*"),
            ("http://a/b?c", Some("a"), "/b?c"),
            ("HTTPS://a:80/", Some("a:80"), "/"),
            ("http://a", Some("a"), ""),
            ("http://a?x", Some("a"), "?x"),
            ("http://a#x/", Some("a"), "#x/"),
            ("http://u@a/b@c", Some("u@a"), "/b@c"),
            ("http:///x", Some(""), "/x"),
            ("ftp://a/b", None, "ftp://a/b"),
            ("a:443", None, "a:443"),
            ("", None, ""),
        ] {
            assert_eq!(split(target), (authority, path), "{target}");
        }
    }
}

//! Pages of other origins that may call a stage from a browser (CORS): who may ask, and what the browser is told.
//!
//! Must not know: how answers are written. A stage that names no origins answers for itself.
//!
//! Main functions: [`judge`]; [`Preflight::read`]. Source: WHATWG Fetch §3.2. A preflight carries no credentials, so who
//! may ask is decided by the list of the stage alone; what the request itself may do is decided as always.

use crate::codec::RequestView;

/// What a request's `Origin` means for the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nobody asks, or the stage answers for itself.
    Unasked,
    /// The page may read the answer.
    Allowed(Box<str>),
    /// It may not: the answer says nothing about origins. A preflight is not passed on.
    Refused,
}

/// What a browser asks before it sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preflight {
    pub(crate) method: Box<str>,
    pub(crate) headers: Box<str>,
}

/// Whether the page that a request comes from may call a stage that names these origins.
pub(crate) fn judge(view: RequestView<'_>, allowed: &[Box<str>]) -> Verdict {
    if allowed.is_empty() {
        return Verdict::Unasked;
    }
    let mut origins = view.header("origin");
    match (origins.next(), origins.next()) {
        (None, _) => Verdict::Unasked,
        // One that cannot be read is answered by nobody: the endpoint would not be asked who may call it.
        (Some(_), None) if Preflight::is_asked(view) && Preflight::read(view).is_none() => Verdict::Refused,
        (Some(origin), None) => {
            let known = allowed.iter().find(|known| known.as_bytes() == origin);
            known.map_or(Verdict::Refused, |known| Verdict::Allowed(known.clone()))
        }
        (Some(_), Some(_)) => Verdict::Refused,
    }
}

impl Preflight {
    /// Whether the request is one, be it one that cannot be answered.
    pub(crate) fn is_asked(view: RequestView<'_>) -> bool {
        view.method() == "OPTIONS"
            && view.header("origin").next().is_some()
            && view.header("access-control-request-method").next().is_some()
    }

    /// The question, when the request is one.
    pub(crate) fn read(view: RequestView<'_>) -> Option<Self> {
        let text = |name| -> Option<Box<str>> {
            let value = view.header(name).next()?;
            let is_list = value.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, ".contains(b));
            is_list.then(|| String::from_utf8_lossy(value).into())
        };
        if view.method() != "OPTIONS" || view.header("origin").next().is_none() {
            return None;
        }
        let method = text("access-control-request-method")?;
        Some(Self { method, headers: text("access-control-request-headers").unwrap_or_default() })
    }
}

/// Whether a field of an answer is the stage's to say, where the stage names origins.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with("access-control-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::testing::head;

    #[test]
    fn cors_only_the_listed_origin_may_read() {
        let allowed: [Box<str>; 2] = ["https://app.example.com".into(), "http://localhost:8080".into()];
        for (fields, expected) in [
            ("", Verdict::Unasked),
            ("\norigin: https://app.example.com", Verdict::Allowed("https://app.example.com".into())),
            ("\norigin: http://localhost:8080", Verdict::Allowed("http://localhost:8080".into())),
            ("\norigin: https://app.example.com.evil.org", Verdict::Refused),
            ("\norigin: https://APP.example.com", Verdict::Refused),
            ("\norigin: http://app.example.com", Verdict::Refused),
            ("\norigin: null", Verdict::Refused),
            ("\norigin: *", Verdict::Refused),
            ("\norigin: https://app.example.com\norigin: https://app.example.com", Verdict::Refused),
        ] {
            let head = head(&format!("GET / HTTP/1.1\nhost: a{fields}"));
            assert_eq!(judge(head.view(), &allowed), expected, "{fields}");
            assert_eq!(judge(head.view(), &[]), Verdict::Unasked, "{fields}");
        }
    }

    #[test]
    fn cors_a_preflight_that_cannot_be_read_is_refused() {
        let allowed: [Box<str>; 1] = ["https://a".into()];
        for (method, asked, expected) in [
            ("OPTIONS", "POST", Verdict::Allowed("https://a".into())),
            ("OPTIONS", "PO\"ST", Verdict::Refused),
            ("OPTIONS", "\u{e9}", Verdict::Refused),
            ("GET", "PO\"ST", Verdict::Allowed("https://a".into())),
        ] {
            let fields = format!("\norigin: https://a\naccess-control-request-method: {asked}");
            let head = head(&format!("{method} / HTTP/1.1\nhost: a{fields}"));
            assert_eq!(judge(head.view(), &allowed), expected, "{method} {asked}");
        }
    }

    #[test]
    fn cors_a_preflight_is_an_options_that_asks() {
        let asked =
            "\norigin: https://a\naccess-control-request-method: POST\naccess-control-request-headers: x-grpc-web, a";
        let read =
            |method: &str, fields: &str| Preflight::read(head(&format!("{method} / HTTP/1.1\nhost: a{fields}")).view());
        let preflight = read("OPTIONS", asked).expect("a preflight");
        assert_eq!((&*preflight.method, &*preflight.headers), ("POST", "x-grpc-web, a"));
        assert_eq!(read("POST", asked), None);
        assert_eq!(read("OPTIONS", "\norigin: https://a"), None);
        assert_eq!(read("OPTIONS", "\naccess-control-request-method: POST"), None);
        let hostile =
            "\norigin: https://a\naccess-control-request-method: POST\naccess-control-request-headers: a\"<b>";
        assert_eq!(read("OPTIONS", hostile).expect("a preflight").headers, "".into());
    }
}

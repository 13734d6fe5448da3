//! Names of header fields that mean something of their own: one list, for files, for what is on record, and for proxies, so that
//! nothing is refused by one that another let in.

/// Fields that frame a message, carry credentials, or are set or taken away by proxies: what they hold is not the service's
/// or its caller's to say. In lower case.
pub const OUR_FIELDS: [&str; 20] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
    "x-real-ip",
    "x-request-id",
];
const OUR_PREFIXES: [&str; 2] = ["x-pointsman-", "x-forwarded"];

/// Whether a field is none of [`OUR_FIELDS`], nor begins as ours do: rules may name it. `name` is in lower case.
pub fn is_the_services(name: &str) -> bool {
    // CGI and its heirs read `X_Api_Key` as `X-Api-Key`, and so do proxies.
    let spelt = name.replace(['_', '.'], "-");
    !OUR_FIELDS.contains(&spelt.as_str()) && !OUR_PREFIXES.iter().any(|prefix| spelt.starts_with(prefix))
}

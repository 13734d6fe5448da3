//! What else says whether all is well: `[[stage.NAME.check]]`.

use std::collections::BTreeSet;

use api::{MemberName, Span};
use toml::de::DeValue;

use crate::core::spec::{
    CHECK_EVERY, CHECK_FALL, CHECK_TIMEOUT, CHECKS_MOST, Check, CheckKind, Limits, WORDS, check_words, sample,
};
use crate::files::tls;
use crate::files::walk::{Section, Walk, a_kind, nearest, shown};

const KINDS: [&str; 3] = ["http", "command", "prometheus"];

/// A program that is started, or a server that is asked, more often than that does nothing else.
const EVERY_LEAST: Span = Span::from_ms(1_000).expect("1 second");
const TIMEOUT_LEAST: Span = Span::from_ms(1).expect("1 millisecond");
/// Longest between two tries and for one.
const MOST: Span = Span::from_ms(3_600_000).expect("1 hour");

/// Longest URL.
const URL_BYTES: usize = 1_024;
/// Longest query, and longest command with all its arguments. Each rollout keeps a copy.
const TEXT_BYTES: usize = 4_096;
/// Longest limit: more digits than any number that is compared with it has.
const LIMIT_BYTES: usize = 32;

/// Longest text of authorities: of each rollout's copy, too.
const CA_BYTES: usize = 16 * 1024;

/// How the URL of a check begins that asks a release, or the stage, by the release's own host.
const OWN: &str = "{host}";

/// Reads all of them.
pub(super) fn read(walk: &mut Walk<'_>, stage: &Section<'_>) -> Vec<Check> {
    let Some(value) = stage.value("check") else { return Vec::new() };
    let found = match value.get_ref() {
        DeValue::Array(items) if items.len() <= CHECKS_MOST => stage.sections(walk, "check"),
        DeValue::Array(items) => {
            let message = format!("a stage has at most {CHECKS_MOST} checks, not {}", items.len());
            walk.wrong(stage.place("check"), message);
            Vec::new()
        }
        other => {
            let form = stage.title.trim_matches(['[', ']']);
            let message = format!("`check` is a list of tables, not {}: accepted is [[{form}.check]]", a_kind(other));
            walk.wrong(value.span().start, message);
            Vec::new()
        }
    };
    // Whatever else it is is told by whoever reads it.
    let is_public = stage.value("public").is_some_and(|value| matches!(value.get_ref(), DeValue::Boolean(true)));
    let mut names = BTreeSet::new();
    found.iter().filter_map(|section| check(walk, section, is_public, &mut names)).collect()
}

fn check(walk: &mut Walk<'_>, section: &Section<'_>, is_public: bool, names: &mut BTreeSet<String>) -> Option<Check> {
    let keys = ["name", "http", "app", "ca", "command", "prometheus", "every", "timeout", "fall"];
    section.check_keys(walk, &keys, &[]);
    // The grammar of all plain names.
    let name = section.required::<MemberName>(walk, "name").map(|name| name.to_string());
    if let Some(name) = name.as_ref().filter(|name| !names.insert((*name).clone())) {
        walk.wrong(section.place("name"), format!("the stage has a check named \"{name}\" already"));
    }
    let every = section.within(walk, "every", EVERY_LEAST, MOST).unwrap_or(CHECK_EVERY);
    let timeout = section.within(walk, "timeout", TIMEOUT_LEAST, MOST).unwrap_or(CHECK_TIMEOUT);
    let fall = section.number(walk, "fall", 1..=100).unwrap_or(CHECK_FALL);
    let kind = kind(walk, section, is_public);
    Some(Check { name: name?, kind: kind?, every, timeout, fall })
}

/// Exactly one of them; all that are there are read.
fn kind(walk: &mut Walk<'_>, section: &Section<'_>, is_public: bool) -> Option<CheckKind> {
    let given: Vec<&str> = KINDS.into_iter().filter(|key| section.has(key)).collect();
    match given[..] {
        [] => walk.missing(section.at, format!("{} needs `http`, `command` or `prometheus`", section.title)),
        [_] => {}
        [first, ..] => {
            for key in &given[1..] {
                walk.wrong(section.place(key), format!("a check asks one thing: `{key}` stands beside `{first}`"));
            }
        }
    }
    let kinds = [http(walk, section, is_public), command(walk, section), prometheus(walk, section)];
    kinds.into_iter().flatten().next()
}

fn http(walk: &mut Walk<'_>, section: &Section<'_>, is_public: bool) -> Option<CheckKind> {
    for key in ["app", "ca"].into_iter().filter(|key| section.has(key) && !section.has("http")) {
        walk.wrong(section.place(key), format!("`{key}` says how a server is asked: accepted beside `http`"));
    }
    let app: Option<MemberName> = section.parsed(walk, "app");
    let ca = authorities(walk, section);
    let (url, at) = section.text(walk, "http")?;
    words(walk, "http", &url, at);
    // Mistakes of words are told as such; the rest is looked at as if they stood for something.
    check_url(walk, "http", &sample(&url), at, "https://{host}/smoke");
    let (scheme, rest) = url.split_once("://").unwrap_or(("", &url));
    let is_own = rest.split(['/', '?', ':']).next() == Some(OWN);
    if is_own && !is_public && !section.has("app") {
        refuse_stranger(walk, at);
    }
    if section.has("app") && !(is_own && scheme == "https") {
        let message = "is known by a key, which is for the release's own host alone and never in clear: accepted beside \
                       http = \"https://{host}/...\"";
        walk.wrong(section.place("app"), format!("`app` {message}"));
    }
    Some(CheckKind::Http { url, app, ca })
}

/// Who vouches for a server, as text in the file itself.
fn authorities(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<String> {
    let text = tls::ca(walk, section)?;
    if text.len() > CA_BYTES {
        let message = format!("`ca` has {} bytes: accepted are {CA_BYTES} of a check", text.len());
        walk.wrong(section.place("ca"), message);
    }
    Some(text)
}

/// A stage that is not public is hidden from whoever comes without credentials, and so from such a check.
fn refuse_stranger(walk: &mut Walk<'_>, at: usize) {
    let message = "asks {host} as a stranger, from whom a stage that is not public is hidden: accepted is an application that \
                   policies let in beside it (`app = \"NAME\"`), a `command` that brings its own credentials, or `public = true`";
    walk.wrong(at, format!("`http` {message}"));
}

fn command(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<CheckKind> {
    let given = section.list(walk, "command")?;
    for (word, at) in &given {
        words(walk, "command", word, *at);
    }
    let command: Vec<String> = given.into_iter().map(|(word, _)| word).collect();
    let at = section.place("command");
    if command.first().is_none_or(String::is_empty) {
        walk.wrong(at, "`command` names no program: accepted is a list such as [\"./smoke\", \"{release}\"]");
    }
    if command.iter().any(|word| word.contains('\0')) {
        walk.wrong(at, "`command` contains a NUL character, which no argument can");
    }
    if command.iter().map(String::len).sum::<usize>() > TEXT_BYTES {
        walk.wrong(at, format!("`command` is too long: accepted are {TEXT_BYTES} bytes in all"));
    }
    Some(CheckKind::Command { command })
}

/// `prometheus = { url = "http://prometheus:9090", query = "...", least = 0.99, most = 1 }`.
fn prometheus(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<CheckKind> {
    let section = section.section(walk, "prometheus", "`prometheus`")?;
    section.check_keys(walk, &["url", "query", "least", "most", "ca"], &[]);
    section.require(walk, "url");
    section.require(walk, "query");
    let url = section.text(walk, "url").map(|(url, at)| {
        let example = "http://prometheus:9090";
        if url.contains(['{', '}', '?']) {
            let message = "is the server's own: accepted is one without words and query";
            walk.wrong(at, format!("`url` {message}, such as \"{example}\""));
        } else {
            check_url(walk, "url", &url, at, example);
        }
        url
    });
    let query = section.text(walk, "query").map(|(query, at)| {
        check_query(walk, &query, at);
        query
    });
    let (limits, ca) = (limits(walk, &section), authorities(walk, &section));
    Some(CheckKind::Prometheus { url: url?, query: query?, limits, ca })
}

fn check_query(walk: &mut Walk<'_>, query: &str, at: usize) {
    let unseen = query.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t'));
    if query.trim().is_empty() || query.len() > TEXT_BYTES || unseen {
        let message = format!("accepted are 1 to {TEXT_BYTES} bytes of PromQL without control characters");
        walk.wrong(at, format!("`query`: \"{}\": {message}", shown(query)));
        return;
    }
    if !words(walk, "query", query, at) {
        return;
    }
    // In PromQL braces come in pairs. Whoever doubles the closing one too would learn it from the server, late.
    let filled = sample(query);
    if filled.matches('{').count() != filled.matches('}').count() {
        let message = "braces do not come in pairs: an opening one is written `{{`, a closing one `}`";
        walk.wrong(at, format!("`query`: {message}, such as up{{{{release=\"{{release}}\"}}"));
    }
}

/// At least one, in decimal digits, the lesser first.
fn limits(walk: &mut Walk<'_>, section: &Section<'_>) -> Limits {
    let (least, most) = (decimal(walk, section, "least"), decimal(walk, section, "most"));
    if !section.has("least") && !section.has("most") {
        walk.missing(section.at, format!("{} needs `least`, `most` or both: which values are well", section.title));
    }
    let value = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<f64>().ok());
    if let (Some(low), Some(high)) = (value(&least), value(&most))
        && low > high
    {
        walk.wrong(section.place("least"), "`least` is more than `most`: no value would be well");
    }
    Limits { least, most }
}

/// A decimal number as it is written, as a number or in quotes.
fn decimal(walk: &mut Walk<'_>, section: &Section<'_>, key: &str) -> Option<String> {
    let value = section.value(key)?;
    let text = match value.get_ref() {
        DeValue::String(text) => Some(text.as_ref()),
        DeValue::Float(float) => Some(float.as_str().trim_start_matches('+')),
        DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str().trim_start_matches('+')),
        _ => None,
    };
    let good = text.filter(|text| is_decimal(text));
    if good.is_none() {
        let written = text.map_or_else(|| a_kind(value.get_ref()).to_owned(), |text| format!("\"{}\"", shown(text)));
        let message = format!("a decimal number of at most {LIMIT_BYTES} characters such as 0.99, not {written}");
        walk.wrong(value.span().start, format!("`{key}` is {message}"));
    }
    good.map(str::to_owned)
}

fn is_decimal(text: &str) -> bool {
    let number = text.strip_prefix('-').unwrap_or(text);
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
    text.len() <= LIMIT_BYTES && digits(whole) && digits(rest)
}

/// Whether words in braces are right; the first that is not is told.
fn words(walk: &mut Walk<'_>, key: &str, text: &str, at: usize) -> bool {
    let Err(wrong) = check_words(text) else { return true };
    let near = wrong.word.as_deref().and_then(|word| nearest(&word.trim().to_ascii_lowercase(), &WORDS));
    let near = near.map(|near| format!(", did you mean {{{near}}}?")).unwrap_or_default();
    let found =
        wrong.word.as_deref().map_or_else(|| wrong.to_string(), |word| format!("{{{}}} is no word", shown(word)));
    walk.wrong(at, format!("`{key}`: {found}{near} (accepted: {{host}}, {{release}}, and {{{{ for a brace)"));
    false
}

/// Refuses what is not a URL of http or https with a host. Credentials are not repeated.
fn check_url(walk: &mut Walk<'_>, key: &str, url: &str, at: usize, example: &str) {
    let Some(why) = why_no_url(url) else { return };
    walk.wrong(at, format!("`{key}` {why}: accepted is http or https with a host, such as \"{example}\""));
}

fn why_no_url(url: &str) -> Option<String> {
    if url.len() > URL_BYTES {
        return Some(format!("has {} bytes, and {URL_BYTES} are the most", url.len()));
    }
    let uri = url.parse::<http::Uri>().ok().filter(|_| url.bytes().all(|byte| byte.is_ascii_graphic()));
    let authority = uri.as_ref().and_then(http::Uri::authority).map(http::uri::Authority::as_str);
    if authority.unwrap_or(url).contains('@') {
        return Some("has credentials in it, which everybody who reads the file would have".to_owned());
    }
    if url.contains('#') {
        return Some("has a fragment, which no server is told".to_owned());
    }
    let scheme = url.starts_with("http://") || url.starts_with("https://");
    let host = authority.is_some_and(is_authority);
    (!scheme || !host).then(|| format!("is not such a URL: \"{}\"", shown(url)))
}

/// A host, and a port that can be connected to where there is one.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.find(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(letter),
    };
    let number = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    host && (port.is_empty() || port.strip_prefix(':').is_some_and(number))
}

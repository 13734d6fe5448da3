mod guide;

use api::EnvironmentName;
use proptest::prelude::*;

use super::*;
use crate::core::spec::{
    ACME_DIRECTORY, CertificateSource, ChallengeSpec, Credentials, Denial, HOOK_TIMEOUT, Meanwhile, Protocol, Sticky,
    Target,
};

const SERVICE: &str = r#"schema = 1
service = "hello"
source = { repository = "https://git.example.com/hello.git" }
[build]
command = ["./build.sh", "--fast"]
timeout = "5m"
environment = { PROFILE = "release" }
pass = ["CARGO_HOME"]
[component.web]
folder = "dist"
run = ["./hello", "--port", "{port}"]
protocol = "h2c"
health = { http = "/healthz", every = "5s", fall = 2 }
environment = { LOG = "info" }
stop = "10s"
[component.assets]
folder = "public"
[stage.dev]
[stage.staging]
from = "dev"
[stage.production]
from = ["staging", "dev"]
keep_warm = "24h"
"#;

const ENVIRONMENT: &str = r#"schema = 1
environment = "production"
zone = "production.example.com"
time_zone = "Australia/Sydney"
target = { kind = "agent", group = "prod" }
tls = { source = "development" }
https = { redirect = true, port = 8443, hsts = "365d" }
keep_warm = "2h"
reason_required = true
"#;

pub(super) fn service(text: &str) -> ServiceSpec {
    match parse("f", text) {
        Ok(File::Service(spec)) => spec,
        other => panic!("{other:?}"),
    }
}

/// Mistakes without the file's name: `line:column: message`.
pub(super) fn mistakes(text: &str) -> Vec<String> {
    let mistakes = parse("f", text).expect_err(text);
    mistakes.iter().map(|mistake| mistake.to_string().replacen("f:", "", 1)).collect()
}

/// Each line replaces the line of `base` that begins with the same key, or is added to the top; one mistake is expected.
pub(super) fn check(base: &str, table: &[(&str, &str)]) {
    for (line, expected) in table {
        let key = line.split(['=', ' ']).next().unwrap_or_default();
        let mut lines: Vec<&str> = base.lines().collect();
        let at = lines.iter().position(|old| old.split(['=', ' ']).next() == Some(key));
        match at {
            Some(at) => lines[at] = line,
            None => lines.insert(1, line),
        }
        let place = at.unwrap_or(1) + 1;
        let found = mistakes(&lines.join("\n"));
        assert!(found.len() == 1, "{line}: {found:?}");
        assert!(found[0].starts_with(&format!("{place}:")), "{line}: line {place} in {found:?}");
        assert!(found[0].contains(expected), "{line}: {expected:?} in {found:?}");
    }
}

#[test]
fn a_service_file_is_read_as_it_is_meant() {
    let spec = service(SERVICE);
    let source = spec.source.expect("source");
    assert_eq!((source.repository.as_str(), source.branch.as_str()), ("https://git.example.com/hello.git", "main"));
    let build = spec.build.expect("build");
    assert_eq!((build.command.join(" ").as_str(), build.timeout.ms()), ("./build.sh --fast", 300_000));
    assert_eq!((build.environment["PROFILE"].as_str(), build.pass), ("release", vec!["CARGO_HOME".to_owned()]));
    let web = &spec.components[&"web".parse::<api::ComponentName>().expect("name")];
    assert_eq!((web.folder.as_str(), web.protocol, web.stop.ms()), ("dist", Some(Protocol::H2c), 10_000));
    assert_eq!(web.health.http.as_deref(), Some("/healthz"));
    let health = (web.health.every.ms(), web.health.timeout.ms(), web.health.fall, web.health.rise);
    assert_eq!(health, (5_000, 1_000, 2, 1));
    let from = |stage: &str| {
        let stage = &spec.stages[&stage.parse::<EnvironmentName>().expect("name")];
        (stage.from.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), stage.keep_warm.map(api::Span::ms))
    };
    assert_eq!(from("dev"), (String::new(), None));
    assert_eq!(from("staging"), ("dev".to_owned(), None));
    assert_eq!(from("production"), ("staging dev".to_owned(), Some(86_400_000)));
}

#[test]
fn an_environment_file_is_read_as_it_is_meant() {
    let spec = match parse("f", ENVIRONMENT) {
        Ok(File::Environment(spec)) => spec,
        other => panic!("{other:?}"),
    };
    assert_eq!((spec.name.as_str(), spec.zone.as_str()), ("production", "production.example.com"));
    assert_eq!(
        (spec.time_zone.as_str(), spec.keep_warm.ms(), spec.reason_required),
        ("Australia/Sydney", 7_200_000, true)
    );
    assert_eq!(spec.target, Target::Agent { group: "prod".parse().expect("group") });
    assert_eq!(spec.https.to_string(), "clear requests go to port 8443, HSTS 365d");
    for (written, meant) in [
        ("{ redirect = true }", "clear requests go to port 443"),
        ("{ redirect = false, hsts = \"1s\" }", "HSTS 1s"),
        ("{}", ""),
    ] {
        let text = ENVIRONMENT.replace("{ redirect = true, port = 8443, hsts = \"365d\" }", written);
        let Ok(File::Environment(spec)) = parse("f", &text) else { panic!("{text}") };
        assert_eq!(spec.https.to_string(), meant, "{written}");
    }

    let least = "schema=1\nenvironment=\"dev\"\nzone=\"localhost\"\ntarget={kind=\"static\"}";
    let Ok(File::Environment(spec)) = parse("f", least) else { panic!("least") };
    assert_eq!((spec.time_zone.as_str(), spec.keep_warm.ms(), spec.reason_required), ("UTC", 3_600_000, false));
    assert_eq!((spec.target, spec.may_be_public), (Target::Static, true));
    let Ok(File::Environment(closed)) = parse("f", &format!("{least}\npublic = false")) else { panic!("closed") };
    assert!(!closed.may_be_public);
}

#[test]
fn the_template_parses_as_it_is_and_with_its_comments_switched_on() {
    let name: api::ServiceName = "web-shop".parse().expect("name");
    let text = template(&name);
    assert_eq!(service(&text).name, name);
    assert!(text.contains("./web-shop") && !text.contains("SERVICE"));
    let all: String = text
        .lines()
        .map(|line| {
            line.strip_prefix("# environment").map_or(line.to_owned(), |rest| format!("environment{rest}")) + "\n"
        })
        .collect();
    let all = all.replace("# pass =", "pass =").replace("# stop =", "stop =");
    let all = all.replace("\"h1\" ", "\"tls\" ").replace("# tls =", "tls =");
    let spec = service(&all);
    assert_eq!(spec.build.expect("build").environment["PROFILE"], "release");
}

#[test]
fn releases_keys_of_the_template_parse_when_they_are_switched_on() {
    let text = template(&"hello".parse().expect("name"));
    let begin = text.find("# [trigger]").expect("the first of them");
    let end = text.find("# tls =").expect("what follows them");
    let is_key = |line: &str| line.contains(" = ") || line.starts_with('[');
    let switched = text[begin..end].lines().map(|line| match line.strip_prefix("# ") {
        Some(key) if is_key(key) => key,
        _ => line,
    });
    // Either a folder that is run, or an image.
    let (folder, image) = (["folder =", "run ="], ["image_digest_file =", "image ="]);
    let with = |left_out: [&str; 2]| {
        let lines = switched.clone().filter(|line| !left_out.iter().any(|key| line.starts_with(key)));
        service(&format!("{}{}\n{}", &text[..begin], lines.collect::<Vec<_>>().join("\n"), &text[end..]))
    };
    let spec = with(image);
    assert!(spec.trigger.commits && spec.trigger.tags && spec.trigger.schedule.is_some());
    assert_eq!((spec.trigger.limits.hour.map(u32::from), spec.trigger.poll.ms()), (Some(6), 60_000));
    let build = spec.build.expect("build");
    assert_eq!((build.secrets.len(), build.checks.len(), build.registry, build.contain), (1, 1, true, false));
    let web = with(folder).components.remove(&"web".parse().expect("name")).expect("there");
    let image = web.image.expect("an image");
    assert_eq!(image.repository.map(|place| place.to_string()).as_deref(), Some("registry.example.com/hello/web"));
}

#[test]
fn rollout_keys_of_the_template_parse_when_they_are_switched_on() {
    let text = template(&"hello".parse().expect("name"));
    let (before, keys) = text.split_at(text.find("# strategy").expect("the first of them"));
    let switched: Vec<&str> = keys.lines().map(|line| line.trim_start_matches('#').trim_start()).collect();
    let spec = service(&format!("{before}{}", switched.join("\n")));
    let rollout = &spec.stages[&"production".parse::<EnvironmentName>().expect("name")].rollout;
    assert!(rollout.is_sound());
    assert_eq!((rollout.strategy.steps().len(), rollout.checks.len(), rollout.objective.is_some()), (5, 1, true));
    assert_eq!((rollout.sticky, rollout.meanwhile), (Sticky::Identity, Meanwhile::Queue));
    assert_eq!(rollout.failure_header.as_deref(), Some("x-app-failed"));
}

#[test]
fn hostile_h83_environment_values_are_refused_with_the_accepted_form() {
    check(
        ENVIRONMENT,
        &[
            ("schema = 2", "`schema` must be 1"),
            ("schema = \"1\"", "`schema` must be 1"),
            ("environment = \"Prod\"", "environment name: accepted is"),
            ("environment = \"a/b\"", "accepted is"),
            ("environment = \"..\"", "accepted is"),
            ("environment = \"a--b\"", "accepted is"),
            ("environment = 7", "`environment` is a string in quotes, not an integer"),
            ("zone = \"10.0.0.1\"", "is not a DNS name: accepted is"),
            ("zone = \"a.example.\"", "is not a DNS name: accepted is"),
            ("time_zone = \"Mars/Olympus\"", "\"Mars/Olympus\" is not a time zone: accepted are"),
            ("time_zone = \"\"", "is not a time zone"),
            ("target = { kind = \"kubernetes\" }", "\"kubernetes\" is not available yet"),
            ("target = { kind = \"agents\", group = \"a\" }", "did you mean \"agent\"?"),
            ("target = { kind = \"agent\" }", "`target` needs `group`"),
            ("target = { kind = \"static\", group = \"a\" }", "only a target of kind \"agent\" has a group"),
            ("target = \"agent\"", "`target` is a table, not a string"),
            ("target = {}", "`target` needs `kind`"),
            ("tls = { source = \"acme\" }", "`tls` needs `hook = [\"/path/of/a/program\"]`"),
            ("tls = { source = \"acme\", hook = [\"dns\"] }", "`hook` begins with the absolute path of a program"),
            ("tls = { source = \"acme\", hook = [] }", "`hook` begins with the absolute path of a program"),
            ("tls = { source = \"acme\", challenge = \"http-1\" }", "did you mean \"http-01\"?"),
            (
                "tls = { source = \"acme\", challenge = \"http-01\", hook = [\"/x\"] }",
                "`hook` is for the challenge \"dns-01\" only",
            ),
            (
                "tls = { source = \"acme\", challenge = \"http-01\", directory = \"http://a\" }",
                "`directory` is a URL that begins with https://, not \"http://a\"",
            ),
            (
                "tls = { source = \"acme\", challenge = \"http-01\", contact = [\"ops\"] }",
                "accepted is \"mailto:ops@example.com\"",
            ),
            (
                "tls = { source = \"acme\", challenge = \"http-01\", external_account = { id = \"a\" } }",
                "`external_account` needs `key_file`",
            ),
            ("tls = { source = \"files\", chain = \"/a\" }", "`tls` needs `key`"),
            ("tls = { source = \"files\", chain = \"/a\", key = \"b\" }", "`key` is the absolute path of a file"),
            ("tls = { source = \"imported\", chain = \"/a\" }", "`tls` has no key `chain`"),
            ("tls = { source = \"file\" }", "\"file\" is not a source of certificates, did you mean \"files\"?"),
            ("client_certificates = true", "`client_certificates` is a table, not a boolean"),
            ("client_certificates = {}", "`client_certificates` needs `ca`"),
            ("client_certificates = { ca = \"ca.pem\" }", "accepted is the text of a PEM file itself"),
            ("https = true", "`https` is a table, not a boolean"),
            ("https = { redirect = 1 }", "`redirect` is true or false, not an integer"),
            ("https = { redirect = true, port = 0 }", "`port` is a whole number from 1 to 65535"),
            ("https = { redirect = true, port = 65536 }", "`port` is a whole number from 1 to 65535"),
            ("https = { port = 443 }", "it needs `redirect = true`"),
            ("https = { hsts = 31536000 }", "`hsts` is a string in quotes, not an integer"),
            ("https = { hsts = \"999ms\" }", "`hsts` is at least 1s"),
            ("https = { hst = \"1d\" }", "did you mean `hsts`?"),
            ("keep_warm = \"0s\"", "is not a duration: accepted is"),
            ("keep_warm = \"-1h\"", "is not a duration"),
            ("keep_warm = \"10000y\"", "is not a duration"),
            ("keep_warm = 3600", "`keep_warm` is a string in quotes, not an integer"),
            ("reason_required = \"yes\"", "`reason_required` is true or false, not a string"),
            ("zoen = \"a\"", "the file has no key `zoen`, did you mean `zone`? (accepted: schema, environment, zone"),
            ("service = \"x\"", "not both"),
            ("windows = []", "`windows` is not supported by this version"),
            (
                "denial = \"explict\"",
                "\"explict\" is not a way to deny, did you mean \"explicit\"? (accepted: \"hidden\",",
            ),
            ("denial = true", "`denial` is a string in quotes, not a boolean"),
            ("credentials = \"user\"", "`credentials` is a list of strings such as"),
            ("credentials = [\"users\"]", "\"users\" is not a credential, did you mean \"user\"?"),
            ("credentials = [\"user\", \"user\"]", "`credentials` names \"user\" twice"),
            ("public = \"no\"", "`public` is true or false, not a string"),
            ("at_close = \"pause\"", "`at_close` is not supported by this version"),
            ("approvals = {}", "`approvals` is not supported by this version"),
        ],
    );
}

#[test]
fn access_of_a_stage_is_read_as_it_is_meant() {
    let with = |lines: &str| SERVICE.replace("keep_warm = \"24h\"", lines);
    let both = Credentials::default();
    let (application, nothing) = (Credentials { user: false, ..both }, Credentials { application: false, user: false });
    for (lines, expected) in [
        ("", (false, None, None)),
        ("public = true", (true, None, None)),
        ("public = false\ndenial = \"explicit\"", (false, Some(Denial::Explicit), None)),
        ("denial = \"hidden\"\ncredentials = [\"application\"]", (false, Some(Denial::Hidden), Some(application))),
        ("credentials = [\"user\", \"application\"]", (false, None, Some(both))),
        ("credentials = []", (false, None, Some(nothing))),
    ] {
        let stage = service(&with(lines)).stages.remove(&"production".parse().expect("a name")).expect("a stage");
        assert_eq!((stage.public, stage.denial, stage.credentials), expected, "{lines}");
    }
    for (lines, expected) in [
        ("public = true\ndenial = \"explicit\"", "24:1: `denial` is for those who need to be let in"),
        ("credentials = [\"user\"]\npublic = true", "23:1: `credentials` is for those who need to be let in"),
        ("denial = \"explicitly\"", "\"explicitly\" is not a way to deny, did you mean \"explicit\"?"),
    ] {
        let said = mistakes(&with(lines));
        assert!(said.len() == 1 && said[0].contains(expected), "{lines}: {said:?}");
    }
    let Ok(File::Environment(spec)) = parse("f", ENVIRONMENT) else { panic!("an environment") };
    assert_eq!((spec.denial, spec.credentials), (Denial::Hidden, both), "what nobody wrote is closed");
    let text = format!("{ENVIRONMENT}denial = \"explicit\"\ncredentials = [\"application\"]\n");
    let Ok(File::Environment(spec)) = parse("f", &text) else { panic!("an environment") };
    assert_eq!((spec.denial, spec.credentials), (Denial::Explicit, application));
}

#[test]
fn cors_origins_have_one_form() {
    let with = |origin: &str| SERVICE.replace("keep_warm = \"24h\"", &format!("cors = [\"{origin}\"]"));
    for origin in ["https://app.example.com", "http://localhost:8080", "https://a.example:8443"] {
        let stages = service(&with(origin)).stages;
        assert_eq!(stages[&"production".parse().expect("a name")].cors, [origin]);
    }
    for origin in [
        "*",
        "null",
        "app.example.com",
        "https://App.example.com",
        "https://app.example.com/",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "https://app.example.com:08443",
        "https://app.example.com:99999",
        "https://user@app.example.com",
        "ftp://app.example.com",
        "https://",
    ] {
        let said = mistakes(&with(origin));
        assert!(said.len() == 1 && said[0].contains("is not an origin"), "{origin}: {said:?}");
    }
}

#[test]
fn hostile_h83_service_values_are_refused_with_the_accepted_form() {
    check(
        SERVICE,
        &[
            ("service = \"a--b\"", "is not a service name: accepted is"),
            ("source = { repository = \"-x\" }", "is not a repository: accepted is"),
            ("source = { branch = \"main\" }", "`source` needs `repository`"),
            ("source = { repository = \"/a\", branch = \"-x\" }", "is not the name of a branch or tag"),
            ("source = { repository = \"/a\", tags = \"v1\" }", "`tags`: \"v1\" is not the form of a tag: accepted is"),
            ("source = { repository = \"/a\", tag = \"v{semver}\" }", "did you mean `tags`?"),
            ("command = []", "`command` names no program"),
            ("command = \"./build.sh\"", "`command` is a list of strings such as"),
            ("command = [\"a\", 1]", "`command` holds strings, not an integer"),
            ("command = [\"a\\u0000\"]", "NUL"),
            ("timeout = \"1h1d\"", "`timeout`: \"1h1d\" is not a duration"),
            ("pass = [\"A B\"]", "\"A B\" is not a variable name"),
            ("pass = [\"POINTSMAN_TOKEN\"]", "names that begin with POINTSMAN_ are set by Pointsman"),
            ("pass = [\"PROFILE\"]", "both set by `environment` and passed on by `pass`"),
            ("environment = { PROFILE = 1 }", "`PROFILE` is a string in quotes, not an integer"),
            ("environment = { \"\" = \"x\" }", "is not a variable name"),
            ("folder = \"../dist\"", "\"../dist\" is not a folder of the checkout"),
            ("folder = \"/dist\"", "is not a folder of the checkout"),
            ("folder = \"\"", "is not a folder of the checkout"),
            ("run = [\"/bin/sh\", \"{port}\"]", "\"/bin/sh\" is not a program of the artifact"),
            ("run = [\"a/../../b\", \"{port}\"]", "is not a program of the artifact"),
            ("run = [\"./hello\"]", "must contain \"{port}\""),
            ("run = []", "`run` is empty"),
            ("protocol = \"http\"", "\"http\" is not a protocol: accepted are"),
            ("protocol = \"https\"", "\"tls\" (HTTP/1.1 through TLS) and \"h2\" (HTTP/2 through TLS, gRPC)"),
            ("health = { http = \"healthz\" }", "\"healthz\" is not a path"),
            ("health = { http = \"/a b\" }", "is not a path"),
            ("health = { fall = 0 }", "`fall` is a whole number from 1 to 100"),
            ("health = { rise = 1e9 }", "`rise` is a whole number from 1 to 100"),
            ("health = { fall = 99999999999999999999 }", "`fall` is a whole number from 1 to 100"),
            ("health = { every = \"61m\" }", "`every` is 1h1m: accepted is 1ms to 1h"),
            ("health = { timeout = \"2d\" }", "`timeout` is 2d: accepted is 1ms to 1h"),
            ("health = { evry = \"2s\" }", "did you mean `every`?"),
            ("keep_warm = \"\"", "is not a duration"),
        ],
    );
}

/// The service with another protocol and this as its `tls`, if any.
fn behind_tls(protocol: &str, tls: &str) -> String {
    SERVICE.replace(
        "protocol = \"h2c\"",
        &format!("protocol = \"{protocol}\"{}{tls}", if tls.is_empty() { "" } else { "\n" }),
    )
}

fn authority() -> String {
    let folder = tempfile::tempdir().expect("a folder");
    certs::development::DevelopmentCa::open_or_create(folder.path()).expect("an authority").certificate_pem()
}

#[test]
fn tls_to_endpoints_is_read_as_it_is_meant() {
    let ca = authority();
    let read = |protocol: &str, tls: &str| {
        let web = service(&behind_tls(protocol, tls)).components.remove(&"web".parse().expect("name")).expect("there");
        (web.protocol, web.tls.map(|tls| (tls.ca, tls.name)))
    };
    let name = Some("hello.internal".to_owned());
    for (protocol, tls, expected) in [
        ("tls", String::new(), (Some(Protocol::Tls), None)),
        ("h2", String::new(), (Some(Protocol::H2), None)),
        ("tls", "tls = {}".into(), (Some(Protocol::Tls), Some((None, None)))),
        ("h2", "tls = { name = \"hello.internal\" }".into(), (Some(Protocol::H2), Some((None, name.clone())))),
        ("tls", "tls = { name = \"10.0.0.7\" }".into(), (Some(Protocol::Tls), Some((None, Some("10.0.0.7".into()))))),
        // A text of several lines may stand within a table of one (TOML 1.0, "Inline Table").
        (
            "tls",
            format!("tls = {{ ca = \"\"\"\n{ca}\"\"\", name = \"hello.internal\" }}"),
            (Some(Protocol::Tls), Some((Some(ca.clone()), name))),
        ),
        ("h2", format!("tls.ca = \"\"\"\n{ca}\"\"\""), (Some(Protocol::H2), Some((Some(ca), None)))),
    ] {
        assert_eq!(read(protocol, &tls), expected, "{protocol} {tls}");
    }
}

#[test]
fn hostile_h83_tls_that_verifies_nothing_is_refused_with_the_accepted_form() {
    let ca = authority();
    let quoted = |text: &str| format!("tls = {{ ca = \"\"\"\n{text}\"\"\" }}");
    let only = "accepted beside `protocol = \"tls\"` or \"h2\" only";
    for (protocol, tls, expected) in [
        ("h1", "tls = {}".to_owned(), only),
        ("h2c", "tls = { name = \"hello.internal\" }".into(), only),
        ("tls", "tls = true".into(), "`tls` is a table, not a boolean"),
        (
            "tls",
            "tls = { nane = \"a\" }".into(),
            "`tls` has no key `nane`, did you mean `name`? (accepted: ca, name, spiffe)",
        ),
        ("tls", "tls = { verify = false }".into(), "`tls` has no key `verify` (accepted: ca, name, spiffe)"),
        ("tls", "tls = { ca = 1 }".into(), "`ca` is a string in quotes, not an integer"),
        (
            "tls",
            "tls = { ca = \"ca.pem\" }".into(),
            "\"ca.pem\" is not a certificate: accepted is the text of a PEM file",
        ),
        ("h2", "tls = { ca = \"\" }".into(), "is not a certificate: accepted is the text of a PEM file itself"),
        ("h2", quoted(&ca.replace("END", "ENDE")), "`ca` is not usable: it is not PEM"),
        ("h2", quoted(&ca.replacen("MII", "AAA", 1)), "certificate 1 cannot be read"),
        ("h2", quoted(&ca.replace("CERTIFICATE", "PRIVATE KEY")), "it holds a PRIVATE KEY, and certificates only"),
        ("h2", quoted(&ca.repeat(200)), "bytes: accepted are 65536"),
        (
            "tls",
            "tls = { name = \"\" }".into(),
            "\"\" is not a name that a certificate can be for: accepted is a DNS name",
        ),
        ("tls", "tls = { name = \"*.internal\" }".into(), "is not a name that a certificate can be for"),
        ("tls", "tls = { name = \"hello.internal:443\" }".into(), "an IP address without a port"),
        ("tls", "tls = { name = \"https://hello.internal\" }".into(), "is not a name that a certificate can be for"),
        ("tls", "tls = { spiffe = \"spiffe://Example.com/a\" }".into(), "is not a SPIFFE ID"),
        ("tls", "tls = { spiffe = \"spiffe://example.com/a//b\" }".into(), "is not a SPIFFE ID"),
        ("tls", "tls = { spiffe = \"https://example.com/a\" }".into(), "such as \"spiffe://example.com/hello\""),
    ] {
        let found = mistakes(&behind_tls(protocol, &tls));
        assert!(
            found.len() == 1 && found[0].starts_with("13:") && found[0].contains(expected),
            "{expected} in {found:?}"
        );
    }
    // All at once, and one that is no protocol is not blamed twice.
    let both = behind_tls("tls", "tls = { ca = \"x\", name = \"a b\" }");
    assert_eq!(mistakes(&both).len(), 2, "{:?}", mistakes(&both));
    assert_eq!(mistakes(&behind_tls("https", "tls = {}")).len(), 1);
    let unrouted = SERVICE.replace("folder = \"public\"", "folder = \"public\"\ntls = {}");
    assert!(mistakes(&unrouted)[0].contains(only), "{:?}", mistakes(&unrouted));
}

#[test]
fn hostile_h83_what_this_version_does_not_act_on_is_refused() {
    for key in ["enter", "approvals", "windows", "at_close"] {
        let found = mistakes(&format!("{SERVICE}{key} = \"x\"\n"));
        assert_eq!(found, [format!("24:1: `{key}` is not supported by this version")]);
    }
}

#[test]
fn sources_of_certificates_are_read_as_they_are_meant() {
    let read = |tls: &str| match parse("f", &ENVIRONMENT.replace("tls = { source = \"development\" }", tls)) {
        Ok(File::Environment(spec)) => spec.certificates,
        other => panic!("{other:?}"),
    };
    assert_eq!(read(""), CertificateSource::Development);
    assert_eq!(read("tls = { source = \"imported\" }"), CertificateSource::Imported);
    let (chain, key) = ("/a/chain.pem".to_owned(), "/a/key.pem".to_owned());
    let written = "tls = { source = \"files\", chain = \"/a/chain.pem\", key = \"/a/key.pem\" }";
    assert_eq!(read(written), CertificateSource::Files { chain, key });
    let CertificateSource::Acme(least) = read("tls = { source = \"acme\", hook = [\"/bin/dns\", \"-v\"] }") else {
        panic!("not acme")
    };
    assert_eq!((least.directory.as_str(), least.ca, least.profile), (ACME_DIRECTORY, None, None));
    let (hook, timeout) = (vec!["/bin/dns".to_owned(), "-v".to_owned()], HOOK_TIMEOUT);
    assert_eq!(least.challenge, ChallengeSpec::Dns { hook, timeout });
    let all = "tls = { source = \"acme\", challenge = \"tls-alpn-01\", directory = \"https://ca.example/dir\", \
               contact = [\"mailto:a@example.com\"], profile = \"shortlived\", \
               external_account = { id = \"k\", key_file = \"/etc/key\" } }";
    let CertificateSource::Acme(all) = read(all) else { panic!("not acme") };
    assert_eq!((all.challenge, all.directory.as_str()), (ChallengeSpec::TlsAlpn, "https://ca.example/dir"));
    assert_eq!(
        all.external_account.map(|external| (external.id, external.key_file)),
        Some(("k".into(), "/etc/key".into()))
    );
}

#[test]
fn client_certificates_of_one_stage_are_for_public_stages() {
    let ca = authority();
    let clients = format!("client_certificates = {{ ca = \"\"\"\n{ca}\"\"\", required = false }}\n");
    let found = mistakes(&format!("{SERVICE}{clients}"));
    assert!(found.len() == 1 && found[0].contains("accepted beside `public = true`"), "{found:?}");
    let spec = service(&format!("{SERVICE}public = true\n{clients}"));
    let stage = &spec.stages[&"production".parse::<EnvironmentName>().expect("name")];
    let clients = stage.client_certificates.as_ref().expect("read");
    assert!(stage.public && !clients.required && clients.crl_file.is_none() && clients.ca == ca);
}

#[test]
fn exactly_one_component_is_routed_to() {
    let none = SERVICE.replace("protocol = \"h2c\"\n", "");
    assert_eq!(mistakes(&none).len(), 1);
    assert!(mistakes(&none)[0].contains("one component needs `protocol = \"h1\"`"), "{:?}", mistakes(&none));
    let two = SERVICE.replace("folder = \"public\"", "folder = \"public\"\nprotocol = \"h1\"");
    assert_eq!(mistakes(&two), ["12:1: [component.assets] has a protocol already: requests go to one component only"]);
    let least = service("schema = 1\nservice = \"hello\"");
    assert!(least.components.is_empty() && least.stages.is_empty() && least.source.is_none());
    let nothing = mistakes("schema = 1\nservice = \"hello\"\n[build]\ncommand = [\"make\"]");
    assert!(nothing[0].starts_with("3:") && nothing[0].contains("[build] makes nothing"), "{nothing:?}");
}

#[test]
fn hostile_h83_cycles_in_the_stage_graph_are_named() {
    let file = |stages: &[(&str, &str)]| {
        let stages = stages.iter().map(|(name, from)| format!("[stage.{name}]\nfrom = {from}\n"));
        format!("schema = 1\nservice = \"hello\"\n{}", stages.collect::<String>())
    };
    for (stages, expected) in [
        (&[("a", "\"a\"")][..], "a -> a,"),
        (&[("a", "\"b\""), ("b", "\"a\"")][..], "b -> a -> b,"),
        (&[("a", "\"c\""), ("b", "\"a\""), ("c", "\"b\"")][..], "-> c ->"),
        (&[("a", "[]"), ("b", "[\"a\", \"c\"]"), ("c", "\"b\"")][..], "c -> b -> c,"),
    ] {
        let found = mistakes(&file(stages));
        assert!(found.len() == 1 && found[0].contains("the stages form a cycle: "), "{found:?}");
        assert!(found[0].contains(expected), "{expected} in {found:?}");
    }
    // Many ways to one stage are no cycle.
    service(&file(&[("a", "[]"), ("b", "\"a\""), ("c", "\"a\""), ("d", "[\"b\", \"c\", \"a\"]")]));
    let found = mistakes(&file(&[("dev", "[]"), ("prod", "[\"dve\", \"dev\", \"dev\"]")]));
    assert!(found[0].contains("which this file does not have, did you mean \"dev\"? (it has: dev, prod)"), "{found:?}");
    assert!(found[1].contains("names \"dev\" twice"), "{found:?}");
    // A long chain needs no stack.
    let mut long: Vec<String> = (1..20_000).map(|n| format!("[stage.s{n}]\nfrom=\"s{}\"\n", n - 1)).collect();
    long.push("[stage.s0]\nfrom=\"s19999\"\n".to_owned());
    let found = mistakes(&format!("schema = 1\nservice = \"hello\"\n{}", long.concat()));
    assert!(found.len() == 1 && found[0].contains("form a cycle") && found[0].len() < 400, "{}", found[0].len());
}

#[test]
fn hostile_h83_all_mistakes_are_told_at_once() {
    let text = "schema = 3\nservice = \"Hello\"\nsorce = {}\n[build]\ncommand = []\ntimeout = \"-1\"\n[component.\"a b\"]\n\
                [component.web]\nfolder = \"/x\"\nprotocol = \"h3\"\n[stage.dev]\nfrom = \"none\"\nkeep_warm = \"1y\"\n";
    let lines: Vec<usize> = parse("f", text).expect_err("many").iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [1, 2, 3, 5, 6, 7, 9, 10, 12, 13]);
    let said = mistakes("");
    assert!(
        said[0]
            .starts_with("1:1: the file needs `environment = \"...\"` (operator) or `service = \"...\"` (team) on top")
    );
    for key in access::KEYS.iter().chain(&releases::KEYS).filter(|key| **key != "entities") {
        assert!(said[0].contains(key), "{key}: {said:?}");
    }
    assert_eq!(mistakes("service = \"a\""), ["1:1: the file needs `schema`"]);
}

#[test]
fn syntax_errors_are_told_together_and_do_not_cause_others() {
    let text =
        "schema = 1\nservice = hello\nsource = { repository = \"ftp://x/y\" }\n[build\ncommand = [\"x\"]\nfoo = 1\n";
    let found = parse("f", text).expect_err("syntax");
    let lines: Vec<usize> = found.iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [2, 3, 4], "{found:?}");
    assert!(found[0].message.starts_with("not TOML: ") && found[1].message.contains("is not a repository"));
    let twice = mistakes("schema = 1\nschema = 1\nservice = \"a\"\n");
    assert!(twice[0].starts_with("2:1: not TOML: duplicate key"), "{twice:?}");
}

#[test]
fn hostile_h83_large_and_unreadable_files_are_refused() {
    let large = format!("schema = 1\nservice = \"a\"\n{}", "#".repeat(10_000_000));
    assert_eq!(mistakes(&large).len(), 1);
    assert!(mistakes(&large)[0].contains("accepted are at most 1048576 (1 MiB)"));
    assert_eq!(mistakes("schema = 1\nservice = \"a\0\""), ["2:13: this is a NUL character: a file is text"]);
    let bytes = parse_bytes("f", b"schema = 1\n\xc3\xa4 \xff").expect_err("not text");
    assert_eq!(bytes[0].to_string(), "f:2:3: this is not UTF-8 text");
    // Columns count characters.
    assert!(mistakes("schema = 1\nservice = \"a\"\nsource = { repository = \"ä\", x = 1 }")[1].starts_with("3:30: "));
    // A mistake in every line of a large file ends after a hundred.
    let many: String = (0..50_000).map(|n| format!("key{n} = 1\n")).collect();
    let found = mistakes(&format!("schema = 1\nservice = \"a\"\n{many}"));
    assert_eq!(found.len(), 101);
    assert!(found[100].ends_with("and 49900 more mistakes"), "{}", found[100]);
    for deep in
        ["[".repeat(100_000), format!("a = {}", "[".repeat(100_000)), "a.".repeat(100_000), "{a=".repeat(100_000)]
    {
        assert!(!mistakes(&deep).is_empty());
    }
}

#[test]
fn hostile_h84_repositories_have_few_forms() {
    for good in [
        "https://git.example.com/hello.git",
        "http://127.0.0.1:3000/a/b",
        "ssh://git@git.example.com:22/hello.git",
        "ssh://git.example.com/hello.git",
        "file:///srv/git/hello.git",
        "git@git.example.com:team/hello.git",
        "/srv/git/hello",
    ] {
        assert_eq!(check_repository(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "hello",
        "./hello",
        "-u/x",
        "--upload-pack=x",
        "ext::sh -c x",
        "ext::sh@x:y",
        "ftp://x/y",
        "git://x/y",
        "https://",
        "https:///x",
        "https://x",
        "ssh://-oProxyCommand=x/y",
        "ssh://a@-oProxyCommand=x/y",
        "git@-oProxyCommand=x:y",
        "-oX@host:y",
        "a@b::c",
        "file://host/x",
        "file://",
        "https://x/y z",
        "/a\nb",
        "/a\0b",
        "https://token@git.example.com/x",
        "https://user:secret@git.example.com/x",
        "ssh://user:secret@git.example.com/x",
    ] {
        let why = check_repository(bad).expect_err(bad);
        assert!(!why.contains("secret"), "{why}");
    }
}

proptest! {
    #[test]
    fn no_input_panics(text in any::<String>()) {
        let result = parse("f", &text);
        prop_assert!(result.is_ok() || !result.expect_err("mistakes").is_empty());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_bytes("f", &bytes);
    }

    /// Valid files with pieces put in, left out and doubled: closer to what the walk sees than noise.
    #[test]
    fn no_damaged_file_panics(
        environment in any::<bool>(),
        cut in 0usize..600,
        skip in 0usize..40,
        piece in prop::sample::select(vec!["", "\"", "[", "]", "{", "}", "=", ".", "\n", "'''", "\\", "[[a]]", "ä", "0x", "1979-05-27", "from = ", "nan"]),
        piece_too in "[\\PC\n]{0,5}",
    ) {
        let text = if environment { ENVIRONMENT } else { SERVICE };
        let floor = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let damaged = format!("{}{piece}{piece_too}{}", &text[..floor(cut)], &text[floor(cut + skip)..]);
        if let Err(mistakes) = parse("f", &damaged) {
            prop_assert!(!mistakes.is_empty());
            let lines = damaged.split('\n').count();
            prop_assert!(mistakes.iter().all(|mistake| (1..=lines).contains(&mistake.line) && mistake.column >= 1));
        }
    }
}

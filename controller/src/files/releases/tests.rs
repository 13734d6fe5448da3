use proptest::prelude::*;

use crate::core::spec::{GitCredentials, RegistryCredentials, ReleasesSpec, SecretRef, WebhookKind, WebhookSpec};
use crate::files::tests::{check, mistakes};
use crate::files::{File, parse};

const RELEASES: &str = r#"schema = 1
builders = 3
[registry]
address = "registry.example.com:5000/pointsman"
ca = { file = "/etc/pointsman/registry-ca.pem" }
credentials = { user = "ci", password = { file = "/etc/pointsman/registry" } }
uploads = 8
[repository.shop]
url = "https://git.example.com/shop.git"
branch = "trunk"
files = ["pointsman.toml", "ui/pointsman.toml"]
credentials = { user = "bot", password = { environment = "GIT_TOKEN" } }
webhook = { kind = "github", secret = { file = "/etc/pointsman/hook" } }
services = ["shop", "shop-*"]
[secret.NPM_TOKEN]
from = { command = ["vault", "read", "-field=token", "npm"] }
services = ["*"]
[keep]
releases = 100
logs = "30d"
artifacts = 10
back = 3
in_registry = true
"#;

fn releases(text: &str) -> ReleasesSpec {
    match parse("f", text) {
        Ok(File::Releases(spec)) => *spec,
        other => panic!("{other:?}"),
    }
}

fn file(path: &str) -> SecretRef {
    SecretRef::File(path.to_owned())
}

#[test]
fn releases_of_the_controller_are_read_as_they_are_meant() {
    let spec = releases(RELEASES);
    assert_eq!(spec.builders, 3);
    let registry = spec.registry.expect("a registry");
    assert_eq!(registry.address.to_string(), "registry.example.com:5000/pointsman");
    assert_eq!((registry.ca_file.as_deref(), registry.uploads), (Some("/etc/pointsman/registry-ca.pem"), 8));
    let password = file("/etc/pointsman/registry");
    assert_eq!(registry.credentials, RegistryCredentials::Basic { user: "ci".into(), password });

    let shop = &spec.repositories[&"shop".parse().expect("a name")];
    assert_eq!((shop.url.as_str(), shop.branch.as_str()), ("https://git.example.com/shop.git", "trunk"));
    assert_eq!(shop.files, ["pointsman.toml", "ui/pointsman.toml"]);
    let password = SecretRef::Environment("GIT_TOKEN".into());
    assert_eq!(shop.credentials, Some(GitCredentials { user: "bot".into(), password }));
    let secret = file("/etc/pointsman/hook");
    assert_eq!(shop.webhook, Some(WebhookSpec { kind: WebhookKind::Github, secret }));
    let covers = |name: &str| shop.services.iter().any(|one| one.covers(&name.parse().expect("a name")));
    assert!(covers("shop") && covers("shop-ui") && !covers("shopping"));

    let token = &spec.secrets["NPM_TOKEN"];
    let words = ["vault", "read", "-field=token", "npm"].map(str::to_owned).to_vec();
    assert_eq!(token.from, SecretRef::Command(words));
    assert!(token.services[0].covers(&"anything".parse().expect("a name")));
    let keep = spec.keep;
    assert_eq!((keep.releases, keep.logs.ms(), keep.artifacts, keep.back), (100, 2_592_000_000, 10, 3));
    assert!(keep.in_registry);
}

#[test]
fn releases_have_defaults_for_all_that_is_not_said() {
    for key in ["builders = 2", "[keep]", "[secret]", "[repository]"] {
        assert_eq!(releases(&format!("schema = 1\n{key}\n")), ReleasesSpec::default(), "{key}");
    }
    let spec = releases(
        "schema = 1\n[registry]\naddress = \"localhost:5000/a\"\n[repository.a]\nurl = \"/srv/a\"\nservices = [\"*\"]",
    );
    let registry = spec.registry.expect("a registry");
    assert_eq!((registry.credentials, registry.ca_file, registry.uploads), (RegistryCredentials::None, None, 4));
    let repository = &spec.repositories[&"a".parse().expect("a name")];
    assert_eq!((repository.branch.as_str(), &repository.files[..]), ("main", &["pointsman.toml".to_owned()][..]));
    assert!(repository.credentials.is_none() && repository.webhook.is_none());
}

#[test]
fn releases_name_what_is_on_the_machine_and_what_is_withheld_from_builds() {
    let spec = releases(RELEASES);
    let named: Vec<String> =
        spec.on_machine().iter().map(|one| format!("{} {}", one.kind, one.words.join(" "))).collect();
    let expected = [
        "command vault read -field=token npm",
        "secret /etc/pointsman/hook",
        "secret /etc/pointsman/registry",
        "certificate /etc/pointsman/registry-ca.pem",
    ];
    assert_eq!(named, expected);
    assert_eq!(spec.withheld().into_iter().collect::<Vec<_>>(), ["GIT_TOKEN", "NPM_TOKEN"]);
    let written = "{ user = \"ci\", password = { file = \"/etc/pointsman/registry\" } }";
    let docker = releases(&RELEASES.replace(written, "{ docker = \"/etc/docker.json\" }"));
    assert!(docker.on_machine().iter().any(|one| (one.kind, &one.words[0][..]) == ("secret", "/etc/docker.json")));
    let token = releases(&RELEASES.replace(written, "{ token = { environment = \"REGISTRY_TOKEN\" } }"));
    assert!(token.withheld().contains("REGISTRY_TOKEN"));
}

#[test]
fn registries_know_us_in_four_ways() {
    let written = "{ user = \"ci\", password = { file = \"/etc/pointsman/registry\" } }";
    for (credentials, meant) in [
        ("{ docker = \"/etc/docker.json\" }", RegistryCredentials::Docker { file: "/etc/docker.json".into() }),
        ("{ token = { file = \"/a\" } }", RegistryCredentials::Token(file("/a"))),
        ("{ identity = { file = \"/a\" } }", RegistryCredentials::Identity(file("/a"))),
    ] {
        let spec = releases(&RELEASES.replace(written, credentials));
        assert_eq!(spec.registry.expect("a registry").credentials, meant, "{credentials}");
    }
}

/// The base with another line in a section whose keys others have, too.
fn with(old: &str, new: &str) -> Vec<String> {
    assert!(RELEASES.contains(old), "{old}");
    mistakes(&RELEASES.replacen(old, new, 1))
}

#[test]
fn hostile_h83_registry_values_are_refused_with_the_accepted_form() {
    check(
        RELEASES,
        &[
            ("builders = 0", "`builders` is a whole number from 1 to 64"),
            ("builders = 65", "`builders` is a whole number from 1 to 64"),
            ("builders = \"2\"", "`builders` is a whole number from 1 to 64"),
            (
                "builder = 2",
                "the file has no key `builder`, did you mean `builders`? (accepted: schema, builders, registry,",
            ),
            (
                "address = \"registry\"",
                "`address`: \"registry\" is not a place in a registry: accepted is HOST[:PORT]/REPOSITORY",
            ),
            ("address = \"https://registry.example.com/a\"", "is not a place in a registry"),
            ("address = \"Registry.example.com/a\"", "in lower case"),
            ("address = 5000", "`address` is a string in quotes, not an integer"),
            ("ca = \"/etc/ca.pem\"", "`ca` is a table, not a string"),
            ("ca = { file = \"ca.pem\" }", "`file` is the absolute path of a file on the controller's machine"),
            ("ca = { file = \"/ca.pem\", path = \"/ca.pem\" }", "`ca` has no key `path` (accepted: file)"),
            ("ca = {}", "`ca` needs `file`"),
            ("uploads = 0", "`uploads` is a whole number from 1 to 16"),
            ("uploads = 17", "`uploads` is a whole number from 1 to 16"),
            ("credentials = \"ci:hunter2\"", "`credentials` is a table, not a string"),
            ("credentials = {}", "`credentials` say nothing: accepted is { docker = "),
            ("credentials = { docker = \"config.json\" }", "`docker` is the absolute path of a file"),
            ("credentials = { user = \"ci\" }", "`credentials` needs `password`"),
            ("credentials = { password = { file = \"/a\" } }", "`credentials` needs `user`"),
            ("credentials = { user = \"c:i\", password = { file = \"/a\" } }", "`user`: \"c:i\" is not a user's name"),
            ("credentials = { user = \"\", password = { file = \"/a\" } }", "is not a user's name"),
            (
                "credentials = { user = \"ci\", password = \"hunter2\" }",
                "`password` says where a secret is, and is not a string",
            ),
            (
                "credentials = { token = \"hunter2\" }",
                "`token` says where a secret is, and is not a string: accepted is { file =",
            ),
            ("credentials = { token = {} }", "`token` does not say where the secret is: accepted is { file ="),
            (
                "credentials = { token = { path = \"/a\" } }",
                "`token` has no key `path` (accepted: file, environment, command)",
            ),
            ("credentials = { token = { file = \"a\" } }", "`file` is the absolute path"),
            (
                "credentials = { token = { file = \"/a\", command = [\"b\"] } }",
                "a secret is in one place: `command` stands beside `file`",
            ),
            ("credentials = { token = { environment = \"A B\" } }", "\"A B\" is not a variable name"),
            ("credentials = { token = { command = [] } }", "`command` begins with the name of a program"),
            ("credentials = { token = { command = [\"\"] } }", "`command` begins with the name of a program"),
            ("credentials = { token = { command = [\"./vault\"] } }", "or its absolute path"),
            ("credentials = { token = { command = \"vault\" } }", "`command` is a list of strings such as"),
            (
                "credentials = { docker = \"/a\", identity = { file = \"/b\" } }",
                "we are one to a registry: `identity` stands beside `docker`",
            ),
        ],
    );
    let gone = with("address = \"registry.example.com:5000/pointsman\"\n", "");
    assert_eq!(gone, ["3:2: [registry] needs `address`"]);
}

#[test]
fn hostile_h83_repository_values_are_refused_with_the_accepted_form() {
    let files = |count: usize| {
        format!("files = [{}]", (0..count).map(|n| format!("\"a{n}.toml\"")).collect::<Vec<_>>().join(", "))
    };
    let patterns = format!("services = [{}]", (0..257).map(|n| format!("\"a{n}\"")).collect::<Vec<_>>().join(", "));
    check(
        RELEASES,
        &[
            ("url = \"shop\"", "`url`: \"shop\" is not a repository: accepted is an https, http, ssh or file URL"),
            ("url = \"https://bot:hunter2@git.example.com/a\"", "would be kept in events and logs"),
            ("url = \"ext::sh -c x\"", "is not a repository"),
            ("branch = \"-x\"", "`branch`: \"-x\" is not the name of a branch or tag"),
            ("files = []", "`files` names 0 files: accepted are 1 to 32"),
            (&files(33), "`files` names 33 files: accepted are 1 to 32"),
            ("files = [\"../a.toml\"]", "\"../a.toml\" is not a file of the repository: accepted is a relative path"),
            ("files = [\"/etc/passwd\"]", "is not a file of the repository"),
            ("files = [\"a//b.toml\"]", "is not a file of the repository"),
            ("files = [\"./a.toml\"]", "is not a file of the repository"),
            ("files = [\"a\\nb\"]", "is not a file of the repository"),
            ("files = [\"\"]", "is not a file of the repository"),
            ("files = [\"a.toml\", \"a.toml\"]", "`files` names \"a.toml\" twice"),
            ("files = \"a.toml\"", "`files` is a list of strings such as"),
            ("webhook = true", "`webhook` is a table, not a boolean"),
            (
                "webhook = { kind = \"bitbucket\", secret = { file = \"/a\" } }",
                "\"bitbucket\" is not a kind of webhook (accepted: \"github\", \"signed\")",
            ),
            ("webhook = { kind = \"githup\", secret = { file = \"/a\" } }", "did you mean \"github\"?"),
            ("webhook = { kind = \"github\" }", "`webhook` needs `secret`"),
            ("webhook = { secret = { file = \"/a\" } }", "`webhook` needs `kind`"),
            (
                "webhook = { kind = \"signed\", secret = \"hunter2\" }",
                "`secret` says where a secret is, and is not a string",
            ),
            ("services = []", "`services` has 0 names: accepted are 1 to 256, such as [\"shop\", \"shop-*\"]"),
            (&patterns, "`services` has 257 names"),
            ("services = \"*\"", "`services` is a list of strings such as"),
            (
                "services = [\"Shop\"]",
                "`services`: \"Shop\" is not a pattern of services: accepted is the name of a service",
            ),
            ("services = [\"*-ui\"]", "is not a pattern of services"),
            ("services = [\"shop-*-ui\"]", "is not a pattern of services"),
            ("services = [\"shop--*\"]", "is not a pattern of services"),
            ("services = [\"**\"]", "is not a pattern of services"),
            ("services = [\"\"]", "is not a pattern of services"),
            ("services = [\"a\", \"a\"]", "`services` names \"a\" twice"),
        ],
    );
    let git = "credentials = { user = \"bot\", password = { environment = \"GIT_TOKEN\" } }";
    for (credentials, expected) in [
        ("{}", "12:1: `credentials` say nothing"),
        ("{ user = \"bot\" }", "12:1: `credentials` needs `password`"),
        ("{ user = \"bot\", password = \"hunter2\" }", "12:42: `password` says where a secret is"),
        ("{ token = { file = \"/a\" } }", "12:17: `credentials` has no key `token` (accepted: user, password)"),
    ] {
        let found = with(git, &format!("credentials = {credentials}"));
        assert!(found.iter().any(|one| one.starts_with(expected)), "{expected} in {found:?}");
    }
    let gone = with("services = [\"shop\", \"shop-*\"]\n", "");
    assert_eq!(gone, ["8:13: [repository.shop] needs `services`"]);
    assert_eq!(with("url = \"https://git.example.com/shop.git\"\n", ""), ["8:13: [repository.shop] needs `url`"]);
    assert!(with("[repository.shop]", "[repository.\"../shop\"]")[0].contains("is not a name: accepted is"));
    let again = "[repository.too]\nurl = \"https://git.example.com/shop.git\"\nservices = [\"x\"]\n[secret.NPM_TOKEN]";
    let twice = with("[secret.NPM_TOKEN]", again);
    assert_eq!(twice, ["16:1: [repository.shop] is https://git.example.com/shop.git already: list its files there"]);
    for bad in
        ["git@git.example.com:a", "/srv/a", "file:///srv/a", "http://git.example.com/a", "http://localhost.a.com/a"]
    {
        let found = with("https://git.example.com/shop.git", bad);
        assert!(
            found[0].starts_with("12:1: `credentials` are for https, and for http on this machine"),
            "{bad}: {found:?}"
        );
    }
    // In clear on this machine, and over TLS anywhere.
    for good in ["http://127.0.0.1:3000/a", "http://[::1]:3000/a", "http://localhost/a", "https://git.example.com/a"] {
        releases(&RELEASES.replace("https://git.example.com/shop.git", good));
    }
}

#[test]
fn hostile_h83_secret_and_keep_values_are_refused_with_the_accepted_form() {
    check(
        RELEASES,
        &[
            ("from = \"hunter2\"", "`from` says where a secret is, and is not a string: accepted is { file ="),
            ("from = {}", "`from` does not say where the secret is"),
            ("from = { environment = 1 }", "`environment` is a string in quotes, not an integer"),
            ("from = { vault = \"a\" }", "`from` has no key `vault` (accepted: file, environment, command)"),
            ("releases = 0", "`releases` is a whole number from 1 to 100000"),
            ("releases = -1", "`releases` is a whole number from 1 to 100000"),
            ("logs = \"10000y\"", "`logs`: \"10000y\" is not a duration"),
            ("logs = 90", "`logs` is a string in quotes, not an integer"),
            ("artifacts = 0", "`artifacts` is a whole number from 1 to 100000"),
            ("back = 0", "`back` is a whole number from 1 to 1000"),
            ("in_registry = \"no\"", "`in_registry` is true or false, not a string"),
        ],
    );
    for name in ["npm-token", "9A", "PATH", "HOME", "LANG", "POINTSMAN_KEY", "A\u{1b}", "a b", &"A".repeat(65)] {
        let found = with(
            "[secret.NPM_TOKEN]",
            &format!("[secret.\"{}\"]", name.escape_default().to_string().replace("\\u{1b}", "\\u001b")),
        );
        let expected = "is not the name of a secret: accepted is up to 64 letters, digits and underscores";
        assert!(found.len() == 1 && found[0].contains(expected) && !found[0].contains('\u{1b}'), "{name}: {found:?}");
    }
    let gone = with("from = { command = [\"vault\", \"read\", \"-field=token\", \"npm\"] }\nservices = [\"*\"]\n", "");
    assert_eq!(gone, ["15:9: [secret.NPM_TOKEN] needs `from`", "15:9: [secret.NPM_TOKEN] needs `services`"]);
    assert!(with("back = 3", "bakc = 3")[0].contains("[keep] has no key `bakc`, did you mean `back`?"));
}

#[test]
fn hostile_h83_files_of_two_kinds_are_refused() {
    let found = mistakes(&format!("{RELEASES}\n").replace("builders = 3", "builders = 3\nservice = \"a\""));
    assert!(found.iter().any(|one| one.contains("the file has no key `builders`")), "{found:?}");
    let found = mistakes(&RELEASES.replace("builders = 3", "builders = 3\npolicies = []"));
    assert!(found.iter().any(|one| one.contains("the file has no key `builders`")), "{found:?}");
}

/// Whoever writes the secret itself by mistake has it in no message, nor in what is kept.
#[test]
fn hostile_h83_secrets_that_are_written_down_are_not_repeated() {
    let secret = "hunter2-hunter2";
    for (old, new) in [
        ("password = { file = \"/etc/pointsman/registry\" }", "password = \"hunter2-hunter2\""),
        ("password = { environment = \"GIT_TOKEN\" }", "password = \"hunter2-hunter2\""),
        ("secret = { file = \"/etc/pointsman/hook\" }", "secret = \"hunter2-hunter2\""),
        ("from = { command = [\"vault\", \"read\", \"-field=token\", \"npm\"] }", "from = \"hunter2-hunter2\""),
        ("from = { command = [\"vault\", \"read\", \"-field=token\", \"npm\"] }", "from = [\"hunter2-hunter2\"]"),
        (
            "from = { command = [\"vault\", \"read\", \"-field=token\", \"npm\"] }",
            "from = { file = \"hunter2-hunter2\" }",
        ),
        (
            "from = { command = [\"vault\", \"read\", \"-field=token\", \"npm\"] }",
            "from = { value = \"hunter2-hunter2\" }",
        ),
        ("from = { command = [\"vault\", \"read\", \"-field=token\", \"npm\"] }", "value = \"hunter2-hunter2\""),
        ("url = \"https://git.example.com/shop.git\"", "url = \"https://hunter2-hunter2@git.example.com/shop.git\""),
    ] {
        let found = with(old, new);
        assert!(!found.is_empty() && found.iter().all(|one| !one.contains(secret)), "{new}: {found:?}");
    }
}

proptest! {
    /// Pieces of a valid file, put in, left out and doubled.
    #[test]
    fn no_damaged_releases_file_panics(
        cut in 0..RELEASES.len(),
        skip in 0usize..60,
        piece in prop::sample::select(vec!["", "\"", "[", "]", "{", "}", "=", ".", "\n", "\\", "ä", "[[secret]]", "from = ", "*", "{}"]),
    ) {
        let end = (cut + skip).min(RELEASES.len());
        if let Err(mistakes) = parse("f", &format!("{}{piece}{}", &RELEASES[..cut], &RELEASES[end..])) {
            prop_assert!(!mistakes.is_empty());
        }
    }
}

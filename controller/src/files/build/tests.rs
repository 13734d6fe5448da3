//! What a service's file says of its releases: `source.tags`, `[trigger]`, `[build]` and what is kept of it.

use crate::core::spec::{ComponentSpec, POLL, ServiceSpec, WORKSPACE_BYTES};
use crate::files::tests::{check, mistakes, service};

const SHOP: &str = r#"schema = 1
service = "shop"
source = { repository = "https://git.example.com/shop.git", branch = "main", tags = "RELEASE_{date}" }
[trigger]
commits = true
tags = true
schedule = "0 3 * * mon-fri"
time_zone = "australia/sydney"
poll = "30s"
limits = { hour = 6, day = 40 }
[build]
command = ["./build.sh"]
secrets = ["NPM_TOKEN", "SIGNING_KEY"]
pass = ["CARGO_HOME"]
environment = { PROFILE = "release" }
registry = true
size = "3GiB"
contain = false
check = [{ name = "fits", command = ["./checks/fit", "--all"], timeout = "1m" }, { name = "starts", command = ["./checks/start"] }]
[component.web]
image_digest_file = "web.digest"
image = "registry.example.com:5000/shop/web"
protocol = "h1"
[component.ui]
folder = "dist/{environment}"
[stage.dev]
[stage.qa]
"#;

fn component(spec: &ServiceSpec, name: &str) -> ComponentSpec {
    spec.components[&name.parse().expect("a name")].clone()
}

#[test]
fn releases_of_a_service_are_read_as_they_are_meant() {
    let spec = service(SHOP);
    assert_eq!(spec.source.clone().expect("source").tags.as_deref(), Some("RELEASE_{date}"));
    let trigger = &spec.trigger;
    assert!(trigger.commits && trigger.tags && trigger.is_any());
    let schedule = trigger.schedule.as_ref().expect("a schedule");
    assert_eq!((schedule.cron.as_str(), schedule.time_zone.as_str()), ("0 3 * * mon-fri", "Australia/Sydney"));
    let limits = (trigger.limits.hour.map(u32::from), trigger.limits.day.map(u32::from));
    assert_eq!((trigger.poll.ms(), limits), (30_000, (Some(6), Some(40))));

    let build = spec.build.clone().expect("build");
    assert_eq!(
        (build.secrets.join(" ").as_str(), build.registry, build.contain),
        ("NPM_TOKEN SIGNING_KEY", true, false)
    );
    assert_eq!(build.size_bytes, 3 * 1024 * 1024 * 1024);
    let checks: Vec<_> =
        build.checks.iter().map(|one| (one.name.as_str(), one.command.len(), one.timeout.ms())).collect();
    assert_eq!(checks, [("fits", 2, 60_000), ("starts", 1, 300_000)]);

    let (web, ui) = (component(&spec, "web"), component(&spec, "ui"));
    let image = web.image.expect("an image");
    assert_eq!((web.folder.as_str(), image.digest_file.as_str()), ("", "web.digest"));
    assert_eq!(image.repository.map(|place| place.to_string()).as_deref(), Some("registry.example.com:5000/shop/web"));
    assert_eq!((ui.folder.as_str(), ui.image), ("dist/{environment}", None));
}

#[test]
fn releases_are_asked_for_by_hand_and_built_with_care_when_nobody_says_otherwise() {
    let least = "schema = 1\nservice = \"a\"\n[build]\ncommand = [\"make\"]\n[component.web]\nimage_digest_file = \
                 \"out/{environment}.digest\"\nprotocol = \"h1\"\n[stage.dev]\n";
    let spec = service(least);
    assert!(!spec.trigger.is_any() && spec.trigger.poll == POLL && spec.trigger.limits.hour.is_none());
    let build = spec.build.clone().expect("build");
    assert_eq!((build.size_bytes, build.registry, build.contain), (WORKSPACE_BYTES, false, true));
    assert!(build.secrets.is_empty() && build.checks.is_empty());
    let image = component(&spec, "web").image.expect("an image");
    assert_eq!((image.digest_file.as_str(), image.repository), ("out/{environment}.digest", None));
    // Switched off is not left out: nothing has to be deleted for a while.
    let off = service(&SHOP.replace(
        "commits = true\ntags = true\nschedule = \"0 3 * * mon-fri\"\ntime_zone = \"australia/sydney\"\n",
        "",
    ));
    assert!(!off.trigger.is_any() && off.trigger.poll.ms() == 30_000);
    // What others build has nothing to keep.
    let elsewhere = service("schema = 1\nservice = \"a\"\n[component.web]\nprotocol = \"h1\"\n");
    assert_eq!((component(&elsewhere, "web").folder.as_str(), component(&elsewhere, "web").image), ("", None));
}

#[test]
fn hostile_h83_trigger_values_are_refused_with_the_accepted_form() {
    check(
        SHOP,
        &[
            ("commits = \"yes\"", "`commits` is true or false, not a string"),
            ("tags = 1", "`tags` is true or false, not an integer"),
            ("schedule = \"0 3 * *\"", "`schedule`: \"0 3 * *\" is not a schedule"),
            ("schedule = \"0 3 * * mon-fri *\"", "accepted are five fields: minute, hour, day of the month"),
            ("schedule = \"60 3 * * *\"", "accepted are five fields"),
            ("schedule = \"@hourly\"", "accepted are five fields"),
            ("schedule = \"0 0 30 2 *\"", "\"0 0 30 2 *\" never comes"),
            ("schedule = [\"0 3 * * *\"]", "`schedule` is a string in quotes, not a list"),
            (
                "time_zone = \"Mars/Olympus\"",
                "\"Mars/Olympus\" is not a time zone: accepted are names of the IANA database",
            ),
            ("time_zone = 10", "`time_zone` is a string in quotes, not an integer"),
            ("poll = \"4s\"", "`poll` is 4s: accepted is 5s to 1d"),
            ("poll = \"2d\"", "`poll` is 2d: accepted is 5s to 1d"),
            ("poll = 60", "`poll` is a string in quotes, not an integer"),
            ("limits = 6", "`limits` is a table, not an integer"),
            ("limits = { hour = 0 }", "`hour` is a whole number from 1 to 1000"),
            ("limits = { day = 1001 }", "`day` is a whole number from 1 to 1000"),
            ("limits = { hours = 6 }", "`limits` has no key `hours`, did you mean `hour`? (accepted: hour, day)"),
            (
                "source = { repository = \"/a\", tags = \"v{version}\" }",
                "accepted is exactly one of {semver}, {date} and {number}",
            ),
            ("source = { repository = \"/a\", tags = 1 }", "`tags` is a string in quotes, not an integer"),
        ],
    );
    let without = |line: &str| mistakes(&SHOP.replace(line, ""));
    let alone = without("time_zone = \"australia/sydney\"\n");
    assert_eq!(alone, ["7:1: `schedule` needs `time_zone`, an IANA name such as \"Australia/Sydney\" or \"UTC\""]);
    let alone = without("schedule = \"0 3 * * mon-fri\"\n");
    assert_eq!(alone, ["7:1: `time_zone` says where the times of `schedule` are: it is not there"]);
    let commit = mistakes(&SHOP.replace("commits = true", "commit = true"));
    assert!(commit[0].starts_with("5:1: [trigger] has no key `commit`, did you mean `commits`?"), "{commit:?}");
    let nothing = mistakes("schema = 1\nservice = \"a\"\n[trigger]\ncommits = true\n");
    assert_eq!(
        nothing,
        ["3:2: [trigger] asks for builds: the file needs `source`, which says where commits come from"]
    );
}

#[test]
fn hostile_h83_build_values_are_refused_with_the_accepted_form() {
    let many = |count: usize| {
        let one = |n: usize| format!("{{ name = \"c{n}\", command = [\"x\"] }}");
        format!("check = [{}]", (0..count).map(one).collect::<Vec<_>>().join(", "))
    };
    service(
        &SHOP
            .lines()
            .map(|line| if line.starts_with("check") { many(16) } else { line.into() } + "\n")
            .collect::<String>(),
    );
    let secrets = format!("secrets = [{}]", (0..65).map(|n| format!("\"S{n}\"")).collect::<Vec<_>>().join(", "));
    check(
        SHOP,
        &[
            ("secrets = \"NPM_TOKEN\"", "`secrets` is a list of strings such as"),
            (
                "secrets = [\"npm-token\"]",
                "\"npm-token\" is not a variable name: accepted are letters, digits and underscores",
            ),
            ("secrets = [\"POINTSMAN_KEY\"]", "names that begin with POINTSMAN_ are set by Pointsman"),
            ("secrets = [\"A\", \"A\"]", "`secrets` names \"A\" twice"),
            (
                "secrets = [\"CARGO_HOME\"]",
                "`CARGO_HOME` is passed on by `pass`, too: `secrets` names a secret of the operator",
            ),
            ("secrets = [\"PROFILE\"]", "`PROFILE` is set by `environment`, too"),
            (&secrets, "`secrets` names 65 secrets: accepted are at most 64"),
            ("registry = \"registry.example.com\"", "`registry` is true or false, not a string"),
            ("contain = 0", "`contain` is true or false, not an integer"),
            ("size = \"3GB\"", "`size`: \"3GB\" is not a size: accepted is a whole number with KiB, MiB, GiB or TiB"),
            ("size = \"0GiB\"", "from 1MiB to 16TiB"),
            ("size = \"1023KiB\"", "from 1MiB to 16TiB"),
            ("size = \"17TiB\"", "from 1MiB to 16TiB"),
            ("size = \"99999999999999999999TiB\"", "is not a size"),
            ("size = \"18446744073709551615KiB\"", "is not a size"),
            ("size = \"-1GiB\"", "is not a size"),
            ("size = \"1.5GiB\"", "is not a size"),
            ("size = \"GiB\"", "is not a size"),
            ("size = \"\"", "is not a size"),
            ("size = 3", "`size` is a string in quotes, not an integer"),
            ("check = true", "`check` is a list of tables, not a boolean: accepted is [[build.check]]"),
            ("check = {}", "`check` is a list of tables, not a table: accepted is [[build.check]]"),
            ("check = [1]", "an entry of `check` is a table, not an integer"),
            ("check = [{ command = [\"x\"] }]", "an entry of `check` needs `name`"),
            ("check = [{ name = \"a\" }]", "an entry of `check` needs `command`"),
            ("check = [{ name = \"A/../b\", command = [\"x\"] }]", "\"A/../b\" is not a component name: accepted is"),
            ("check = [{ name = \"a\", command = [] }]", "`command` names no program"),
            ("check = [{ name = \"a\", command = [\"x\"], timeout = \"0s\" }]", "`timeout`: \"0s\" is not a duration"),
            ("check = [{ name = \"a\", command = [\"x\"], every = \"1s\" }]", "has no key `every`"),
            (
                "check = [{ name = \"a\", command = [\"x\"] }, { name = \"a\", command = [\"y\"] }]",
                "the build has a check named \"a\" already",
            ),
            (&many(17), "a build has at most 16 checks, not 17"),
        ],
    );
    let unknown = mistakes(&SHOP.replace("contain = false", "contained = false"));
    assert!(
        unknown[0].contains("[build] has no key `contained`, did you mean `contain`? (accepted: command,"),
        "{unknown:?}"
    );
}

#[test]
fn hostile_h83_what_is_kept_of_a_build_is_refused_with_the_accepted_form() {
    check(
        SHOP,
        &[
            (
                "image_digest_file = \"/web.digest\"",
                "\"/web.digest\" is not a file of the checkout: accepted is a relative path",
            ),
            ("image_digest_file = \"../web.digest\"", "is not a file of the checkout"),
            ("image_digest_file = \"\"", "is not a file of the checkout"),
            ("image_digest_file = [\"a\"]", "`image_digest_file` is a string in quotes, not a list"),
            ("image_digest_file = \"{env}.digest\"", "`image_digest_file`: {env} is no word"),
            ("image = \"shop/web\"", "\"shop/web\" is not a place in a registry: accepted is HOST[:PORT]/REPOSITORY"),
            ("image = \"registry.example.com/shop/web:v1\"", "is not a place in a registry"),
            ("image = \"https://registry.example.com/shop\"", "is not a place in a registry"),
            ("folder = \"dist/../{environment}\"", "is not a folder of the checkout"),
            (
                "folder = \"dist/{enviroment}\"",
                "`folder`: {enviroment} is no word, did you mean {environment}? (accepted: {environment},",
            ),
            ("folder = \"dist/{environment\"", "is no word"),
            ("folder = \"dist/environment}\"", "is no word"),
            ("folder = \"dist/{environment}/{port}\"", "{port} is no word"),
        ],
    );
    let with = |old: &str, new: &str| mistakes(&SHOP.replace(old, new));
    let both = with("image_digest_file = \"web.digest\"", "folder = \"dist\"\nimage_digest_file = \"web.digest\"");
    assert_eq!(both, ["22:1: a component is a folder or an image: `image_digest_file` stands beside `folder`"]);
    let neither = with("folder = \"dist/{environment}\"\n", "");
    assert!(
        neither[0].starts_with("24:12: [component.ui] needs `folder`, or `image_digest_file` where"),
        "{neither:?}"
    );
    let bare = with("image_digest_file = \"web.digest\"\n", "folder = \"dist\"\n");
    assert_eq!(bare.len(), 1);
    assert!(
        bare[0].starts_with("22:1: `image` says where the digest of `image_digest_file` was pushed to"),
        "{bare:?}"
    );
    let run = with("protocol = \"h1\"", "protocol = \"h1\"\nrun = [\"./web\", \"{port}\"]");
    assert_eq!(run, ["24:1: `run` is for a folder: an image says itself what it runs"]);
    let nowhere = with("[stage.dev]\n[stage.qa]\n", "");
    assert_eq!(nowhere, ["25:10: `folder` makes one of each stage, and the file has no [stage.NAME]"]);
}

#[test]
fn hostile_h83_mistakes_of_releases_are_told_all_at_once() {
    let text = SHOP
        .replace("commits = true", "commits = 1")
        .replace("0 3 * * mon-fri", "never")
        .replace("3GiB", "3")
        .replace("NPM_TOKEN", "NPM-TOKEN")
        .replace("\"fits\"", "\"Fits\"")
        .replace("dist/{environment}", "dist/{stage}");
    let places: Vec<String> =
        mistakes(&text).iter().map(|one| one.split(':').next().expect("a line").to_owned()).collect();
    assert_eq!(places, ["5", "7", "13", "17", "19", "25"]);
}

mod properties;

use super::super::{File, parse};
use super::*;
use crate::core::spec::{Check, CheckKind, Insiders, Limits, OnMachine, Step};

const TOP: &str = "schema = 1\nservice = \"hello\"\n[stage.production]\n";
/// Line of the first key of the stage.
const FIRST: usize = 4;

/// All that the keys can say.
const WHOLE: &str = r#"strategy = "canary"
sticky = "identity"
meanwhile = "queue"
on_worse = "freeze"
margin = { errors = "0.2%", slow = "300ms", slow_share = "4%" }
failure_header = "X-App-Failed"
steps = [
  { insiders = "X-Insider: yes", pause = true },
  { share = "0.1%", requests = 500 },
  { share = "10%", for = "10m" },
  { share = "50%" },
  { pause = true },
  { share = "100%" },
]
objective = { errors = "0.1%", slow = "300ms", slow_share = "1%", on_breach = "rollback" }

[[stage.production.check]]
name = "smoke"
http = "https://{host}/smoke"
app = "smoke"

[[stage.production.check]]
name = "probe"
command = ["./smoke", "{release}"]
every = "1m"
timeout = "20s"
fall = 1

[[stage.production.check]]
name = "orders"
prometheus = { url = "http://prometheus:9090", query = 'rate(orders{{release="{release}"}[1m])', least = 0.5, most = "12" }
"#;

fn read_all(lines: &str) -> Result<RolloutSpec, Vec<String>> {
    match parse("f", &format!("{TOP}{lines}\n")) {
        Ok(File::Service(mut spec)) => {
            Ok(spec.stages.remove(&"production".parse().expect("a name")).expect("read").rollout)
        }
        Ok(other) => panic!("{other:?}"),
        Err(mistakes) => Err(mistakes.iter().map(|mistake| mistake.to_string().replacen("f:", "", 1)).collect()),
    }
}

fn spec(lines: &str) -> RolloutSpec {
    let spec = read_all(lines).unwrap_or_else(|mistakes| panic!("{lines}: {mistakes:?}"));
    assert!(spec.is_sound(), "{lines}: {spec:?}");
    spec
}

fn mistakes(lines: &str) -> Vec<String> {
    read_all(lines).expect_err(lines)
}

fn share(text: &str) -> Share {
    text.parse().expect(text)
}

fn span(text: &str) -> Span {
    text.parse().expect(text)
}

/// Each line has exactly one mistake, on the first line of the stage unless something follows `base`.
fn check(base: &str, table: &[(&str, &str)]) {
    let line = FIRST + base.lines().count();
    for (lines, expected) in table {
        let found = mistakes(&format!("{base}{lines}"));
        assert!(found.len() == 1, "{lines}: {found:?}");
        assert!(found[0].starts_with(&format!("{line}:")), "{lines}: line {line} in {found:?}");
        assert!(found[0].contains(expected), "{lines}: {expected:?} in {found:?}");
    }
}

#[test]
fn rollout_keys_are_read_as_they_are_meant() {
    let step = |text: &str| Step { share: Some(share(text)), ..Step::default() };
    let insiders = Some(Insiders { header: "x-insider".into(), value: "yes".into() });
    let steps = vec![
        Step { insiders, pause: true, ..Step::default() },
        Step { requests: Some(500), ..step("0.1%") },
        Step { least_time: Some(span("10m")), ..step("10%") },
        step("50%"),
        Step { pause: true, ..Step::default() },
        step("100%"),
    ];
    let check = |name: &str, kind: CheckKind| Check {
        name: name.into(),
        kind,
        every: span("30s"),
        timeout: span("10s"),
        fall: 3,
    };
    let (url, app) = ("https://{host}/smoke".to_owned(), "smoke".parse().ok());
    let smoke = CheckKind::Http { url, app, ca: None };
    let probe = CheckKind::Command { command: vec!["./smoke".into(), "{release}".into()] };
    let limits = Limits { least: Some("0.5".into()), most: Some("12".into()) };
    let query = "rate(orders{{release=\"{release}\"}[1m])";
    let expected = RolloutSpec {
        strategy: Strategy::Canary(steps),
        sticky: Sticky::Identity,
        meanwhile: Meanwhile::Queue,
        on_worse: OnWorse::Freeze,
        bounds: Bounds { errors: share("0.2%"), slow: Some(span("300ms")), slow_share: share("4%") },
        failure_header: Some("x-app-failed".into()),
        checks: vec![
            check("smoke", smoke),
            Check { every: span("1m"), timeout: span("20s"), fall: 1, ..check("probe", probe) },
            check("orders", CheckKind::prometheus("http://prometheus:9090", query, limits)),
        ],
        objective: Some(Objective {
            errors: Some(share("0.1%")),
            slow: Some((span("300ms"), share("1%"))),
            on_breach: Breach::Rollback,
        }),
    };
    assert_eq!(spec(WHOLE), expected);
    assert_eq!(spec(""), RolloutSpec::default());
}

#[test]
fn rollout_words_and_defaults_are_read_as_they_are_meant() {
    let green = |pause, watch: Option<&str>| Strategy::BlueGreen(BlueGreen { pause, watch: watch.map(span) });
    for (lines, expected) in [
        ("strategy = \"all-at-once\"", Strategy::AllAtOnce),
        ("strategy = \"blue-green\"", green(false, None)),
        ("strategy = \"blue-green\"\npause = true\nwatch = \"10m\"", green(true, Some("10m"))),
        ("strategy = \"blue-green\"\npause = false\nwatch = \"30d\"", green(false, Some("30d"))),
    ] {
        assert_eq!(spec(lines).strategy, expected, "{lines}");
    }
    for (lines, expected) in [("none", Sticky::None), ("identity", Sticky::Identity), ("cookie", Sticky::Cookie)] {
        assert_eq!(spec(&format!("sticky = \"{lines}\"")).sticky, expected);
    }
    let meanwhile = [("finish", Meanwhile::Finish), ("replace", Meanwhile::Replace), ("queue", Meanwhile::Queue)];
    for (word, expected) in meanwhile {
        assert_eq!(spec(&format!("meanwhile = \"{word}\"")).meanwhile, expected);
    }
    for (word, expected) in [("rollback", OnWorse::Rollback), ("freeze", OnWorse::Freeze)] {
        assert_eq!(spec(&format!("on_worse = \"{word}\"")).on_worse, expected);
    }
    let bounds = spec("margin = { slow_share = \"100%\" }").bounds;
    assert_eq!(bounds, Bounds { slow_share: Share::ALL, ..Bounds::default() });
    let objective = |text: &str| spec(&format!("objective = {{ {text} }}")).objective.expect("read");
    let least = Objective { errors: Some(share("0.0001%")), slow: None, on_breach: Breach::Ask };
    assert_eq!(objective("errors = \"0.0001%\""), least);
    let slow = Objective { errors: None, slow: Some((span("1s"), share("99.9999%"))), on_breach: Breach::Ask };
    assert_eq!(objective("slow = \"1s\", slow_share = \"99.9999%\", on_breach = \"ask\""), slow);
}

#[test]
fn rollout_steps_that_are_accepted() {
    let steps = |text: &str| spec(&format!("strategy = \"canary\"\nsteps = [{text}]")).strategy.to_string();
    for (text, expected) in [
        ("{ share = \"100%\" }", "canary: 100%"),
        ("{ share = \"0.0001%\" }, { share = \"100%\" }", "canary: 0.0001%, 100%"),
        (
            "{ share = \"1%\" }, { share = \"1%\", pause = true }, { share = \"100%\" }",
            "canary: 1%, 1% until resumed, 100%",
        ),
        ("{ pause = true }, { share = \"100%\" }", "canary: until resumed, 100%"),
        ("{ pause = true, for = \"30d\" }, { share = \"100%\" }", "canary: for 30d until resumed, 100%"),
        (
            "{ share = \"1%\", requests = 10_000_000, insiders = \"a:b\" }, { requests = 0xff, insiders = \"c: d e\" }, \
             { share = \"100%\" }",
            "canary: 1% and insiders with a: b for 10000000 requests, insiders with c: d e for 255 requests, 100%",
        ),
        (
            "{ insiders = \"A: ~!\t \", for = \"1ms\" }, { pause = true, insiders = \"b: 1:2\" }, { share = \"100%\" }",
            "canary: insiders with a: ~! for 1ms, insiders with b: 1:2 until resumed, 100%",
        ),
    ] {
        assert_eq!(steps(text), expected, "{text}");
    }
    let fifty = "{ share = \"1%\" },".repeat(49);
    assert_eq!(
        spec(&format!("strategy = \"canary\"\nsteps = [{fifty}{{ share = \"100%\" }}]")).strategy.steps().len(),
        50
    );
    // A check ends a step with insiders alone. Steps may be written as tables, too.
    let lines = "strategy = \"canary\"\n[[stage.production.steps]]\ninsiders = \"a: b\"\n[[stage.production.steps]]\n\
                 share = \"100%\"\n[[stage.production.check]]\nname = \"a\"\nhttp = \"http://a/\"";
    assert_eq!(spec(lines).strategy.steps().len(), 2);
}

#[test]
fn hostile_h83_rollout_words_are_refused_with_the_accepted_form() {
    check(
        "",
        &[
            (
                "strategy = \"canray\"",
                "\"canray\" is not a strategy, did you mean \"canary\"? (accepted: \"all-at-once\", \"blue-green\", \"canary\")",
            ),
            ("strategy = \"\"", "\"\" is not a strategy (accepted:"),
            ("strategy = \"Canary\"", "did you mean \"canary\"?"),
            ("strategy = \"bluegreen\"\npause = true\nsteps = [{ share = \"100%\" }]", "did you mean \"blue-green\"?"),
            ("strategy = [\"canary\"]", "`strategy` is a string in quotes, not a list"),
            ("strategy = 1", "`strategy` is a string in quotes, not an integer"),
            ("strategy = { kind = \"canary\" }", "`strategy` is a string in quotes, not a table"),
            (
                "strategy = \"canary\"",
                "`strategy = \"canary\"` needs `steps`, such as [{ share = \"1%\", for = \"10m\" }, { share = \"100%\" }]",
            ),
            ("stragety = \"canary\"", "has no key `stragety`, did you mean `strategy`?"),
            ("sticky = \"identitys\"", "\"identitys\" is not a way to keep callers, did you mean \"identity\"?"),
            ("sticky = true", "`sticky` is a string in quotes, not a boolean"),
            ("sticky = nan", "`sticky` is a string in quotes, not a float"),
            (
                "meanwhile = \"wait\"",
                "\"wait\" is not something to do meanwhile (accepted: \"finish\", \"replace\", \"queue\")",
            ),
            ("meanwhile = -1", "`meanwhile` is a string in quotes, not an integer"),
            ("on_worse = \"roll-back\"", "did you mean \"rollback\"? (accepted: \"rollback\", \"freeze\")"),
            ("on_worse = \"ask\"", "\"ask\" is not something to do with a worse release"),
            ("on_worse = 1979-05-27", "`on_worse` is a string in quotes, not a date"),
        ],
    );
}

#[test]
fn hostile_h83_rollout_margins_and_objectives_are_refused_with_the_accepted_form() {
    check(
        "",
        &[
            ("margin = \"1%\"", "`margin` is a table, not a string"),
            (
                "margin = { error = \"1%\" }",
                "`margin` has no key `error`, did you mean `errors`? (accepted: errors, slow, slow_share)",
            ),
            ("margin = { errors = \"0%\" }", "`errors` is 0%: accepted is 0.0001% to 100%"),
            ("margin = { errors = 0.1 }", "`errors` is a string in quotes, not a float"),
            ("margin = { errors = \"-1%\" }", "\"-1%\" is not a share: accepted is a percentage"),
            ("margin = { errors = \"NaN%\" }", "is not a share"),
            ("margin = { errors = \"1e9%\" }", "is not a share"),
            ("margin = { errors = \"0.00001%\" }", "is not a share"),
            ("margin = { slow = \"0s\" }", "\"0s\" is not a duration"),
            ("margin = { slow = \"61m\" }", "`slow` is 1h1m: accepted is 1ms to 1h"),
            ("margin = { slow = \"10000y\" }", "is not a duration"),
            ("margin = { slow = 300 }", "`slow` is a string in quotes, not an integer"),
            ("margin = { slow_share = \"0%\" }", "`slow_share` is 0%: accepted is 0.0001% to 100%"),
            ("margin = { slow_share = \"101%\" }", "is not a share"),
            ("objective = {}", "`objective` promises nothing: it needs `errors`, or `slow` with `slow_share`"),
            ("objective = { on_breach = \"ask\" }", "`objective` promises nothing"),
            ("objective = \"99.9%\"", "`objective` is a table, not a string"),
            ("objective = [{ errors = \"1%\" }]", "`objective` is a table, not a list"),
            ("objective = { errors = \"100%\" }", "`errors` is 100%: accepted is 0.0001% to 99.9999%"),
            ("objective = { errors = \"0%\" }", "`errors` is 0%: accepted is 0.0001% to 99.9999%"),
            (
                "objective = { slow = \"1s\" }",
                "`slow` of an objective needs `slow_share` beside it: how many may be that slow",
            ),
            (
                "objective = { slow_share = \"1%\" }",
                "`slow_share` of an objective needs `slow` beside it: from when on",
            ),
            ("objective = { slow = \"1s\", slow_share = \"1\" }", "\"1\" is not a share"),
            ("objective = { slow = \"2h\", slow_share = \"1%\" }", "`slow` is 2h: accepted is 1ms to 1h"),
            (
                "objective = { errors = \"1%\", on_breach = \"freeze\" }",
                "\"freeze\" is not something to do about a breach (accepted: \"ask\", \"rollback\")",
            ),
            ("objective = { errors = \"1%\", on_breech = \"ask\" }", "did you mean `on_breach`?"),
        ],
    );
}

#[test]
fn hostile_h83_rollout_failure_headers_are_refused_with_the_accepted_form() {
    let check_name = |name: &str, expected: &str| check("", &[(&format!("failure_header = {name}"), expected)]);
    for name in ["\"\"", "\"a b\"", "\"x:\"", "\"ä\"", "\"x\\r\\ny\"", "\"x\\u0000\""] {
        check_name(name, "is not the name of a field: accepted are 1 to 64 letters, digits and hyphens, such as");
    }
    check_name(&format!("\"{}\"", "a".repeat(65)), "is not the name of a field");
    check_name("true", "`failure_header` is a string in quotes, not a boolean");
    for name in api::OUR_FIELDS {
        check_name(&format!("\"{}\"", name.to_ascii_uppercase()), "is a field of HTTP's or the proxy's own");
    }
    for name in ["x_request.id", "X_Forwarded_For", "x.forwarded", "x_pointsman-a", "content_length", "x-real_ip"] {
        check_name(&format!("\"{name}\""), "is a field of HTTP's or the proxy's own");
    }
    check_name("\"X-Pointsman-Failed\"", "\"x-pointsman-failed\" is a field of HTTP's or the proxy's own");
    check_name("\"x-forwarded-for\"", "accepted is one of the service's, such as \"x-app-failed\"");
    let longest = "a".repeat(64);
    assert_eq!(spec(&format!("failure_header = \"{longest}\"")).failure_header, Some(longest));
}

/// Each is the value of `steps`; exactly one mistake is expected, and it lies within them.
fn check_steps(table: &[(&str, &str)]) {
    for (steps, expected) in table {
        let found = mistakes(&format!("strategy = \"canary\"\nsteps = {steps}"));
        assert!(found.len() == 1 && found[0].starts_with("5:"), "{steps}: {found:?}");
        assert!(found[0].contains(expected), "{steps}: {expected:?} in {found:?}");
    }
}

#[test]
fn hostile_h83_rollout_steps_are_refused_with_the_accepted_form() {
    let many = format!("[{}{{ share = \"100%\" }}]", "{ share = \"1%\" },".repeat(50));
    check_steps(&[
        ("[]", "`steps` has 0 steps: accepted are 1 to 50, such as [{ share = \"100%\" }]"),
        (&many, "`steps` has 51 steps: accepted are 1 to 50"),
        ("\"1%, 100%\"", "`steps` is a list of tables, not a string"),
        ("{ share = \"100%\" }", "`steps` is a list of tables, not a table"),
        ("[\"1%\", { share = \"100%\" }]", "an entry of `steps` is a table, not a string"),
        ("[{ share = \"1%\" }, \"100%\"]", "an entry of `steps` is a table, not a string"),
        ("[[{ share = \"100%\" }]]", "an entry of `steps` is a table, not a list"),
        ("[{}, { share = \"100%\" }]", "a step does something: it needs `share`, `insiders` or `pause = true`"),
        ("[{ pause = false }, { share = \"100%\" }]", "a step does something"),
        ("[{ for = \"1m\" }, { share = \"100%\" }]", "a step does something"),
        ("[{ pause = 1 }, { share = \"100%\" }]", "`pause` is true or false, not an integer"),
        (
            "[{ shares = \"1%\", pause = true }, { share = \"100%\" }]",
            "an entry of `steps` has no key `shares`, did you mean `share`? (accepted: share, insiders, for, requests, pause)",
        ),
        ("[{ share = \"1%\", four = \"1m\" }, { share = \"100%\" }]", "did you mean `for`?"),
        ("[{ share = \"1%\", \"für\" = \"1m\" }, { share = \"100%\" }]", "has no key `für`"),
        ("[{ share = \"0%\" }, { share = \"100%\" }]", "`share` is 0%: accepted is 0.0001% to 100%"),
        ("[{ share = \"-1%\" }, { share = \"100%\" }]", "\"-1%\" is not a share"),
        ("[{ share = 1 }, { share = \"100%\" }]", "`share` is a string in quotes, not an integer"),
        ("[{ share = nan }, { share = \"100%\" }]", "`share` is a string in quotes, not a float"),
        ("[{ share = \"1e9%\" }]", "is not a share"),
        ("[{ share = \"100.1%\" }]", "is not a share"),
        ("[{ share = \"1%\", requests = 0 }, { share = \"100%\" }]", "`requests` is a whole number from 1 to 10000000"),
        ("[{ share = \"1%\", requests = -1 }, { share = \"100%\" }]", "`requests` is a whole number"),
        ("[{ share = \"1%\", requests = 1e9 }, { share = \"100%\" }]", "`requests` is a whole number"),
        ("[{ share = \"1%\", requests = 10_000_001 }, { share = \"100%\" }]", "`requests` is a whole number"),
        ("[{ share = \"1%\", requests = 99999999999999999999 }, { share = \"100%\" }]", "`requests` is a whole number"),
        ("[{ share = \"1%\", requests = \"500\" }, { share = \"100%\" }]", "`requests` is a whole number"),
        ("[{ share = \"1%\", for = \"0s\" }, { share = \"100%\" }]", "`for`: \"0s\" is not a duration"),
        ("[{ share = \"1%\", for = \"-1m\" }, { share = \"100%\" }]", "is not a duration"),
        ("[{ share = \"1%\", for = \"10000y\" }, { share = \"100%\" }]", "is not a duration"),
        ("[{ share = \"1%\", for = \"30d1ms\" }, { share = \"100%\" }]", "`for` is 30d1ms: accepted is 1ms to 30d"),
        ("[{ share = \"1%\", for = 600 }, { share = \"100%\" }]", "`for` is a string in quotes, not an integer"),
    ]);
}

#[test]
fn hostile_h83_rollout_steps_that_lead_nowhere_are_refused() {
    let seventeen = format!("[{}{{ share = \"100%\" }}]", "{ insiders = \"a: b\", pause = true },".repeat(17));
    check_steps(&[
        (
            "[{ share = \"5%\" }, { share = \"4.9999%\" }, { share = \"100%\" }]",
            "`share` is 4.9999% after 5%: shares never fall from step to step",
        ),
        ("[{ share = \"5%\" }, { pause = true }, { share = \"1%\" }, { share = \"100%\" }]", "`share` is 1% after 5%"),
        ("[{ share = \"1%\" }]", "the last step brings everything: accepted is { share = \"100%\" }"),
        ("[{ pause = true }]", "the last step brings everything"),
        ("[{ share = \"99.9999%\" }]", "the last step brings everything"),
        ("[{ share = \"100%\" }, { pause = true }]", "`share = \"100%\"` completes the rollout: no step can follow it"),
        ("[{ share = \"100%\" }, { share = \"100%\" }]", "no step can follow it"),
        ("[{ share = \"100%\" }, { share = \"100%\" }, { share = \"100%\" }]", "no step can follow it"),
        (
            "[{ share = \"1%\" }, { share = \"100%\", for = \"1m\" }]",
            "`for`: once everything goes to the release the rollout is complete, and waits for nothing",
        ),
        ("[{ share = \"100%\", requests = 1 }]", "`requests`: once everything goes"),
        ("[{ share = \"100%\", pause = true }]", "`pause`: once everything goes"),
        ("[{ share = \"100%\", insiders = \"a: b\" }]", "`insiders`: once everything goes"),
        (
            "[{ insiders = \"a: b\" }, { share = \"100%\" }]",
            "a step with insiders alone is over by time, by hand or by a check: it needs `for`,",
        ),
        (
            "[{ insiders = \"a: b\", pause = false }, { share = \"100%\" }]",
            "a step with insiders alone is over by time, by hand or by a check: it needs `for`,",
        ),
        (
            "[{ insiders = \"a: b\", requests = 5 }, { share = \"100%\" }]",
            "`requests` counts what is dealt out by share, and nothing is before the first step with a `share`",
        ),
        ("[{ pause = true, requests = 5 }, { share = \"100%\" }]", "`requests` counts what is dealt out by share"),
        (&seventeen, "accepted are at most 16 steps with `insiders`"),
    ]);
}

#[test]
fn hostile_h83_rollout_insiders_are_refused_with_the_accepted_form() {
    let with = |insiders: &str| format!("[{{ insiders = {insiders}, pause = true }}, {{ share = \"100%\" }}]");
    for (insiders, expected) in [
        ("true", "`insiders` is a string in quotes, not a boolean"),
        ("[\"x-insider: yes\"]", "`insiders` is a string in quotes, not a list"),
        ("\"\"", "\"\" is not a field with its value: accepted is a text such as \"x-insider: yes\""),
        ("\"x-insider\"", "\"x-insider\" is not a field with its value"),
        ("\"x-insider=yes\"", "is not a field with its value"),
        ("\": yes\"", "\"\" is not the name of a field"),
        ("\"x insider: yes\"", "\"x insider\" is not the name of a field"),
        ("\"x-insider : yes\"", "\"x-insider \" is not the name of a field"),
        ("\"größe: yes\"", "is not the name of a field"),
        ("\"x-insider:\"", "\"\" is not the value of such a field: accepted are 1 to 256 printable ASCII characters"),
        ("\"x-insider: \\t \"", "is not the value of such a field"),
        ("\"x-insider: jä\"", "is not the value of such a field"),
        ("\"x-insider: a\\tb\"", "is not the value of such a field"),
        ("\"x-insider: a\\r\\nb: c\"", "is not the value of such a field"),
        ("\"x-insider: a\\u0000\"", "is not the value of such a field"),
        ("\"x-insider: a\\u007f\"", "is not the value of such a field"),
        (
            "\"Host: a\"",
            "\"host\" is a field of HTTP's or the proxy's own: accepted is one of the service's, such as \"x-insider\"",
        ),
        ("\"COOKIE: a=b\"", "\"cookie\" is a field of HTTP's or the proxy's own"),
        ("\"authorization: Bearer a\"", "is a field of HTTP's or the proxy's own"),
        ("\"x-api-key: a\"", "is a field of HTTP's or the proxy's own"),
        ("\"x-pointsman-assertion: a\"", "is a field of HTTP's or the proxy's own"),
        ("\":authority: a\"", "\"\" is not the name of a field"),
    ] {
        check_steps(&[(&with(insiders), expected)]);
    }
    let value = "v".repeat(256);
    let read = spec(&format!("strategy = \"canary\"\nsteps = {}", with(&format!("\"a: {value}\""))));
    assert_eq!(read.strategy.steps()[0].insiders.as_ref().map(|insiders| insiders.value.len()), Some(256));
    check_steps(&[(&with(&format!("\"a: {value}v\"")), "is not the value of such a field")]);
}

#[test]
fn hostile_h83_rollout_keys_of_another_strategy_are_refused() {
    let steps = "steps = [{ share = \"100%\" }]";
    let smoke = "check = [{ name = \"a\", http = \"http://a/\" }]";
    let both = "`strategy = \"blue-green\"` and \"canary\", which wait for it: this stage's is \"all-at-once\"";
    check(
        "",
        &[
            (steps, "`steps` is for `strategy = \"canary\"` only: this stage's is \"all-at-once\", the default"),
            (
                "pause = true",
                "`pause` is for `strategy = \"blue-green\"` only (a canary is paused by a step: { pause = true })",
            ),
            ("pause = false", "`pause` is for `strategy = \"blue-green\"` only"),
            (
                "watch = \"10m\"",
                "`watch` is for `strategy = \"blue-green\"` only (after a canary `objective` is watched)",
            ),
            (smoke, both),
        ],
    );
    check("strategy = \"all-at-once\"\n", &[(steps, "this stage's is \"all-at-once\""), (smoke, both)]);
    check(
        "strategy = \"blue-green\"\n",
        &[(steps, "`steps` is for `strategy = \"canary\"` only: this stage's is \"blue-green\"")],
    );
    let canary = format!("strategy = \"canary\"\n{steps}\n");
    check(&canary, &[("pause = true", "this stage's is \"canary\""), ("watch = \"1s\"", "this stage's is \"canary\"")]);
    check(
        "strategy = \"blue-green\"\n",
        &[
            ("pause = \"yes\"", "`pause` is true or false, not a string"),
            ("watch = \"31d\"", "`watch` is 31d: accepted is 1ms to 30d"),
            ("watch = \"0s\"", "is not a duration"),
            ("watch = 600", "`watch` is a string in quotes, not an integer"),
        ],
    );
}

/// Each is one entry of `check` besides a good one; exactly one mistake is expected, on its line.
fn check_checks(table: &[(&str, &str)]) {
    for (entry, expected) in table {
        let good = "{ name = \"good\", http = \"http://a/\" }";
        let found = mistakes(&format!("strategy = \"blue-green\"\ncheck = [{good},\n{entry}]"));
        assert!(found.len() == 1 && found[0].starts_with("6:"), "{entry}: {found:?}");
        assert!(found[0].contains(expected), "{entry}: {expected:?} in {found:?}");
    }
}

#[test]
fn hostile_h83_rollout_checks_are_refused_with_the_accepted_form() {
    check_checks(&[
        ("\"smoke\"", "an entry of `check` is a table, not a string"),
        ("{ http = \"http://a/\" }", "an entry of `check` needs `name`"),
        ("{ name = \"a\" }", "an entry of `check` needs `http`, `command` or `prometheus`"),
        ("{ name = \"a/b\", http = \"http://a/\" }", "\"a/b\" is not a name: accepted is 1 to 40 lower-case letters"),
        ("{ name = \"..\", http = \"http://a/\" }", "is not a name: accepted is"),
        ("{ name = \"a--b\", http = \"http://a/\" }", "is not a name: accepted is"),
        ("{ name = \"größe\", http = \"http://a/\" }", "is not a name: accepted is"),
        ("{ name = \"\", http = \"http://a/\" }", "is not a name: accepted is"),
        ("{ name = 7, http = \"http://a/\" }", "`name` is a string in quotes, not an integer"),
        ("{ name = \"good\", http = \"http://b/\" }", "the stage has a check named \"good\" already"),
        (
            "{ name = \"a\", http = \"http://a/\", command = [\"b\"] }",
            "a check asks one thing: `command` stands beside `http`",
        ),
        (
            "{ name = \"a\", http = \"http://a/\", https = \"https://a/\" }",
            "an entry of `check` has no key `https`, did you mean `http`?",
        ),
        ("{ name = \"a\", http = \"http://a/\", evry = \"1s\" }", "did you mean `every`?"),
        ("{ name = \"a\", http = \"http://a/\", every = \"999ms\" }", "`every` is 999ms: accepted is 1s to 1h"),
        ("{ name = \"a\", http = \"http://a/\", every = \"2h\" }", "`every` is 2h: accepted is 1s to 1h"),
        ("{ name = \"a\", http = \"http://a/\", every = 30 }", "`every` is a string in quotes, not an integer"),
        ("{ name = \"a\", http = \"http://a/\", timeout = \"2h\" }", "`timeout` is 2h: accepted is 1ms to 1h"),
        ("{ name = \"a\", http = \"http://a/\", timeout = \"-1s\" }", "is not a duration"),
        ("{ name = \"a\", http = \"http://a/\", fall = 0 }", "`fall` is a whole number from 1 to 100"),
        ("{ name = \"a\", http = \"http://a/\", fall = 1e9 }", "`fall` is a whole number from 1 to 100"),
        ("{ name = \"a\", http = \"http://a/\", fall = nan }", "`fall` is a whole number from 1 to 100"),
        ("{ name = \"a\", command = \"./smoke\" }", "`command` is a list of strings such as"),
        (
            "{ name = \"a\", command = [] }",
            "`command` names no program: accepted is a list such as [\"./smoke\", \"{release}\"]",
        ),
        ("{ name = \"a\", command = [\"\"] }", "`command` names no program"),
        ("{ name = \"a\", command = [\"a\", 1] }", "`command` holds strings, not an integer"),
        ("{ name = \"a\", command = [\"a\\u0000\"] }", "NUL"),
        (
            "{ name = \"a\", command = [\"a\", \"{hots}\"] }",
            "`command`: {hots} is no word, did you mean {host}? (accepted: {host}, {release}, and {{ for a brace)",
        ),
        ("{ name = \"a\", command = [\"a\", \"{\"] }", "`command`: a brace is opened and never closed"),
    ]);
    let long = format!("{{ name = \"a\", command = [\"a\", \"{}\"] }}", "b".repeat(4_096));
    check_checks(&[(&long, "`command` is too long: accepted are 4096 bytes in all")]);
    let eleven: Vec<String> = (0..11).map(|n| format!("{{ name = \"a{n}\", http = \"http://a/\" }}")).collect();
    check(
        "strategy = \"blue-green\"\n",
        &[
            ("check = {}", "`check` is a list of tables, not a table: accepted is [[stage.production.check]]"),
            (
                "check = \"./smoke\"",
                "`check` is a list of tables, not a string: accepted is [[stage.production.check]]",
            ),
            (&format!("check = [{}]", eleven.join(",")), "a stage has at most 10 checks, not 11"),
        ],
    );
    assert_eq!(spec(&format!("strategy = \"blue-green\"\ncheck = [{}]", eleven[1..].join(","))).checks.len(), 10);
}

#[test]
fn hostile_h83_rollout_urls_are_refused_without_a_word_of_their_secrets() {
    let form = "accepted is http or https with a host, such as";
    for (url, expected) in [
        ("", form),
        ("smoke", form),
        ("/smoke", form),
        ("//a/smoke", form),
        ("ftp://a/", form),
        ("file:///etc/passwd", form),
        ("HTTP://a/", form),
        ("http:a", form),
        ("http://", form),
        ("http:///smoke", form),
        ("http://:80/", form),
        ("http://?a", form),
        ("http://a:0/", form),
        ("http://a:65536/", form),
        ("http://a:{release}/", form),
        ("http://a:b/", form),
        ("http://[::1/", form),
        ("http://[zz]/", form),
        ("http://a b/", form),
        ("http://a/b c", form),
        ("http://ä/", form),
        ("http://a/ä", form),
        ("http://a\\u0000/", form),
        ("http://a\\r\\nb/", form),
        ("http://secret@a/", "has credentials in it"),
        ("http://user:secret@a/", "has credentials in it"),
        ("http://user:secret@a b/", "has credentials in it"),
        ("https://secret:{release}@{host}/", "has credentials in it"),
        ("http://a/#secret", "has a fragment, which no server is told"),
        ("https://{hosts}/", "`http`: {hosts} is no word, did you mean {host}?"),
        ("https://{HOST}/", "did you mean {host}?"),
        ("https://{stage}/", "{stage} is no word (accepted: {host}, {release}, and {{ for a brace)"),
        ("https://{}/", "{} is no word (accepted:"),
        ("https://a/{", "a brace is opened and never closed (accepted:"),
    ] {
        let found = mistakes(&format!("strategy = \"blue-green\"\ncheck = [{{ name = \"a\", http = \"{url}\" }}]"));
        // A wrong word may also make a wrong URL.
        assert!(found.iter().any(|found| found.contains(expected)), "{url}: {expected:?} in {found:?}");
        assert!(found.iter().all(|found| found.starts_with("5:") && !found.contains("secret")), "{url}: {found:?}");
    }
    let long = format!("{{ name = \"a\", http = \"http://a/{}\" }}", "b".repeat(1_100));
    check_checks(&[(&long, "bytes, and 1024 are the most")]);
    for url in [
        "http://a",
        "https://{host}:8443/smoke?release={release}&x=@",
        "http://127.0.0.1:9/",
        "http://[::1]:80/a",
        "http://[::1]",
        "https://{release}.checks.example.com/{{a}",
    ] {
        let lines = format!("strategy = \"blue-green\"\npublic = true\ncheck = [{{ name = \"a\", http = \"{url}\" }}]");
        let read = spec(&lines);
        assert_eq!(read.checks[0].kind, CheckKind::http(url));
    }
}

#[test]
fn hostile_h83_rollout_prometheus_is_refused_with_the_accepted_form() {
    let with = |table: &str| format!("{{ name = \"a\", prometheus = {table} }}");
    let server = "url = \"http://p:9090\"";
    for (table, expected) in [
        ("\"up\"".to_owned(), "`prometheus` is a table, not a string"),
        (format!("{{ {server}, most = 1 }}"), "`prometheus` needs `query`"),
        ("{ query = \"up\", most = 1 }".into(), "`prometheus` needs `url`"),
        (
            format!("{{ {server}, query = \"up\" }}"),
            "`prometheus` needs `least`, `most` or both: which values are well",
        ),
        (
            format!("{{ {server}, query = \"up\", max = 1, least = 0 }}"),
            "has no key `max` (accepted: url, query, least, most, ca)",
        ),
        (
            "{ url = \"p:9090\", query = \"up\", most = 1 }".into(),
            "`url` is not such a URL: \"p:9090\": accepted is http or https",
        ),
        ("{ url = \"http://u:secret@p\", query = \"up\", most = 1 }".into(), "`url` has credentials in it"),
        (
            "{ url = \"http://{host}\", query = \"up\", most = 1 }".into(),
            "`url` is the server's own: accepted is one without words and query",
        ),
        ("{ url = \"http://p/?a=b\", query = \"up\", most = 1 }".into(), "`url` is the server's own"),
        (format!("{{ {server}, query = \" \", most = 1 }}"), "accepted are 1 to 4096 bytes of PromQL"),
        (format!("{{ {server}, query = \"u\\u0000p\", most = 1 }}"), "without control characters"),
        (format!("{{ {server}, query = \"{}\", most = 1 }}", "u".repeat(4_097)), "accepted are 1 to 4096 bytes"),
        (format!("{{ {server}, query = ['up'], most = 1 }}"), "`query` is a string in quotes, not a list"),
        (format!("{{ {server}, query = 'up{{a=\"b\"}}', most = 1 }}"), "`query`: {a=\\\"b\\\"} is no word (accepted:"),
        (
            format!("{{ {server}, query = 'up{{{{a=\"b\"}}}}', most = 1 }}"),
            "`query`: braces do not come in pairs: an opening one is written `{{`, a closing one `}`, such as up{{release=\"{release}\"}",
        ),
        (format!("{{ {server}, query = \"up{{relase}}\", most = 1 }}"), "{relase} is no word, did you mean {release}?"),
        (
            format!("{{ {server}, query = \"up\", least = 2, most = 1 }}"),
            "`least` is more than `most`: no value would be well",
        ),
        (format!("{{ {server}, query = \"up\", least = \"-1\", most = -1.5 }}"), "`least` is more than `most`"),
        (
            format!("{{ {server}, query = \"up\", least = true }}"),
            "`least` is a decimal number of at most 32 characters such as 0.99, not a boolean",
        ),
    ] {
        check_checks(&[(&with(&table), expected)]);
    }
    for limit in [
        "nan",
        "inf",
        "-inf",
        "1e9",
        "1e-3",
        "\"NaN\"",
        "\"\"",
        "\"1%\"",
        "\"0x1\"",
        "0x10",
        "\"1.\"",
        "\".5\"",
        "\"٣\"",
        "\"--1\"",
        "\"1.2.3\"",
        "\"00000000000000000000000000000000.1\"",
    ] {
        check_checks(&[(
            &with(&format!("{{ {server}, query = \"up\", most = {limit} }}")),
            "`most` is a decimal number",
        )]);
    }
    for (limit, text) in [("1", "1"), ("-1.50", "-1.50"), ("\"007.5\"", "007.5"), ("1_000.5", "1000.5"), ("+3", "3")] {
        let read = read_all(&format!(
            "strategy = \"blue-green\"\ncheck = [{}]",
            with(&format!("{{ {server}, query = \"up\", most = {limit} }}"))
        ));
        let checks = read.unwrap_or_else(|found| panic!("{limit}: {found:?}")).checks;
        let CheckKind::Prometheus { limits, .. } = &checks[0].kind else { panic!("{checks:?}") };
        assert_eq!(limits.most.as_deref(), Some(text), "{limit}");
    }
}

#[test]
fn hostile_h83_rollout_mistakes_are_told_at_once() {
    let lines = "strategy = \"canary\"\nsticky = \"x\"\nmeanwhile = 1\non_worse = \"\"\nmargin = { errors = \"2\", slow = \"1y\" }\n\
                 failure_header = \"te\"\nobjective = { slow = \"1s\" }\npause = 1\nwatch = \"x\"\nstep = []\nsteps = [\n\
                 { share = \"5%\", requests = 0 },\n{ share = \"1%\", for = \"1y\" },\n{ x = 1 },\n{ share = \"100%\", pause = true },\n]\n\
                 [[stage.production.check]]\nname = \"A\"\n[[stage.production.check]]\nname = \"b\"\nhttp = \"x\"\ncommand = []\n\
                 [stage.staging]\nstrategy = \"x\"\n";
    let found = mistakes(lines);
    let at: Vec<usize> = found.iter().filter_map(|found| found.split(':').next()?.parse().ok()).collect();
    // Both values of the margin; pause and watch are wrong in themselves and beside a canary; a step has two mistakes, the
    // next one too, the third is unknown and does nothing; the first check has neither a name nor a kind.
    assert_eq!(
        at,
        [5, 6, 7, 8, 8, 9, 10, 11, 11, 12, 12, 13, 15, 16, 16, 17, 17, 18, 20, 21, 24, 25, 25, 27],
        "{found:#?}"
    );
}

/// Who may apply it, the server asks by this.
#[test]
fn hostile_h83_rollout_programs_of_checks_are_named_as_the_machines() {
    let on_machine = |lines: &str| match parse("f", &format!("{TOP}{lines}")) {
        Ok(File::Service(spec)) => spec.on_machine(),
        other => panic!("{other:?}"),
    };
    let named = |stage: &str, kind: &'static str, words: &[&str]| OnMachine {
        stage: Some(stage.parse().expect("a name")),
        kind,
        words: words.iter().map(|word| (*word).to_owned()).collect(),
    };
    let check = |words: &str| format!("strategy = \"blue-green\"\ncheck = [{{ name = \"a\", command = [{words}] }}]");
    assert_eq!(on_machine(WHOLE), [named("production", "command", &["./smoke", "{release}"])]);
    assert_eq!(on_machine(""), []);
    assert_eq!(on_machine(&check("'a', 'b'")), [named("production", "command", &["a", "b"])]);
    assert_eq!(on_machine(&check("'a b'")), [named("production", "command", &["a b"])]);
    let elsewhere = format!("[stage.staging]\n{}", check("'a', 'b'"));
    assert_eq!(on_machine(&elsewhere), [named("staging", "command", &["a", "b"])], "another stage is another place");
}

#[test]
fn hostile_h83_rollout_checks_that_nobody_would_let_in_are_refused() {
    let lines =
        |check: &str, more: &str| format!("{more}strategy = \"blue-green\"\ncheck = [{{ name = \"a\", {check} }}]");
    for url in ["https://{host}/smoke", "http://{host}", "https://{host}:8443?a", "http://{host}:80/"] {
        let stranger = format!("http = \"{url}\"");
        let [found] = &mistakes(&lines(&stranger, ""))[..] else { panic!("{url}: one mistake") };
        assert!(found.contains("asks {host} as a stranger") && found.contains("`app = \"NAME\"`"), "{found}");
        assert!(found.contains("`command`") && found.contains("`public = true`"), "every way out: {found}");
        spec(&lines(&stranger, "public = true\n"));
        assert_eq!(mistakes(&lines(&stranger, "public = false\n")).len(), 1, "{url}");
    }
    // A policy that lets strangers in is nothing that the file can know of: the host itself is accepted.
    spec(&lines("http = \"https://{release}--hello.production.example.com/\"", ""));
    spec(&lines("command = [\"./smoke\", \"{host}\"]", ""));
    let app = "app = \"smoke\"";
    let read = spec(&lines(&format!("http = \"https://{{host}}:8443/smoke\", {app}"), ""));
    assert!(matches!(&read.checks[0].kind, CheckKind::Http { app: Some(app), .. } if app.as_str() == "smoke"));
    let alone = "`app` is known by a key, which is for the release's own host alone and never in clear";
    for (check, expected) in [
        (format!("http = \"http://{{host}}/\", {app}"), alone),
        (format!("http = \"https://{{host}}.evil.example/\", {app}"), alone),
        (format!("http = \"https://evil.example/{{host}}\", {app}"), alone),
        (format!("http = \"https://{{host}}x:1/\", {app}"), alone),
        (format!("http = \"https://{{{{host}}/\", {app}"), alone),
        (format!("command = [\"a\"], {app}"), "`app` says how a server is asked: accepted beside `http`"),
        ("http = \"https://{host}/\", app = \"../x\"".to_owned(), "app"),
    ] {
        let found = mistakes(&lines(&check, "")).join("\n");
        assert!(found.contains(expected), "{check}: {found}");
    }
}

#[test]
fn hostile_h83_rollout_authorities_of_checks_are_refused_with_the_accepted_form() {
    certs::install_provider();
    let folder = tempfile::tempdir().expect("folder");
    let authority = certs::development::DevelopmentCa::open_or_create(folder.path()).expect("one").certificate_pem();
    let http = |ca: &str| format!("http = \"https://a/\"\nca = \"\"\"\n{ca}\"\"\"");
    let prometheus = |ca: &str| {
        format!("prometheus = {{ url = \"https://a\", query = \"up\", least = 1, ca = \"\"\"\n{ca}\"\"\" }}")
    };
    let lines = |asks: &str| format!("strategy = \"blue-green\"\n[[stage.production.check]]\nname = \"a\"\n{asks}");
    let read = [spec(&lines(&http(&authority))), spec(&lines(&prometheus(&authority)))];
    for spec in read {
        let (CheckKind::Http { ca, .. } | CheckKind::Prometheus { ca, .. }) = &spec.checks[0].kind else { panic!() };
        assert_eq!(ca.as_deref(), Some(authority.as_str()));
    }
    let many = authority.repeat(16 * 1024 / authority.len() + 1);
    for (ca, expected) in [
        ("/etc/ca.pem", "is not a certificate: accepted is the text of a PEM file itself"),
        ("", "is not a certificate"),
        (&many, "accepted are 16384 of a check"),
        (&authority.replacen("MII", "AII", 1), "`ca` is not usable"),
    ] {
        for asks in [http(ca), prometheus(ca)] {
            let found = mistakes(&lines(&asks)).join("\n");
            assert!(found.contains(expected), "{asks}: {found}");
        }
    }
    let found = mistakes(&lines("command = [\"a\"]\nca = \"x\"")).join("\n");
    assert!(found.contains("`ca` says how a server is asked: accepted beside `http`"), "{found}");
}

use api::{Host, ReleaseNumber};

use super::*;

fn share(text: &str) -> Share {
    text.parse().expect(text)
}

fn step(share: &str) -> Step {
    Step { share: (!share.is_empty()).then(|| self::share(share)), ..Step::default() }
}

#[test]
fn rollout_share_in_force_is_that_of_the_last_step_with_one() {
    let canary = Strategy::Canary(["", "0.1%", "", "10%", "", "100%"].map(step).to_vec());
    let in_force: Vec<String> = (0..8).map(|at| canary.share_at(at).to_string()).collect();
    assert_eq!(in_force, ["0%", "0.1%", "0.1%", "10%", "10%", "100%", "100%", "100%"]);
    assert_eq!(canary.share_at(usize::MAX), Share::ALL);
    assert_eq!((canary.steps().len(), Strategy::AllAtOnce.steps().len()), (6, 0));
    assert_eq!(Strategy::AllAtOnce.share_at(0), Share::NONE);
}

#[test]
fn rollout_check_words_are_filled() {
    let (host, release) = ("r42--hello.example.com".parse::<Host>().expect("a host"), ReleaseNumber::new(42));
    let release = release.expect("not 0");
    for (text, expected) in [
        ("", ""),
        ("plain", "plain"),
        ("https://{host}/smoke", "https://r42--hello.example.com/smoke"),
        ("{release}{host}{release}", "r42r42--hello.example.comr42"),
        ("x{{release=\"{release}\"}", "x{release=\"r42\"}"),
        ("{{host}", "{host}"),
        ("{{{release}}", "{r42}"),
        ("{{{{", "{{"),
        ("a } b", "a } b"),
        ("ä{host}ß", "är42--hello.example.comß"),
    ] {
        assert_eq!(check_words(text), Ok(()), "{text}");
        assert_eq!(fill(text, &host, release), expected, "{text}");
    }
    for (text, word) in [
        ("{", None),
        ("a{host", None),
        ("{}", Some("")),
        ("{ host }", Some(" host ")),
        ("{Host}", Some("Host")),
        ("{host}{stage}", Some("stage")),
        ("{{{host", None),
        ("{a{host}", Some("a{host")),
    ] {
        assert_eq!(check_words(text), Err(WrongWord { word: word.map(str::to_owned) }), "{text}");
        // Nothing is lost, and nothing is repeated.
        fill(text, &host, release);
    }
    assert_eq!(fill("a{b", &host, release), "a{b");
    assert_eq!(fill("a{b}c", &host, release), "a{b}c");
}

#[test]
fn rollout_spec_is_shown_in_the_words_of_the_file() {
    let insiders = Insiders { header: "x-insider".into(), value: "yes".into() };
    let steps = vec![
        Step { insiders: Some(insiders), pause: true, ..Step::default() },
        Step { requests: Some(500), ..step("0.1%") },
        Step { least_time: Span::from_ms(600_000), requests: Some(1), ..step("10%") },
        step("50%"),
        Step { pause: true, ..Step::default() },
        step("100%"),
    ];
    assert_eq!(
        Strategy::Canary(steps).to_string(),
        "canary: insiders with x-insider: yes until resumed, 0.1% for 500 requests, 10% for 10m and 1 request, 50%, until \
         resumed, 100%"
    );
    assert_eq!(Strategy::AllAtOnce.to_string(), "all-at-once");
    let watch = Span::from_ms(600_000);
    assert_eq!(
        Strategy::BlueGreen(BlueGreen { pause: true, watch }).to_string(),
        "blue-green, flipped when resumed, watched for 10m"
    );
    assert_eq!(Bounds::default().to_string(), "0.1% more errors, 5% more slower than stable's p95");
    let slow = Span::from_ms(300).map(|span| (span, share("1%")));
    let objective = Objective { errors: Some(share("0.1%")), slow, on_breach: Breach::Rollback };
    assert_eq!(objective.to_string(), "0.1% errors, 1% slower than 300ms, otherwise rollback");
    let limits = Limits { least: Some("0.5".into()), most: Some("1".into()) };
    assert_eq!(limits.to_string(), "at least 0.5 and at most 1");
    let kind = CheckKind::http("https://a/?token=secret");
    let check = Check { name: "smoke".into(), kind, every: CHECK_EVERY, timeout: CHECK_TIMEOUT, fall: CHECK_FALL };
    assert_eq!(check.to_string(), "smoke (http, every 30s)");
}

#[test]
fn rollout_programs_of_the_machine_are_told_apart() {
    let check = |kind: CheckKind| Check {
        name: "a".to_owned(),
        kind,
        every: CHECK_EVERY,
        timeout: CHECK_TIMEOUT,
        fall: CHECK_FALL,
    };
    let runs = |words: &[&str]| CheckKind::Command { command: words.iter().map(|word| (*word).to_owned()).collect() };
    let limits = Limits { least: Some("1".into()), most: None };
    let prometheus = |url: &str| CheckKind::prometheus(url, "up", limits.clone());
    let named = |kinds: &[CheckKind]| {
        let spec = RolloutSpec { checks: kinds.iter().cloned().map(check).collect(), ..RolloutSpec::default() };
        spec.on_machine().map(|named| format!("{} {:?}", named.kind, named.words)).collect::<Vec<_>>()
    };
    let near = "http://127.0.0.1/{release}";
    for (kinds, expected) in [
        (vec![runs(&["x", "y"])], vec![r#"command ["x", "y"]"#.to_owned()]),
        // One program with an argument is not two programs.
        (vec![runs(&["x"]), runs(&["y"])], vec![r#"command ["x"]"#.to_owned(), r#"command ["y"]"#.to_owned()]),
        (vec![CheckKind::http(near)], vec![format!("http [{near:?}]")]),
        (vec![prometheus(near)], vec![format!("prometheus [{near:?}]")]),
        // Whoever the file names could stand behind the host, and have the key.
        (
            vec![CheckKind::Http { url: "https://{host}/".into(), app: "smoke".parse().ok(), ca: Some("pem".into()) }],
            vec![r#"ca beside app ["https://{host}/", "smoke", "pem"]"#.to_owned()],
        ),
        (vec![runs(&[near])], vec![format!("command [{near:?}]")]),
        (vec![runs(&["list", near])], vec![format!("command [\"list\", {near:?}]")]),
    ] {
        assert_eq!(named(&kinds), expected, "{kinds:?}");
    }
    for url in ["http://prometheus:9090", "https://{host}/", "http://10.0.0.1", "https://a/"] {
        assert_eq!(named(&[CheckKind::http(url), prometheus(url)]), [""; 0], "{url}");
    }
}

/// Each of them breaks one thing; [`RolloutSpec::is_sound`] has to see it, or the properties of `files` would show nothing.
#[test]
fn rollout_specs_that_are_not_sound_are_seen() {
    let canary = |steps: Vec<Step>| RolloutSpec { strategy: Strategy::Canary(steps), ..RolloutSpec::default() };
    assert!(RolloutSpec::default().is_sound());
    assert!(canary(vec![step("1%"), step("100%")]).is_sound());
    let paused = Step { pause: true, ..Step::default() };
    let insiders = |header: &str, value: &str| Step {
        insiders: Some(Insiders { header: header.into(), value: value.into() }),
        pause: true,
        ..Step::default()
    };
    assert!(canary(vec![insiders("x-a", "b"), step("100%")]).is_sound());
    for steps in [
        vec![],
        vec![step("1%")],
        vec![step("100%"), paused.clone()],
        vec![step("100%"), step("100%")],
        vec![step("5%"), step("1%"), step("100%")],
        vec![step("0%"), step("100%")],
        vec![Step::default(), step("100%")],
        vec![Step { requests: Some(1), ..paused }, step("100%")],
        vec![Step { requests: Some(0), ..step("1%") }, step("100%")],
        vec![Step { requests: Some(10_000_001), ..step("1%") }, step("100%")],
        vec![Step { least_time: Some(Span::MAX), ..step("1%") }, step("100%")],
        vec![Step { pause: true, ..step("100%") }],
        vec![Step { pause: false, ..insiders("x-a", "b") }, step("100%")],
        vec![insiders("X-a", "b"), step("100%")],
        vec![insiders("cookie", "b"), step("100%")],
        vec![insiders("x-a", ""), step("100%")],
        vec![insiders("x-a", "ä"), step("100%")],
        [vec![step("1%"); 50], vec![step("100%")]].concat(),
        [vec![insiders("x-a", "b"); 17], vec![step("100%")]].concat(),
    ] {
        assert!(!canary(steps.clone()).is_sound(), "{steps:?}");
    }
    let none = Objective { errors: None, slow: None, on_breach: Breach::Ask };
    for objective in [none.clone(), Objective { errors: Some(Share::ALL), ..none }] {
        assert!(!RolloutSpec { objective: Some(objective), ..RolloutSpec::default() }.is_sound());
    }
    for header in ["Upper", "", "a b", "x-pointsman-a", "x_forwarded_for", "te"] {
        assert!(!RolloutSpec { failure_header: Some(header.into()), ..RolloutSpec::default() }.is_sound(), "{header}");
    }
    let check = |kind: CheckKind| Check {
        name: "smoke".into(),
        kind,
        every: CHECK_EVERY,
        timeout: CHECK_TIMEOUT,
        fall: CHECK_FALL,
    };
    let green = |checks: Vec<Check>| RolloutSpec {
        strategy: Strategy::BlueGreen(BlueGreen::default()),
        checks,
        ..RolloutSpec::default()
    };
    let url = |url: &str| check(CheckKind::http(url));
    assert!(green(vec![url("https://{host}/")]).is_sound());
    assert!(!green(vec![url("https://{host}/"); 2]).is_sound(), "one name twice");
    for bad in [
        url("ftp://a/"),
        url("https://a:b@c/"),
        url("https://"),
        check(CheckKind::Command { command: vec![] }),
        check(CheckKind::Command { command: vec![String::new()] }),
        check(CheckKind::prometheus("http://a", "up", Limits::default())),
        check(CheckKind::prometheus("http://a", "up", Limits { least: Some("2".into()), most: Some("1".into()) })),
        check(CheckKind::prometheus("http://a", "up", Limits { least: Some("NaN".into()), most: None })),
        check(CheckKind::Http { url: "http://{host}/".into(), app: "smoke".parse().ok(), ca: None }),
        Check { fall: 0, ..url("https://a/") },
        Check { every: Span::from_ms(999).expect("a span"), ..url("https://a/") },
        Check { name: "a/b".into(), ..url("https://a/") },
    ] {
        assert!(!green(vec![bad.clone()]).is_sound(), "{bad:?}");
    }
}

/// What was written before checks could be somebody is read as it was meant, and written as it was.
#[test]
fn rollout_checks_of_earlier_versions_are_strangers() {
    let limits = Limits { least: Some("1".into()), most: None };
    for (text, expected) in [
        (r#"{"http":{"url":"https://{host}/"}}"#, CheckKind::http("https://{host}/")),
        (
            r#"{"prometheus":{"url":"http://p","query":"up","limits":{"least":"1","most":null}}}"#,
            CheckKind::prometheus("http://p", "up", limits),
        ),
    ] {
        assert_eq!(serde_json::from_str::<CheckKind>(text).expect(text), expected);
        assert_eq!(serde_json::to_string(&expected).expect("it is written"), text);
    }
}

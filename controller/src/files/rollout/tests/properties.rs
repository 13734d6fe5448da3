use proptest::prelude::{Just, any, prop, prop_assert, prop_assert_eq, prop_assume, prop_oneof, proptest};
use proptest::strategy::Strategy as Generate;

use super::{File, KEYS, RolloutSpec, Step, TOP, WHOLE, parse, read_all, share};
use crate::core::spec::Strategy as Way;

proptest! {
    /// Lines of all kinds, right and wrong: whatever is read without mistakes is sound.
    #[test]
    fn hostile_h83_rollout_specs_that_are_read_are_sound(
        lines in prop::collection::hash_set(prop::sample::select(LINES.to_vec()), 0..4),
        strategy in prop::sample::select(vec!["", "strategy = \"canary\"", "strategy = \"blue-green\""]),
        steps in prop::collection::vec(step(), 0..5),
        checks in prop::collection::vec(prop::sample::select(CHECKS.to_vec()), 0..3),
        ends in any::<bool>(),
    ) {
        let mut keys: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        keys.sort_unstable();
        keys.dedup();
        prop_assume!(keys.len() == lines.len());
        let mut steps = steps;
        steps.extend(ends.then(|| "{ share = \"100%\" }".to_owned()));
        let mut text = format!("{}\n{strategy}\n", lines.into_iter().collect::<Vec<_>>().join("\n"));
        if !steps.is_empty() {
            text += &format!("steps = [{}]\n", steps.join(", "));
        }
        for (name, check) in checks.iter().enumerate() {
            text += &format!("[[stage.production.check]]\nname = \"c{name}\"\n{check}\n");
        }
        match read_all(&text) {
            Ok(spec) => prop_assert!(spec.is_sound(), "{text}: {spec:?}"),
            Err(found) => prop_assert!(!found.is_empty()),
        }
    }

    /// Steps that are right by themselves, in any order: read exactly when they lead somewhere.
    #[test]
    fn rollout_steps_are_read_exactly_when_they_are_sound(
        shares in prop::collection::vec(prop::sample::select(vec!["", "1%", "2%", "50%", "100%"]), 1..5),
        ends in any::<bool>(),
    ) {
        let mut shares = shares;
        if ends {
            shares.push("100%");
        }
        let written = |text: &&str| match *text {
            "" => "{ pause = true }".to_owned(),
            share => format!("{{ share = \"{share}\" }}"),
        };
        let list: Vec<String> = shares.iter().map(written).collect();
        let read = read_all(&format!("strategy = \"canary\"\nsteps = [{}]", list.join(", ")));
        let step = |text: &&str| Step {
            share: (!text.is_empty()).then(|| share(text)),
            pause: text.is_empty(),
            ..Step::default()
        };
        let meant = Way::Canary(shares.iter().map(step).collect());
        let spec = RolloutSpec { strategy: meant, ..RolloutSpec::default() };
        prop_assert_eq!(read.is_ok(), spec.is_sound(), "{:?}", read);
        if let Ok(read) = read {
            prop_assert_eq!(read, spec);
        }
    }

    /// The whole example with pieces put in, left out and doubled.
    #[test]
    fn hostile_h83_no_damaged_rollout_panics(
        cut in 0usize..1_400,
        skip in 0usize..60,
        piece in prop::sample::select(PIECES.to_vec()),
        piece_too in "[\\PC\n]{0,5}",
    ) {
        let text = format!("{TOP}{WHOLE}");
        let floor = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let damaged = format!("{}{piece}{piece_too}{}", &text[..floor(cut)], &text[floor(cut + skip)..]);
        match parse("f", &damaged) {
            Ok(File::Service(spec)) => {
                prop_assert!(spec.stages.values().all(|stage| stage.rollout.is_sound()), "{damaged}");
            }
            Ok(_) => {}
            Err(mistakes) => prop_assert!(!mistakes.is_empty()),
        }
    }

    /// Any value whatever for every key.
    #[test]
    fn hostile_h83_no_rollout_value_panics(
        key in prop::sample::select(KEYS.to_vec()),
        inner in prop::sample::select(INNER.to_vec()),
        value in prop_oneof![
            "[\\PC]{0,12}",
            "\"[^\"\\\\\\PC]{0,40}\"",
            "-?[0-9]{1,25}(\\.[0-9]{1,9})?",
            Just("[[[]]]".to_owned()),
        ],
    ) {
        for text in [
            format!("{key} = {value}"),
            format!("{key} = [{{ {inner} = {value} }}]"),
            format!("{key} = {{ {inner} = {value} }}"),
        ] {
            if let Ok(spec) = read_all(&text) {
                prop_assert!(spec.is_sound(), "{text}: {spec:?}");
            }
        }
    }
}

const PIECES: &[&str] = &[
    "",
    "\"",
    "[",
    "]",
    "{",
    "}",
    "=",
    ".",
    "\n",
    "'''",
    "\\",
    "{{",
    "ä",
    "0x",
    "1979-05-27",
    "nan",
    "share",
    "100%",
    ":",
];

const INNER: &[&str] = &["share", "insiders", "for", "requests", "errors", "slow", "name", "http", "command", "query"];

const LINES: &[&str] = &[
    "sticky = \"cookie\"",
    "meanwhile = \"replace\"",
    "on_worse = \"freeze\"",
    "on_worse = \"\"",
    "margin = { errors = \"1%\" }",
    "margin = { errors = \"0%\" }",
    "margin = { slow = \"1s\", slow_share = \"0.0001%\" }",
    "failure_header = \"X-A\"",
    "failure_header = \"Te\"",
    "objective = { errors = \"1%\" }",
    "objective = { errors = \"100%\" }",
    "objective = {}",
    "pause = true",
    "watch = \"10m\"",
    "watch = \"366d\"",
];

const CHECKS: &[&str] = &[
    "http = \"https://{host}/\"",
    "http = \"https://{host}/\"\napp = \"smoke\"",
    "http = \"http://{host}/\"\napp = \"smoke\"",
    "http = \"https://a@b/\"",
    "http = \"ftp://a/\"",
    "command = [\"./smoke\"]",
    "command = [\"\"]",
    "prometheus = { url = \"http://p\", query = \"up\", least = 1 }",
    "prometheus = { url = \"http://p\", query = \"up\", least = 2, most = 1 }",
    "http = \"http://a/\"\nfall = 0",
    "http = \"http://a/\"\nevery = \"1ms\"",
    "http = \"http://a/\"\nname = \"c0\"",
];

fn step() -> impl Generate<Value = String> {
    let key = |texts: &'static [&'static str]| prop::option::weighted(0.4, prop::sample::select(texts.to_vec()));
    let share = key(&["share = \"1%\"", "share = \"1%\"", "share = \"20%\"", "share = \"100%\"", "share = \"0%\""]);
    let insiders = key(&["insiders = \"X-A: b\"", "insiders = \"cookie: b\"", "insiders = \"a:\""]);
    let time = key(&["for = \"1m\"", "for = \"30d\"", "for = \"31d\""]);
    let requests = key(&["requests = 1", "requests = 10_000_000", "requests = 10_000_001"]);
    let pause = key(&["pause = true", "pause = true", "pause = false"]);
    (share, insiders, time, requests, pause).prop_map(|(share, insiders, time, requests, pause)| {
        let keys: Vec<&str> = [share, insiders, time, requests, pause].into_iter().flatten().collect();
        format!("{{ {} }}", keys.join(", "))
    })
}

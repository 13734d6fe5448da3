//! Tables of what is asked for: what answers, what is refused, and by which sentence.

use super::*;
use crate::core::command::{Decision, GivenArtifact};
use crate::core::evolve_test::{World, artifact, built, component, failed, wanted};
use crate::core::spec::ComponentSpec;
use crate::core::state::{Addresses, Artifact, ArtifactKind, CommitNamed, HotFix, Overtook, Trigger, Wanted};
use crate::core::{Command, Event};

fn name(text: &str) -> ReleaseName {
    text.parse().expect("a release")
}

fn ask(world: &mut World, wanted: Wanted, again: bool) -> Result<Decision, Refusal> {
    let service = "hello".parse().expect("a name");
    world.command(Command::Build { service, wanted: Box::new(wanted), again }, "")
}

fn of(letter: &str) -> Wanted {
    *wanted(&letter.repeat(40))
}

fn end(world: &mut World, release: &str, well: bool) {
    world.run_due();
    let outcome = if well { Ok(built()) } else { Err(failed("exit status 1")) };
    world.command(Command::EndBuild { release: name(release), outcome }, "").expect("ended");
}

/// A world with hello@r1 of the commit aaaa as `shaped` leaves it.
fn with_one(shaped: &str) -> World {
    let mut world = World::new(false);
    ask(&mut world, of("a"), false).expect("asked for");
    let release = name("hello@r1");
    match shaped {
        "queued" => {}
        "building" => world.run_due(),
        "ready" => end(&mut world, "hello@r1", true),
        "failed" => end(&mut world, "hello@r1", false),
        "cancelled" => drop(world.command(Command::CancelBuild { release }, "").expect("cancelled")),
        "ending" => {
            world.run_due();
            world.seen.building.insert(release.clone());
            world.command(Command::CancelBuild { release }, "").expect("asked");
        }
        "trimmed" => {
            end(&mut world, "hello@r1", true);
            world.state.services.values_mut().for_each(|service| {
                service.releases.values_mut().for_each(|release| release.trimmed.artifacts_ms = Some(1));
            });
        }
        "overtaken" => {
            let trigger = Trigger::Commit { branch: "main".into() };
            for letter in ["b", "c"] {
                ask(&mut world, Wanted { trigger: trigger.clone(), ..of(letter) }, false).expect("asked for");
            }
            let by = name("hello@r3").number;
            world.command(Command::Overtake { release: name("hello@r2"), by }, "").expect("overtaken");
        }
        other => panic!("{other}"),
    }
    world
}

#[test]
fn releases_the_same_commit_is_answered_by_what_is_there() {
    let table = [
        ("queued", Some("aaaaaaaaaaaa is hello@r1 already, which waits for its build: --again builds it once more")),
        ("building", Some("aaaaaaaaaaaa is hello@r1 already, which is being built: --again builds it once more")),
        ("ready", Some("aaaaaaaaaaaa is hello@r1 already: --again builds it once more")),
        ("failed", None),
        ("cancelled", None),
        ("ending", None),
        ("trimmed", None),
    ];
    for (shaped, expected) in table {
        let mut world = with_one(shaped);
        let decision = ask(&mut world, of("a"), false).expect("answered");
        match expected {
            Some(line) => assert_eq!((decision.lines, decision.events), (vec![line.to_owned()], vec![]), "{shaped}"),
            None => assert!(matches!(decision.events[..], [Event::ReleaseRequested { .. }]), "{shaped}: {decision:?}"),
        }
        let mut world = with_one(shaped);
        let again = ask(&mut world, of("a"), true).expect("again");
        assert!(matches!(&again.events[..], [Event::ReleaseRequested { release, .. }] if *release == name("hello@r2")));
    }
}

#[test]
fn releases_of_a_tag_or_as_a_hot_fix_are_others_of_the_same_commit() {
    let tagged = |tag: &str| Wanted { tag: Some(tag.into()), ..of("a") };
    let fix = |of_release: u32, branch: &str| {
        let of_release = ReleaseNumber::new(of_release).expect("not 0");
        let hot_fix = HotFix { of: of_release, base: "b".repeat(40), branch: Some(branch.into()), picks: Vec::new() };
        Wanted { hot_fix: Some(hot_fix), ..of("a") }
    };
    // What is there, what is asked for, and whether that is another one.
    let table = [
        (of("a"), tagged("v1.0.0"), true),
        (tagged("v1.0.0"), tagged("v1.0.0"), false),
        (tagged("v1.0.0"), tagged("v1.0.1"), true),
        (tagged("v1.0.0"), of("a"), false),
        (of("a"), fix(1, "fix/x"), true),
        (fix(1, "fix/x"), fix(1, "fix/x"), false),
        (fix(1, "fix/x"), of("a"), false),
        (of("b"), of("a"), true),
    ];
    for (before, wanted, expected) in table {
        let mut world = World::new(false);
        ask(&mut world, of("c"), false).expect("r1");
        ask(&mut world, before.clone(), false).expect("r2");
        let decision = ask(&mut world, wanted.clone(), false).expect("answered");
        assert_eq!(!decision.events.is_empty(), expected, "{before:?} {wanted:?}: {decision:?}");
    }
    let refusal = ask(&mut World::new(false), fix(7, "fix/x"), false).expect_err("there is no r7");
    assert_eq!(refusal.to_string(), "there is no release hello@r7");
}

#[test]
fn tags_never_move() {
    let mut world = World::new(false);
    let tagged = |letter: &str, tag: &str| Wanted { tag: Some(tag.into()), ..of(letter) };
    ask(&mut world, tagged("a", "v1.4.0"), false).expect("first seen by being asked for");
    let service: ServiceName = "hello".parse().expect("a name");
    let tags = [("v1.3.0".to_owned(), "c".repeat(40)), ("v1.4.0".to_owned(), "b".repeat(40))];
    let noticed = world.command(Command::NoticeTags { service: service.clone(), tags: tags.into() }, "").expect("seen");
    let moved = "tag v1.4.0 was at aaaaaaaaaaaa when it was first seen and is at bbbbbbbbbbbb now";
    assert_eq!(noticed.lines, [moved, "1 tag of hello were seen first"].map(str::to_owned));
    let refused = format!("{moved}: a tag must not move; make a new one");
    for (again, trigger) in [(false, Trigger::ByHand), (true, Trigger::ByHand), (true, Trigger::Tag)] {
        let moved = Wanted { trigger, ..tagged("b", "v1.4.0") };
        assert_eq!(ask(&mut world, moved, again).expect_err("moved").to_string(), refused);
    }
    ask(&mut world, tagged("c", "v1.3.0"), false).expect("where it was");
    let kept = &world.state.service(&service).expect("there").tags;
    assert_eq!(kept.values().cloned().collect::<Vec<_>>(), ["c".repeat(40), "a".repeat(40)]);
    // A release that is tried again is of the same commit, whatever the tag names now.
    end(&mut world, "hello@r1", false);
    let retry = world.command(Command::RetryRelease { release: name("hello@r1") }, "").expect("again");
    let [Event::ReleaseRequested { wanted, .. }] = &retry.events[..] else { panic!("{retry:?}") };
    assert_eq!((&wanted.commit, wanted.tag.as_deref()), (&"a".repeat(40), Some("v1.4.0")));
}

#[test]
fn releases_are_retried_when_they_came_to_nothing() {
    let table = [
        ("failed", ""),
        ("cancelled", ""),
        ("queued", "hello@r1 waits for its build; a release that failed or was cancelled can be retried"),
        ("building", "hello@r1 is being built; a release that failed or was cancelled can be retried"),
        ("ready", "`release build hello --commit aaaaaaaaaaaa --again` builds its commit once more"),
        ("overtaken", "hello@r2 was overtaken by r3: `release build hello --commit bbbbbbbbbbbb`"),
    ];
    for (shaped, expected) in table {
        let mut world = with_one(shaped);
        let release = name(if shaped == "overtaken" { "hello@r2" } else { "hello@r1" });
        let answer = world.command(Command::RetryRelease { release: release.clone() }, "");
        if !expected.is_empty() {
            let refusal = answer.expect_err(shaped).to_string();
            assert!(refusal.contains(expected), "{shaped}: {refusal}");
            continue;
        }
        let retried = answer.expect(shaped);
        let [Event::ReleaseRequested { release: new, wanted }] = &retried.events[..] else { panic!("{retried:?}") };
        assert_eq!(
            (new, wanted.retry_of, &wanted.trigger),
            (&name("hello@r2"), Some(release.number), &Trigger::ByHand)
        );
        let twice = world.command(Command::RetryRelease { release }, "").expect("answered");
        assert!(twice.events.is_empty() && twice.lines[0].contains("is hello@r2 already"), "{twice:?}");
    }
    let mut world = World::with_static_releases(1);
    let added = world.command(Command::RetryRelease { release: name("hello@r1") }, "").expect_err("was added");
    assert!(added.to_string().contains("hello@r1 was added, not built"), "{added}");
}

#[test]
fn releases_name_what_they_overtook() {
    let mut world = World::new(false);
    let named = |letter: &str| CommitNamed { id: letter.repeat(40), subject: "s".into() };
    let head = |letter: &str, overtook: Vec<CommitNamed>, more: u32| Wanted {
        trigger: Trigger::Commit { branch: "main".into() },
        overtook: Overtook { commits: overtook, more, rewritten: more > 5 },
        ..of(letter)
    };
    ask(&mut world, head("a", vec![named("0")], 7), false).expect("r1");
    ask(&mut world, head("b", vec![named("1")], 1), false).expect("r2");
    // Of a look that did not know of r2: what is named twice counts once.
    ask(&mut world, head("c", vec![named("2"), named("b")], 0), false).expect("r3");
    let overtook = world.state.release(&name("hello@r3")).expect("there").wanted.overtook.clone();
    assert_eq!(overtook.commits, ["2", "b", "1", "a", "0"].map(named));
    assert_eq!((overtook.more, overtook.rewritten), (8, true));
    // A hundred are named, all are counted.
    let many: Vec<_> =
        (0..100).map(|number| CommitNamed { id: format!("{number:039}x"), subject: String::new() }).collect();
    ask(&mut world, head("d", many, 3), false).expect("r4");
    let overtook = world.state.release(&name("hello@r4")).expect("there").wanted.overtook.clone();
    assert_eq!((overtook.commits.len(), overtook.more), (100, 3 + 8 + 6));
    // By hand nothing is overtaken.
    ask(&mut world, of("e"), false).expect("r5");
    assert_eq!(world.state.release(&name("hello@r5")).expect("there").wanted.overtook, Overtook::default());
}

#[test]
fn releases_are_built_one_at_a_time_and_ended_once() {
    let mut world = with_one("building");
    ask(&mut world, of("b"), false).expect("r2");
    let begin = |world: &mut World, release: &str| world.command(Command::BeginBuild { release: name(release) }, "");
    let refusal = begin(&mut world, "hello@r2").expect_err("one at a time");
    assert_eq!(refusal.to_string(), "r1 of hello is being built: one at a time");
    assert_eq!(begin(&mut world, "hello@r1").expect("goes on").events, []);
    let end = |world: &mut World, release: &str, outcome| {
        world.command(Command::EndBuild { release: name(release), outcome }, "")
    };
    let refusal = end(&mut world, "hello@r2", Ok(built())).expect_err("has not begun");
    assert_eq!(refusal.to_string(), "the build of hello@r2 has not begun");
    end(&mut world, "hello@r1", Ok(built())).expect("ready");
    assert_eq!(end(&mut world, "hello@r1", Err(failed("late"))).expect("over").events, []);
    assert!(begin(&mut world, "hello@r1").is_err());
}

#[test]
fn releases_that_are_over_are_not_cancelled() {
    for (shaped, expected) in [("failed", "it failed"), ("ready", "it is ready"), ("overtaken", "r3 has overtaken it")]
    {
        let mut world = with_one(shaped);
        let release = name(if shaped == "overtaken" { "hello@r2" } else { "hello@r1" });
        let refusal = world.command(Command::CancelBuild { release: release.clone() }, "").expect_err(shaped);
        assert_eq!(refusal.to_string(), format!("{release} is not being built: {expected}"));
    }
    let mut world = with_one("cancelled");
    let mark = Command::MarkRelease { release: name("hello@r1"), reversible: false };
    let refusal = world.command(mark, "drops names").expect_err("never runs");
    assert_eq!(refusal.to_string(), "hello@r1 was cancelled and never runs: mark the release that does");
    let mut world = with_one("overtaken");
    let mark = Command::MarkRelease { release: name("hello@r2"), reversible: false };
    let refusal = world.command(mark, "drops names").expect_err("never runs");
    assert!(refusal.to_string().contains("was overtaken and never runs"), "{refusal}");
}

/// hello with a worker that runs, and docs that are carried along.
fn of_parts() -> World {
    let mut world = World::new(false);
    let service = world.state.services.values_mut().next().expect("hello");
    let worker = ComponentSpec { protocol: None, ..component() };
    let docs = ComponentSpec { run: Vec::new(), ..worker.clone() };
    service.spec.components.insert("worker".parse().expect("name"), worker);
    service.spec.components.insert("docs".parse().expect("name"), docs);
    world
}

fn image(bytes: &str) -> Artifact {
    let place = Some("registry.example.com/hello/web".parse().expect("a place"));
    Artifact { kind: ArtifactKind::Image, place, ..artifact(bytes.as_bytes()) }
}

/// `[environment/]component`, as people write it.
fn split(text: &str) -> (Option<api::EnvironmentName>, api::ComponentName) {
    let (at, component) = text.split_once('/').map_or((None, text), |(at, rest)| (Some(at), rest));
    (at.map(|at| at.parse().expect("name")), component.parse().expect("name"))
}

fn add(world: &mut World, images: &[&str], addresses: &[&str]) -> Result<Decision, Refusal> {
    let artifacts = images.iter().map(|text| {
        let (environment, component) = split(text);
        GivenArtifact { environment, component, artifact: image(text) }
    });
    let addresses = addresses.iter().map(|text| {
        let (environment, component) = split(text);
        Addresses { environment, component, addresses: vec![([10, 0, 0, 1], 80).into()] }
    });
    let (addresses, artifacts) = (addresses.collect(), artifacts.collect());
    let (version, commit) = ("v1".to_owned(), String::new());
    world.command(
        Command::AddRelease { service: "hello".parse().expect("name"), version, commit, addresses, artifacts },
        "",
    )
}

#[test]
fn releases_are_added_whole_and_all_mistakes_are_told_at_once() {
    let neither = |component: &str| format!("component {component} of hello has neither an image nor an address");
    let table: [(&[&str], &[&str], &[&str]); 8] = [
        (&["web", "worker"], &[], &[]),
        (&["web", "worker", "docs"], &[], &[]),
        (&["worker"], &["web"], &[]),
        // Somebody else runs it, with all its parts.
        (&[], &["web"], &[]),
        (&["dev/web", "staging/web", "worker"], &[], &[]),
        (&[], &[], &["at least one address or image"]),
        (&["web"], &[], &[&neither("worker")]),
        (
            &["docs", "docs", "moon/web", "sun"],
            &["mars/worker"],
            &["has no stage moon", "has no component sun", "has no stage mars", "docs has two images"],
        ),
    ];
    for (images, addresses, expected) in table {
        let answer = add(&mut of_parts(), images, addresses);
        if expected.is_empty() {
            answer.unwrap_or_else(|refusal| panic!("{images:?} {addresses:?}: {refusal}"));
            continue;
        }
        let Err(Refusal::Wrong(mistakes)) = answer else { panic!("{images:?}: {answer:?}") };
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
        let is_told = |one: &&&str| mistakes.iter().any(|mistake| mistake.contains(**one));
        assert!(expected.iter().all(|one| is_told(&one)), "{images:?}: {mistakes:?}");
    }
    let mut world = of_parts();
    add(&mut world, &["dev/web", "web", "worker"], &[]).expect("added");
    let added = world.state.release(&name("hello@r1")).expect("there");
    let web = "web".parse().expect("name");
    let digest = |at: &str| added.artifact(&web, &at.parse().expect("name")).map(|one| one.digest);
    assert_eq!(digest("dev"), Some(image("dev/web").digest));
    assert_eq!(digest("production"), Some(image("web").digest));
}

#[test]
fn releases_whose_parts_are_not_there_are_not_promoted() {
    type Shaped = fn(&mut Release);
    let web = || "web".parse().expect("name");
    // On agents, and with addresses.
    let table: [(&str, Shaped, &str); 6] = [
        ("as built", |_| {}, ""),
        (
            "trimmed",
            |release| release.trimmed.artifacts_ms = Some(7),
            "the artifacts of hello@r1 were removed by [keep]: `release build hello --commit 111111111111` makes them again",
        ),
        (
            "an image",
            |release| release.artifacts.values_mut().for_each(|one| *one = image("web")),
            "web of hello@r1 is an image: images run on Kubernetes, and dev has agents",
        ),
        (
            "for elsewhere",
            |release| {
                let artifacts = std::mem::take(&mut release.artifacts);
                release.for_environments.insert("staging".parse().expect("name"), artifacts);
            },
            "hello@r1 has nothing of web for dev: it was made before that stage was; `release build hello --commit 111111111111 \
             --again` makes it for all of them",
        ),
        (
            "for here",
            |release| {
                let artifacts = std::mem::take(&mut release.artifacts);
                release.for_environments.insert("dev".parse().expect("name"), artifacts);
            },
            "",
        ),
        ("nothing", |release| release.artifacts.clear(), "has nothing that an agent could run in dev"),
    ];
    for (shaped, shape, expected) in table {
        let mut world = World::with_built_releases(1);
        world.join_agent("a1");
        let service = world.state.services.values_mut().next().expect("hello");
        shape(service.releases.values_mut().next().expect("r1"));
        assert!(service.releases.values().all(|release| release.components.contains_key(&web())));
        match (world.promote("hello@r1", "dev", None), expected) {
            (Ok(_), "") => {}
            (Err(refusal), expected) if !expected.is_empty() => {
                assert!(refusal.to_string().contains(expected), "{shaped}: {refusal}");
            }
            (answer, _) => panic!("{shaped}: {answer:?}"),
        }
    }
    // What somebody else runs is not asked for its artifacts; an image that is only carried along is in nobody's way.
    let mut world = World::with_static_releases(1);
    world.state.services.values_mut().for_each(|service| {
        service.releases.values_mut().for_each(|release| release.trimmed.artifacts_ms = Some(7));
    });
    world.promote("hello@r1", "dev", None).expect("has addresses");
    let docs = ComponentSpec { run: Vec::new(), protocol: None, ..component() };
    let mut world = World::with_built_releases_of(1, &|built| {
        built.components.insert("docs".parse().expect("name"), docs.clone());
        built.artifacts.insert("docs".parse().expect("name"), image("docs"));
    });
    world.join_agent("a1");
    world.promote("hello@r1", "dev", None).expect("docs are carried along");
}

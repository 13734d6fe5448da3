//! What repositories may say, and what they may not.

use std::num::NonZeroU32;

use super::*;
use crate::core::Command;
use crate::core::evolve_test::World;
use crate::core::spec::{BuildSpec, ReleasesSpec, ServicePattern, Source, WORKSPACE_BYTES};

const URL: &str = "https://git.example.com/shop.git";

fn listed(world: &mut World, repositories: &[(&str, &[&str])]) {
    let repository = |(name, services): &(&str, &[&str])| {
        let services = services.iter().map(|one| ServicePattern((*one).to_owned())).collect();
        let (url, branch, files) = (URL.to_owned(), "main".to_owned(), vec!["pointsman.toml".to_owned()]);
        let spec = RepositorySpec { url, branch, files, credentials: None, webhook: None, services };
        (name.parse().expect("a name"), spec)
    };
    let releases =
        ReleasesSpec { repositories: repositories.iter().map(repository).collect(), ..ReleasesSpec::default() };
    apply(world, Vec::new(), Some(releases)).expect("listed");
}

fn apply(world: &mut World, services: Vec<ServiceSpec>, releases: Option<ReleasesSpec>) -> Result<Decision, Refusal> {
    let releases = releases.map(Box::new);
    world.command(Command::Apply { environments: Vec::new(), services, access: None, releases }, "")
}

fn register(world: &mut World, repository: &str, services: &[ServiceSpec]) -> Result<Decision, Refusal> {
    let (repository, commit) = (repository.parse().expect("a name"), "1a2b3c4d5e6f7a8b".to_owned());
    world.command(Command::Register { repository, commit, services: services.to_vec() }, "")
}

/// As `hello`, by this name, from the repository that is listed.
fn service(world: &World, name: &str) -> ServiceSpec {
    let mut spec = world.state.services.values().next().expect("hello").spec.clone();
    spec.name = name.parse().expect("a name");
    spec.source = Some(Source { repository: URL.into(), branch: "main".into(), tags: None });
    spec
}

fn build() -> BuildSpec {
    BuildSpec {
        command: vec!["./build.sh".into()],
        timeout: api::Span::from_ms(1_000).expect("a span"),
        environment: BTreeMap::new(),
        pass: Vec::new(),
        secrets: Vec::new(),
        registry: false,
        size_bytes: WORKSPACE_BYTES,
        contain: true,
        checks: Vec::new(),
    }
}

#[test]
fn services_register_themselves_and_change_where_they_are() {
    let mut world = World::new(false);
    listed(&mut world, &[("shop", &["shop", "shop-*"])]);
    let mut shop = service(&world, "shop");
    let both = [shop.clone(), service(&world, "shop-ui")];
    let first = register(&mut world, "shop", &both).expect("registered");
    assert_eq!(first.lines[0], "service shop is as commit 1a2b3c4d5e6f of repository shop says");
    assert_eq!(first.events.len(), 2);
    let again = register(&mut world, "shop", std::slice::from_ref(&shop)).expect("as it was");
    assert_eq!(again.events, []);
    shop.trigger.limits.hour = NonZeroU32::new(6);
    assert_eq!(register(&mut world, "shop", std::slice::from_ref(&shop)).expect("changed").events.len(), 1);
    let known = world.state.service(&shop.name).expect("there");
    assert_eq!((&known.spec, known.registered.as_ref().map(|one| one.repository.as_str())), (&shop, Some("shop")));

    let refusal = apply(&mut world, vec![shop.clone()], None).expect_err("is registered");
    assert!(
        refusal.to_string().contains("service shop is registered from repository shop: change it there"),
        "{refusal}"
    );
    // Who lists repositories may take it back, also where nothing else of it changes.
    listed(&mut world, &[("shop", &["shop-*"])]);
    assert_eq!(apply(&mut world, vec![shop.clone()], None).expect("taken back").events.len(), 1);
    assert_eq!(world.state.service(&shop.name).expect("there").registered, None);
}

#[test]
fn hostile_h83_a_repository_says_nothing_that_is_not_its_own() {
    type Shaped = fn(&mut ServiceSpec);
    let table: [(&str, Shaped, &str); 10] = [
        ("shop", |_| {}, ""),
        ("shop", |spec| spec.source = None, ""),
        ("other", |_| {}, "service other: repository shop may register shop, shop-*, hello, and no other names"),
        ("shopping", |_| {}, "service shopping: repository shop may register"),
        ("hello", |_| {}, "service hello was applied by an operator"),
        ("shop-ui", |_| {}, "service shop-ui is registered from repository ui"),
        (
            "shop",
            |spec| spec.source.as_mut().expect("there").repository = "/srv/other.git".into(),
            "its `source` is /srv/other.git, and its file is in https://git.example.com/shop.git",
        ),
        (
            "shop",
            |spec| spec.build = Some(BuildSpec { pass: vec!["AWS_SECRET".into()], ..build() }),
            "`pass` hands over AWS_SECRET",
        ),
        (
            "shop",
            |spec| {
                spec.stages.insert("moon".parse().expect("a name"), Default::default());
            },
            "service shop: there is no environment moon",
        ),
        (
            "shop",
            |spec| {
                let stage = spec.stages.get_mut(&"dev".parse().expect("a name")).expect("there");
                let (ca, crl_file, required) = (String::new(), Some("/etc/shadow".into()), false);
                stage.client_certificates = Some(crate::core::spec::ClientCertificates { ca, crl_file, required });
            },
            "service shop: stage dev: list `/etc/shadow` is of the controller's machine",
        ),
    ];
    let mut all = (Vec::new(), 0);
    for (name, shape, expected) in table {
        let mut world = World::new(false);
        listed(&mut world, &[("shop", &["shop", "shop-*", "hello"]), ("ui", &["shop-ui"])]);
        let ui = service(&world, "shop-ui");
        register(&mut world, "ui", &[ui]).expect("registered");
        let mut spec = service(&world, name);
        shape(&mut spec);
        let answer = register(&mut world, "shop", std::slice::from_ref(&spec));
        if expected.is_empty() {
            answer.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            continue;
        }
        let Err(Refusal::Wrong(mistakes)) = answer else { panic!("{name}: {answer:?}") };
        assert!(matches!(&mistakes[..], [one] if one.contains(expected)), "{name}: {mistakes:?}");
        // All at once, and then nothing of it.
        if all.0.iter().all(|other: &ServiceSpec| other.name != spec.name) {
            all = ([all.0, vec![spec]].concat(), all.1 + 1);
        }
        let Err(Refusal::Wrong(mistakes)) = register(&mut world, "shop", &all.0) else { panic!("registered") };
        assert_eq!(mistakes.len(), all.1, "{mistakes:?}");
        assert_eq!(world.state.services.len(), 2);
    }
    let mut world = World::new(false);
    let shop = service(&world, "shop");
    let refusal = register(&mut world, "shop", &[shop]).expect_err("nobody listed it");
    assert!(refusal.to_string().contains("repository shop is not listed"), "{refusal}");
}

#[test]
fn stages_are_public_only_where_the_environment_lets_them_be() {
    for is_registered in [false, true] {
        for environment_first in [false, true] {
            let mut world = World::new(false);
            listed(&mut world, &[("shop", &["shop"])]);
            let mut spec = service(&world, "shop");
            let mut environment = world.state.environments.values().next().expect("there").clone();
            spec.stages.get_mut(&environment.name).expect("a stage").public = true;
            environment.may_be_public = false;
            let close = |world: &mut World| {
                let environments = vec![environment.clone()];
                let (services, access, releases) = (Vec::new(), None, None);
                world.command(Command::Apply { environments, services, access, releases }, "")
            };
            let open = |world: &mut World| match is_registered {
                true => register(world, "shop", std::slice::from_ref(&spec)),
                false => apply(world, vec![spec.clone()], None),
            };
            let refusal = if environment_first {
                close(&mut world).expect("nobody is public yet");
                open(&mut world)
            } else {
                open(&mut world).expect("may be public");
                close(&mut world)
            };
            let place = format!("service shop: stage {} cannot be public", environment.name);
            let expected = format!("{place}: the environment says `public = false`");
            assert_eq!(refusal.expect_err("closed").to_string(), expected);
        }
    }
}

#[test]
fn secrets_are_not_passed_as_variables() {
    let secret = |world: &mut World| {
        let (from, services) = (crate::core::spec::SecretRef::Environment("X".into()), Vec::new());
        let secrets = [("NPM_TOKEN".to_owned(), crate::core::spec::SecretSpec { from, services })].into();
        apply(world, Vec::new(), Some(ReleasesSpec { secrets, ..ReleasesSpec::default() }))
    };
    let its_name = "NPM_TOKEN is a secret";
    type Shape = fn(&mut BuildSpec);
    let passes: [(Shape, &str); 3] = [
        (|build| build.pass.push("NPM_TOKEN".into()), its_name),
        (|build| drop(build.environment.insert("NPM_TOKEN".into(), "x".into())), its_name),
        (|build| build.pass.push("X".into()), "`pass` names X, in which the controller has a secret of the operator's"),
    ];
    for (shape, expected) in passes {
        for secret_first in [false, true] {
            let mut world = World::new(false);
            let mut spec = world.state.services.values().next().expect("hello").spec.clone();
            let mut own = build();
            shape(&mut own);
            spec.build = Some(own);
            let refusal = if secret_first {
                secret(&mut world).expect("nobody passes it");
                apply(&mut world, vec![spec], None)
            } else {
                apply(&mut world, vec![spec], None).expect("no secret");
                secret(&mut world)
            };
            let refusal = refusal.expect_err("is a secret").to_string();
            assert!(refusal.contains(&format!("service hello: {expected}")), "{refusal}");
        }
    }
}

#[test]
fn what_is_said_of_releases_needs_a_reason_where_one_environment_asks() {
    let mut world = World::new(false);
    let releases = || ReleasesSpec { builders: 7, ..ReleasesSpec::default() };
    apply(&mut world, Vec::new(), Some(releases())).expect("nobody asks");
    world.state.environments.values_mut().next().expect("there").reason_required = true;
    apply(&mut world, Vec::new(), Some(releases())).expect("nothing changes");
    let refusal = apply(&mut world, Vec::new(), Some(ReleasesSpec::default())).expect_err("no reason");
    assert!(refusal.to_string().contains("asks for a reason"), "{refusal}");
}

#[test]
fn tags_are_news_after_the_first_look() {
    let mut world = World::new(false);
    let hello: ServiceName = "hello".parse().expect("a name");
    let notice = |world: &mut World, tags: &[(&str, &str)]| {
        let tags = tags.iter().map(|(tag, commit)| ((*tag).to_owned(), commit.repeat(40))).collect();
        world.command(Command::NoticeTags { service: hello.clone(), tags }, "").expect("noticed")
    };
    let since = |world: &World| world.state.service(&hello).expect("there").tags_since_ms;
    assert_eq!(since(&world), None);
    assert_eq!(notice(&mut world, &[]).events.len(), 1, "the first look counts, whatever it finds");
    let first = since(&world);
    assert_eq!(first, Some(world.now_ms));
    world.pass_ms(1);
    assert_eq!(notice(&mut world, &[]).events, []);
    assert_eq!(notice(&mut world, &[("v1", "a"), ("v2", "b")]).events.len(), 1);
    let moved = notice(&mut world, &[("v1", "c"), ("v2", "b")]);
    assert!(moved.events.is_empty() && moved.lines[0].contains("tag v1 was at aaaaaaaaaaaa"), "{moved:?}");
    assert_eq!((since(&world), &world.state.service(&hello).expect("there").tags["v1"]), (first, &"a".repeat(40)));
}

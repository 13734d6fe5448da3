use std::time::Duration;

use api::fleet::controller_message::Kind;
use api::fleet::progress::State as Progressed;
use api::fleet::{Progress, Zone};
use api::{CHANGE_BYTES, Digest, EnvironmentName, MemberName, PIECE_BYTES, Span};
use tokio::sync::mpsc;

use super::*;
use crate::certificates::Shelved;
use crate::core::spec::{
    AcmeSpec, CertificateSource, ChallengeSpec, EnvironmentSpec, HOOK_TIMEOUT, HttpsSpec, ServiceSpec, StageSpec,
    Target,
};
use crate::core::state::{Addresses, CertificateRecord};
use crate::core::{Command, Context, Mark, decide};
use crate::fleet::QUEUE;

struct World {
    state: State,
    publisher: Publisher,
    fleet: Fleet,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut publisher = Publisher::new(folder.path()).expect("publisher");
        let state = State { term: 1, ..State::default() };
        publisher.begin_term(1, &state, &[]);
        Self { state, publisher, fleet: Fleet::new(), _folder: folder }
    }

    /// An environment appears or moves to another zone: a change of two resources, or three.
    fn apply(&mut self, name: &str, zone: &str) {
        self.apply_together(&[(name, zone)]);
    }

    fn apply_together(&mut self, zones: &[(&str, &str)]) {
        let applied = |(name, zone): &(&str, &str)| Event::EnvironmentApplied { spec: environment(name, zone) };
        let events: Vec<Event> = zones.iter().map(applied).collect();
        for event in &events {
            self.state.evolve(event, Mark { seq: 0, at_ms: 0, by: "", reason: "", request: "" });
        }
        self.publisher.refresh(&self.state, &events, &self.fleet);
    }

    /// What becomes of a command, told to proxies.
    #[allow(clippy::needless_pass_by_value, reason = "a test hands a command over and is done with it")]
    fn command(&mut self, command: Command) {
        self.command_at(0, command);
    }

    #[allow(clippy::needless_pass_by_value, reason = "as above")]
    fn command_at(&mut self, now_ms: u64, command: Command) {
        let context = Context { by: String::new(), reason: String::new(), now_ms, past: None };
        let events = decide(&self.state, &command, &context).expect("decided").events;
        for event in &events {
            self.state.evolve(event, Mark { seq: 0, at_ms: 0, by: "", reason: "", request: "" });
        }
        self.publisher.refresh(&self.state, &events, &self.fleet);
    }

    fn hello(&self) -> Hello {
        let version = self.publisher.version();
        Hello {
            have: Some(version.into()),
            fingerprint: self.publisher.fingerprint.to_bytes().to_vec(),
            ..Hello::default()
        }
    }
}

fn environment(name: &str, zone: &str) -> EnvironmentSpec {
    EnvironmentSpec {
        name: name.parse().expect("name"),
        zone: zone.parse().expect("zone"),
        time_zone: "UTC".into(),
        target: Target::Static,
        keep_warm: Span::MAX,
        reason_required: false,
        https: HttpsSpec::default(),
        certificates: Default::default(),
        client_certificates: None,
        denial: Default::default(),
        credentials: Default::default(),
        may_be_public: true,
    }
}

fn changes(messages: &[ControllerMessage]) -> Vec<(Version, Version, usize)> {
    let change = |message: &ControllerMessage| match &message.kind {
        Some(Kind::Change(change)) => {
            let (base, version) = (change.base.expect("base"), change.version.expect("version"));
            (base.into(), version.into(), change.set.as_ref().expect("set").upserts.len())
        }
        other => panic!("not a change: {other:?}"),
    };
    messages.iter().map(change).collect()
}

/// Puts the pieces of a transfer together.
fn whole(messages: &[ControllerMessage]) -> ResourceSet {
    let mut bytes = Vec::new();
    for message in messages {
        let Some(Kind::Transfer(piece)) = &message.kind else { panic!("not a piece: {message:?}") };
        assert_eq!((piece.offset, piece.base), (bytes.len() as u64, None));
        assert!(piece.data.len() <= PIECE_BYTES);
        bytes.extend_from_slice(&piece.data);
        if bytes.len() as u64 == piece.total_bytes {
            assert_eq!(Digest::of(&bytes).as_bytes()[..], piece.sha256[..]);
        }
    }
    ResourceSet::decode(&*bytes).expect("a set")
}

#[test]
fn fleet_proxies_are_sent_what_they_miss_and_no_more() {
    let mut world = World::new();
    world.apply("dev", "dev.example.com");
    let at_dev = world.hello();
    assert!(world.publisher.catch_up(&at_dev).is_empty(), "it has everything");
    world.apply("staging", "staging.example.com");
    world.apply("production", "production.example.com");
    let missed = changes(&world.publisher.catch_up(&at_dev));
    let version = |number| Version { term: 1, number };
    assert_eq!(missed, [(version(2), version(3), 2), (version(3), version(4), 2)]);
    assert_eq!(whole(&world.publisher.catch_up(&Hello::default())).upserts.len(), 9, "it has nothing");
    let stranger = Hello { have: Some(Version { term: 1, number: 900 }.into()), ..Hello::default() };
    assert_eq!(whole(&world.publisher.catch_up(&stranger)).upserts.len(), 9, "it has something unknown");
}

#[test]
fn fleet_a_new_term_with_the_same_state_sends_a_name_only() {
    let mut world = World::new();
    world.apply("dev", "dev.example.com");
    let before = world.hello();
    let names: Vec<EnvironmentName> = world.state.environments.keys().cloned().collect();
    world.publisher.begin_term(2, &world.state, &names);
    let sent = changes(&world.publisher.catch_up(&before));
    assert_eq!(sent, [(Version { term: 1, number: 2 }, Version { term: 2, number: 1 }, 0)]);
}

#[test]
fn fleet_a_zone_that_moved_leaves_nothing_behind() {
    let mut world = World::new();
    world.apply("dev", "dev.example.com");
    world.apply("dev", "dev.example.org");
    let set = whole(&world.publisher.everything());
    let zones: Vec<_> = set.upserts.iter().filter(|resource| resource.kind == "zone").collect();
    let domains: Vec<_> = zones.iter().map(|zone| Zone::decode(&*zone.body).expect("zone").domain).collect();
    assert_eq!(domains, ["dev.example.org"]);
    let certificates = set.upserts.iter().filter(|resource| resource.kind == "certificate");
    assert_eq!(certificates.map(|resource| resource.name.as_str()).collect::<Vec<_>>(), ["dev/*.dev.example.org"]);
}

/// Adds a release and lets it serve all of hello/dev.
fn release(world: &mut World, address: std::net::SocketAddr) {
    let addresses =
        vec![Addresses { environment: None, component: "web".parse().expect("name"), addresses: vec![address] }];
    let (service, version) = ("hello".parse().expect("name"), "1".to_owned());
    world.command(Command::AddRelease { service, version, commit: String::new(), addresses, artifacts: Vec::new() });
    let (release, environment) = ("hello@r1".parse().expect("name"), "dev".parse().expect("name"));
    world.command(Command::Promote { release, environment, share: None, bypass: false });
}

#[test]
fn fleet_a_zone_that_moves_takes_the_names_of_endpoints_along() {
    let mut world = World::new();
    world.apply("dev", "dev.example.com");
    let file = "schema = 1\nservice = \"hello\"\n[component.web]\nfolder = \"dist\"\nprotocol = \"tls\"\n[stage.dev]\n";
    let Ok(crate::files::File::Service(spec)) = crate::files::parse("f", file) else { panic!("a service") };
    world.command(Command::Apply { environments: Vec::new(), services: vec![spec], access: None, releases: None });
    release(&mut world, ([10, 0, 0, 1], 8_443).into());
    let name = |world: &World| {
        let stage = &world.publisher.resources[&("stage".to_owned(), "hello/dev".to_owned())];
        let stage = api::fleet::Stage::decode(&*stage.body).expect("a stage");
        stage.backends[0].tls.as_ref().expect("through TLS").server_name.clone()
    };
    assert_eq!(name(&world), "hello.dev.example.com");
    world.apply("dev", "dev.example.org");
    assert_eq!(name(&world), "hello.dev.example.org");
}

#[test]
fn fleet_what_a_stage_says_of_itself_is_told_when_it_is_applied() {
    let mut world = World::new();
    world.apply("dev", "dev.example.com");
    let apply = |world: &mut World, line: &str| {
        let file = format!(
            "schema = 1\nservice = \"hello\"\n[component.web]\nfolder = \"dist\"\nprotocol = \"h1\"\n[stage.dev]\n{line}\n"
        );
        let Ok(crate::files::File::Service(spec)) = crate::files::parse("f", &file) else { panic!("a service") };
        world.command(Command::Apply { environments: Vec::new(), services: vec![spec], access: None, releases: None });
    };
    apply(&mut world, "");
    release(&mut world, ([10, 0, 0, 1], 8_080).into());
    let stage = |world: &World| {
        let stage = &world.publisher.resources[&("stage".to_owned(), "hello/dev".to_owned())];
        api::fleet::Stage::decode(&*stage.body).expect("a stage")
    };
    assert!(!stage(&world).access.expect("there").public);
    apply(&mut world, "public = true");
    assert!(stage(&world).access.expect("there").public);
    apply(&mut world, "cors = [\"https://app.example.com\"]");
    assert_eq!(stage(&world).cors_origins, ["https://app.example.com"]);
}

/// Kinds and names of what is published of some kinds.
fn published(world: &World, kinds: &[&str]) -> Vec<String> {
    let own = world.publisher.resources.keys().filter(|(kind, _)| kinds.contains(&kind.as_str()));
    own.map(|(kind, name)| format!("{kind} {name}")).collect()
}

/// What the newest change removes and brings, and how large it is.
fn newest(world: &World) -> (Vec<String>, Vec<String>, usize) {
    let change = world.publisher.log.back().expect("a change");
    let set = change.set.clone().expect("a set");
    let removed = set.removals.iter().map(|key| format!("{} {}", key.kind, key.name)).collect();
    let brought = set.upserts.iter().map(|one| format!("{} {}", one.kind, one.name)).collect();
    (removed, brought, set.encoded_len())
}

#[test]
fn access_that_is_applied_replaces_what_was_there() {
    const KINDS: [&str; 3] = ["issuer", "policy", "entities"];
    let mut world = World::new();
    let apply = |world: &mut World, text: &str, beside: &[(&str, &str)]| {
        let attached = |name: &str| {
            let (name, text) = beside.iter().find(|(own, _)| *own == name)?;
            Some(crate::files::Attached { name, text })
        };
        let read = crate::files::parse_with("access.toml", text, &attached);
        let Ok(crate::files::File::Access(spec)) = read else { panic!("{read:?}") };
        world.command(Command::Apply {
            environments: Vec::new(),
            services: Vec::new(),
            access: Some(spec),
            releases: None,
        });
    };
    let issuer = "[issuer.corp]\nissuer = \"https://login.example.com\"\naudience = [\"a\"]\n";
    let permit = "permit (principal, action, resource);";
    let (one, other) = (("one.cedar", permit), ("other.cedar", "forbid (principal, action, resource);"));
    let text = format!("schema = 1\npolicies = [\"one.cedar\", \"other.cedar\"]\nentities = \"e.json\"\n{issuer}");
    apply(&mut world, &text, &[one, other, ("e.json", "[]")]);
    let all = ["entities entities", "issuer corp", "policy one.cedar", "policy other.cedar"];
    assert_eq!(published(&world, &KINDS), all);
    assert!(
        world
            .publisher
            .resources
            .iter()
            .filter(|((kind, _), _)| KINDS.contains(&kind.as_str()))
            .all(|(_, one)| one.schema == api::SCHEMA_ACCESS)
    );
    // A new term tells the same.
    world.publisher.begin_term(2, &world.state, &[]);
    assert_eq!(published(&world, &KINDS), all);
    apply(&mut world, "schema = 1\npolicies = [\"one.cedar\"]\n", &[("one.cedar", other.1)]);
    let (removed, brought, _) = newest(&world);
    assert_eq!((removed.len(), &brought[..]), (3, &["policy one.cedar".to_owned()][..]), "{removed:?}");
    assert_eq!(published(&world, &KINDS), ["policy one.cedar"]);
}

#[test]
fn app_that_is_revoked_is_removed_with_a_few_bytes() {
    let mut world = World::new();
    let name: MemberName = "batch".parse().expect("name");
    let made = |id: &str| crate::core::KeyMade { id: id.into(), sha256: Digest::of(id.as_bytes()), until_ms: None };
    let create = |key| Command::CreateApplication { name: name.clone(), new: Default::default(), key: Some(key) };
    world.command(create(made("a")));
    assert_eq!(newest(&world).1, ["application batch"]);
    let before = published(&world, &["application"]);
    world.publisher.begin_term(2, &world.state, &[]);
    assert_eq!(published(&world, &["application"]), before);
    world.command(Command::RotateApplication { name: name.clone(), key: made("b"), overlap_ms: 1_000 });
    assert_eq!(newest(&world).1, ["application batch"]);
    // The time of the first was over a day ago, and nothing else has changed but that.
    world.command_at(1_000 + 86_400_000, Command::EndKeys { name: name.clone() });
    let told = &world.publisher.resources[&("application".to_owned(), "batch".to_owned())];
    assert_eq!(api::fleet::Application::decode(&*told.body).expect("one").keys.len(), 1);
    world.command(Command::RevokeApplication { name: name.clone() });
    let (removed, brought, bytes) = newest(&world);
    assert_eq!((&removed[..], brought.len()), (&["application batch".to_owned()][..], 0));
    assert!(bytes < 64, "{bytes}");
    assert!(published(&world, &["application"]).is_empty());
    world.publisher.begin_term(3, &world.state, &[]);
    assert!(published(&world, &["application"]).is_empty(), "it stays away");
}

#[test]
fn fleet_a_zone_that_changes_hands_keeps_its_certificate() {
    let mut world = World::new();
    world.apply_together(&[("blue", "a.example.com"), ("green", "b.example.com")]);
    // Each takes the other's zone, in one step, whichever comes first.
    for zones in [["b", "a"], ["a", "b"]].map(|names| names.map(|name| format!("{name}.example.com"))) {
        world.apply_together(&[("blue", &zones[0]), ("green", &zones[1])]);
        let set = whole(&world.publisher.everything());
        let own = set.upserts.iter().filter(|resource| ["zone", "certificate"].contains(&resource.kind.as_str()));
        let mut found: Vec<_> = own.map(|resource| resource.name.as_str()).collect();
        found.sort_unstable();
        let certificates = [("blue", &zones[0]), ("green", &zones[1])].map(|(name, zone)| format!("{name}/*.{zone}"));
        assert_eq!(found[..2], ["a.example.com", "b.example.com"]);
        assert_eq!(found[2..], [certificates[0].as_str(), certificates[1].as_str()]);
        let blue = set.upserts.iter().filter(|resource| resource.kind == "zone").find_map(|resource| {
            let zone = Zone::decode(&*resource.body).expect("zone");
            (zone.environment == "blue").then_some(zone.domain)
        });
        assert_eq!(blue.as_ref(), Some(&zones[0]));
    }
    world.apply_together(&[("blue", "c.example.com"), ("green", "a.example.com")]);
    let set = whole(&world.publisher.everything());
    assert!(!set.upserts.iter().any(|resource| resource.name.contains("b.example.com")), "nobody has it any more");
}

#[test]
fn fleet_a_certificate_is_renewed_before_it_ends() {
    let mut world = World::new();
    world.apply("dev", "dev.example.com");
    let certificate = |world: &World| {
        let key = ("certificate".to_owned(), "dev/*.dev.example.com".to_owned());
        world.publisher.resources[&key].body.clone()
    };
    let day = Duration::from_secs(86_400);
    for (days, renewed) in [(1, false), (360, false), (370, true), (371, false)] {
        let (before, now) = (certificate(&world), SystemTime::now() + day * days);
        world.publisher.renew(&world.state, &world.fleet, now);
        assert_eq!(certificate(&world) != before, renewed, "day {days}");
    }
}

/// The DNS names of the certificates that proxies are told of, those of the zone's default first.
fn told(world: &World) -> Vec<Vec<String>> {
    let told = world.publisher.resources.values().filter(|resource| resource.kind == "certificate");
    let mut told: Vec<_> =
        told.map(|resource| api::fleet::Certificate::decode(&*resource.body).expect("one")).collect();
    told.sort_by_key(|one| one.zone.is_empty());
    told.into_iter().map(|one| one.dns_names).collect()
}

#[test]
fn fleet_certificates_are_those_of_their_source_and_for_their_zone_only() {
    let mut world = World::new();
    let apply = |world: &mut World, source: &CertificateSource| {
        let spec = EnvironmentSpec { certificates: source.clone(), ..environment("dev", "dev.example.com") };
        world.command(Command::Apply { environments: vec![spec], services: Vec::new(), access: None, releases: None });
    };
    let bring = |world: &mut World, source: &CertificateSource, names: &[&str]| {
        let folder = tempfile::tempdir().expect("folder");
        let ca = certs::development::DevelopmentCa::open_or_create(folder.path()).expect("authority");
        let made = ca.wildcard(&"dev.example.com".parse().expect("zone"), SystemTime::now()).expect("issued");
        let dns_names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let record = CertificateRecord { names: dns_names.clone(), sha256: Digest::of(b""), expires_ms: 0 };
        let command = Command::ReplaceCertificates {
            environment: "dev".parse().expect("name"),
            source: source.name().into(),
            key: source.key(),
            certificates: vec![record],
        };
        let context = Context { by: "controller".into(), reason: "due".into(), now_ms: 0, past: None };
        decide(&world.state, &command, &context).map_err(|refusal| refusal.to_string())?;
        let materials = vec![certs::development::Material { dns_names, ..made }];
        let environment = "dev".parse().expect("name");
        world.publisher.certificates_mut().shelf.put(Shelved { environment, source: source.key(), materials });
        world.command(command);
        Ok::<(), String>(())
    };
    let acme = |directory: &str| {
        CertificateSource::Acme(AcmeSpec {
            directory: directory.into(),
            contact: Vec::new(),
            ca: None,
            challenge: ChallengeSpec::Dns { hook: vec!["/x".into()], timeout: HOOK_TIMEOUT },
            profile: None,
            external_account: None,
        })
    };
    let (imported, staging, real) = (CertificateSource::Imported, acme("https://staging/"), acme("https://real/"));
    let (wildcard, own) = ("*.dev.example.com", "hello.dev.example.com");
    apply(&mut world, &imported);
    assert_eq!(told(&world), [[wildcard]], "the development authority's stands in");
    let strange = bring(&mut world, &imported, &["hello.production.example.com", "*.com"]).expect_err("not its hosts");
    assert!(strange.contains("none of it lies in dev.example.com"), "{strange}");
    assert!(bring(&mut world, &staging, &[wildcard]).expect_err("not its source").contains("come from \"imported\""));
    bring(&mut world, &imported, &[own, "hello.production.example.com", wildcard]).expect("taken");
    assert_eq!(told(&world), [[own, wildcard]], "the hosts of others are left out");
    // Another source has brought nothing yet: what was served is served on.
    apply(&mut world, &staging);
    assert_eq!(told(&world), [[own, wildcard]]);
    bring(&mut world, &staging, &[wildcard]).expect("taken");
    apply(&mut world, &real);
    assert!(
        world.publisher.certificates().own(&world.state, &"dev".parse().expect("name")).is_empty(),
        "not from there"
    );
    assert!(bring(&mut world, &staging, &[wildcard]).expect_err("late").contains("has changed meanwhile"));
    bring(&mut world, &real, &[wildcard]).expect("taken");
    // An authority's certificate that is asked for no longer is not served either.
    bring(&mut world, &real, &[own]).expect("taken");
    assert_eq!(told(&world), [[wildcard]]);
}

#[test]
fn fleet_ticket_keys_rotate_and_old_ones_are_forgotten() {
    let mut world = World::new();
    let tickets = |world: &World| world.publisher.resources[&("tickets".to_owned(), "tickets".to_owned())].body.clone();
    let (first, names) = (tickets(&world), |world: &World| {
        let secrets = world.publisher.secrets().into_iter().map(|(id, _)| id);
        secrets.filter(|id| id.starts_with("ticket/")).collect::<Vec<_>>()
    });
    assert_eq!(names(&world).len(), 2, "the one in use and the next");
    let hour = Duration::from_secs(3_600);
    world.publisher.renew(&world.state, &world.fleet, SystemTime::now() + 11 * hour);
    assert_eq!(tickets(&world), first);
    let before = names(&world);
    world.publisher.renew(&world.state, &world.fleet, SystemTime::now() + 13 * hour);
    assert_ne!(tickets(&world), first);
    assert!(names(&world).len() == 3 && before.iter().all(|name| names(&world).contains(name)));
    world.publisher.renew(&world.state, &world.fleet, SystemTime::now() + 26 * hour);
    let left = names(&world);
    assert_eq!(world.publisher.certificates().secret_count(), 5, "nothing else is kept");
    assert!(left.len() == 3 && before.iter().filter(|name| left.contains(name)).count() == 1, "{before:?} {left:?}");
}

#[test]
fn assertion_keys_rotate_and_the_key_of_ids_stays() {
    let mut world = World::new();
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    let secrets = |world: &World, kind: &str| {
        let ids = world.publisher.secrets().into_iter().map(|(id, _)| id);
        ids.filter(|id| id.starts_with(kind)).collect::<Vec<_>>()
    };
    let told = |world: &World| {
        let told = &world.publisher.resources[&("assertion".to_owned(), "assertion".to_owned())];
        assert_eq!(told.schema, api::SCHEMA_ACCESS);
        api::fleet::Assertion::decode(&*told.body).expect("keys")
    };
    let (first, explain) = (secrets(&world, "assertion/"), secrets(&world, "explain/"));
    assert_eq!((first.len(), explain.len()), (1, 1));
    assert_eq!(first, [format!("assertion/{}", told(&world).current)]);
    for (days, keys, is_first) in [(28, 1, true), (29, 2, true), (30, 2, false), (32, 1, false)] {
        world.publisher.renew(&world.state, &world.fleet, now + day * days + day / 2);
        let (told, sealed) = (told(&world), secrets(&world, "assertion/"));
        assert_eq!((told.keys.len(), sealed.len()), (keys, keys), "day {days}");
        assert_eq!(first == [format!("assertion/{}", told.current)], is_first, "day {days}");
        assert!(told.keys.iter().all(|key| sealed.contains(&format!("assertion/{}", key.id))));
        assert_eq!(secrets(&world, "explain/"), explain, "day {days}");
    }
}

#[test]
fn fleet_a_proxy_that_was_away_across_a_rotation_is_sent_no_names_of_keys_that_are_gone() {
    let mut world = World::new();
    world.apply("dev", "dev.example.com");
    let away = world.hello();
    let hour = Duration::from_secs(3_600);
    world.publisher.renew(&world.state, &world.fleet, SystemTime::now() + 13 * hour);
    assert_eq!(changes(&world.publisher.catch_up(&away)).len(), 1, "the newest names nothing that is gone");
    world.publisher.renew(&world.state, &world.fleet, SystemTime::now() + 26 * hour);
    let known: Vec<String> = world.publisher.secrets().into_iter().map(|(id, _)| id).collect();
    let sent = whole(&world.publisher.catch_up(&away));
    let tickets = sent.upserts.iter().find(|resource| resource.kind == "tickets").expect("told");
    let told = api::fleet::Tickets::decode(&*tickets.body).expect("tickets");
    let mut named = told.accepted.iter().chain([&told.current]).map(|name| certs::secret::ticket_id(name));
    assert!(named.all(|id| known.contains(&id)), "{told:?}");
}

#[test]
fn fleet_keys_travel_sealed_and_before_what_names_them() {
    let mut world = World::new();
    let folder = tempfile::tempdir().expect("folder");
    let key = certs::secret::SealKey::open_or_create(folder.path()).expect("made");
    let (sender, mut messages) = mpsc::channel(QUEUE);
    let hello = Hello { seal_key: key.public().to_vec(), ..world.hello() };
    world.fleet.attach(&"p1".parse().expect("name"), 1, &hello, sender, 0);
    world.apply("dev", "dev.example.com");
    let Some(Kind::Secrets(secrets)) = messages.try_recv().expect("sent").kind else { panic!("no secrets") };
    let Some(Kind::Change(change)) = messages.try_recv().expect("sent").kind else { panic!("no change") };
    let named = change.set.expect("a set").upserts.into_iter().find(|resource| resource.kind == "certificate");
    let certificate = api::fleet::Certificate::decode(&*named.expect("named").body).expect("a certificate");
    assert!(certificate.key_der.is_empty() && certificate.zone == "dev.example.com");
    let id = certs::secret::key_id(&certificate.chain_der[0]).expect("readable");
    let opened = key.open(secrets.secrets.iter().find(|secret| secret.id == id).expect("there")).expect("opened");
    certs::resolver::Certified::parse(&certificate.dns_names, &certificate.chain_der, &opened).expect("its key");
    // One that comes later is sent all of them, and only the fewest twice.
    let sealed = secrets_messages(&world.publisher.secrets(), key.public());
    assert_eq!(sealed.len(), 1);
    assert!(secrets_messages(&world.publisher.secrets(), &[]).is_empty(), "a proxy that knows no secrets");
}

#[test]
fn fleet_a_large_change_goes_in_pieces() {
    let body = bytes::Bytes::from(vec![7; CHANGE_BYTES]);
    let resource = Resource { kind: "certificate".into(), name: "a".into(), body, schema: 1 };
    let set = ResourceSet { upserts: vec![resource; 3], removals: Vec::new() };
    let version = Version::first_of(1);
    let change = Change {
        version: Some(version.next().into()),
        base: Some(version.into()),
        set: Some(set),
        fingerprint: vec![],
    };
    let messages = change_messages(&change);
    assert_eq!(messages.len(), 4);
    let Some(Kind::Transfer(first)) = &messages[0].kind else { panic!("not in pieces") };
    assert_eq!(first.base.map(Version::from), Some(version), "still a difference");
}

#[tokio::test]
async fn fleet_a_proxy_that_takes_nothing_is_let_go() {
    let mut world = World::new();
    let name: MemberName = "p1".parse().expect("name");
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    world.fleet.attach(&name, 1, &world.hello(), sender, 0);
    world.apply("dev", "dev.example.com");
    let version = world.publisher.version();
    assert!(world.fleet.standings(version)[0].active_at.is_none(), "it has not answered");
    let active = Progress { version: Some(version.into()), state: Progressed::Active.into(), ..Progress::default() };
    world.fleet.progress(&name, 1, &active, 0);
    assert!(world.fleet.standings(version)[0].active_at.is_some());
    world.fleet.progress(&name, 7, &Progress { version: Some(version.next().into()), ..active }, 0);
    assert!(world.fleet.standings(version.next())[0].active_at.is_none(), "an old connection does not count");

    let filler = ControllerMessage::default();
    world.fleet.send_to_all(&vec![filler; QUEUE + 1]);
    assert!(!world.fleet.proxies()[&name].is_connected());
    receiver.close();
}

#[test]
fn fleet_a_public_stage_is_told_of_before_anything_serves_there() {
    let hello = |stages: &[(&str, bool)]| ServiceSpec {
        name: "hello".parse().expect("name"),
        source: None,
        trigger: Default::default(),
        build: None,
        components: BTreeMap::new(),
        stages: stages
            .iter()
            .map(|(name, public)| (name.parse().expect("name"), StageSpec { public: *public, ..StageSpec::default() }))
            .collect(),
    };
    let apply = |stages: &[(&str, bool)]| Command::Apply {
        environments: Vec::new(),
        services: vec![hello(stages)],
        access: None,
        releases: None,
    };
    let told = |world: &World| -> Vec<String> {
        let stages = world.publisher.resources.values().filter(|resource| matches!(&*resource.kind, "stage" | "split"));
        stages.map(|resource| format!("{} {}", resource.kind, resource.name)).collect()
    };
    let mut world = World::new();
    world.apply_together(&[("dev", "dev.example.com"), ("staging", "staging.example.com")]);
    world.command(apply(&[("dev", true), ("staging", false)]));
    assert_eq!(told(&world), ["split hello/dev", "stage hello/dev"], "what is hidden stays unknown");
    let resource = &world.publisher.resources[&("stage".to_owned(), "hello/dev".to_owned())];
    let stage = api::fleet::Stage::decode(&*resource.body).expect("a stage");
    assert!(stage.backends.is_empty() && stage.access.is_some_and(|access| access.public));
    let names: Vec<EnvironmentName> = world.state.environments.keys().cloned().collect();
    world.publisher.begin_term(2, &world.state, &names);
    assert_eq!(told(&world), ["split hello/dev", "stage hello/dev"], "a controller that starts tells the same");
    for stages in [&[("dev", false), ("staging", false)][..], &[("staging", false)], &[]] {
        world.command(apply(&[("dev", true)]));
        assert_eq!(told(&world), ["split hello/dev", "stage hello/dev"]);
        world.command(apply(stages));
        assert!(told(&world).is_empty(), "{stages:?}: {:?}", told(&world));
    }
}

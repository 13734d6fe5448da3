//! The driver with a real engine, real repositories and a real server of them.

use std::time::Duration;

use api::ReleaseNumber;
use tokio::sync::watch;

use crate::build::mirror::tests::{GitServer, Repository};
use crate::builder::Order;
use crate::core::Command;
use crate::core::command::BuildFailed;
use crate::core::spec::{RepositorySpec, SecretRef, ServicePattern, ServiceSpec, WebhookSpec};
use crate::core::state::{Release, Trigger};
use crate::engine::Submission;
use crate::engine::tests::World;
use crate::files::{self, File};

use super::*;

/// Longer than anything takes on a machine that is merely slow.
const PATIENCE: Duration = Duration::from_secs(60);

const ENVIRONMENT: &str =
    "schema = 1\nenvironment = \"production\"\nzone = \"example.com\"\ntarget = { kind = \"static\" }\n";

struct Bench {
    world: World,
    repository: Repository,
    server: GitServer,
    sources: Sources,
    _stop: watch::Sender<bool>,
}

/// What a service says that is built from `source`, with these lines below [trigger].
fn toml(name: &str, source: &str, trigger: &str) -> String {
    let trigger = if trigger.is_empty() { String::new() } else { format!("[trigger]\n{trigger}\n") };
    format!(
        "schema = 1\nservice = \"{name}\"\n{source}\n{trigger}[build]\ncommand = [\"./build.sh\"]\n[component.web]\n\
         folder = \"dist\"\nrun = [\"./web\", \"{{port}}\"]\nprotocol = \"h1\"\n[stage.production]\n"
    )
}

fn service(text: &str) -> ServiceSpec {
    match files::parse("pointsman.toml", text) {
        Ok(File::Service(spec)) => spec,
        other => panic!("{other:?} in\n{text}"),
    }
}

fn name(text: &str) -> MemberName {
    text.parse().expect("a name")
}

impl Bench {
    /// A driver that has something to look at once it is applied.
    async fn start() -> Self {
        let (world, repository) = (World::new().await, Repository::new());
        let server = GitServer::start(repository.root.path());
        let (sources, (stop, stopped)) = (Sources::default(), watch::channel(false));
        let (data, happened) = (world.folder.path().to_owned(), world.happened.subscribe());
        introduce(&world.engine, &repository.folders).await;
        let (engine, folders) = (world.engine.clone(), repository.folders.clone());
        tokio::spawn(run(engine, folders, sources.clone(), data, happened, stopped));
        let bench = Self { world, repository, server, sources, _stop: stop };
        let Ok(File::Environment(spec)) = files::parse("production.toml", ENVIRONMENT) else { panic!("it is right") };
        bench.applies(Vec::new(), vec![spec], None).await;
        bench
    }

    fn url(&self, how: &str) -> String {
        self.server.url(how, "repository/.git")
    }

    fn source(&self, how: &str, more: &str) -> String {
        format!("source = {{ repository = \"{}\", branch = \"main\"{more} }}", self.url(how))
    }

    async fn applies(
        &self,
        services: Vec<ServiceSpec>,
        environments: Vec<crate::core::spec::EnvironmentSpec>,
        releases: Option<ReleasesSpec>,
    ) {
        let releases = releases.map(Box::new);
        let command = Command::Apply { environments, services, access: None, releases };
        self.world.carries_out(Submission::of("test", String::new(), command)).await;
    }

    /// The operator lists the repository under the name "shop", and lets it register what this covers.
    async fn lists(&self, covers: &str, files: &[&str]) {
        let secret = self.repository.root.path().join("hook");
        std::fs::write(&secret, "the secret of a hook\n").expect("write");
        let repository = RepositorySpec {
            url: self.url("basic"),
            branch: "main".into(),
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            credentials: Some(self.repository.credentials("ada", "long enough")),
            webhook: Some(WebhookSpec {
                kind: WebhookKind::Github,
                secret: SecretRef::File(secret.display().to_string()),
            }),
            services: vec![ServicePattern(covers.into())],
        };
        let repositories = [(name("shop"), repository)].into();
        self.applies(Vec::new(), Vec::new(), Some(ReleasesSpec { repositories, ..ReleasesSpec::default() })).await;
    }

    async fn read<T: Send + 'static>(&self, look: impl FnOnce(&Engine) -> T + Send + 'static) -> T {
        self.world.engine.read(look).await.expect("it leads")
    }

    async fn releases(&self) -> BTreeMap<ReleaseNumber, Release> {
        self.read(|engine| {
            let service = engine.state.service(&"hello".parse().expect("a name"));
            service.map(|service| service.releases.clone()).unwrap_or_default()
        })
        .await
    }

    async fn registered(&self) -> Vec<String> {
        self.read(|engine| engine.state.services.keys().map(ToString::to_string).collect()).await
    }

    /// The next build that the engine asks for.
    async fn next_build(&mut self) -> ReleaseName {
        match tokio::time::timeout(PATIENCE, self.world.builds.recv()).await {
            Ok(Some(Order::Build(release))) => release,
            other => panic!("{other:?}"),
        }
    }

    /// Ends a build, as the builder does.
    async fn ends(&self, release: ReleaseName) {
        let outcome = Err(BuildFailed { problem: "it was a test".into(), ..BuildFailed::default() });
        self.world.carries_out(Submission::own(Command::EndBuild { release: release.clone(), outcome })).await;
        self.world.engine.tell(move |engine| {
            engine.seen.building.remove(&release);
        });
    }

    /// Until another look has been answered.
    async fn looks_again(&self, how: &str) {
        let before = self.server.asked(how, "repository/.git");
        let mut pokes = 0_u32;
        self.until("another look", || {
            // The first may be part of a look that has begun before.
            pokes += 1;
            self.sources.known().keepers.values().for_each(Keeper::poke);
            let asked = self.server.asked(how, "repository/.git");
            async move { asked >= before + 2 }
        })
        .await;
        assert!(pokes > 0);
    }

    async fn until<F: Future<Output = bool>>(&self, what: &str, mut is: impl FnMut() -> F) {
        let all = async {
            while !is().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let known = || self.sources.warnings().join("\n");
        assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "never: {what}; told: {}", known());
    }

    async fn until_told(&self, said: &str) {
        self.until(said, || {
            let told = self.sources.warnings().iter().any(|warning| warning.contains(said));
            async move { told }
        })
        .await;
    }

    async fn until_nothing_is_told(&self) {
        self.until("no warning", || {
            let nothing = self.sources.warnings().is_empty();
            async move { nothing }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_a_hundred_commits_while_one_is_built_are_one_more_build() {
    let mut bench = Bench::start().await;
    let first = bench.repository.commit("first", &[("a", "0")]);
    bench
        .applies(
            vec![service(&toml("hello", &bench.source("well", ""), "commits = true\npoll = \"1d\""))],
            vec![],
            None,
        )
        .await;
    let r1 = bench.next_build().await;
    let mut last = String::new();
    for n in 1..=100 {
        last = bench.repository.commit(&format!("number {n}"), &[]);
        bench.sources.known().keepers.values().for_each(Keeper::poke);
    }
    bench.looks_again("well").await;
    assert!(bench.read(|engine| engine.seen.heads.is_empty()).await, "nobody asks while it is built");
    bench.ends(r1).await;
    let r2 = bench.next_build().await;
    let releases = bench.releases().await;
    let wanted: Vec<_> = releases.values().map(|release| release.wanted.clone()).collect();
    assert_eq!(wanted.len(), 2);
    assert_eq!((&wanted[0].commit, &wanted[1].commit), (&first, &last));
    assert_eq!(wanted[1].trigger, Trigger::Commit { branch: "main".into() });
    assert_eq!((wanted[1].subject.as_str(), wanted[1].author.as_str()), ("number 100", "Ada"));
    let overtook = &wanted[1].overtook;
    assert_eq!((overtook.commits.len(), overtook.more, overtook.rewritten), (99, 0, false));
    assert_eq!(overtook.commits[0].subject, "number 99");
    bench.ends(r2).await;
    bench.looks_again("well").await;
    assert_eq!(bench.releases().await.len(), 2, "a failed head is not built again by itself");
    assert!(bench.world.builds.try_recv().is_err());

    // The branch is rewritten.
    bench.repository.git(&["reset", "--quiet", "--hard", &first]);
    bench.repository.commit("another way", &[("b", "1")]);
    bench.sources.known().keepers.values().for_each(Keeper::poke);
    let r3 = bench.next_build().await;
    let release = bench.releases().await.remove(&r3.number).expect("there");
    assert!(release.wanted.overtook.rewritten && release.wanted.overtook.commits.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_a_thousand_pokes_are_few_looks() {
    let bench = Bench::start().await;
    bench.repository.commit("first", &[("a", "0")]);
    let trigger = "schedule = \"0 0 29 2 *\"\ntime_zone = \"UTC\"\npoll = \"1d\"";
    bench.applies(vec![service(&toml("hello", &bench.source("well", ""), trigger))], vec![], None).await;
    let began = Instant::now();
    let asked = || bench.server.asked("well", "repository/.git");
    let mut pokes = 0;
    while pokes < 1_000 || asked() < 3 {
        for _ in 0..10 {
            pokes += 1;
            bench.sources.known().keepers.values().for_each(Keeper::poke);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(began.elapsed() < PATIENCE, "pokes have no looks: {}", asked());
    }
    // Before the time is read: a look may begin in between.
    let looks = asked();
    assert!(looks <= began.elapsed().as_secs() + 1, "{looks} looks for {pokes} pokes in {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_a_repository_that_is_away_is_told_and_taken_up_again() {
    let mut bench = Bench::start().await;
    bench.repository.commit("first", &[("a", "0")]);
    let source = bench.source("basic", "");
    bench.applies(vec![service(&toml("hello", &source, "commits = true\npoll = \"5s\""))], vec![], None).await;
    bench.until_told("wants credentials that it was not given").await;
    let problems = bench.sources.service_problems(&"hello".parse().expect("a name"), &bench.url("basic"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    // Listed by the operator, with whom we are there; its own files are another question.
    bench.lists("other", &["absent.toml"]).await;
    assert_eq!(bench.next_build().await.to_string(), "hello@r1");
    bench.until_told("repository shop: absent.toml is not there (at ").await;
    assert!(!bench.sources.warnings().iter().any(|warning| warning.contains("credentials")));
    let hook = bench.sources.hook(&name("shop")).expect("it has one");
    assert_eq!(hook.key, b"the secret of a hook");
    assert!(bench.sources.hook(&name("other")).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_tags_are_released_after_the_first_look() {
    let mut bench = Bench::start().await;
    let old = bench.repository.commit("old", &[("a", "0")]);
    bench.repository.git(&["tag", "v1.0.0"]);
    bench.repository.git(&["tag", "nightly"]);
    let source = bench.source("well", ", tags = \"v{semver}\"");
    bench.applies(vec![service(&toml("hello", &source, "tags = true\npoll = \"1d\""))], vec![], None).await;
    bench.looks_again("well").await;
    let seen =
        bench.read(|engine| engine.state.services.values().map(|one| one.tags.clone()).collect::<Vec<_>>()).await;
    assert_eq!(seen, [[("v1.0.0".to_owned(), old.clone())].into()]);
    let new = bench.repository.commit("new", &[("a", "1")]);
    bench.repository.git(&["tag", "--annotate", "v1.10.0", "--message", "x"]);
    bench.repository.git(&["tag", "v1.9.0", &old]);
    bench.repository.git(&["tag", "v1.11", &new]);
    bench.sources.known().keepers.values().for_each(Keeper::poke);
    let r1 = bench.next_build().await;
    bench.ends(r1).await;
    let r2 = bench.next_build().await;
    bench.ends(r2).await;
    let wanted: Vec<_> = bench.releases().await.into_values().map(|release| release.wanted).collect();
    let versions: Vec<_> = wanted.iter().map(|one| (one.version.as_str(), one.commit.clone())).collect();
    assert_eq!(versions, [("v1.9.0", old), ("v1.10.0", new.clone())]);
    assert!(wanted.iter().all(|one| one.trigger == Trigger::Tag && one.tag.as_ref() == Some(&one.version)));
    bench.until_nothing_is_told().await;
    // It moves: told, and neither built nor taken over.
    bench.repository.git(&["tag", "--force", "v1.0.0", &new]);
    bench.sources.known().keepers.values().for_each(Keeper::poke);
    bench.until_told("hello: tag v1.0.0 was at ").await;
    assert_eq!(bench.releases().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_a_repository_registers_its_services() {
    let bench = Bench::start().await;
    let plain = toml("hello", "", "");
    let first = bench.repository.commit("first", &[("pointsman.toml", &plain)]);
    bench.lists("hello*", &["pointsman.toml", "ui/pointsman.toml"]).await;
    bench.until("hello is there", || async { bench.registered().await == ["hello"] }).await;
    let (spec, registered) = bench
        .read(|engine| {
            let service = engine.state.services.values().next().expect("there");
            (service.spec.clone(), service.registered.clone().expect("by a repository"))
        })
        .await;
    assert_eq!((registered.repository, &registered.commit), (name("shop"), &first));
    assert_eq!(spec.source.expect("its own").repository, bench.url("basic"), "none was written");
    bench.until_told("ui/pointsman.toml is not there (at ").await;

    // What it says next counts, and a second file brings a second service.
    let public = plain.replace("[stage.production]", "[stage.production]\npublic = true");
    let ui = toml("hello-ui", "", "");
    let second = bench.repository.commit("second", &[("pointsman.toml", &public), ("ui/pointsman.toml", &ui)]);
    bench.sources.poke(&name("shop"));
    bench.until("hello-ui is there", || async { bench.registered().await == ["hello", "hello-ui"] }).await;
    bench.until_nothing_is_told().await;
    let seen = bench.sources.repository(&name("shop"));
    assert_eq!(seen.commit, Some(second));
    assert!(seen.looked_ms.is_some_and(|at| at > 0) && seen.problems.is_empty());

    // A mistake leaves both as they are, and says where it is; so does a file that is gone.
    let wrong = format!("{public}\nfoo = 1\n");
    bench.repository.git(&["rm", "--quiet", "ui/pointsman.toml"]);
    let third = bench.repository.commit("third", &[("pointsman.toml", &wrong)]);
    bench.sources.poke(&name("shop"));
    bench.until_told("has no key `foo`").await;
    bench.until_told(&format!("ui/pointsman.toml is not there (at {})", &third[..7])).await;
    bench.until_told("ui/pointsman.toml is not there").await;
    assert!(
        bench.sources.warnings()[0].starts_with("repository shop: pointsman.toml:"),
        "{:?}",
        bench.sources.warnings()
    );
    assert_eq!(bench.registered().await, ["hello", "hello-ui"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_h84_what_a_repository_may_not_register_is_refused() {
    let bench = Bench::start().await;
    let canary = bench.repository.root.path().join("canary");
    std::fs::write(&canary, "whole").expect("write");
    std::os::unix::fs::symlink(&canary, bench.repository.path().join("link.toml")).expect("a link");
    let other = "source = { repository = \"/srv/secret\", branch = \"main\" }";
    let check = format!("command = [\"cat\", \"{}\"]", canary.display());
    let program = format!(
        "{}strategy = \"canary\"\nsteps = [{{ share = \"10%\" }}, {{ share = \"100%\" }}]\n\
         [[stage.production.check]]\nname = \"x\"\n{check}\n",
        toml("mine", "", "")
    );
    bench.repository.commit(
        "first",
        &[
            ("foreign.toml", &toml("billing", "", "")),
            ("source.toml", &toml("mine-too", other, "")),
            ("twice.toml", &toml("mine-two", "", "")),
            ("again.toml", &toml("mine-two", "", "")),
            ("environment.toml", ENVIRONMENT),
            ("program.toml", &program),
        ],
    );
    let files =
        ["foreign.toml", "source.toml", "twice.toml", "again.toml", "environment.toml", "program.toml", "link.toml"];
    bench.lists("mine*", &files).await;
    for said in [
        "billing",
        "the `source` of mine-too is /srv/secret: a service that registers itself is built from its own repository",
        "again.toml describes mine-two, which another file describes already",
        "environment.toml describes no service: only the operator applies such a file",
        "mine: ",
        "link.toml of commit",
    ] {
        bench.until_told(said).await;
    }
    assert_eq!(bench.registered().await, ["mine-two"], "{:?}", bench.sources.warnings());
    assert_eq!(std::fs::read_to_string(canary).expect("there"), "whole");
}

#[tokio::test]
async fn what_is_kept_survives_a_start_and_damage_begins_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("sources.json");
    let service: ServiceName = "hello".parse().expect("a name");
    let remembered = kept::Remembered {
        tags_of: Some(("/srv/hello".into(), Some("v{semver}".into()))),
        schedule: Some(("0 3 * * *".into(), "UTC".into(), 7)),
    };
    let kept = Kept::open(path.clone());
    assert_eq!(kept.of(&service), kept::Remembered::default());
    kept.remember(&service, remembered.clone()).await;
    assert_eq!((kept.of(&service), Kept::open(path.clone()).of(&service)), (remembered.clone(), remembered));
    std::fs::write(&path, "{\"hello\": [").expect("write");
    assert_eq!(Kept::open(path).of(&service), kept::Remembered::default());
}

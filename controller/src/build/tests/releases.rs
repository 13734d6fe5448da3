//! What a build makes: sets, images, checks, secrets.

use std::collections::BTreeMap;

use super::served::Served;
use super::*;
use crate::core::spec::{RegistryCredentials, SecretRef};
use crate::core::state::{ArtifactKind, CheckVerdict};

const HEAD: &str = "schema = 1\nservice = \"hello\"\n[build]\ncommand = [\"./build.sh\"]\n";
const WEB: &str = "[component.web]\nfolder = \"dist\"\nrun = [\"./hello\", \"{port}\"]\nprotocol = \"h1\"\n";
/// Never makes the same twice.
const RANDOM: &str =
    "#!/bin/sh\nset -e\necho ran >> \"$POINTSMAN_CACHE/runs\"\nmkdir -p dist\nhead -c 16 /dev/urandom > dist/hello\n";

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is a name"))
}

pub(super) fn toml(build: &str, rest: &str) -> String {
    format!("{HEAD}{build}\n{WEB}{rest}")
}

impl Bench {
    /// How often the command ran.
    pub(super) fn runs(&self) -> usize {
        let text = std::fs::read_to_string(self.folders.cache.join("hello/runs")).unwrap_or_default();
        text.lines().count()
    }

    /// With a registry that counts.
    pub(super) fn with_registry(&mut self, served: &Served) -> RegistrySpec {
        self.shelf.replace(Some(Ok(served.registry())));
        let (address, credentials) = (served.place("shop"), RegistryCredentials::None);
        RegistrySpec { address, ca_file: None, credentials, uploads: 4 }
    }

    fn secret(&self, text: &str) -> SecretSpec {
        let path = self.folder.path().join(format!("secret-{}", text.len()));
        std::fs::write(&path, text).expect("written");
        let services = vec![crate::core::spec::ServicePattern("hel*".into())];
        SecretSpec { from: SecretRef::File(path.display().to_string()), services }
    }
}

#[tokio::test]
async fn a_set_is_whole_or_nothing() {
    let (mut bench, _) = Bench::with_commit();
    let served = Served::start().await;
    let registry = bench.with_registry(&served);
    let rest = "[component.ui]\nfolder = \"ui/{environment}\"\n[component.tool]\nfolder = \"tool\"\n[stage.dev]\n[stage.qa]\nfrom = \"dev\"\n";
    let script = format!("{SCRIPT}mkdir -p ui/dev ui/qa; echo dev > ui/dev/x; echo qa > ui/qa/x\n");
    let id = bench.commit(&[("pointsman.toml", &toml("", rest)), ("build.sh", &script)]);
    let job = Job { registry: Some(registry), ..bench.job(1, &id) };
    let problem = bench.build_job(&job).await.expect_err("one of four is missing");
    assert_eq!(problem.sentence, "the build left no folder \"tool\" for the component tool");
    let index = std::fs::read_to_string(bench.folder.path().join("layout/index.json")).expect("index");
    assert!(!index.contains("hello@r1"), "{index}");
    assert!(served.manifests("shop/hello/web").is_empty());

    let id = bench.commit(&[("build.sh", &format!("{script}mkdir tool; echo tool > tool/x\n"))]);
    let built = bench.build_job(&Job { release: name("hello@r2"), commit: id, ..job }).await.expect("built");
    assert_eq!(built.artifacts.keys().map(ComponentName::as_str).collect::<Vec<_>>(), ["tool", "web"]);
    let ui = |environment: &str| &built.for_environments[&name::<EnvironmentName>(environment)][&name("ui")];
    assert_ne!(ui("dev").digest, ui("qa").digest);
    assert_eq!(built.for_environments.len(), 2);
    for (component, tags, count) in [("web", &["r2"][..], 1), ("ui", &["r2-dev", "r2-qa"], 2), ("tool", &["r2"], 1)] {
        let repository = format!("shop/hello/{component}");
        assert_eq!(
            (served.tags(&repository), served.manifests(&repository).len()),
            (tags.iter().map(ToString::to_string).collect(), count)
        );
    }
    assert_eq!(served.manifests("shop/hello/web"), [web(&built).digest.to_string()]);
    assert_eq!(web(&built).place, Some(served.place("shop/hello/web")));
}

#[tokio::test]
async fn an_image_is_found_where_it_was_pushed_or_the_build_fails() {
    let (mut bench, id) = Bench::with_commit();
    let served = Served::start().await;
    bench.with_registry(&served);
    // Something to find.
    let packed = web(&bench.build(1, &id).await.expect("built")).digest;
    let place = served.place("elsewhere/web");
    let progress = registry::Progress::default();
    served.registry().push(&bench.shelf.layout, &packed, &place, None, &progress).await.expect("pushed");
    let toml = HEAD.to_owned() + "[component.web]\nimage_digest_file = \"web.digest\"\nprotocol = \"h1\"\n";
    let (unknown, reference) = (api::Digest::of(b"nothing"), format!("{place}@{packed}"));
    let id = bench
        .commit(&[("pointsman.toml", &toml), ("build.sh", &format!("#!/bin/sh\necho {reference} > web.digest\n"))]);
    for with_registry in [true, false] {
        if !with_registry {
            bench.shelf.replace(None);
        }
        let built = bench.build(2, &id).await.expect("built");
        let found = web(&built);
        assert_eq!((found.digest, found.kind, found.place.as_ref()), (packed, ArtifactKind::Image, Some(&place)));
        assert!(found.bytes > 0);
    }
    let id = bench.commit(&[("build.sh", &format!("#!/bin/sh\necho {place}@{unknown} > web.digest\n"))]);
    let problem = bench.build(3, &id).await.expect_err("nothing is there");
    assert!(problem.sentence.starts_with(&format!("the image {place}@{unknown} was not found: ")), "{problem}");
    assert!(bench.log(3).contains("failed: the image"));
}

#[tokio::test]
async fn hostile_h85_a_registry_that_takes_nothing_fails_the_build() {
    let (mut bench, id) = Bench::with_commit();
    let served = Served::start().await;
    let registry = bench.with_registry(&served);
    bench.shelf.replace(Some(Err("its password cannot be read".to_owned())));
    let job = Job { registry: Some(registry), ..bench.job(1, &id) };
    let problem = bench.build_job(&job).await.expect_err("no registry");
    assert_eq!(problem.sentence, "its password cannot be read");
    bench.shelf.replace(None);
    let problem = bench.build_job(&job).await.expect_err("no registry");
    assert!(problem.sentence.starts_with("the registry "), "{problem}");
}

#[tokio::test]
async fn hostile_h84_secrets_are_in_no_log() {
    let (bench, _) = Bench::with_commit();
    let (token, key) = ("s3cr3t/t0ken+value", "-----BEGIN-----\nabcdefgh\nijklmnop\n-----END-----\n");
    let script = "#!/bin/sh\nset -e\ncat \"$POINTSMAN_SECRETS/KEY\"\nprintf 's3cr3t/'; sleep 0.1; printf 't0ken+value\\n'\n\
                  printf \"$TOKEN\" | base64\nstat -c %a \"$POINTSMAN_SECRETS\" \"$POINTSMAN_SECRETS/KEY\"\n\
                  [ \"$KEY\" = \"$(cat \"$POINTSMAN_SECRETS/KEY\")\" ]\nmkdir dist; \"./$TOKEN\" || exit 7\n";
    let id = bench.commit(&[("pointsman.toml", &toml("secrets = [\"TOKEN\", \"KEY\"]", "")), ("build.sh", script)]);
    let secrets: BTreeMap<_, _> =
        [("TOKEN", token), ("KEY", key)].map(|(name, text)| (name.to_owned(), bench.secret(text))).into();
    let job = Job { secrets: secrets.clone(), ..bench.job(1, &id) };
    let (_canceller, cancel) = watch::channel(false);
    let failed = bench.run(&job, cancel).await.expect_err("no such program");
    assert_eq!((failed.step, failed.problem.exit), (BuildStep::Command, Some(7)));
    let log = bench.log(1);
    assert!(log.contains("[KEY][TOKEN]\n[TOKEN]\n") && log.contains("700\n600\n"), "{log}");
    assert!(log.contains("./[TOKEN]: not found"), "{log}");
    // Nowhere on the disk but in the repository's own words and where the operator keeps them.
    let kept = std::fs::read_dir(bench.folder.path()).expect("folder").map(|entry| entry.expect("entry").path());
    let kept: Vec<_> = kept.filter(|path| !path.to_string_lossy().contains("/secret-")).collect();
    let mut searched = Command::new("grep");
    let found = searched
        .args(["--recursive", "--files-with-matches", "--fixed-strings", "-e", token, "-e", "abcdefgh"])
        .args(kept);
    let found = found.output().expect("grep");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{}", String::from_utf8_lossy(&found.stderr));
    clear(&bench.folders, &job.release).await;

    for (given, why) in [
        (
            BTreeMap::new(),
            "the secret KEY is not given to hello: [secret.KEY] in the operator's releases.toml says to whom",
        ),
        (
            BTreeMap::from([("KEY".to_owned(), bench.secret("12345"))]),
            "the secret KEY is too short to be hidden in a log: 6 bytes are the least",
        ),
    ] {
        let id = bench.commit(&[("pointsman.toml", &toml("secrets = [\"KEY\"]", ""))]);
        let problem = bench.build_job(&Job { secrets: given, ..bench.job(2, &id) }).await.expect_err(why);
        assert_eq!(problem.sentence, why);
    }
    let others =
        SecretSpec { services: vec![crate::core::spec::ServicePattern("other".into())], ..secrets["KEY"].clone() };
    let id = bench.commit(&[("pointsman.toml", &toml("secrets = [\"KEY\"]", ""))]);
    let job = Job { secrets: BTreeMap::from([("KEY".to_owned(), others)]), ..bench.job(3, &id) };
    assert!(bench.build_job(&job).await.expect_err("somebody else's").sentence.contains("is not given to hello"));
}

#[tokio::test]
async fn a_build_that_may_push_has_a_login_that_is_hidden() {
    let (mut bench, _) = Bench::with_commit();
    let served = Served::start().await;
    let script = "#!/bin/sh\nset -e\necho \"to $POINTSMAN_REGISTRY\"; cat \"$DOCKER_CONFIG/config.json\"; echo\n\
                  cmp \"$DOCKER_CONFIG/config.json\" \"$REGISTRY_AUTH_FILE\"; cat \"$POINTSMAN_REGISTRY_CERTS/ca.crt\"; echo correct-horse\nmkdir dist\n";
    let id = bench.commit(&[("pointsman.toml", &toml("registry = true", "")), ("build.sh", script)]);
    let problem = bench.build(1, &id).await.expect_err("there is none");
    assert!(problem.sentence.starts_with("[build] registry needs the operator's"), "{problem}");
    let ca = bench.folder.path().join("ca.pem");
    std::fs::write(&ca, "an authority\n").expect("written");
    let password = bench.secret("correct-horse").from;
    let credentials = RegistryCredentials::Basic { user: "ci".into(), password };
    let ca_file = Some(ca.display().to_string());
    let registry = RegistrySpec { credentials, ca_file, ..bench.with_registry(&served) };
    bench.build_job(&Job { registry: Some(registry), ..bench.job(2, &id) }).await.expect("built");
    let log = bench.log(2);
    assert!(log.contains(&format!("to {}/shop/hello\n", served.host)), "{log}");
    assert!(log.contains("\"auth\":\"[registry]\"") && log.contains("an authority\n[registry]\n"), "{log}");
    assert!(!log.contains("correct-horse"));
}

#[tokio::test]
async fn a_workspace_that_grows_is_ended() {
    let (bench, _) = Bench::with_commit();
    let grows = "#!/bin/sh\nwhile :; do head -c 1000000 /dev/zero > \"$(mktemp ./XXXXXX)\"; sleep 0.05; done\n";
    let quick = "#!/bin/sh\nmkdir dist; head -c 3000000 /dev/zero > dist/hello\n";
    for (number, script) in [(1, grows), (2, quick)] {
        let id = bench.commit(&[("pointsman.toml", &toml("size = \"2MiB\"", "")), ("build.sh", script)]);
        let problem = bench.build(number, &id).await.expect_err("too large");
        assert_eq!(problem.sentence, "the build command made its folder larger than 2097152 bytes, [build] size");
    }
}

#[tokio::test]
async fn checks_see_the_set_and_their_verdict_counts() {
    let (bench, _) = Bench::with_commit();
    let check = |name: &str, command: &str| {
        format!("[[build.check]]\nname = \"{name}\"\ncommand = [\"sh\", \"-c\", '''{command}''']\ntimeout = \"20s\"\n")
    };
    let sees = "cat \"$POINTSMAN_ARTIFACTS\"; echo; test -x dist/hello";
    for (number, second, sentence, exit, verdict) in [
        (1, "true", None, None, CheckVerdict::Well),
        (
            2,
            "echo it does not fit; exit 3",
            Some("the check second failed with exit status 3"),
            Some(3),
            CheckVerdict::Failed(3),
        ),
        (
            3,
            "kill -9 $$",
            Some("the check second failed: it was ended by signal 9"),
            None,
            CheckVerdict::Ended("it was ended by signal 9".into()),
        ),
    ] {
        let checks = check("first", sees) + &check("second", second) + &check("third", "true");
        let id = bench.commit(&[("pointsman.toml", &toml(&checks, ""))]);
        let (_canceller, cancel) = watch::channel(false);
        let job = bench.job(number, &id);
        let outcome = bench.run(&job, cancel).await;
        let (checks, failed) = match outcome {
            Ok(built) => (built.checks, None),
            Err(failed) => (failed.checks, Some((failed.step, failed.problem))),
        };
        let said: Vec<_> = checks.iter().map(|check| (check.name.as_str(), check.verdict.clone())).collect();
        let well = |name| (name, CheckVerdict::Well);
        match sentence {
            None => {
                assert!(failed.is_none() && said == [well("first"), ("second", verdict), well("third")], "{said:?}")
            }
            Some(sentence) => {
                let (step, problem) = failed.expect(sentence);
                assert_eq!((step, problem.sentence.as_str(), problem.exit), (BuildStep::Check, sentence, exit));
                assert_eq!(said, [well("first"), ("second", verdict)], "the third was not asked");
            }
        }
        let log = |check: &str| std::fs::read_to_string(bench.folders.log_of_check(&job.release, check)).expect("log");
        let seen: serde_json::Value = serde_json::from_str(log("first").lines().nth(1).expect("line")).expect("JSON");
        assert_eq!((&seen[0]["component"], &seen[0]["environment"]), (&"web".into(), &serde_json::Value::Null));
        assert!(seen[0]["folder"].as_str().expect("folder").ends_with("/checkout/dist"), "{seen}");
        if number == 2 {
            assert!(log("second").ends_with("it does not fit\nexit status 3\n"), "{}", log("second"));
        }
        clear(&bench.folders, &job.release).await;
    }
}

#[tokio::test]
async fn only_configuration_keeps_digests() {
    let (bench, _) = Bench::with_commit();
    let stages = "[stage.dev]\n";
    let first = bench.commit(&[("pointsman.toml", &toml("", stages)), ("build.sh", RANDOM)]);
    let built = bench.build(1, &first).await.expect("built");
    let base = Base {
        number: name("r1"),
        commit: first.clone(),
        build: built.spec.build.clone().expect("there"),
        components: built.spec.components.clone(),
        artifacts: built.artifacts.clone(),
        for_environments: BTreeMap::new(),
        checks: Vec::new(),
    };
    let again = |number: u32, commit: &str| Job { base: Some(base.clone()), ..bench.job(number, commit) };
    let changed = toml("", "[stage.dev]\npublic = true\n").replace("\"{port}\"]", "\"{port}\", \"--new\"]");
    let configured = bench.commit(&[("pointsman.toml", &changed)]);
    let kept = bench.build_job(&again(2, &configured)).await.expect("built");
    assert_eq!((kept.kept_from, &kept.artifacts, bench.runs()), (Some(name("r1")), &built.artifacts, 1));
    assert_eq!(kept.spec.components.values().next().expect("web").run.len(), 3, "the configuration is the new one");

    // One more file, an empty commit, another way of building, another folder: each is built.
    let mut runs = 1;
    let commits = [
        bench.commit(&[("source", "two")]),
        {
            bench.git(&["checkout", "--quiet", &first]);
            bench.commit(&[])
        },
        {
            bench.git(&["checkout", "--quiet", &first]);
            bench.commit(&[("pointsman.toml", &toml("environment = { A = \"b\" }", stages))])
        },
        {
            bench.git(&["checkout", "--quiet", &first]);
            bench.commit(&[("pointsman.toml", &toml("", stages).replace("\"dist\"", "\"./dist\""))])
        },
    ];
    for (number, commit) in (3..).zip(commits) {
        bench.git(&["branch", "--force", &format!("b{number}"), &commit]);
        let built = bench.build_job(&again(number, &commit)).await.expect("built");
        runs += 1;
        assert_eq!((built.kept_from, bench.runs()), (None, runs), "{number}");
    }
}

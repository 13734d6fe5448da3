//! Builds whose controller died: what was done is not done again.

use super::releases::toml;
use super::served::{Served, of};
use super::*;

/// Counts, makes something new each time, and waits for a word where the test wants it to.
const SCRIPT: &str = "#!/bin/sh\nset -e\necho ran >> \"$POINTSMAN_CACHE/runs\"\n\
                      while [ -e \"$POINTSMAN_CACHE/hold-command\" ]; do touch \"$POINTSMAN_CACHE/at-command\"; sleep 0.01; done\n\
                      mkdir dist\nhead -c 16 /dev/urandom > dist/hello\n";
const CHECKED: &str = "[[build.check]]\nname = \"one\"\ncommand = [\"sh\", \"-c\", 'echo one >> \"$POINTSMAN_CACHE/checks\"']\n\
                       [[build.check]]\nname = \"two\"\ncommand = [\"sh\", \"-c\", 'echo two >> \"$POINTSMAN_CACHE/checks\"; \
                       while [ -e \"$POINTSMAN_CACHE/hold-check\" ]; do touch \"$POINTSMAN_CACHE/at-check\"; sleep 0.01; done']\n";

impl Bench {
    fn cache(&self, name: &str) -> PathBuf {
        self.folders.cache.join("hello").join(name)
    }

    fn hold(&self, what: &str) {
        std::fs::create_dir_all(self.folders.cache.join("hello")).expect("folder");
        std::fs::write(self.cache(what), "").expect("written");
    }

    /// Runs until something is so, and then the controller dies.
    async fn dies_when(&self, job: &Job, mut is: impl FnMut() -> bool) {
        let (_canceller, cancel) = watch::channel(false);
        tokio::select! {
            ended = self.run(job, cancel) => panic!("it is held: {ended:?}"),
            () = until("it came so far", &mut is) => {}
        }
        end_leftovers(&self.folders);
        clear_leftovers(&self.folders, &BTreeSet::from([job.release.clone()])).await;
    }

    async fn goes_on(&self, job: &Job) -> Result<Built, NotBuilt> {
        let (_canceller, cancel) = watch::channel(false);
        self.run(job, cancel).await
    }
}

#[tokio::test]
async fn a_build_goes_on_from_its_journal() {
    let (mut bench, _) = Bench::with_commit();
    let served = Served::start().await;
    let registry = bench.with_registry(&served);
    let id = bench.commit(&[("pointsman.toml", &toml(CHECKED, "")), ("build.sh", SCRIPT)]);
    bench.git(&["tag", "v1"]);
    let job = Job { registry: Some(registry), tag: Some("v1".into()), ..bench.job(1, &id) };
    let checks = || std::fs::read_to_string(bench.cache("checks")).unwrap_or_default();

    // Within the command: it has made nothing, and begins again in a clean checkout.
    bench.hold("hold-command");
    bench.dies_when(&job, || bench.cache("at-command").exists()).await;
    assert_eq!(bench.runs(), 1);
    std::fs::remove_file(bench.cache("hold-command")).expect("removed");

    // While it is pushed, to somebody who never answers: from here on it is what it is.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("socket");
    silent.set_nonblocking(true).expect("set");
    let place = format!("{}/shop", silent.local_addr().expect("address")).parse().expect("place");
    bench.shelf.replace(Some(Ok(of(&place))));
    let slow = RegistrySpec { address: place, ..job.registry.clone().expect("there") };
    let mut taken = Vec::new();
    let elsewhere = Job { registry: Some(slow), ..job.clone() };
    bench
        .dies_when(&elsewhere, || {
            taken.extend(silent.accept().ok());
            !taken.is_empty()
        })
        .await;
    assert_eq!((bench.runs(), served.manifests("shop/hello/web").len()), (2, 0));
    bench.shelf.replace(Some(Ok(served.registry())));
    // Nor is its tag asked for again: what was pushed by then stays as it is.
    bench.git(&["tag", "--delete", "v1"]);

    // Within the second check: the first is not asked again.
    bench.hold("hold-check");
    bench.dies_when(&job, || bench.cache("at-check").exists()).await;
    std::fs::remove_file(bench.cache("hold-check")).expect("removed");
    assert_eq!((bench.runs(), checks().as_str()), (2, "one\ntwo\n"));
    let pushed = served.manifests("shop/hello/web");
    assert_eq!(pushed.len(), 1);

    // To its end, which is not put on record, again and again.
    let built = bench.goes_on(&job).await.expect("built");
    for _ in 0..2 {
        assert_eq!(bench.goes_on(&job).await.expect("built"), built);
    }
    assert_eq!((bench.runs(), checks().as_str()), (2, "one\ntwo\ntwo\n"));
    assert_eq!((served.manifests("shop/hello/web"), built.checks.len()), (pushed.clone(), 2));
    assert_eq!(web(&built).digest.to_string(), pushed[0]);
    assert!(bench.log(1).contains("going on with hello@r1: the command does not run again"));
    assert!(!bench.folders.work.join("hello-r1/secrets").exists());

    clear(&bench.folders, &job.release).await;
    assert!(!bench.folders.work.join("hello-r1").exists());
}

#[tokio::test]
async fn an_interrupted_command_that_pushes_fails() {
    let (bench, _) = Bench::with_commit();
    let image = "[component.tool]\nimage_digest_file = \"digest\"\nimage = \"r.example.com/x\"\n";
    let id = bench.commit(&[("pointsman.toml", &toml("", image)), ("build.sh", SCRIPT)]);
    let job = bench.job(1, &id);
    bench.hold("hold-command");
    bench.dies_when(&job, || bench.cache("at-command").exists()).await;
    std::fs::remove_file(bench.cache("hold-command")).expect("removed");
    let log = bench.log(1);
    for _ in 0..2 {
        let failed = bench.goes_on(&job).await.expect_err("another could be pushed");
        assert_eq!(failed.step, BuildStep::Interrupted);
        assert!(failed.problem.sentence.contains("`release retry hello@r1`"), "{}", failed.problem);
    }
    assert_eq!(bench.runs(), 1);
    assert!(bench.log(1).starts_with(&log) && bench.log(1).matches("failed: ").count() == 1, "{}", bench.log(1));
}

#[tokio::test]
async fn a_command_that_came_to_its_end_does_not_run_again() {
    let (mut bench, _) = Bench::with_commit();
    let mut served = Served::start().await;
    bench.with_registry(&served);
    let (_, id) = (bench.hold("x"), bench.commit(&[]));
    let pushed = web(&bench.build(1, &id).await.expect("built")).digest;
    let (place, progress) = (served.place("elsewhere/web"), registry::Progress::default());
    served.registry().push(&bench.shelf.layout, &pushed, &place, None, &progress).await.expect("pushed");
    let toml =
        toml("", "").replace("folder = \"dist\"\nrun = [\"./hello\", \"{port}\"]", "image_digest_file = \"digest\"");
    let script = format!("#!/bin/sh\necho ran >> \"$POINTSMAN_CACHE/runs\"\necho {place}@{pushed} > digest\n");
    let id = bench.commit(&[("pointsman.toml", &toml), ("build.sh", &script)]);

    // The controller dies while it asks for the image, of somebody who never answers.
    served.stop();
    let silent = std::net::TcpListener::bind(&served.host).expect("its port");
    silent.set_nonblocking(true).expect("set");
    let (job, mut taken) = (bench.job(2, &id), Vec::new());
    bench
        .dies_when(&job, || {
            taken.extend(silent.accept().ok());
            !taken.is_empty()
        })
        .await;
    drop((silent, taken));
    served.start_again().await;
    let built = bench.goes_on(&job).await.expect("built");
    assert_eq!((web(&built).digest, bench.runs()), (pushed, 1));
}

#[tokio::test]
async fn a_failure_that_is_not_on_record_stays_the_same() {
    let (bench, _) = Bench::with_commit();
    let id = bench.commit(&[(
        "build.sh",
        "#!/bin/sh\necho ran >> \"$POINTSMAN_CACHE/runs\"\nexit $(wc -l < \"$POINTSMAN_CACHE/runs\")\n",
    )]);
    let job = bench.job(1, &id);
    let failed = bench.goes_on(&job).await.expect_err("exit status 1");
    assert_eq!((failed.step, failed.problem.exit), (BuildStep::Command, Some(1)));
    assert_eq!(bench.goes_on(&job).await, Err(failed));
    assert_eq!(bench.runs(), 1);
    // One that was cancelled is none: the controller stops, and goes on later.
    let (_canceller, cancel) = watch::channel(true);
    let other = bench.job(2, &id);
    assert_eq!(bench.run(&other, cancel).await.expect_err("cancelled").problem.sentence, "the build was cancelled");
    assert_eq!(bench.goes_on(&other).await.expect_err("exit status 2").problem.exit, Some(2));
}

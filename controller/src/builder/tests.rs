use super::*;
use crate::build::process::tests::{runs, seconds, until};
use crate::build::tests::Bench;
use crate::core::evolve_test::wanted;
use crate::core::spec::{ServiceSpec, Source, TriggerSpec};
use crate::engine::tests::{World, token};

/// An engine with a service whose commits come from a real repository.
async fn world(source: Source) -> World {
    let world = World::new().await;
    let spec = ServiceSpec {
        name: "hello".parse().expect("name"),
        source: Some(source),
        trigger: TriggerSpec::default(),
        build: None,
        components: BTreeMap::new(),
        stages: BTreeMap::new(),
    };
    let services = vec![spec];
    let apply = Command::Apply { environments: Vec::new(), services, access: None, releases: None };
    world.carries_out(Submission::own(apply)).await;
    world
}

async fn progress(world: &World, release: &ReleaseName) -> ReleaseProgress {
    let release = release.clone();
    let found = world.engine.read(move |engine| engine.state.release(&release).map(|found| found.progress.clone()));
    found.await.flatten().expect("it is on record")
}

/// Waits until a release has come to its end.
async fn ends(world: &World, release: &ReleaseName) -> ReleaseProgress {
    let end = async {
        loop {
            match progress(world, release).await {
                progress if progress.is_terminal() => return progress,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), end).await.expect("it ends")
}

#[tokio::test]
async fn a_build_is_ended_when_somebody_says_so() {
    let (bench, _) = Bench::with_commit();
    let seconds = seconds();
    let commit = bench.commit(&[("build.sh", &format!("#!/bin/sh\nsleep {seconds}\n"))]);
    let world = world(bench.source.clone()).await;
    let release: ReleaseName = "hello@r1".parse().expect("name");
    let service = release.service.clone();
    world.carries_out(Submission::own(Command::Build { service, wanted: wanted(&commit), again: false })).await;
    let (_stop, stops) = watch::channel(false);
    let (orders, taken) = mpsc::unbounded_channel();
    let builder = tokio::spawn(run(world.engine.clone(), bench.folders.clone(), bench.shelf.clone(), taken, stops));
    orders.send(Order::Build(release.clone())).expect("it listens");
    until("it runs", || runs(&seconds)).await;
    for other in ["hello@r2", "other@r1"] {
        orders.send(Order::End(other.parse().expect("name"))).expect("it listens");
    }
    assert!(runs(&seconds));
    world.carries_out(Submission::of("anna", String::new(), Command::CancelBuild { release: release.clone() })).await;
    orders.send(Order::End(release.clone())).expect("it listens");
    let end = ends(&world, &release).await;
    assert!(matches!(&end, ReleaseProgress::Cancelled { by, .. } if by == "anna"), "{end:?}");
    assert!(!runs(&seconds));
    until("its folder is gone", || std::fs::read_dir(&bench.folders.work).is_ok_and(|work| work.count() == 0)).await;
    assert!(
        std::fs::read_to_string(bench.folders.log(&release)).expect("log").contains("failed: the build was cancelled")
    );
    builder.abort();
}

#[tokio::test]
async fn a_controller_that_stops_leaves_its_builds_to_the_next_start() {
    let (bench, _) = Bench::with_commit();
    let script = "#!/bin/sh\nset -e\ntouch \"$POINTSMAN_CACHE/at\"\n\
                  while [ ! -e \"$POINTSMAN_CACHE/go\" ]; do sleep 0.01; done\nmkdir dist\n";
    let commit = bench.commit(&[("build.sh", script)]);
    let world = world(bench.source.clone()).await;
    let release: ReleaseName = "hello@r1".parse().expect("name");
    let service = release.service.clone();
    world.carries_out(Submission::own(Command::Build { service, wanted: wanted(&commit), again: false })).await;
    let at = |name: &str| bench.folders.cache.join("hello").join(name);
    let stranger = bench.folders.work.join("hello-r9");
    for stops_early in [true, false] {
        std::fs::create_dir_all(&stranger).expect("what another build has left");
        let (stop, stops) = watch::channel(false);
        let (orders, taken) = mpsc::unbounded_channel();
        let builder = tokio::spawn(run(world.engine.clone(), bench.folders.clone(), bench.shelf.clone(), taken, stops));
        orders.send(Order::Build(release.clone())).expect("it listens");
        until("it runs", || at("at").exists()).await;
        assert!(!stranger.exists(), "nobody goes on with that");
        std::fs::remove_file(at("at")).expect("removed");
        if stops_early {
            stop.send_replace(true);
            let log = bench.folders.log(&release);
            until("it ends", || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("was cancelled"))).await;
            assert_eq!(progress(&world, &release).await, ReleaseProgress::Building);
            assert!(bench.folders.work.join("hello-r1").exists());
        } else {
            std::fs::write(at("go"), "").expect("written");
            let end = ends(&world, &release).await;
            assert!(matches!(end, ReleaseProgress::Ready { .. }), "{end:?}");
        }
        builder.abort();
    }
}

#[tokio::test]
async fn a_build_whose_end_cannot_be_recorded_is_not_run_again() {
    let mut world = World::new().await;
    let release: ReleaseName = "hello@r1".parse().expect("name");
    let spec = ServiceSpec {
        name: release.service.clone(),
        source: Some(Source { repository: "/srv/hello.git".into(), branch: "main".into(), tags: None }),
        trigger: TriggerSpec::default(),
        build: None,
        components: BTreeMap::new(),
        stages: BTreeMap::new(),
    };
    world
        .carries_out(Submission::own(Command::Apply {
            environments: Vec::new(),
            services: vec![spec],
            access: None,
            releases: None,
        }))
        .await;
    let (service, commit) = (release.service.clone(), "a".repeat(40));
    world.carries_out(Submission::own(Command::Build { service, wanted: wanted(&commit), again: false })).await;
    assert_eq!(world.builds.recv().await, Some(Order::Build(release.clone())), "it is to be built");

    world.engine.tell(|engine| engine.store.fill_up(true));
    let (engine, ended) = (world.engine.clone(), release.clone());
    let ending = tokio::spawn(async move {
        end(&engine, ended, Err(BuildFailed { problem: "why ".repeat(10_000), ..BuildFailed::default() })).await
    });
    tokio::time::sleep(4 * WAIT).await;
    assert!(!ending.is_finished() && world.builds.try_recv().is_err(), "it is to be built again");
    world.engine.tell(|engine| engine.store.fill_up(false));
    ending.await.expect("no panic");
    let progress = world.engine.read(move |engine| engine.state.release(&release).map(|found| found.progress.clone()));
    assert!(matches!(progress.await, Some(Some(ReleaseProgress::Failed { .. }))));
    assert!(world.builds.try_recv().is_err());
}

#[tokio::test]
async fn folders_stay_unless_it_is_certain_that_nobody_goes_on_with_them() {
    let (bench, _) = Bench::with_commit();
    let world = world(bench.source.clone()).await;
    let release: ReleaseName = "hello@r1".parse().expect("name");
    let service = release.service.clone();
    world.carries_out(Submission::own(Command::Build { service, wanted: wanted(&"a".repeat(40)), again: false })).await;
    let folder = bench.folders.work.join("hello-r1");
    let starts = async || {
        std::fs::create_dir_all(&folder).expect("what a build has left");
        let ((_stop, stops), (_, taken)) = (watch::channel(false), mpsc::unbounded_channel());
        run(world.engine.clone(), bench.folders.clone(), bench.shelf.clone(), taken, stops).await;
        folder.exists()
    };
    assert!(starts().await, "it is being built");
    world.carries_out(Submission::of("anna", String::new(), Command::CancelBuild { release: release.clone() })).await;
    assert!(!starts().await, "it is to end");
    world.engine.tell(|engine| engine.store.fail_from_now_on());
    assert!(world.engine.submit(token("x"), Priority::Normal).await.is_err());
    let gone = async { while world.engine.read(|_| ()).await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the engine is gone");
    assert!(starts().await, "nobody knows");
}

//! A controller that dies at any event of a build: the same end, nothing pushed under two digests, no process left.

use std::fs;

use api::operator::{BuildReleaseRequest, ChangeReleaseRequest};

use crate::crash_points::{End, Story, compare, made};
use crate::harness::{House, Registry, Repository, request_id, running_in, until};
use crate::releases_images::releases_toml;

const STATIC: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                      target = { kind = \"static\" }\n";

/// Another build of the same commit makes other bytes: what is made twice is seen.
const DICE: &str = "#!/bin/sh\nset -eu\necho \"building $POINTSMAN_RELEASE\"\nmkdir -p dist\n\
                    head -c 16 /dev/urandom | od -An -tx1 > dist/dice\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_at_every_event_of_a_build_ends_as_without_a_crash() {
    let kinds = ["build_started", "release_built", "release_failed", "build_cancel_asked", "release_cancelled"];
    compare(&kinds, building).await;
}

/// r1 is built and pushed, r2 fails, r3 is cancelled amid its build, r4 is built.
async fn building(fault: Option<&str>) -> End {
    let (house, registry) = (House::with_controller().await, Registry::start().await);
    let repository = Repository::new(house.path("hello"));
    let releases = releases_toml(&registry, "");
    house
        .apply(&[("production.toml", STATIC), ("releases.toml", &releases), ("pointsman.toml", &repository.service())])
        .await;
    let mut story = Story::new(house, fault).await;

    repository.write("build.sh", DICE);
    repository.commit("well");
    builds(&mut story).await;
    story.waits_for("r1 is built", "release_built", 1).await;
    repository.write("build.sh", "#!/bin/sh\necho broken\nexit 3\n");
    repository.commit("broken");
    builds(&mut story).await;
    story.waits_for("r2 has failed", "release_failed", 1).await;
    // Something that leaves its group and its environment, as what builds start may.
    let marked = "sh -c 'while :; do sleep 0.1; done' crash-builds-mark";
    repository.write("build.sh", &format!("#!/bin/sh\nenv -i setsid {marked} &\necho waiting\nsleep 1000\n"));
    repository.commit("for ever");
    builds(&mut story).await;
    let cancel = ChangeReleaseRequest { release: "hello@r3".into(), request_id: request_id(), ..Default::default() };
    story.waits_for("r3 is being built", "build_started", 3).await;
    story.ask(async |mut operator| made(operator.calls.cancel_build(cancel.clone()).await)).await;
    story.waits_for("r3 is cancelled", "release_cancelled", 1).await;
    repository.write("build.sh", DICE);
    repository.commit("well again");
    builds(&mut story).await;
    story.waits_for("r4 is built", "release_built", 2).await;

    let work = story.house.path("controller/work");
    until("no process and no folder is left", async || {
        let folders = fs::read_dir(&work).into_iter().flatten().count();
        (running_in(&work).is_empty() && folders == 0).then_some(())
    })
    .await;
    let logs = story.house.path("controller/logs/hello");
    let log = |release: &str| fs::read_to_string(logs.join(format!("{release}.log"))).unwrap_or_default();
    let left = vec![
        format!("manifests: {}", registry.manifests("pointsman/hello/web").len()),
        format!("r1 told: {}", log("r1").contains("building hello@r1")),
        format!("r2 told: {}", log("r2").contains("broken\n") && log("r2").contains("exit status 3")),
    ];
    let mut end = story.end(fault, None).await;
    end.left = left;
    end
}

async fn builds(story: &mut Story) {
    let build =
        BuildReleaseRequest { service: "hello".into(), request_id: request_id(), ..BuildReleaseRequest::default() };
    story.ask(async |mut operator| made(operator.calls.build_release(build.clone()).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_amid_a_command_that_pushes_fails_the_release_with_its_log() {
    let (mut house, registry) = (House::with_controller().await, Registry::start().await);
    let repository = Repository::new(house.path("hello"));
    let service = repository.service().replace(
        "[component.web]\nfolder = \"dist\"\nrun = [\"./server.py\", \"{port}\"]\n",
        "[component.web]\nimage_digest_file = \"web.digest\"\n",
    );
    let service = service.replace("stop = \"2s\"\n", "").replace("[build]\n", "[build]\nregistry = true\n");
    repository.write("pointsman.toml", &service);
    let mark = format!("crash-builds-{}", request_id());
    let script =
        format!("#!/bin/sh\nenv -i setsid sh -c 'while :; do sleep 0.1; done' {mark} &\necho waiting\nsleep 1000\n");
    repository.write("build.sh", &script);
    repository.commit("pushes by itself");
    house
        .apply(&[
            ("production.toml", STATIC),
            ("releases.toml", &releases_toml(&registry, "")),
            ("pointsman.toml", &service),
        ])
        .await;
    house.run(&["release", "build", "hello", "--no-wait"]).await.ends(4);
    until("it is being built", async || {
        house.run(&["release", "logs", "hello@r1"]).await.out.contains("waiting").then_some(())
    })
    .await;
    until("its child has left", async || (count(&mark) > 0).then_some(())).await;
    house.kill_controller();
    house.start_controller(&[]).await;
    let shown = until("it has failed", async || {
        let shown = house.json(&["release", "show", "hello@r1"]).await;
        (shown["state"] == "failed").then_some(shown)
    })
    .await;
    assert_eq!(shown["step"], "interrupted", "{shown}");
    let log = house.run(&["release", "logs", "hello@r1"]).await.ends(0).out;
    assert!(log.contains("waiting") && log.contains("failed"), "{log}");
    until("nothing of it is left", async || (count(&mark) == 0).then_some(())).await;
    assert!(registry.repositories().is_empty());
}

/// Processes with this word on their command line.
fn count(mark: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(mark.len()).any(|part| part == mark.as_bytes())).count()
}

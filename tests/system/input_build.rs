//! Builds that fail: a failed release with its log, and a stage that nobody touched.

use crate::harness::{House, Repository, STAGE};

const AGENTS: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                      target = { kind = \"agent\", group = \"prod\" }\n";

/// A house with a repository and an agent; r1 serves.
async fn with_repository() -> (House, Repository) {
    let mut house = House::with_controller().await;
    let repository = Repository::new(house.path("hello"));
    house.apply(&[("production.toml", AGENTS), ("pointsman.toml", &repository.service())]).await;
    house.agent("a1", "prod").await;
    house.run(&["release", "build", "hello"]).await.ends(0);
    house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(0);
    (house, repository)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_build_that_fails_is_a_failed_release_with_its_log_and_touches_no_stage() {
    let (house, repository) = with_repository().await;
    repository.write("build.sh", "#!/bin/sh\necho compiling\necho 'no such thing: frobnicate' >&2\nexit 3\n");
    repository.commit("break the build");
    let before = house.json(&["status", STAGE]).await["services"][0]["stages"].clone();

    let said = house.run(&["release", "build", "hello"]).await.ends(1);
    assert!((said.out.clone() + &said.err).contains("no such thing: frobnicate"), "{said:?}");
    let shown = house.json(&["release", "show", "hello@r2"]).await;
    assert_eq!((&shown["state"], &shown["subject"]), (&"failed".into(), &"break the build".into()));
    let problem = shown["problem"].as_str().expect("a problem");
    assert!(problem.contains("build command") && problem.contains('3'), "{problem}");
    let log = house.run(&["release", "logs", "hello@r2"]).await.ends(0).out;
    for line in ["compiling", "no such thing: frobnicate", "3"] {
        assert!(log.contains(line), "{line} in {log}");
    }
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(1).complains_once(&["hello@r2 is not ready"]);

    let after = house.json(&["status", STAGE]).await["services"][0]["stages"].clone();
    let shape = |stages: &serde_json::Value| {
        let release = &stages[0]["releases"][0];
        (
            release["release"].clone(),
            release["role"].clone(),
            release["weight_ppm"].clone(),
            release["endpoints"].clone(),
        )
    };
    assert_eq!(shape(&after), shape(&before));
    // The next commit builds again.
    repository.write("build.sh", "#!/bin/sh\nset -eu\nmkdir -p dist\ncp server.py dist/\n");
    repository.commit("mend the build");
    house.run(&["release", "build", "hello"]).await.ends(0);
    house.run(&["promote", "hello@r3", "--to", "production"]).await.ends(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_what_keeps_a_build_from_a_release_is_told_in_its_log() {
    let (house, repository) = with_repository().await;
    let good = repository.service();
    let mut number = 1;
    let cases: [(&str, &str, String, &str); 5] = [
        ("build.sh", "#!/bin/sh\ntrue\n", good.clone(), "no folder"),
        ("build.sh", "#!/bin/sh\nmkdir -p dist\nkill -9 $$\n", good.clone(), "signal"),
        ("build.sh", "#!/bin/sh\nsleep 60\n", good.replace("\"1m\"", "\"1s\""), "longer than 1s"),
        ("build.sh", "#!/bin/sh\ntrue\n", good.replace("folder =", "foldr ="), "needs `folder`"),
        ("build.sh", "#!/bin/sh\ntrue\n", good.replace("\"hello\"", "\"other\""), "other"),
    ];
    for (file, script, toml, expected) in cases {
        repository.write(file, script);
        repository.write("pointsman.toml", &toml);
        repository.commit("broken");
        house.run(&["release", "build", "hello"]).await.ends(1);
        number += 1;
        let release = format!("hello@r{number}");
        let shown = house.json(&["release", "show", &release]).await;
        let problem = shown["problem"].as_str().unwrap_or_default();
        assert!(shown["state"] == "failed" && problem.contains(expected), "{expected}: {shown}");
        let log = house.run(&["release", "logs", &release]).await.ends(0).out;
        assert!(log.contains(expected), "{expected}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_commit_that_is_not_there_makes_no_release() {
    let (house, _repository) = with_repository().await;
    let table: [(&[&str], &str); 4] = [
        (&["--branch", "nowhere"], "nowhere"),
        (&["--tag", "v9"], "v9"),
        (&["--commit", "0123456789abcdef0123456789abcdef01234567"], "0123456789ab"),
        (&["--branch", "--upload-pack=touch /tmp/x"], "upload-pack"),
    ];
    for (source, expected) in table {
        let said = house.run(&[&["release", "build", "hello"], source].concat()).await;
        assert!(matches!(said.code, Some(1 | 2)), "{said:?}");
        said.complains(&[expected]);
    }
    let list = house.json(&["release", "list", "hello"]).await;
    assert_eq!(list["releases"].as_array().map(Vec::len), Some(1), "{list}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_release_that_does_not_start_leaves_the_stage_as_it_was() {
    let (house, repository) = with_repository().await;
    repository.write("server.py", "#!/bin/sh\necho 'out of luck'\nexit 7\n");
    repository.commit("never starts");
    house.run(&["release", "build", "hello"]).await.ends(0);
    let promoting = ["promote", "hello@r2", "--to", "production", "--no-wait"];
    house.run(&promoting).await.ends(4);
    crate::harness::until("status says why", async || {
        let status = house.json(&["status", STAGE]).await;
        let activity = status["services"][0]["stages"][0]["activity"].as_str()?.to_owned();
        activity.contains("waits for r2 to start").then_some(())
    })
    .await;
    let serving = house.serving().await;
    assert_eq!(serving.of(STAGE, 1), Some(("stable", 1_000_000)), "{serving:?}");
    house.run(&["rollback", STAGE]).await.ends(0);
    assert_eq!(house.serving().await.of(STAGE, 1), Some(("stable", 1_000_000)));
}

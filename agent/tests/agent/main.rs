//! The agent with real processes, over real mutual TLS. What stands for the controller is in `support`.

mod support;

use api::agent::instance_status::State;
use api::agent::{Instance, Report};
use support::{Controller, Home, eventually, get, kill, record};

async fn home() -> (Controller, Home, String) {
    let controller = Controller::start().await;
    let home = Home::new(&controller).await;
    let digest = controller.publish();
    (controller, home, digest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_a_release_runs_with_its_own_environment_and_ends_as_a_group() {
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    controller.desire(vec![home.instance(&digest, "family")]);
    let status = controller.until_healthy().await;
    let answer = get(status.port, "/").await.expect("an answer");
    for variable in ["POINTSMAN_STAGE=hello/dev", "POINTSMAN_RELEASE=r1", "POINTSMAN_COMPONENT=web", "LANG=C.UTF-8"] {
        assert!(answer.contains(variable), "{variable}: {answer}");
    }
    assert!(answer.contains(&format!("PORT={}\n", status.port)) && !answer.contains("CARGO"), "{answer}");
    assert_eq!(home.processes().len(), 4, "the leader and three helpers");
    controller.desire(Vec::new());
    controller.until_report("ended", |report| report.instances.is_empty() && report.generation == 2).await;
    assert!(home.processes().is_empty(), "helpers end with it, also those that left the group");
    assert!(home.is_done(), "a helper that had work to finish could finish it");
    assert!(!home.file("instance.json").exists());
    assert!(home.data().join("ended/hello_dev_r1_web.log").exists(), "its log is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_an_artifact_in_parts_runs() {
    let (controller, home, _) = home().await;
    let digest = controller.publish_parts();
    let _agent = home.agent();
    controller.desire(vec![home.instance(&digest, "plain")]);
    let status = controller.until_healthy().await;
    assert!(get(status.port, "/").await.is_some());
    let parts = controller.layer_offsets(&digest);
    assert!(parts.len() > 2, "{parts:?}: it came in one piece");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_a_release_that_does_not_end_is_killed() {
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    let mut instance = home.instance(&digest, "stubborn");
    instance.stop_ms = 200;
    controller.desire(vec![instance]);
    controller.until_healthy().await;
    controller.desire(Vec::new());
    controller.until_report("ended", |report| report.instances.is_empty() && report.generation == 2).await;
    assert!(home.processes().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_a_crash_is_told_and_the_release_starts_again_at_its_port() {
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    controller.desire(vec![home.instance(&digest, "")]);
    let before = controller.until_healthy().await;
    get(before.port, "/crash").await;
    let told = controller.until("told", |status| status.state() == State::Backoff).await;
    assert!(told.problem.contains("exit status 7"), "{}", told.problem);
    assert!(told.problem.contains("asked to \\u{1b}[31mcrash"), "{}", told.problem);
    let after = controller.until_healthy().await;
    assert_eq!((after.port, after.restarts), (before.port, 1));
    assert_ne!(after.pid, before.pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_what_runs_goes_on_without_its_agent_and_is_found_again() {
    let (controller, home, digest) = home().await;
    let agent = home.agent();
    controller.desire(vec![home.instance(&digest, "")]);
    let before = controller.until_healthy().await;
    agent.kill().await;
    assert!(get(before.port, "/").await.is_some(), "it serves without an agent");
    controller.forget();
    let agent = home.agent();
    controller.until_healthy().await;
    for report in controller.reports() {
        let status = &report.instances[0];
        assert_eq!((status.pid, status.port), (before.pid, before.port));
        assert_eq!(status.state(), State::Healthy, "what is healthy is never reported as anything else");
    }
    assert_eq!(home.processes().len(), 1);
    get(before.port, "/crash").await;
    let after = controller.until("restarted", |now| now.state() == State::Healthy && now.pid != before.pid).await;
    assert_eq!(after.port, before.port);
    agent.stop().await;
    assert!(get(after.port, "/").await.is_some(), "it serves after its agent has stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_a_process_that_never_got_into_its_record_is_found_by_its_marks() {
    let (controller, home, digest) = home().await;
    let agent = home.agent();
    controller.desire(vec![home.instance(&digest, "")]);
    let before = controller.until_healthy().await;
    agent.kill().await;
    // As if the agent had died between starting the process and writing down its pid.
    let mut intent = record(&home.file("instance.json"));
    (intent["pid"], intent["start_time"]) = (0.into(), 0.into());
    std::fs::write(home.file("instance.json"), intent.to_string()).expect("written");
    controller.forget();
    let agent = home.agent();
    assert_eq!(controller.until_healthy().await.pid, before.pid);
    agent.kill().await;
    std::fs::write(home.file("instance.json"), "garbage").expect("written");
    controller.forget();
    let _agent = home.agent();
    let after = controller.until_healthy().await;
    assert_eq!((after.pid, after.port), (before.pid, before.port), "the port is read from the process");
    assert_eq!(home.processes().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_what_a_dead_leader_left_behind_ends_before_the_next_start() {
    let (controller, home, digest) = home().await;
    let agent = home.agent();
    controller.desire(vec![home.instance(&digest, "family")]);
    let before = controller.until_healthy().await;
    agent.kill().await;
    kill(before.pid);
    eventually("gone", async || !home.processes().contains(&before.pid.cast_signed())).await;
    let left = home.processes();
    controller.forget();
    let _agent = home.agent();
    let after = controller.until_healthy().await;
    assert_eq!(after.port, before.port);
    let now = home.processes();
    assert!(now.len() == 4 && left.iter().all(|pid| !now.contains(pid)), "{left:?} {now:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_without_a_controller_the_last_wanted_set_counts() {
    let (controller, home, digest) = home().await;
    let agent = home.agent();
    controller.desire(vec![home.instance(&digest, "")]);
    let before = controller.until_healthy().await;
    agent.kill().await;
    controller.kill();
    kill(before.pid);
    eventually("gone", async || get(before.port, "/").await.is_none()).await;
    // Nothing but the wanted set is left: it is enough, as the artifact is here.
    std::fs::remove_dir_all(home.data().join("instances")).expect("removed");
    let _agent = home.agent();
    eventually("started", async || home.processes().len() == 1).await;
}

/// Bytes that do not match are told, never unpacked and never run; good ones heal it.
async fn is_never_run(spoil: impl Fn(&Controller, bool)) {
    let (controller, home, digest) = home().await;
    spoil(&controller, true);
    let _agent = home.agent();
    controller.desire(vec![home.instance(&digest, "")]);
    let told = controller.until("told", |status| status.problem.contains("another digest")).await;
    assert_eq!((told.state(), told.pid, told.restarts), (State::Fetching, 0, 0));
    eventually("tried again", async || controller.fetches() >= 4).await;
    assert!(home.processes().is_empty());
    assert!(!home.file("").exists(), "nothing was unpacked");
    spoil(&controller, false);
    let healed = controller.until_healthy().await;
    assert_eq!((healed.problem.as_str(), healed.restarts), ("", 0));
    assert!(controller.layer_offsets(&digest).iter().all(|offset| *offset == 0), "spoiled bytes are not continued");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h85_a_layer_with_a_flipped_byte_is_never_run() {
    is_never_run(Controller::flip_layer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h85_a_manifest_with_a_flipped_byte_is_never_run() {
    is_never_run(Controller::flip_manifest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h85_an_archive_that_escapes_is_refused_and_told() {
    let (controller, home, _) = home().await;
    let _agent = home.agent();
    let digest = controller.publish_file("../escaped", "out");
    controller.desire(vec![home.instance(&digest, "")]);
    let told = controller.until("told", |status| status.problem.contains("refused")).await;
    assert!(told.problem.contains("../escaped") && told.pid == 0, "{}", told.problem);
    assert!(home.processes().is_empty());
    let left = std::fs::read_dir(home.file("")).expect("a folder").flatten().map(|entry| entry.file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["instance.json"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h85_what_became_of_the_files_of_a_release_is_never_run() {
    use std::os::unix::fs::PermissionsExt;
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    let dev = home.instance(&digest, "");
    let staging = Instance { id: "hello/staging/r1/web".into(), stage: "hello/staging".into(), ..dev.clone() };
    controller.desire(vec![dev, staging]);
    let both = |report: &Report| {
        report.instances.len() == 2 && report.instances.iter().all(|status| status.state() == State::Healthy)
    };
    let report = controller.until_report("both", both).await;
    let folder = |pid: u32| std::fs::read_link(format!("/proc/{pid}/cwd")).expect("it runs");
    let [dev, staging] = [0, 1].map(|at| report.instances[at].clone());
    assert_ne!(folder(dev.pid), folder(staging.pid), "stages share no files");
    let (serve, published) =
        (folder(dev.pid).join("serve"), std::fs::read(folder(dev.pid).join("serve")).expect("there"));
    let mode = |path: &std::path::Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&serve), mode(&folder(dev.pid))), (0o555, 0o555));
    // As a process of root may do all the same.
    for (path, mode) in [(folder(dev.pid), 0o755), (serve.clone(), 0o755)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed");
    }
    std::fs::write(serve, [published.as_slice(), b"# changed\n"].concat()).expect("written");
    std::fs::write(folder(dev.pid).join("left"), "behind").expect("written");
    get(dev.port, "/crash").await;
    let again = |report: &Report| both(report) && report.instances[0].pid != dev.pid;
    let after = controller.until_report("again", again).await.instances[0].clone();
    assert_eq!(std::fs::read(folder(after.pid).join("serve")).expect("there"), published);
    assert_eq!(std::fs::read_dir(folder(after.pid)).expect("there").count(), 1, "what it left is gone");
    assert!(folder(staging.pid).join("serve").exists(), "another stage's files are not touched");
    controller.desire(Vec::new());
    controller.until_report("ended", |report| report.instances.is_empty() && report.generation == 2).await;
    assert_eq!(std::fs::read_dir(home.data().join("instances")).expect("a folder").count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_a_fetch_that_was_cut_goes_on_where_it_was() {
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    controller.cut_after(1_000);
    controller.desire(vec![home.instance(&digest, "")]);
    controller.until_healthy().await;
    assert_eq!(controller.layer_offsets(&digest), [0, 1_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_a_port_that_somebody_took_is_told_and_waited_for() {
    let (controller, home, digest) = home().await;
    let agent = home.agent();
    controller.desire(vec![home.instance(&digest, "")]);
    let before = controller.until_healthy().await;
    agent.kill().await;
    kill(before.pid);
    let port = u16::try_from(before.port).expect("a port");
    let mut thief = None;
    eventually("taken", async || {
        // Free only once the process is gone altogether.
        thief = std::net::TcpListener::bind(("127.0.0.1", port)).ok();
        thief.is_some()
    })
    .await;
    controller.forget();
    let _agent = home.agent();
    let told = controller.until("told", |status| status.problem.contains("taken by another process")).await;
    assert!(told.state() != State::Healthy && told.port == before.port);
    drop(thief);
    assert_eq!(controller.until_healthy().await.port, before.port);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_an_instance_that_cannot_be_run_is_reported_and_hurts_nobody() {
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    let good = home.instance(&digest, "");
    let mut bad = good.clone();
    bad.id = String::new();
    controller.desire(vec![bad, good]);
    let report = controller.until_report("both", |report| {
        report.instances.len() == 2 && report.instances.iter().any(|status| status.state() == State::Healthy)
    });
    let report = report.await;
    let refused = report.instances.iter().find(|status| status.id.is_empty()).expect("reported");
    assert!(refused.state() == State::Unhealthy && refused.problem.contains("accepted is"), "{}", refused.problem);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_releases_end_with_their_agent_when_that_is_wanted() {
    let (controller, home, digest) = home().await;
    let agent = home.agent_with(true);
    controller.desire(vec![home.instance(&digest, "family")]);
    controller.until_healthy().await;
    agent.stop().await;
    assert!(home.processes().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_two_agents_never_share_a_folder() {
    let (controller, home, _) = home().await;
    let first = home.agent();
    controller.until_report("connected", |_| true).await;
    let second = home.agent();
    let refused = second.ends_refused().await;
    assert!(refused.contains("another agent uses this folder"), "{refused}");
    first.stop().await;
    assert!(home.controller().reports().iter().all(|report| report.instances.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_supervises_without_a_controller() {
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    controller.desire(vec![home.instance(&digest, "")]);
    let before = controller.until_healthy().await;
    controller.kill();
    get(before.port, "/crash").await;
    let old = before.pid.cast_signed();
    eventually("started again", async || home.processes().iter().any(|pid| *pid != old)).await;
    eventually("serving at its port", async || get(before.port, "/").await.is_some()).await;
    assert_eq!(home.processes().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_lets_a_process_finish_within_its_grace() {
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    let mut instance = home.instance(&digest, "slow");
    instance.stop_ms = 60_000;
    controller.desire(vec![instance]);
    controller.until_healthy().await;
    controller.desire(Vec::new());
    controller.until("told", |status| status.state() == State::Stopping).await;
    controller.until_report("ended", |report| report.instances.is_empty()).await;
    assert!(home.is_done() && home.processes().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_wanted_not_wanted_and_wanted_again_ends_with_one_process() {
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    let instance = home.instance(&digest, "");
    for round in 0..25 {
        controller.desire(vec![instance.clone()]);
        controller.desire(Vec::new());
        controller.desire(vec![instance.clone()]);
        controller.until_healthy().await;
        controller.desire(Vec::new());
        // Another moment in each round: also that in which the last of it goes.
        tokio::time::sleep(std::time::Duration::from_millis(4 * round)).await;
        let last = controller.desire(vec![instance.clone()]);
        let settled = controller.until_report("settled", |report| {
            let healthy = report.instances.first().filter(|status| status.state() == State::Healthy);
            report.generation == last && healthy.is_some_and(|it| home.processes() == [it.pid.cast_signed()])
        });
        settled.await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_the_same_id_with_another_digest_replaces_what_runs() {
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    controller.desire(vec![home.instance(&digest, "")]);
    let before = controller.until_healthy().await;
    let another = controller.publish_another();
    controller.desire(vec![home.instance(&another, "")]);
    let after = controller.until("replaced", |now| now.state() == State::Healthy && now.pid != before.pid).await;
    assert_eq!(home.processes(), [after.pid.cast_signed()]);
    let runs = std::fs::read_to_string(format!("/proc/{}/cwd/serve", after.pid)).expect("it runs");
    assert!(runs.ends_with("# another release\n"), "{runs}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_how_a_release_is_asked_changes_without_starting_it_again() {
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    let instance = home.instance(&digest, "");
    controller.desire(vec![instance.clone()]);
    let before = controller.until_healthy().await;
    controller.desire(vec![Instance { http2: true, ..instance.clone() }]);
    let told = controller.until("asked otherwise", |status| status.state() == State::Unhealthy).await;
    controller.desire(vec![instance]);
    let after = controller.until_healthy().await;
    assert_eq!((told.pid, after.pid, after.restarts), (before.pid, before.pid, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_keeps_its_files_to_itself() {
    use std::os::unix::fs::PermissionsExt;
    let (controller, home, digest) = home().await;
    let _agent = home.agent();
    controller.desire(vec![home.instance(&digest, "")]);
    controller.until_healthy().await;
    let mode = |path: std::path::PathBuf| path.metadata().expect("there").permissions().mode() & 0o777;
    for (path, expected) in
        [(home.data(), 0o700), (home.file(""), 0o700), (home.file("instance.json"), 0o600), (home.file("log"), 0o600)]
    {
        assert_eq!(mode(path.clone()), expected, "{}", path.display());
    }
}

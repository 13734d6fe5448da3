//! Rollouts in steps: what somebody says moves them, what they earn moves them, and all of it is told.

use serde_json::Value;

use crate::harness::{Client, HOST, House, Load, Proxy, SERVICE, STAGE, Speech, until};

/// The service with a canary of these steps.
fn canary(steps: &str) -> String {
    format!("{SERVICE}strategy = \"canary\"\nsteps = [{steps}]\n")
}

/// Steps that wait for somebody, and count nothing.
const BY_HAND: &str =
    r#"{ insiders = "x-insider: yes", pause = true }, { share = "10%", pause = true }, { share = "100%" }"#;

/// Two releases, the first of which has everything, and a canary of these steps for the second.
async fn house(steps: &str) -> (House, Proxy, [crate::harness::Upstream; 2]) {
    let mut house = House::with_hello().await;
    let (r1, r2) = house.two_releases().await;
    house.apply(&[("pointsman.toml", &canary(steps))]).await;
    let proxy = house.proxy("p1", 2).await;
    (house, proxy, [r1, r2])
}

/// What `status` says of the stage.
async fn stage(house: &House) -> Value {
    house.json(&["status", STAGE]).await["services"][0]["stages"][0].clone()
}

/// Waits until the rollout is in this place.
async fn is_in(house: &House, place: &str) -> Value {
    until(&format!("the rollout is in {place}"), async || {
        let stage = stage(house).await;
        (stage["rollout"]["place"] == place).then_some(stage)
    })
    .await
}

fn kinds(waits: &Value) -> Vec<&str> {
    waits.as_array().into_iter().flatten().filter_map(|wait| wait["kind"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_moves_when_somebody_says_so() {
    let (house, proxy, _upstreams) = house(BY_HAND).await;
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
    let first = is_in(&house, "step 1 of 3").await;
    assert_eq!((&first["rollout"]["share_ppm"], &first["rollout"]["next_share_ppm"]), (&0.into(), &100_000.into()));
    assert_eq!(kinds(&first["rollout"]["waits"]), ["resume"], "{first}");

    // A pause keeps it although somebody resumes the step's own wait by it: both end with one word.
    house.run(&["rollout", "pause", STAGE, "--reason", "lunch"]).await.ends(0);
    assert_eq!(kinds(&stage(&house).await["rollout"]["waits"]), ["paused", "resume"]);
    let said = house.run(&["rollout", "pause", STAGE]).await.ends(0);
    assert!(said.out.contains("paused already"), "{}", said.out);
    house.run(&["rollout", "resume", STAGE]).await.ends(0);
    is_in(&house, "step 2 of 3").await;
    assert_eq!(house.serving().await.of(STAGE, 2), Some(("canary", 100_000)));

    // A plan changes nothing.
    let said = house.run(&["rollout", "skip", STAGE, "--plan"]).await.ends(0);
    assert!(said.out.contains("nothing is changed"), "{}", said.out);
    assert_eq!(stage(&house).await["rollout"]["place"], "step 2 of 3");
    house.run(&["rollout", "skip", STAGE, "--reason", "seen enough"]).await.ends(0);
    assert_eq!(house.serving().await.of(STAGE, 2), Some(("stable", 1_000_000)));
    let counts = Client::plain(proxy.http, Speech::Http1).to(HOST).counts(8).await;
    assert_eq!(counts.get("r2"), Some(&8), "{counts:?}");

    let explained = house.json(&["explain", "rollout", STAGE]).await;
    assert_eq!((&explained["outcome"], &explained["release"]), (&"completed".into(), &2.into()), "{explained}");
    let moments: Vec<_> = explained["moments"].as_array().into_iter().flatten().collect();
    let skipped = moments.iter().find(|moment| moment["cause"] == "skipped").expect("somebody skipped");
    assert_eq!((&skipped["reason"], &skipped["share_ppm"]), (&"seen enough".into(), &1_000_000.into()));
    let shown = house.run(&["explain", "rollout", STAGE]).await.ends(0);
    assert!(shown.out.contains("r2 completed at") && shown.out.contains("\"lunch\""), "{}", shown.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_abort_takes_the_release_out_and_marks_it_only_when_asked() {
    let (house, proxy, _upstreams) = house(BY_HAND).await;
    for (arguments, bad) in [(&["--bad"][..], true), (&[][..], false)] {
        if !bad {
            house.run(&["unhold", STAGE, "r2"]).await.ends(0);
        }
        house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
        house.run(&["rollout", "weight", STAGE, "50%"]).await.ends(0);
        is_in(&house, "by hand").await;
        let said = house.run(&[&["rollout", "abort", STAGE][..], arguments].concat()).await.ends(0);
        assert!(said.out.contains("rolled back from r2 to r1"), "{}", said.out);
        let after = stage(&house).await;
        assert_eq!(after["rollout"], Value::Null, "{after}");
        let left = after["releases"].as_array().into_iter().flatten().find(|release| release["release"] == 2);
        assert_eq!(left.expect("it is warm")["bad"], bad, "{after}");
        let counts = Client::plain(proxy.http, Speech::Http1).to(HOST).counts(8).await;
        assert_eq!(counts.get("r1"), Some(&8), "{counts:?}");
        assert_eq!(house.json(&["explain", "rollout", STAGE]).await["outcome"], "rolled back");
    }
    for verb in ["pause", "resume", "skip", "abort"] {
        house.run(&["rollout", verb, STAGE]).await.ends(1).complains_once(&["no release is on its way into"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_is_moved_by_whoever_may_promote_and_aborted_by_whoever_may_roll_back() {
    let (house, _proxy, _upstreams) = house(BY_HAND).await;
    let promotes = house.operator_with("promotes", &["--allow", "read,promote"]).await;
    let rolls_back = house.operator_with("rolls-back", &["--allow", "read,rollback"]).await;
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
    for verb in ["pause", "resume", "skip"] {
        house.run_as(&rolls_back, &["rollout", verb, STAGE]).await.ends(1).complains(&["may not promote"]);
        house.run_as(&promotes, &["rollout", verb, STAGE]).await.ends(0);
    }
    house.run_as(&promotes, &["rollout", "abort", STAGE]).await.ends(1).complains(&["may not rollback"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_watch_ends_with_the_rollout_and_its_code() {
    let (house, _proxy, _upstreams) = house(BY_HAND).await;
    for (end, code, outcome) in [("abort", 1, "r2 rolled back"), ("weight", 0, "r2 completed")] {
        house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
        let watched = house.run(&["rollout", "watch", STAGE]);
        let moves = async {
            is_in(&house, "step 1 of 3").await;
            let more: &[&str] = if end == "weight" { &["100%"] } else { &[] };
            house.run(&[&["rollout", end, STAGE], more].concat()).await.ends(0);
        };
        let (said, ()) = tokio::join!(watched, moves);
        let said = said.ends(code);
        assert!(said.out.contains(outcome), "{}", said.out);
        // Once more: there is none under way, and the last one counts.
        let again = house.run(&["rollout", "watch", STAGE]).await.ends(code);
        assert!(again.out.contains(outcome), "{}", again.out);
    }
}

/// Needs what proxies count for rollouts, and the judge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_with_small_steps_runs_to_its_end_by_itself_and_fails_no_request() {
    let steps = r#"{ share = "1%", requests = 5 }, { share = "20%", for = "1s" }, { share = "50%", for = "1s", requests = 50 }, { share = "100%" }"#;
    let (house, proxy, _upstreams) = house(steps).await;
    let load = Load::start(&[proxy.https], &house.authority());
    load.reaches(200).await;
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
    house.run(&["rollout", "watch", STAGE]).await.ends(0);
    assert_eq!(house.serving().await.of(STAGE, 2), Some(("stable", 1_000_000)));
    load.goes_on(200).await;
    let counted = load.ends_without_failure();
    assert!(counted.by_release["r1"] > 0 && counted.by_release["r2"] > 0, "{counted:?}");

    let explained = house.json(&["explain", "rollout", STAGE]).await;
    let moments: Vec<_> = explained["moments"].as_array().into_iter().flatten().collect();
    let earned: Vec<_> = moments.iter().filter(|moment| moment["cause"] == "earned").collect();
    assert_eq!(earned.len(), 3, "{explained}");
    for (moment, share) in earned.iter().zip([200_000, 500_000, 1_000_000]) {
        assert_eq!(moment["share_ppm"], share, "{moment}");
        assert_eq!(moment["by"], "controller");
        assert!(moment["canary"]["requests"].as_u64() > Some(0), "{moment}");
    }
}

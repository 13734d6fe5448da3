//! Releases that cannot be left: a person is asked, and nothing goes back past them by itself.

use serde_json::Value;

use crate::harness::{Client, HOST, House, Load, PROGRAM, SERVICE, STAGE, Speech, Temper, Upstream, script, until};

const WHY: &str = "drops the column names";

/// Half of its requests to the new release from the first step on, which lasts for longer than anybody waits.
const CANARY: &str = r#"strategy = "canary"
steps = [{ share = "50%", for = "30d" }, { share = "100%" }]
"#;

/// What `status` says of the stage.
async fn stage(house: &House) -> Value {
    house.json(&["status", STAGE]).await["services"][0]["stages"][0].clone()
}

/// A rollback by somebody at a terminal, who types this when asked.
async fn at_a_terminal(house: &House, typed: &str) -> String {
    let context = house.context();
    let context = context.to_str().expect("UTF-8");
    script("terminal.py", &["to do it now:", typed, PROGRAM, "--context", context, "rollback", STAGE]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_asks_before_it_passes_a_release_that_cannot_be_left() {
    let mut house = House::with_hello().await;
    let (r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 2).await;
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);

    house.run(&["release", "mark", "hello@r2", "--not-reversible"]).await.ends(2);
    house.run(&["release", "mark", "hello@r2", "--not-reversible", "--reason", WHY]).await.ends(0);
    assert_eq!(house.json(&["release", "show", "hello@r2"]).await["not_reversible"]["reason"], WHY);
    // Whoever may not roll back takes no mark away, nor gives it another reason.
    let builds = house.operator_with("builds", &["--allow", "read,release"]).await;
    for more in [&["--reversible"][..], &["--not-reversible", "--reason", "nothing"]] {
        let arguments = [&["release", "mark", "hello@r2"], more].concat();
        house.run_as(&builds, &arguments).await.ends(1).complains_once(&["may not rollback"]);
    }
    let listed = house.run(&["release", "list", "hello"]).await.ends(0).out;
    assert_eq!(listed.matches("ready, not reversible").count(), 1, "{listed}");
    let back = stage(&house).await["back"].clone();
    assert_eq!((&back["release"], &back["past"]), (&1.into(), &2.into()), "{back}");
    let shown = house.run(&["status"]).await.ends(0).out;
    assert!(shown.contains("not reversible: drops") && shown.contains("`--past r2`"), "{shown}");

    // Nobody is there to be asked.
    let words = ["r1 is behind r2, which is marked not reversible", WHY, "`--past r2`"];
    for more in [&[][..], &["--plan"], &["-o", "json"], &["--to", "r1"], &["--past", "r3"]] {
        house.run(&[&["rollback", STAGE], more].concat()).await.ends(1).complains_once(&words);
    }
    house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(1).complains_once(&words);
    // Somebody is, and types something else.
    for typed in ["y", "hello@r1", "r2"] {
        let said = at_a_terminal(&house, typed).await;
        assert!(said.contains(WHY) && said.contains("type hello@r2 to do it now:"), "{said}");
        assert!(said.contains("hello@r2 was not typed: nothing was changed") && said.ends_with("\n1\n"), "{said}");
    }
    assert_eq!(house.serving().await.of(STAGE, 2), Some(("stable", 1_000_000)));

    let plan = house.run(&["rollback", STAGE, "--past", "r2", "--plan"]).await.ends(0).out;
    assert!(plan.contains("nothing is changed") && plan.contains(WHY), "{plan}");
    let said = at_a_terminal(&house, "hello@r2").await;
    assert!(said.contains("done: from r2 to r1") && said.ends_with("\n0\n"), "{said}");
    let counts = Client::plain(proxy.http, Speech::Http1).to(HOST).counts(8).await;
    assert_eq!(counts.get("r1"), Some(&8), "{counts:?}");
    let passed = house.history().await.into_iter().find(|one| one.kind == "marks_passed").expect("on record");
    assert!(passed.what.contains("back to r1 past r2") && passed.what.contains(WHY), "{}", passed.what);

    // A bad one that cannot be left: it stays, and says why, also after the controller was killed.
    house.apply(&[("pointsman.toml", &[SERVICE, CANARY].concat())]).await;
    let r3 = Upstream::tempered("r3", Temper::Fails { ppm: 1_000_000, seed: 3 }).await;
    assert_eq!(house.release(&r3).await, "hello@r3");
    house.run(&["release", "mark", "hello@r3", "--not-reversible", "--reason", "drops the table"]).await.ends(0);
    let load = Load::start(&[proxy.https], &house.authority());
    load.reaches(200).await;
    house.run(&["promote", "hello@r3", "--to", "production"]).await.ends(0);
    let frozen = until("the rollout is frozen", async || {
        let frozen = stage(&house).await["rollout"]["frozen"].as_str().unwrap_or_default().to_owned();
        (!frozen.is_empty()).then_some(frozen)
    })
    .await;
    assert!(
        frozen.contains("does not go out by itself because of r3") && frozen.contains("drops the table"),
        "{frozen}"
    );
    house.kill_controller();
    house.start_controller(&[]).await;
    house.run(&["rollout", "abort", STAGE]).await.ends(1).complains_once(&["`--past r3`", "drops the table"]);
    let explained = house.run(&["explain", "rollout", STAGE]).await.ends(0).out;
    assert!(explained.contains("it did not go out by itself because of r3"), "{explained}");
    house.run(&["rollout", "abort", STAGE, "--past", "r3", "--reason", "restored from a backup"]).await.ends(0);
    assert_eq!(house.serving().await.of(STAGE, 1), Some(("stable", 1_000_000)));
    let by_itself = house.history().await.into_iter().filter(|one| one.kind == "rolled_back" && one.by == "controller");
    assert_eq!(by_itself.count(), 0);
    assert!(r1.requests() > 0);

    // Without the mark nothing is asked.
    house.run(&["release", "mark", "hello@r3", "--reversible"]).await.ends(0);
    assert_eq!(house.json(&["release", "show", "hello@r3"]).await["not_reversible"], Value::Null);
}

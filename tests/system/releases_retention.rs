//! Retention: what nobody needs goes, and never what serves or could be rolled back to.

use crate::harness::{Client, HOST, House, Repository, STAGE, Speech, until};

const AGENTS: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\nkeep_warm = \"1s\"\n\
                      target = { kind = \"agent\", group = \"prod\" }\n";

async fn numbers(house: &House) -> Vec<u64> {
    let list = house.json(&["release", "list", "hello", "--all"]).await;
    let all = list["releases"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|release| release["number"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_retention_never_takes_what_serves_or_could_be_rolled_back_to() {
    let mut house = House::with_controller().await;
    let repository = Repository::new(house.path("hello"));
    let keep = "schema = 1\n[keep]\nreleases = 1\nartifacts = 1\nback = 1\n";
    let files = [("production.toml", AGENTS), ("releases.toml", keep), ("pointsman.toml", &repository.service())];
    house.apply(&files).await;
    house.agent("a1", "prod").await;
    let proxy = house.proxy("p1", 1).await;
    let serves = async |release: &str| {
        let answer = Client::plain(proxy.http, Speech::Http1).to(HOST).asks().await;
        assert_eq!((answer.status, answer.release.as_str()), (200, release));
    };
    let log = |house: &House, number: u64| house.path(&format!("controller/logs/hello/r{number}.log"));
    for number in 1..=4u64 {
        repository.commit(&format!("commit {number}"));
        let release = format!("hello@r{number}");
        house.run(&["release", "build", "hello", "--again"]).await.ends(0);
        house.run(&["promote", &release, "--to", "production"]).await.ends(0);
        serves(&format!("r{number}")).await;
    }
    // r4 serves, r3 is where a rollback would go.
    until("the others are gone", async || (numbers(&house).await == [4, 3]).then_some(())).await;
    until("and their logs", async || (!log(&house, 1).exists() && !log(&house, 2).exists()).then_some(())).await;
    assert!(log(&house, 3).exists() && log(&house, 4).exists());
    house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(1);
    until("r3 has left", async || house.serving().await.of(STAGE, 3).is_none().then_some(())).await;

    // It starts from what was kept, also after the controller was killed and the agent has forgotten everything.
    house.kill_controller();
    house.start_controller(&[]).await;
    house.run(&["rollback", STAGE]).await.ends(0);
    until("r3 serves again", async || {
        let answer = Client::plain(proxy.http, Speech::Http1).to(HOST).get().await.ok()?;
        (answer.release == "r3").then_some(())
    })
    .await;
    // Numbers of what is forgotten are not given again.
    repository.commit("commit 5");
    house.run(&["release", "build", "hello", "--again"]).await.ends(0);
    assert_eq!(numbers(&house).await.first(), Some(&5));
    assert!(numbers(&house).await.contains(&3), "it serves");
    serves("r3").await;
    let gone: Vec<_> = house.history().await.into_iter().filter(|one| one.kind == "release_forgotten").collect();
    assert!(gone.iter().all(|one| one.by == "controller" && one.about != "hello@r3"), "{gone:?}");
}

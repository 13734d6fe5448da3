//! Many rollouts one after the other under load, half of them of a bad release, while the controller dies at any moment:
//! each ends where it should, by steps that it earned. `POINTSMAN_LONG` makes them 200, `POINTSMAN_SEED` repeats a run.

use std::collections::BTreeMap;
use std::time::Duration;

use api::operator::ExplainRolloutRequest;
use serde_json::Value;

use crate::harness::{
    Changed, Client, Dice, HOST, House, Load, Operator, Proxy, SERVICE, STAGE, Speech, Temper, Upstream, alone,
    is_broken, now_ms, request_id, until,
};

/// What a step asks for before the next one comes.
struct Step {
    share_ppm: u64,
    least_ms: u64,
    requests: u64,
}

const STEPS: [Step; 3] = [
    Step { share_ppm: 20_000, least_ms: 0, requests: 10 },
    Step { share_ppm: 100_000, least_ms: 500, requests: 50 },
    // Enough to show 5 % of failures although nothing is remembered of what was before a crash: some 35 of them, and about 10
    // would do.
    Step { share_ppm: 300_000, least_ms: 1_000, requests: 700 },
];
const ALL_PPM: u64 = 1_000_000;

/// The judge's own idea of slow would follow how busy the machine is.
const WAY: &str = r#"strategy = "canary"
margin = { slow = "150ms" }
steps = [
  { share = "2%", requests = 10 },
  { share = "10%", for = "500ms", requests = 50 },
  { share = "30%", for = "1s", requests = 700 },
  { share = "100%" },
]
"#;
const PROXIES: [&str; 2] = ["p1", "p2"];

/// When the controller is killed.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// So many requests after the promotion was sent, whether it has been answered by then or not.
    AmidPromotion(u64),
    /// As soon as the promotion was answered.
    AfterPromotion,
    /// When the release has had so many requests, or its rollout has ended.
    At(u64),
}

/// One rollout as it is drawn.
#[derive(Debug)]
struct Plan {
    temper: Temper,
    kills: Vec<Kill>,
}

struct Story {
    house: House,
    proxies: [Proxy; 2],
    load: Load,
    dice: Dice,
    stable: u32,
    /// Releases that have to fail, with what they answered.
    bad: BTreeMap<String, Upstream>,
    tally: Tally,
}

/// For the line at the end.
#[derive(Debug, Default)]
struct Tally {
    completed: u32,
    rolled_back: BTreeMap<String, u32>,
    kills: u64,
    steps: usize,
    longest_ms: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_many_under_load_end_where_they_should() {
    let _alone = alone().await;
    let rollouts = if std::env::var_os("POINTSMAN_LONG").is_some() { 200 } else { 10 };
    let mut story = Story::begins().await;
    for plan in story.draws(rollouts) {
        story.tells(plan).await;
    }
    story.ends(rollouts).await;
}

// === impl Story ===

impl Story {
    async fn begins() -> Self {
        let dice = Dice::thrown();
        let mut house = House::with_hello().await;
        let first = Upstream::start("r1").await;
        house.release(&first).await;
        house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(0);
        house.apply(&[("pointsman.toml", &[SERVICE, WAY].concat())]).await;
        let proxies = [house.proxy(PROXIES[0], 2).await, house.proxy(PROXIES[1], 2).await];
        let load = Load::start(&proxies.map(|proxy| proxy.https), &house.authority());
        load.reaches(200).await;
        Self { house, proxies, load, dice, stable: 1, bad: BTreeMap::new(), tally: Tally::default() }
    }

    /// One of each two is bad, in each of the three ways in turn.
    fn draws(&mut self, rollouts: u64) -> Vec<Plan> {
        let dice = &mut self.dice;
        let mut plans = Vec::new();
        let first = dice.below(3);
        for pair in 0..rollouts / 2 {
            let seed = dice.next();
            let bad = match (first + pair) % 3 {
                0 => Temper::Fails { ppm: 50_000, seed },
                1 => Temper::Fails { ppm: 500_000, seed },
                _ => Temper::Slow { ppm: 500_000, seed, by: Duration::from_millis(300) },
            };
            let both = if dice.below(2) == 0 { [bad, Temper::Well] } else { [Temper::Well, bad] };
            plans.extend(both.map(|temper| Plan { temper, kills: kills(dice) }));
        }
        plans
    }

    /// One rollout from its promotion to its end.
    async fn tells(&mut self, plan: Plan) {
        let number = 2 + self.tally.completed + self.tally.rolled_back.values().sum::<u32>();
        let name = format!("r{number}");
        let release = Upstream::tempered(&name, plan.temper).await;
        assert_eq!(self.house.release(&release).await, format!("hello@{name}"));
        println!("{name}: {plan:?}");
        let killed_ms = self.rolls(number, &release, &plan).await;
        let mut operator = self.house.operator();
        until(&format!("{name} ends"), async || has_ended(&mut operator, number).await.then_some(())).await;

        let explained = self.house.json(&["explain", "rollout", STAGE]).await;
        let shown = format!("{plan:?} of {name}, killed at {killed_ms:?}: {explained:#}");
        let steps = took_its_steps(&explained, &release, &killed_ms, &shown);
        self.ended_where_it_should(number, plan.temper, &explained, &shown).await;
        if plan.temper.is_bad() {
            self.bad.insert(name, release);
        } else {
            assert_eq!(steps, STEPS.len(), "{shown}");
            self.stable = number;
        }
        self.tally.kills += killed_ms.len() as u64;
        self.tally.steps += steps;
        let took_ms =
            explained["ended_ms"].as_u64().zip(explained["began_ms"].as_u64()).map(|(end, began)| end - began);
        self.tally.longest_ms = self.tally.longest_ms.max(took_ms.expect("times"));
    }

    /// Promotes a release, and kills the controller when the plan says so: the times of that.
    async fn rolls(&mut self, number: u32, release: &Upstream, plan: &Plan) -> Vec<u64> {
        let (id, mut killed_ms) = (request_id(), Vec::new());
        let (mut operator, sent) = (self.house.operator(), id.clone());
        let promotion = tokio::spawn(async move { operator.send(&sent, Changed::promote(number, None)).await });
        if let Some(Kill::AmidPromotion(requests)) = plan.kills.first() {
            self.load.goes_on(*requests).await;
            killed_ms.push(self.kills().await);
        }
        match promotion.await.expect("it ends") {
            Ok(changed) => assert!(changed.outcome.failed.is_empty(), "{changed:#?}"),
            Err(status) => {
                assert!(is_broken(&status) && !killed_ms.is_empty(), "{status:?}");
                // The same request again: whether it was recorded or not, it is one promotion.
                let again = self.house.operator().send(&id, Changed::promote(number, None)).await;
                assert!(again.expect("answered").outcome.failed.is_empty());
            }
        }
        for kill in &plan.kills {
            match kill {
                Kill::AmidPromotion(_) => continue,
                Kill::AfterPromotion => {}
                Kill::At(requests) => {
                    let mut operator = self.house.operator();
                    until(&format!("{requests} requests to r{number}"), async || {
                        let enough = release.requests() >= *requests || has_ended(&mut operator, number).await;
                        enough.then_some(())
                    })
                    .await;
                }
            }
            killed_ms.push(self.kills().await);
        }
        killed_ms
    }

    /// The controller is away for a while; when it was killed, in Unix milliseconds.
    async fn kills(&mut self) -> u64 {
        self.house.kill_controller();
        let killed_ms = now_ms();
        self.load.goes_on(self.dice.below(300)).await;
        self.house.start_controller(&[]).await;
        killed_ms
    }

    /// Bad ones are out and marked, good ones are stable, and every proxy has it so.
    async fn ended_where_it_should(&mut self, number: u32, temper: Temper, explained: &Value, shown: &str) {
        let (serves, outcome) = if temper.is_bad() { (self.stable, "rolled back") } else { (number, "completed") };
        assert_eq!((&explained["outcome"], &explained["release"]), (&outcome.into(), &number.into()), "{shown}");
        let serving = self.house.serving().await;
        assert_eq!(serving.of(STAGE, serves.into()), Some(("stable", ALL_PPM)), "{shown}");
        let is_marked = serving.stages.iter().any(|(_, release, .., bad)| *release == u64::from(number) && *bad);
        assert_eq!(is_marked, temper.is_bad(), "{shown}");
        for (name, proxy) in PROXIES.iter().zip(self.proxies) {
            self.house.follows(name).await;
            let counts = Client::plain(proxy.http, Speech::Http1).to(HOST).counts(8).await;
            assert_eq!(counts.get(&format!("r{serves}")), Some(&8), "{counts:?}: {shown}");
        }
        if !temper.is_bad() {
            self.tally.completed += 1;
            return;
        }
        let cause = explained["moments"].as_array().and_then(|moments| moments.last()?["cause"].as_str());
        let cause = cause.filter(|cause| ["worse", "tripped"].contains(cause));
        *self.tally.rolled_back.entry(cause.expect(shown).to_owned()).or_default() += 1;
    }

    async fn ends(self, rollouts: u64) {
        let Self { house, load, dice, bad, tally, .. } = self;
        load.goes_on(200).await;
        let counted = load.counted();
        for (name, failed) in &counted.failed_by_release {
            let answered = bad.get(name).map_or(0, Upstream::failed);
            assert!(
                *failed <= answered,
                "{name} failed {answered} times, callers saw {failed}: {:#?}",
                counted.examples
            );
        }
        let history = house.history().await;
        assert!(history.windows(2).all(|pair| pair[1].event == pair[0].event + 1), "the history has no gap");
        let of = |kind: &str| history.iter().filter(|entry| entry.kind == kind).count() as u64;
        assert_eq!(of("started"), tally.kills + 1);
        assert_eq!((of("promoted"), of("rolled_back")), (rollouts + 1, rollouts / 2));
        let Tally { completed, rolled_back, kills, steps, longest_ms } = tally;
        println!(
            "rollouts: {rollouts} by seed {}, {completed} completed, rolled back {rolled_back:?}, the controller killed {kills} \
             times, {steps} steps taken, the longest {longest_ms} ms; {} requests, {} failed, all of them bad releases' own answers",
            dice.seed, counted.requests, counted.failed
        );
    }
}

fn kills(dice: &mut Dice) -> Vec<Kill> {
    let mut kills = Vec::new();
    for place in 0..dice.below(3) {
        kills.push(match dice.below(4) {
            0 if place == 0 => Kill::AmidPromotion(dice.below(40)),
            1 if place == 0 => Kill::AfterPromotion,
            _ => Kill::At(1 + dice.below(700)),
        });
    }
    kills
}

/// Whether the rollout of a release is over; false while nobody answers.
async fn has_ended(operator: &mut Operator, number: u32) -> bool {
    let asked = ExplainRolloutRequest { stage: STAGE.to_owned(), release: None };
    let answer = operator.calls.explain_rollout(asked).await.map(tonic::Response::into_inner);
    answer.is_ok_and(|explained| explained.release == number && explained.outcome != "under way")
}

/// Each step came once, in order, by itself, and with all that the one before asked for: how many came.
///
/// What was counted before the controller died counts no more: the requests of a step are no more than the release has been asked
/// since.
fn took_its_steps(explained: &Value, release: &Upstream, killed_ms: &[u64], shown: &str) -> usize {
    let moments = explained["moments"].as_array().expect("moments");
    let promoted: Vec<_> = moments.iter().filter(|moment| moment["kind"] == "promoted").collect();
    assert_eq!((promoted.len(), &promoted[0]["share_ppm"]), (1, &STEPS[0].share_ppm.into()), "{shown}");
    let taken: Vec<_> = moments.iter().filter(|moment| moment["kind"] == "step_taken").collect();
    let times = release.times();
    let (mut since_ms, mut counted) = (number(&promoted[0]["at_ms"]), 0);
    for (place, (step, moment)) in STEPS.iter().zip(&taken).enumerate() {
        let next_ppm = STEPS.get(place + 1).map_or(ALL_PPM, |next| next.share_ppm);
        assert_eq!((number(&moment["share_ppm"]), &moment["cause"]), (next_ppm, &"earned".into()), "{shown}");
        assert_eq!(moment["by"], "controller", "{shown}");
        let (at_ms, requests) = (number(&moment["at_ms"]), requests_of(moment));
        assert!(at_ms - since_ms >= step.least_ms && requests >= step.requests, "early: {moment:#} of {shown}");
        if let Some(died_ms) = killed_ms.iter().rfind(|ms| (since_ms..at_ms).contains(*ms)) {
            let asked = times.iter().filter(|ms| (*died_ms..=at_ms).contains(*ms)).count() as u64;
            assert!(requests <= asked, "{asked} requests since the restart: {moment:#} of {shown}");
        }
        counted += requests;
        since_ms = at_ms;
    }
    assert!(taken.len() <= STEPS.len(), "{shown}");
    // No request counts for two steps.
    let asked = times.iter().filter(|ms| **ms <= since_ms).count() as u64;
    assert!(counted <= asked, "{counted} counted, {asked} asked: {shown}");
    taken.len()
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// The event says it in words: "...: 120 requests in 1s, nothing shows ...".
fn requests_of(moment: &Value) -> u64 {
    let what = moment["what"].as_str().expect("a sentence");
    let earned = what.split_once(" requests").and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok());
    earned.unwrap_or_else(|| panic!("no requests in {what:?}"))
}

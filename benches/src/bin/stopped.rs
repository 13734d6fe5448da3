//! How long a release that turns bad in the middle of its rollout goes on, once there is enough to tell: until all proxies are
//! ACTIVE on the release before, and until the last request reaches the bad one.
//!
//! Real processes and a steady load. The upstreams run in this program and note when they answered what, so that the judge
//! can be asked again, answer by answer, by which of them it could have known. See the README for the path.

// The judge alone, by its files: the controller would bring its store and its servers with it.
#[allow(dead_code, unused_imports, unreachable_pub, reason = "the controller uses more of it")]
#[path = "../../../controller/src"]
mod controller {
    pub(crate) mod judge;
}

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::Share;
use api::operator::change_request::Verb;
use api::operator::{Promote, StatusReply, Unhold};
use clap::Parser;
use controller::judge::{Answered, Block, Judge, Terms, Verdict};
use pointsman_benches::Problem;
use pointsman_benches::distribution::Samples;
use pointsman_benches::fleet::Fleet;
use pointsman_benches::load::Load;
use pointsman_benches::operator::{Operator, promote};
use pointsman_benches::report::{Common, Report};
use pointsman_benches::turning::{Answer, Turning};

const STAGE: &str = "hello/production";
const HOST: &str = "hello.production.localhost";
const ALL: u32 = 1_000_000;
/// The two kinds of bad: every tenth answer, which the tripwires leave to the judge, and every one.
const TENTH: u64 = 10;
const EACH: u64 = 1;
/// Failures of one worker by which its tripwire acts.
const TRIPS_AT: usize = 5;
/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(2);
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is under way when all is over has come by then.
const REST: Duration = Duration::from_millis(50);

/// Measure from the answer that shows a release to be bad until nobody is sent to it any more.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Rollouts of each of the four kinds.
    #[arg(long, value_name = "N", default_value_t = 100)]
    rounds: u64,
    /// Proxies in the fleet, with one worker each.
    #[arg(long, value_name = "N", default_value_t = 4)]
    proxies: usize,
    /// Requests per second through all proxies together.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1_000)]
    load: u32,
}

/// What is measured with.
struct Bench {
    operator: Operator,
    stable: Turning,
    canary: Turning,
}

/// One rollout that was stopped.
struct Stopped {
    turned: Instant,
    /// All proxies were known to be ACTIVE on the release before.
    active: Instant,
    /// Answers since the promotion, oldest first.
    canary: Vec<Answer>,
    stable: Vec<Answer>,
    /// "worse" or "tripped".
    cause: String,
    /// Of the canary, as the record counts them; 0: it does not say.
    counted: usize,
}

/// One kind of rollout.
#[derive(Default)]
struct Kind {
    lines: BTreeMap<&'static str, Samples>,
    causes: BTreeMap<String, u64>,
    /// Requests of the bad release after the one that decides.
    afterwards: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Problem> {
    let arguments = Arguments::parse();
    let folder = arguments.common.run_folder()?;
    let mut fleet = Fleet::new(&arguments.common.binary, folder.path())?;
    let operator = fleet.controller()?;
    for number in 1..=arguments.proxies {
        fleet.proxy(&operator, &format!("p{number}"), 1).await?;
    }
    let bench = Bench { operator, stable: Turning::start("r1")?, canary: Turning::start("r2")? };
    bench.set_up().await?;
    let load = Load::start(&fleet.proxies, HOST, arguments.load);
    let mut report = Report::new("stopped", &arguments.common);
    for (share, every) in [("50%", TENTH), ("20%", TENTH), ("50%", EACH), ("20%", EACH)] {
        bench.apply(share).await?;
        let mut kind = Kind::default();
        for round in 0..arguments.rounds {
            // Not in step with the reports, which come once a second: each part of it alike often.
            let well = Duration::from_millis(500 + round * 618 % 1_000);
            kind.push(&bench.round(well, every, arguments.proxies).await?, every);
        }
        kind.tell(share, every, &mut report);
    }
    let (answered, failed) = load.end();
    report.fact("proxies", arguments.proxies);
    report.fact("requests a second", arguments.load);
    report.fact("requests answered well", answered);
    report.fact("requests failed, of the bad release", failed);
    report.tell(None, arguments.common.json.as_deref())
}

// === impl Bench ===

impl Bench {
    /// Two releases of which the first serves.
    async fn set_up(&self) -> Result<(), Problem> {
        self.apply("50%").await?;
        for release in [&self.stable, &self.canary] {
            self.operator.add_release("hello", release.address).await?;
        }
        self.operator.change(promote("hello@r1".into(), "production", ALL), false).await?;
        Ok(())
    }

    /// A canary with this share, which it keeps: nobody sends it ten million requests.
    async fn apply(&self, share: &str) -> Result<(), Problem> {
        let environment = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                           target = { kind = \"static\" }\n";
        let service = format!(
            "schema = 1\nservice = \"hello\"\n[component.web]\nfolder = \"dist\"\nprotocol = \"h1\"\n\
             [stage.production]\npublic = true\nstrategy = \"canary\"\nmargin = {{ slow = \"300ms\" }}\n\
             steps = [{{ share = \"{share}\", requests = 10_000_000 }}, {{ share = \"100%\" }}]\n"
        );
        self.operator
            .apply(vec![("production.toml".into(), environment.into()), ("pointsman.toml".into(), service)])
            .await
    }

    /// One rollout: well for a while, then bad, until it is stopped everywhere.
    async fn round(&self, well: Duration, every: u64, proxies: usize) -> Result<Stopped, Problem> {
        let begin = Promote { release: "hello@r2".into(), environment: "production".into(), ..Default::default() };
        self.canary.take();
        self.operator.change(Verb::Promote(begin), false).await?;
        self.stable.take();
        tokio::time::sleep(well).await;
        let turned = Instant::now();
        self.canary.fails_every(every);
        let active = self.waits(proxies).await?;
        tokio::time::sleep(REST).await;
        let explained = self.operator.explain_rollout(STAGE).await?;
        let last = explained.moments.last().ok_or("the rollout has no end")?;
        let counted = last.canary.as_ref().map_or(0, |counts| counts.failed);
        let counted = usize::try_from(counted)?;
        let (canary, stable) = (self.canary.take(), self.stable.take());
        self.canary.fails_every(0);
        // A rollback marks r2 bad, and what is bad cannot be promoted. No proxy hears of this change.
        self.operator.change(Verb::Unhold(Unhold { stage: STAGE.into(), release: 2 }), false).await?;
        Ok(Stopped { turned, active, canary, stable, cause: last.cause.clone(), counted })
    }

    /// Waits until the rollout is over and every proxy ACTIVE on what is served then; when that was.
    async fn waits(&self, proxies: usize) -> Result<Instant, Problem> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if is_over(&self.operator.status().await?, proxies) {
                return Ok(Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err("the bad release was not stopped within a minute".into())
    }
}

fn is_over(status: &StatusReply, proxies: usize) -> bool {
    let mut stages = status.services.iter().flat_map(|service| &service.stages);
    let is_active = |state: &str, version| state == "active" && version == status.version;
    let active = status.fleet.iter().filter(|member| is_active(&member.state, member.version)).count();
    stages.all(|stage| stage.rollout.is_none()) && active == proxies
}

// === impl Stopped ===

impl Stopped {
    fn failures(&self) -> impl Iterator<Item = Instant> {
        self.canary.iter().filter(|answer| answer.failed).map(|answer| answer.at)
    }

    /// The answer by which it could be known: the first by which the judge would have said so, had it heard of each at once, or
    /// the last failure that the verdict counted, whichever was earlier.
    fn decides(&self) -> Option<Instant> {
        let counted = self.counted.checked_sub(1).and_then(|place| self.failures().nth(place));
        self.judged().into_iter().chain(counted).min()
    }

    /// The answer by which a judge that hears of each at once says that it is worse.
    fn judged(&self) -> Option<Instant> {
        let share = |ppm| Share::from_ppm(ppm).expect("below everything");
        // As the file says, and its defaults.
        let mut judge = Judge::new(Terms { errors: share(1_000), slow: Some(share(50_000)), one_in: 1_000 });
        let (canary, stable) = (self.canary.iter(), self.stable.iter());
        let mut all: Vec<_> = canary.map(|one| (one, true)).chain(stable.map(|one| (one, false))).collect();
        all.sort_by_key(|(answer, _)| answer.at);
        all.into_iter().find_map(|(answer, is_canary)| {
            let one = Answered { requests: 1, failed: answer.failed.into(), slow: 0 };
            let (canary, stable) = if is_canary { (one, Answered::default()) } else { (Answered::default(), one) };
            judge.add(0, &Block { canary, stable });
            matches!(judge.verdict(), Verdict::Worse { .. }).then_some(answer.at)
        })
    }
}

// === impl Kind ===

impl Kind {
    fn push(&mut self, stopped: &Stopped, every: u64) {
        *self.causes.entry(stopped.cause.clone()).or_default() += 1;
        let last = stopped.canary.last().map(|answer| answer.at);
        let mut line = |name, from: Option<Instant>, to: Option<Instant>| {
            if let Some((from, to)) = from.zip(to) {
                self.lines.entry(name).or_default().push(to.saturating_duration_since(from));
            }
        };
        let decides = if every == EACH { stopped.failures().nth(TRIPS_AT - 1) } else { stopped.decides() };
        line("1 decided to ACTIVE", decides, Some(stopped.active));
        line("2 decided to last request", decides, last);
        line("3 turned to ACTIVE", Some(stopped.turned), Some(stopped.active));
        let after = stopped.canary.iter().filter(|answer| decides.is_some_and(|at| answer.at > at));
        self.afterwards += after.count() as u64;
    }

    fn tell(&self, share: &str, every: u64, report: &mut Report) {
        let who = if every == EACH { "all fail" } else { "10 % fail" };
        for (name, samples) in &self.lines {
            report.line(&format!("{share}, {who}: {}", &name[2..]), samples);
        }
        let causes: Vec<_> = self.causes.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
        report.fact(&format!("{share}, {who}: ended as"), causes.join(", "));
        let rounds = self.causes.values().sum::<u64>().max(1);
        report.fact(&format!("{share}, {who}: requests after it, mean"), self.afterwards as f64 / rounds as f64);
    }
}

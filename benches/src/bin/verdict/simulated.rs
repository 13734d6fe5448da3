//! Rollouts without a fleet: reports drawn at random, the judge asked after each.

use api::Share;

use crate::controller::judge::{Answered, Block, Judge, Terms, Verdict};
use crate::dice::Dice;
use crate::{MARGIN_PPM, MOST};

/// How often requests fail.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rates {
    /// The canary's from its `from`th request of both on; before, it is as good as stable.
    Apart { canary: f64, stable: f64, from: u64 },
    /// The same for both, up from nothing to `most` and back within so many requests.
    Drifting { most: f64, requests: u64 },
    /// The same for both; of each 20,000 requests, 2,000 in a row fail more often.
    Incidents { usual: f64, during: f64 },
}

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rollout {
    /// The canary's, of the requests.
    pub(crate) share: f64,
    pub(crate) rates: Rates,
    /// How often both are slow; none: that is not judged.
    pub(crate) slow: Option<f64>,
    /// Requests between two looks. None: 1 to 1,000, another number each time; one rollout in 100 looks after each request.
    pub(crate) reports: Option<u64>,
    pub(crate) margin_ppm: u32,
    /// Requests of both after which it ends.
    pub(crate) most: u64,
    pub(crate) until_worse: bool,
    pub(crate) until_no_worse: bool,
}

/// Canary requests at which it was first said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    pub(crate) worse: Option<u64>,
    pub(crate) no_worse: Option<u64>,
}

/// Simulates so many, on all cores; the same ones every time.
pub(crate) fn many(rollouts: usize, rollout: &Rollout) -> Vec<Ended> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let part =
            |thread: usize| (thread..rollouts).step_by(threads).map(|seed| rollout.run(seed)).collect::<Vec<_>>();
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("a simulation does not panic")).collect()
    })
}

// === impl Rates ===

impl Rates {
    pub(crate) fn same(rate: f64) -> Self {
        Self::Apart { canary: rate, stable: rate, from: 0 }
    }

    /// Of the canary and of the stable release, after so many requests of both.
    fn at(self, requests: u64) -> (f64, f64) {
        match self {
            Self::Apart { canary, stable, from } => (if requests < from { stable } else { canary }, stable),
            Self::Drifting { most, requests: all } => {
                let turn = std::f64::consts::TAU * requests as f64 / all as f64;
                let rate = most * (1.0 - turn.cos()) / 2.0;
                (rate, rate)
            }
            Self::Incidents { usual, during } => {
                let rate = if requests % 20_000 < 2_000 { during } else { usual };
                (rate, rate)
            }
        }
    }

    fn counted_from(self) -> u64 {
        if let Self::Apart { from, .. } = self { from } else { 0 }
    }
}

// === impl Rollout ===

impl Rollout {
    /// Errors alone, reports of 20 requests, until there is a verdict.
    pub(crate) fn new(share: f64, rates: Rates) -> Self {
        Self {
            share,
            rates,
            slow: None,
            reports: Some(20),
            margin_ppm: MARGIN_PPM,
            most: MOST,
            until_worse: true,
            until_no_worse: true,
        }
    }

    fn run(&self, seed: usize) -> Ended {
        let mut dice = Dice::new(seed as u64);
        let share = |ppm| Share::from_ppm(ppm).expect("below everything");
        let terms = Terms { errors: share(self.margin_ppm), slow: self.slow.map(|_| share(50_000)), one_in: 1_000 };
        let mut judge = Judge::new(terms);
        judge.know_slow(0);
        let (mut ended, mut requests, mut canary_requests) = (Ended::default(), 0, 0);
        while requests < self.most {
            let size = match self.reports {
                Some(size) => size,
                None if seed.is_multiple_of(100) => 1,
                None => [1, 5, 30, 200, 1_000][(dice.next() % 5) as usize],
            };
            let block = self.report(&mut dice, size, requests);
            requests += size;
            if requests > self.rates.counted_from() {
                canary_requests += block.canary.requests;
            }
            judge.add(0, &block);
            match judge.verdict() {
                Verdict::Worse { .. } => ended.worse = ended.worse.or(Some(canary_requests)),
                Verdict::NoWorse => ended.no_worse = ended.no_worse.or(Some(canary_requests)),
                Verdict::NotYet { .. } => {}
            }
            if (self.until_worse && ended.worse.is_some()) || (self.until_no_worse && ended.no_worse.is_some()) {
                break;
            }
        }
        ended
    }

    fn report(&self, dice: &mut Dice, size: u64, before: u64) -> Block {
        let (canary, stable) = self.rates.at(before);
        let requests = dice.binomial(size, self.share);
        let mut answered = |requests: u64, rate: f64| Answered {
            requests,
            failed: dice.binomial(requests, rate),
            slow: dice.binomial(requests, self.slow.unwrap_or(0.0)),
        };
        Block { canary: answered(requests, canary), stable: answered(size - requests, stable) }
    }
}

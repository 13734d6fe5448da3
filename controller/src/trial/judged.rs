//! What proxies counted for rollouts under way, as the judge takes it: both releases side by side, report by report and epoch by
//! epoch.
//!
//! Must not know: verdicts, or what becomes of a rollout. `now` is an argument.
//!
//! Main types: [`Guarded`], what is counted; [`Ledger`], what every proxy has said of it; [`Heard`], what is new.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use api::fleet::{Counts, Judged};
use api::{Histogram, MemberName};

use crate::judge::{Answered, Block};

/// What proxies were told to count for a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guarded {
    /// Of the rollout.
    pub(crate) number: u64,
    /// The newest; counts of the last [`api::EPOCHS_MOST`] are taken in.
    pub(crate) epoch: u32,
    /// Of this epoch and older ones, what a proxy says first is not news: it was before the controller started. None: all is.
    pub(crate) unheard: Option<u32>,
    pub(crate) canary: u32,
    /// 0: there is none.
    pub(crate) stable: u32,
}

/// What every proxy has counted, as it said last. Of stages that nobody asks for it keeps nothing.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// When the first proxy said anything.
    since: Option<Instant>,
    proxies: HashMap<MemberName, Run>,
}

/// A proxy that said nothing for so long, ten reports, was out of touch: what it counted meanwhile is of no one time.
const OUT_OF_TOUCH: Duration = Duration::from_secs(10);

/// So long it takes at most until all pieces of a first report are there.
const PIECES: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Run {
    /// 0: nothing was heard yet.
    number: u64,
    /// It began while somebody listened.
    is_young: bool,
    /// When it was heard last.
    heard: Option<Instant>,
    /// Until then it says what it counted while it was out of touch.
    old_until: Option<Instant>,
    said: HashMap<String, Said>,
}

/// What one proxy has said of one stage.
#[derive(Debug, Default)]
struct Said {
    /// Of the rollout.
    number: u64,
    /// By epoch and release.
    sums: BTreeMap<(u32, u32), Sum>,
}

/// Counts of one release.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sum {
    pub(crate) answered: Answered,
    pub(crate) latency: Histogram,
}

/// What is new in one report, of one stage in one epoch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    pub(crate) epoch: u32,
    pub(crate) block: Block,
    /// Of the release that enters.
    pub(crate) latency: Histogram,
    /// Of the other.
    pub(crate) stable_latency: Histogram,
}

impl Guarded {
    /// Whether a proxy speaks of this.
    pub(super) fn is_of(self, rollout: u64, release: u32) -> bool {
        (self.number, self.canary) == (rollout, release)
    }

    /// Whether an epoch is among those that are listened to. One that is not, never is again, so nothing counts twice.
    fn hears(self, epoch: u32) -> bool {
        self.epoch.checked_sub(epoch).is_some_and(|age| (age as usize) < api::EPOCHS_MOST)
    }
}

impl Ledger {
    /// Nothing is known of a proxy any more.
    pub(crate) fn forget(&mut self, proxy: &MemberName) {
        self.proxies.remove(proxy);
    }

    /// Takes in a report. Counters only grow within a run, a rollout and an epoch, so what is new is the difference to before.
    /// Of a counter that was not heard before everything is new, but for what may be hours old: hours in one block are of no
    /// one time, and what differs between them would look like a difference between releases.
    pub(crate) fn take_in(
        &mut self,
        proxy: &MemberName,
        counts: &Counts,
        now: Instant,
        guarded: impl Fn(&str) -> Option<Guarded>,
    ) -> Vec<(String, Heard)> {
        let since = *self.since.get_or_insert(now);
        let run = self.proxies.entry(proxy.clone()).or_default();
        run.hears(counts.run, now, since);
        let is_old = run.old_until.is_some_and(|until| now < until);
        run.said.retain(|stage, said| guarded(stage).is_some_and(|one| one.number == said.number));
        let mut found: BTreeMap<(&str, u32), Heard> = BTreeMap::new();
        for release in &counts.releases {
            let Some(guard) = guarded(&release.stage) else { continue };
            if ![guard.canary, guard.stable].contains(&release.release) {
                continue;
            }
            let said = run.said.entry(release.stage.clone()).or_default();
            said.number = guard.number;
            said.sums.retain(|(epoch, _), _| guard.hears(*epoch));
            let is_heard = |judged: &&Judged| judged.rollout == guard.number && guard.hears(judged.epoch);
            for judged in release.judged.iter().filter(is_heard) {
                let is_news = run.is_young || guard.unheard.is_none_or(|unheard| judged.epoch > unheard);
                let new = said.hear((judged.epoch, release.release), Sum::from(judged), is_news);
                let new = if is_old { Sum::default() } else { new };
                let heard = found.entry((&release.stage, judged.epoch)).or_default();
                heard.epoch = judged.epoch;
                heard.add(release.release == guard.canary, new);
            }
        }
        let is_new = |((stage, _), heard): ((&str, u32), Heard)| {
            (heard.block != Block::default()).then(|| (stage.to_owned(), heard))
        };
        found.into_iter().filter_map(is_new).collect()
    }
}

impl Run {
    /// The proxy says something in this run. `since`: when anything was heard first.
    fn hears(&mut self, number: u64, now: Instant, since: Instant) {
        let silent = now.saturating_duration_since(self.heard.unwrap_or(since));
        if silent > OUT_OF_TOUCH {
            self.old_until = Some(now + PIECES);
        }
        if self.number != number {
            // The run of a proxy that was heard in another one is young.
            let (is_young, old_until) = (self.number != 0, self.old_until);
            *self = Self { number, is_young, old_until, ..Self::default() };
        }
        self.heard = Some(now);
    }
}

impl Said {
    /// What is new of a counter. `is_news`: also when it was not heard before.
    fn hear(&mut self, counter: (u32, u32), sum: Sum, is_news: bool) -> Sum {
        let before = self.sums.entry(counter).or_insert_with(|| if is_news { Sum::default() } else { sum.clone() });
        let new = sum.since(before);
        *before = sum;
        new
    }
}

impl Heard {
    fn add(&mut self, is_canary: bool, new: Sum) {
        let (answered, latency) = match is_canary {
            true => (&mut self.block.canary, &mut self.latency),
            false => (&mut self.block.stable, &mut self.stable_latency),
        };
        (*answered, *latency) = (new.answered, new.latency);
    }
}

impl From<&Judged> for Sum {
    fn from(judged: &Judged) -> Self {
        // Counts come from other machines: any number is possible.
        let requests = judged.requests;
        let answered = Answered { requests, failed: judged.failed.min(requests), slow: judged.slow.min(requests) };
        Self { answered, latency: judged.latency.as_ref().map(Histogram::from).unwrap_or_default() }
    }
}

impl Sum {
    fn since(&self, before: &Self) -> Self {
        let (now, then) = (self.answered, before.answered);
        Self {
            answered: Answered {
                requests: now.requests.saturating_sub(then.requests),
                failed: now.failed.saturating_sub(then.failed),
                slow: now.slow.saturating_sub(then.slow),
            },
            latency: self.latency.since(&before.latency),
        }
    }
}

#[cfg(test)]
mod tests;

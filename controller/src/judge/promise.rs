//! Whether a release breaks what its stage promises: a share of requests at most, from some moment on.
//!
//! Must not know: clocks, or what is promised.
//!
//! A release that was good for a day and then breaks has to be noticed as soon as one that was never good: evidence for it
//! is forgotten (a CUSUM of e-values). Source: Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential
//! change detection", arXiv 2203.03532: what keeps its promise is called broken after more than [`ENOUGH`] looks on average.
//!
//! Main type: [`Promise`].

use api::Share;

/// Looks between two false alarms, on average. A report of one proxy is a look: 30 years of one proxy, a month of 300.
const ENOUGH: f64 = 1e9;
/// How much worse than promised it may have become, each as likely as the others.
const TIMES: [f64; 8] = [1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1_000.0];
/// No rate is taken for more than that: a single good request would then speak against it with certainty.
const MOST: f64 = 0.95;
/// The least share that is promised: nothing at all would be broken by one request.
const LEAST: f64 = 1e-7;

/// See the module.
#[derive(Debug, Clone)]
pub struct Promise {
    promised: f64,
    /// For each of [`TIMES`]: the logarithm of the evidence, never below 0.
    evidence: [f64; TIMES.len()],
    /// Requests since there was no evidence at all, and how many of them count against it.
    since: (u64, u64),
}

impl Promise {
    /// At most this share.
    pub fn new(promised: Share) -> Self {
        let promised = (f64::from(promised.ppm()) / f64::from(Share::ALL.ppm())).clamp(LEAST, MOST);
        Self { promised, evidence: [0.0; TIMES.len()], since: (0, 0) }
    }

    /// Takes in what came next: so many requests, and how many of them count against it, at most all.
    pub fn add(&mut self, requests: u64, against: u64) {
        let against = against.min(requests);
        let (bad, good) = (against as f64, (requests - against) as f64);
        for (evidence, times) in self.evidence.iter_mut().zip(TIMES) {
            let rate = (self.promised * times).min(MOST);
            let more = bad * (rate / self.promised).ln() + good * ((1.0 - rate) / (1.0 - self.promised)).ln();
            *evidence = (*evidence + more).max(0.0);
        }
        self.since = match self.evidence.iter().any(|evidence| *evidence > 0.0) {
            true => (self.since.0.saturating_add(requests), self.since.1.saturating_add(against)),
            false => (0, 0),
        };
    }

    /// What speaks for a broken promise now: requests since nothing did, and how many of them count against it.
    pub fn since(&self) -> (u64, u64) {
        self.since
    }

    /// Whether it is broken: what speaks for it now is enough.
    pub fn is_broken(&self) -> bool {
        let most = self.evidence.iter().copied().fold(0.0, f64::max);
        let sum: f64 = self.evidence.iter().map(|evidence| (evidence - most).exp()).sum();
        most + (sum / TIMES.len() as f64).ln() >= ENOUGH.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(text: &str) -> Promise {
        Promise::new(text.parse().expect("a share"))
    }

    /// Requests until it is broken, when every `nth` counts against it from some moment on; at most a million.
    fn until_broken(promise: &mut Promise, nth: u64) -> Option<u64> {
        (1..=1_000_000).find(|request| {
            promise.add(1, u64::from(request % nth == 0));
            promise.is_broken()
        })
    }

    #[test]
    fn verdict_a_promise_is_broken_by_what_exceeds_it_however_long_it_was_kept() {
        for (promised, nth, most) in
            [("1%", 10, 400), ("1%", 2, 40), ("0.1%", 100, 2_500), ("10%", 2, 150), ("0%", 1, 5)]
        {
            let mut fresh = promise(promised);
            let first = until_broken(&mut fresh, nth).expect("it breaks");
            let mut old = promise(promised);
            old.add(10_000_000, 0);
            let later = until_broken(&mut old, nth).expect("it breaks");
            assert!(first <= most && later == first, "{promised}, every {nth}th: {first}, {later}");
            let (requests, against) = old.since();
            // Good ones may stand before the first that counts against it; none of the day before does.
            assert!(requests <= first && against >= first / nth && against > 0, "{requests}, {against}");
        }
    }

    #[test]
    fn verdict_a_promise_that_is_kept_is_not_called_broken() {
        for (promised, nth) in [("1%", 100), ("1%", 1_000), ("0.1%", 2_000), ("10%", 11), ("100%", 1)] {
            assert_eq!(until_broken(&mut promise(promised), nth), None, "{promised}, every {nth}th");
        }
        let mut none = promise("1%");
        none.add(0, 0);
        assert!(!none.is_broken(), "no traffic breaks nothing");
        let mut wild = promise("1%");
        wild.add(u64::MAX, 0);
        wild.add(0, u64::MAX);
        assert!(!wild.is_broken(), "no more than there were");
        wild.add(u64::MAX, u64::MAX);
        assert!(wild.is_broken());
    }
}

//! Which overrides the controller knows of, as far as a proxy can tell.
//!
//! Must not know: streams, or how overrides are kept. Times are arguments.
//!
//! Main type: [`Told`]. The controller does not acknowledge overrides, and what is told twice is on record twice only
//! when a beginning follows its own end. So a beginning or an ending counts as known once the stream on which it was
//! told has stayed open long enough to be known alive; until then it is told again on the next stream.

use std::time::Duration;

use api::fleet;
use tokio::time::Instant;

use crate::overrides::{Ended, Override};

/// A stream that is open so long after something was sent has carried it: the channel's keep-alive ends a dead one
/// within 10 s (certs).
const PROVEN: Duration = Duration::from_secs(15);

/// What was told of overrides.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Beginnings that the controller knows; outlives a stream.
    known: Vec<Override>,
    /// Beginnings told on this stream, and when.
    begun: Vec<(Override, Instant)>,
    /// Endings told on this stream, and when.
    ended: Vec<(Ended, Instant)>,
}

impl Told {
    /// A new stream: nothing was told on it.
    pub(super) fn begin(&mut self) {
        self.begun.clear();
        self.ended.clear();
    }

    /// What has to be told now, in order; it counts as told then.
    pub(super) fn news(&mut self, in_force: &[Override], ended: &[Ended], now: Instant) -> Vec<fleet::Override> {
        let mut news = Vec::new();
        for one in ended {
            if self.ended.iter().any(|(told, _)| told == one) {
                continue;
            }
            if !self.known.contains(&one.was) && !self.was_begun(&one.was) {
                news.push(beginning(&one.was));
            }
            news.push(ending(one));
            self.ended.push((one.clone(), now));
        }
        for one in in_force {
            if !self.was_begun(one) {
                news.push(beginning(one));
                self.begun.push((one.clone(), now));
            }
        }
        news
    }

    /// Endings that the controller knows by now: they need not be kept.
    pub(super) fn settled(&mut self, in_force: &[Override], now: Instant) -> Vec<Ended> {
        let proven = |at: &Instant| now.duration_since(*at) >= PROVEN;
        for (one, _) in self.begun.iter().filter(|(_, at)| proven(at)) {
            if !self.known.contains(one) {
                self.known.push(one.clone());
            }
        }
        let (settled, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ended).into_iter().partition(|(_, at)| proven(at));
        self.ended = open;
        // Beginnings matter only as long as their end is to come.
        let ended = &self.ended;
        let matters = |one: &Override| in_force.contains(one) || ended.iter().any(|(ended, _)| ended.was == *one);
        self.known.retain(matters);
        self.begun.retain(|(one, _)| matters(one));
        settled.into_iter().map(|(one, _)| one).collect()
    }

    fn was_begun(&self, one: &Override) -> bool {
        self.begun.iter().any(|(told, _)| told == one)
    }
}

fn beginning(one: &Override) -> fleet::Override {
    fleet::Override {
        stage: one.stage.to_string(),
        release: one.release.number(),
        since_ms: one.since_ms,
        until_ms: one.until_ms,
        by: one.by.clone(),
        reason: one.reason.clone(),
    }
}

fn ending(one: &Ended) -> fleet::Override {
    fleet::Override {
        stage: one.stage.to_string(),
        release: 0,
        since_ms: one.at_ms,
        until_ms: one.at_ms,
        by: one.by.clone(),
        reason: one.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use api::ReleaseNumber;

    use super::*;
    use crate::overrides::Overrides;

    fn releases(news: &[fleet::Override]) -> Vec<u32> {
        news.iter().map(|one| one.release).collect()
    }

    /// A stream has begun while one override is in force.
    fn with_one() -> (Told, Overrides, Override) {
        let (mut told, mut overrides) = (Told::default(), Overrides::default());
        let (stage, release) = ("hello/staging".parse().expect("a stage"), ReleaseNumber::new(41).expect("a number"));
        let one = Override { stage, release, since_ms: 1, until_ms: 9, by: "ops".into(), reason: "x".into() };
        overrides.set(one.clone());
        told.begin();
        (told, overrides, one)
    }

    #[test]
    fn an_ending_is_told_on_every_stream_until_one_has_stayed_open() {
        let (mut told, mut overrides, one) = with_one();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(releases(&told.news(&overrides.in_force, &overrides.ended, after(0))), [41]);
        assert!(told.news(&overrides.in_force, &overrides.ended, after(1)).is_empty(), "told already");
        assert!(told.settled(&overrides.in_force, after(2)).is_empty());
        // The stream broke too soon; it ended before the next one came.
        overrides.end(&one.stage, 5, "ops".into(), "y".into());
        told.begin();
        assert_eq!(releases(&told.news(&overrides.in_force, &overrides.ended, after(3))), [41, 0]);
        assert!(told.settled(&overrides.in_force, after(17)).is_empty());
        assert_eq!(told.settled(&overrides.in_force, after(18)), overrides.ended);
    }

    #[test]
    fn a_beginning_that_is_known_is_not_told_again_with_its_end() {
        let (mut told, mut overrides, one) = with_one();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        told.news(&overrides.in_force, &overrides.ended, after(0));
        assert!(told.settled(&overrides.in_force, after(20)).is_empty());
        overrides.end(&one.stage, 5, "ops".into(), "y".into());
        for stream in 0..3 {
            let news = told.news(&overrides.in_force, &overrides.ended, after(21 + stream));
            assert_eq!(releases(&news), [0], "stream {stream}");
            assert!(told.settled(&overrides.in_force, after(21 + stream)).is_empty());
            told.begin();
        }
        assert!(told.settled(&overrides.in_force, after(99)).is_empty() && told.known.is_empty());
    }
}

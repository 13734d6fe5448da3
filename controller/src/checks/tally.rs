//! What the answers of a check in one step come to.
//!
//! Must not know: when it was asked.

use super::ask::Outcome;
use crate::core::state::CheckSeen;

/// The answers so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Failures since the last success.
    failures: u32,
    /// Tries since the last one that said anything.
    silences: u32,
    seen: CheckSeen,
}

impl Tally {
    /// Takes one more in; `fall` failures in a row are one. No answer is neither a failure nor a success; but after `fall` of those
    /// in a row nobody knows any more whether it is well.
    pub(super) fn take_in(&mut self, outcome: &Outcome, fall: u32) {
        self.silences = if matches!(outcome, Outcome::Silent(_)) { self.silences.saturating_add(1) } else { 0 };
        match outcome {
            Outcome::Silent(_) if self.silences >= fall && self.seen == CheckSeen::Well => {
                self.seen = CheckSeen::NotYet
            }
            Outcome::Well => (self.failures, self.seen) = (0, CheckSeen::Well),
            Outcome::Failed(problem) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= fall {
                    self.seen = CheckSeen::Failed(problem.clone());
                }
            }
            Outcome::Silent(_) => {}
        }
    }

    /// What the last answer says beyond how it stands, for people; empty: nothing.
    pub(super) fn said(&self, last: &Outcome, fall: u32) -> String {
        match last {
            Outcome::Well => String::new(),
            Outcome::Failed(_) if self.failures >= fall => String::new(),
            Outcome::Failed(problem) => format!("failed {} of {fall} times in a row: {problem}", self.failures),
            Outcome::Silent(why) => format!("neither yes nor no: {why}"),
        }
    }

    /// How it stands now.
    pub(super) fn seen(&self) -> &CheckSeen {
        &self.seen
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollout_check_counts_failures_in_a_row() {
        let failed = |text: &str| CheckSeen::Failed(text.into());
        // w: well, s: silent, a digit: failed with it.
        for (answers, fall, expected) in [
            ("", 3, CheckSeen::NotYet),
            ("s", 1, CheckSeen::NotYet),
            ("sss", 3, CheckSeen::NotYet),
            ("12", 3, CheckSeen::NotYet),
            ("123", 3, failed("3")),
            ("1234", 3, failed("4")),
            ("1", 1, failed("1")),
            ("w", 3, CheckSeen::Well),
            ("w12", 3, CheckSeen::Well),
            ("w123", 3, failed("3")),
            ("12w34", 3, CheckSeen::Well),
            ("12w345", 3, failed("5")),
            ("123w", 3, CheckSeen::Well),
            ("1s2s3", 3, failed("3")),
            ("wss", 3, CheckSeen::Well),
            ("wsss", 3, CheckSeen::NotYet),
            ("wsss1w", 3, CheckSeen::Well),
            ("wss1ss", 3, CheckSeen::Well),
            ("123s", 3, failed("3")),
        ] {
            let mut tally = Tally::default();
            for answer in answers.chars() {
                let outcome = match answer {
                    'w' => Outcome::Well,
                    's' => Outcome::Silent("nothing".into()),
                    other => Outcome::Failed(other.to_string()),
                };
                tally.take_in(&outcome, fall);
            }
            assert_eq!(tally.seen(), &expected, "{answers} with {fall}");
        }
    }

    #[test]
    fn rollout_check_says_why_it_is_not_well_yet() {
        let failed = || Outcome::Failed("503".into());
        let silent = || Outcome::Silent("no result".into());
        for (answers, expected) in [
            (vec![Outcome::Well], ""),
            (vec![silent()], "neither yes nor no: no result"),
            (vec![failed()], "failed 1 of 2 times in a row: 503"),
            (vec![failed(), silent()], "neither yes nor no: no result"),
            // Then it is how it stands.
            (vec![failed(), failed()], ""),
            (vec![failed(), failed(), failed()], ""),
            (vec![Outcome::Well, failed()], "failed 1 of 2 times in a row: 503"),
            (vec![failed(), Outcome::Well], ""),
        ] {
            let mut tally = Tally::default();
            answers.iter().for_each(|answer| tally.take_in(answer, 2));
            assert_eq!(tally.said(answers.last().expect("one"), 2), expected, "{answers:?}");
        }
    }
}

//! Results of checks, one after the other, to a health: so many failures in a row, so many successes in a row.
//!
//! Must not know: time, addresses, or how a result came about.

/// How many results in a row change the health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Limits {
    /// Failures until unhealthy, at least 1.
    pub(super) fall: u32,
    /// Successes until healthy, at least 1.
    pub(super) rise: u32,
}

/// Results in a row that speak against the present health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fold {
    against: u32,
    /// Whether any result was seen: the first failure of an unknown endpoint is believed at once.
    seen: bool,
}

impl Fold {
    /// The health after one more result.
    pub(super) fn next(&mut self, healthy: bool, success: bool, limits: Limits) -> bool {
        let first = !std::mem::replace(&mut self.seen, true);
        if healthy == success {
            self.against = 0;
            return healthy;
        }
        self.against += 1;
        let needed = if healthy { limits.fall } else { limits.rise };
        if self.against >= needed || first {
            self.against = 0;
            return success;
        }
        healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_follows_results_in_a_row() {
        let limits = Limits { fall: 3, rise: 2 };
        // Results from left to right (`+` good, `-` bad), then the health after each (`H` healthy, `u` unhealthy).
        for (results, expected) in [
            ("+++", "HHH"),
            ("-", "u"),
            ("-++", "uuH"),
            ("+---", "HHHu"),
            ("+--+---", "HHHHHHu"),
            ("+---+-++", "HHHuuuuH"),
            ("+---++--", "HHHuuHHH"),
        ] {
            let (mut fold, mut healthy) = (Fold::default(), true);
            let seen: String = results
                .chars()
                .map(|result| {
                    healthy = fold.next(healthy, result == '+', limits);
                    if healthy { 'H' } else { 'u' }
                })
                .collect();
            assert_eq!(seen, expected, "{results}");
        }
    }
}

//! A rollout's spec in words, as far as they can be, those of the file.

use std::fmt;

use super::{
    BlueGreen, Bounds, Breach, Check, CheckKind, Insiders, Limits, Meanwhile, Objective, OnWorse, Step, Sticky,
    Strategy,
};

impl Strategy {
    /// The word for it, as in files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AllAtOnce => "all-at-once",
            Self::BlueGreen(_) => "blue-green",
            Self::Canary(_) => "canary",
        }
    }
}

/// `canary: 0.1% for 500 requests, 10% for 10m, until resumed, 100%`.
impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::AllAtOnce => Ok(()),
            Self::BlueGreen(way) => way.fmt(f),
            Self::Canary(steps) => {
                for (index, step) in steps.iter().enumerate() {
                    write!(f, "{}{step}", if index == 0 { ": " } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

/// What follows the strategy's name.
impl fmt::Display for BlueGreen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pause {
            f.write_str(", flipped when resumed")?;
        }
        self.watch.map_or(Ok(()), |watch| write!(f, ", watched for {watch}"))
    }
}

/// `10% for 10m and 500 requests until resumed`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = [self.share.map(|share| share.to_string()), self.insiders.as_ref().map(ToString::to_string)];
        let least = [
            self.least_time.map(|time| time.to_string()),
            self.requests.map(|requests| format!("{requests} request{}", if requests == 1 { "" } else { "s" })),
        ];
        let joined = |parts: [Option<String>; 2]| parts.into_iter().flatten().collect::<Vec<_>>().join(" and ");
        let least = Some(joined(least)).filter(|least| !least.is_empty()).map(|least| format!("for {least}"));
        let parts = [Some(joined(what)), least, self.pause.then(|| "until resumed".to_owned())];
        let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        f.write_str(&parts.join(" "))
    }
}

impl fmt::Display for Insiders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "insiders with {}: {}", self.header, self.value)
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Identity => "identity",
            Self::Cookie => "cookie",
        })
    }
}

impl fmt::Display for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Finish => "finish",
            Self::Replace => "replace",
            Self::Queue => "queue",
        })
    }
}

impl fmt::Display for OnWorse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rollback => "rollback",
            Self::Freeze => "freeze",
        })
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ask => "ask",
            Self::Rollback => "rollback",
        })
    }
}

/// `0.1% more errors, 5% more slower than 300ms`.
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} more errors, {} more slower than ", self.errors, self.slow_share)?;
        match self.slow {
            Some(slow) => slow.fmt(f),
            None => f.write_str("stable's p95"),
        }
    }
}

/// `0.1% errors, 1% slower than 300ms, otherwise rollback`.
impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(errors) = self.errors {
            write!(f, "{errors} errors, ")?;
        }
        if let Some((slow, share)) = self.slow {
            write!(f, "{share} slower than {slow}, ")?;
        }
        write!(f, "otherwise {}", self.on_breach)
    }
}

/// `smoke (http, every 30s)`, without what is asked: a URL or an argument may be nobody else's business.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, every {})", self.name, self.kind, self.every)
    }
}

/// The word for it, as in files.
impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http { .. } => "http",
            Self::Command { .. } => "command",
            Self::Prometheus { .. } => "prometheus",
        })
    }
}

/// `at least 0.5 and at most 1`.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("at least", &self.least), ("at most", &self.most)];
        let parts = parts.into_iter().filter_map(|(word, limit)| Some(format!("{word} {}", limit.as_ref()?)));
        f.write_str(&parts.collect::<Vec<_>>().join(" and "))
    }
}

//! What holds of every spec that was read, for tests: written apart from what reads it.

use std::collections::BTreeSet;

use api::{ComponentName, Host, ReleaseNumber, Share, Span};

use super::{Check, CheckKind, RolloutSpec, STEP_TIME_MOST, Step, Strategy, fill};

impl RolloutSpec {
    /// Whether its parts fit together, so that a rollout by it can end and proxies accept what follows from it.
    pub(crate) fn is_sound(&self) -> bool {
        let names: BTreeSet<&str> = self.checks.iter().map(|check| check.name.as_str()).collect();
        let checks = self.checks.len() <= 10 && names.len() == self.checks.len() && self.checks.iter().all(is_check);
        let strategy = match &self.strategy {
            Strategy::AllAtOnce => self.checks.is_empty(),
            Strategy::BlueGreen(way) => way.watch.is_none_or(|watch| watch <= STEP_TIME_MOST),
            Strategy::Canary(steps) => are_steps(steps, !self.checks.is_empty()),
        };
        let promised = |share: Share| share > Share::NONE && share < Share::ALL;
        let objective = self.objective.as_ref().is_none_or(|objective| {
            (objective.errors.is_some() || objective.slow.is_some())
                && objective.errors.is_none_or(promised)
                && objective.slow.is_none_or(|(_, share)| promised(share))
        });
        let bounds = self.bounds.errors > Share::NONE && self.bounds.slow_share > Share::NONE;
        let header = self.failure_header.as_deref().is_none_or(is_header);
        checks && strategy && objective && bounds && header
    }
}

fn are_steps(steps: &[Step], has_checks: bool) -> bool {
    let Some((last, before)) = steps.split_last() else { return false };
    let all = Step { share: Some(Share::ALL), ..Step::default() };
    let mut in_force = Share::NONE;
    let good = before.iter().all(|step| {
        let grows = step.share.is_none_or(|share| share >= in_force && share > Share::NONE && share < Share::ALL);
        in_force = step.share.unwrap_or(in_force);
        let ends = in_force > Share::NONE || step.pause || step.least_time.is_some() || has_checks;
        let counts = step.requests.is_none_or(|requests| (1..=10_000_000).contains(&requests) && in_force.ppm() > 0);
        let does = step.share.is_some() || step.insiders.is_some() || step.pause;
        let time = step.least_time.is_none_or(|time| time <= STEP_TIME_MOST);
        let insiders = step.insiders.as_ref().is_none_or(|insiders| {
            let value = insiders.value.as_bytes();
            is_header(&insiders.header)
                && (1..=256).contains(&value.len())
                && value.iter().all(|b| (0x20..0x7f).contains(b))
        });
        grows && ends && counts && does && time && insiders
    });
    let insiders = steps.iter().filter(|step| step.insiders.is_some()).count();
    *last == all && good && steps.len() <= 50 && insiders <= api::HEADER_RULES_MOST
}

/// A name that proxies accept in rules and guards.
fn is_header(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(token) && api::is_the_services(name)
}

fn is_check(check: &Check) -> bool {
    let (host, release) = ("r1--a.example".parse::<Host>().expect("a host"), ReleaseNumber::FIRST);
    let is_url = |url: &str| {
        let uri = url.parse::<http::Uri>().ok();
        let named = uri.as_ref().is_some_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        let clean = uri.as_ref().and_then(http::Uri::authority).is_some_and(|part| !part.as_str().contains('@'));
        named && clean && (url.starts_with("http://") || url.starts_with("https://"))
    };
    let kind = match &check.kind {
        CheckKind::Http { url, app, .. } => {
            is_url(&fill(url, &host, release)) && (app.is_none() || url.starts_with("https://{host}"))
        }
        CheckKind::Command { command } => {
            command.first().is_some_and(|program| !program.is_empty())
                && !command.iter().any(|word| word.contains('\0'))
        }
        CheckKind::Prometheus { url, query, limits, .. } => {
            let number = |text: &Option<String>| text.as_deref().map(|text| text.parse::<f64>().unwrap_or(f64::NAN));
            let (least, most) = (number(&limits.least), number(&limits.most));
            let finite = least.into_iter().chain(most).all(f64::is_finite);
            let some = least.is_some() || most.is_some();
            let order = least.zip(most).is_none_or(|(least, most)| least <= most);
            is_url(url) && !query.trim().is_empty() && finite && some && order
        }
    };
    let hour = Span::from_ms(3_600_000).expect("an hour");
    let times = check.every.ms() >= 1_000 && check.every <= hour && check.timeout <= hour;
    kind && times && (1..=100).contains(&check.fall) && check.name.parse::<ComponentName>().is_ok()
}

//! Checks against real servers and processes.

mod commands;
mod driver;
mod queries;
mod servers;
mod turns;
mod urls;

use std::time::{Duration, Instant};

use api::Span;
use certs::endpoint::Authorities;
use tokio::sync::watch;

use super::ask::{Asker, Outcome};
use super::command::CheckFolders;
use super::http::Way;
use super::seals::Seals;
use super::wanted::Wanted;
use crate::build::BuildFolders;
use crate::core::spec::{Check, CheckKind};

/// Nothing of what is waited for takes a fraction of it.
const SOON: Duration = Duration::from_secs(20);

fn span(ms: u64) -> Span {
    Span::from_ms(ms).expect("a span")
}

fn check(name: &str, kind: CheckKind) -> Check {
    Check { name: name.to_owned(), kind, every: span(10), timeout: span(60_000), fall: 1 }
}

fn wanted(kind: CheckKind, timeout_ms: u64) -> Wanted {
    Wanted {
        stage: "hello/production".parse().expect("name"),
        of: (1, 0),
        release: "r7".parse().expect("number"),
        host: "r7--hello.production.example.com".parse().expect("host"),
        development_zone: None,
        public: false,
        denies_openly: false,
        wants_user: false,
        check: Check { timeout: span(timeout_ms), ..check("smoke", kind) },
    }
}

fn folders(data: &std::path::Path) -> CheckFolders {
    CheckFolders::within(data, &BuildFolders::within(data, Default::default()))
}

fn asker(data: &std::path::Path) -> Asker {
    certs::install_provider();
    let authority = certs::development::DevelopmentCa::open_or_create(data).expect("an authority");
    Asker::new(folders(data), &authority.certificate_pem(), Seals::none())
}

/// To wherever a name leads.
fn way(authorities: &Authorities, timeout: Duration) -> Way<'_> {
    certs::install_provider();
    Way { authorities, may_reach: |_| true, timeout, key: None, is_own: false }
}

/// Waits for something that has to become so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < SOON, "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn silent(why: impl Into<String>) -> Outcome {
    Outcome::Silent(why.into())
}

fn failed(problem: impl Into<String>) -> Outcome {
    Outcome::Failed(problem.into())
}

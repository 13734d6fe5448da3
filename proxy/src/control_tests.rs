use std::path::Path;

use api::fleet::Resource;

use super::*;
use crate::journal;
use crate::snapshot::fixture;

fn good() -> Vec<Resource> {
    vec![
        fixture::stage("hello/staging", &[1, 2]),
        fixture::split("hello/staging", &[(1, 1)]),
        fixture::endpoints("hello/staging", 1, &["127.0.0.1:8041"]),
    ]
}

fn at(number: u64) -> Version {
    Version { term: 1, number }
}

fn start(data: &Path) -> Control {
    Control::start(data, journal::load(&data.join("state")), SniResolver::new()).expect("started")
}

/// Whether somebody was notified since this was asked last.
fn notified(notify: &Notify) -> bool {
    let mut waiting = std::pin::pin!(notify.notified());
    waiting.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
}

#[test]
fn checks_are_looked_through_only_when_endpoints_may_have_changed() {
    let data = tempfile::tempdir().expect("folder");
    let control = start(data.path());
    let mut resources = good();
    control.apply(fixture::full(at(1), &resources)).expect("good");
    assert!(notified(&control.endpoints_changed));
    resources[1] = fixture::split("hello/staging", &[(2, 1)]);
    control.apply(fixture::full(at(2), &resources)).expect("good");
    assert!(!notified(&control.endpoints_changed), "a rollback");
    resources[2] = fixture::endpoints("hello/staging", 1, &["127.0.0.1:8042"]);
    control.apply(fixture::full(at(3), &resources)).expect("good");
    assert!(notified(&control.endpoints_changed));
    let [health] = &control.endpoints()[..] else { panic!("one endpoint") };
    assert_eq!(health.check.address.port(), 8042, "the one before is gone");
}

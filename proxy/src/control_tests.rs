use std::path::Path;

use api::fleet::{Resource, ResourceSet, Tickets};

use super::*;
use crate::journal;
use crate::snapshot::{Delta, fixture};

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
    let (public, machine) = (Public::new(), Authorities::default());
    let seal_key = SealKey::open_or_create(data).expect("made");
    let issuers = Issuers::start(data, machine.clone());
    Control::start(data, journal::load(&data.join("state")), (public, issuers), machine, seal_key).expect("started")
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

#[tokio::test]
async fn a_saved_state_that_cannot_be_used_is_no_part_of_the_next_one() {
    let data = tempfile::tempdir().expect("folder");
    let folder = data.path().join("state");
    // As a version with other rules would have left it: whole, but its split names a release that is no backend.
    let bad = vec![fixture::stage("old/staging", &[1]), fixture::split("old/staging", &[(9, 1)])];
    let delta = Delta::read(ResourceSet { upserts: bad, removals: Vec::new() }).expect("known kinds");
    let fingerprint = Resources::default().fingerprint_after(&delta);
    let change = Served { version: at(7), delta, fingerprint };
    Journal::new(folder.clone(), None).save(&[change]).expect("saved");

    let control = start(data.path());
    assert_eq!(control.have(), None);
    let served = control.apply(fixture::full(at(8), &good())).expect("good");
    control.saved().wait_for(|saved| saved.version == Some(at(8))).await.expect("saved");
    drop(control);
    let (version, resources) = journal::load(&folder).state.expect("a state");
    assert_eq!((version, resources.fingerprint().to_bytes()), (at(8), served), "what is on disk is what was served");
    assert_eq!(start(data.path()).have(), Some((at(8), served)));
}

#[tokio::test]
async fn a_state_that_is_mended_in_part_is_not_told_to_be_safe() {
    certs::install_provider();
    let data = tempfile::tempdir().expect("folder");
    let control = start(data.path());
    let tickets = Tickets { current: vec![1; 16], accepted: vec![vec![2; 16]] };
    let state = [Resource { schema: api::SCHEMA_SEALED, ..fixture::resource("tickets", "tickets", &tickets) }];
    let [one, two] = [1, 2].map(|name: u8| {
        let id = certs::secret::ticket_id(&[name; 16]);
        certs::secret::seal(&id, &[name; 32], control.seal_key()).expect("sealed")
    });
    control.take_secrets(vec![one.clone(), two.clone()]);
    control.apply(fixture::full(at(1), &state)).expect("good");
    control.saved().wait_for(|saved| saved.version == Some(at(1))).await.expect("saved");
    drop(control);
    std::fs::remove_file(data.path().join("secrets.json")).expect("lost");

    let control = start(data.path());
    assert_eq!((control.have_whole(), control.saved().borrow().version), (None, None));
    control.take_secrets(vec![one]);
    // What waits is written behind the overrides: once these are written twice, it was.
    for _ in 0..2 {
        let written = control.write_overrides(&control.state());
        safe(written).await.expect("written");
    }
    assert_eq!((control.have_whole(), control.saved().borrow().version), (None, None), "one is still missing");
    control.take_secrets(vec![two]);
    control.saved().wait_for(|saved| saved.version == Some(at(1))).await.expect("saved");
    assert!(control.have_whole().is_some());
}

#[tokio::test]
async fn an_override_is_on_disk_when_it_is_answered_and_its_end_is_kept_until_it_was_told() {
    let data = tempfile::tempdir().expect("folder");
    let control = start(data.path());
    control.apply(fixture::full(at(1), &good())).expect("good");
    let on_disk = || Overrides::load(&data.path().join("overrides.json")).expect("readable");
    let stage: StageName = "hello/staging".parse().expect("a stage");
    let release = ReleaseNumber::FIRST;
    let (by, reason) = ("ops".to_owned(), "broken".to_owned());
    let one = Override { stage: stage.clone(), release, since_ms: 1, until_ms: u64::MAX, by, reason };
    control.set_override(one.clone()).await.expect("set");
    assert_eq!(on_disk().in_force, [one]);
    control.end_override(&stage, "anna").await.expect("ended");
    let (_, ended) = control.overrides_and_ended();
    assert_eq!((on_disk().in_force.len(), on_disk().ended), (0, ended.clone()));
    control.forget_ended(&ended);
    assert!(control.overrides_and_ended().1.is_empty());
    // The thread that writes empties its queue and ends with the control.
    drop(control);
    while !on_disk().ended.is_empty() {
        tokio::task::yield_now().await;
    }
}

//! What a controller sends: put together, checked and applied, whole or not at all.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Once};

use api::fleet::{ControllerMessage, ResourceSet, Transfer, controller_message::Kind};
use api::{Digest, Fingerprint, Version};
use prost::Message;

use crate::snapshot::{Compiled, Compiler, Delta, Incoming, Received, Receiver, Snapshot, fixture};

const BASE: Version = Version { term: 1, number: 1 };
const NEXT: Version = Version { term: 1, number: 2 };

/// The bytes are taken as messages, each behind its length, and as a set of resources that comes in pieces.
///
/// - Pieces become a whole exactly when their bytes can be decoded, and only with the last of them.
/// - What is refused names at least one problem and leaves everything as it was; the next change can be applied.
/// - What is applied has the fingerprint that was announced, which is that of the resources, counted anew.
/// - As a full state it leads to the same from any state before; applied again it changes nothing.
/// - In a snapshot no two stages and no two backends share a place, and every weight belongs to a backend.
/// - A header rule leads to a backend, and wherever a caller stands, it belongs to one that has weight.
pub fn snapshot(bytes: &[u8]) {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(certs::install_provider);
    messages(bytes);
    if let Some(set) = transfer(bytes) {
        full(&set);
        change(set);
    }
}

fn messages(mut bytes: &[u8]) {
    let (mut receiver, mut compiler) = (Receiver::default(), base());
    while let Ok(message) = ControllerMessage::decode_length_delimited(&mut bytes) {
        match receiver.receive(message) {
            Received::Whole(incoming) => drop(apply(&mut compiler, incoming)),
            Received::Refused { rejections, .. } => assert!(!rejections.is_empty(), "refused without a reason"),
            Received::Welcome | Received::Secrets(_) | Received::Question(_) | Received::Nothing => {}
        }
    }
}

/// What becomes of the bytes, sent in three pieces.
fn transfer(bytes: &[u8]) -> Option<ResourceSet> {
    let mut receiver = Receiver::default();
    let mut last = Received::Nothing;
    let size = bytes.len().div_ceil(3).max(1);
    let pieces = bytes.chunks(size).enumerate().map(|(n, data)| (n * size, data));
    for (offset, data) in pieces.chain(bytes.is_empty().then_some((0, bytes))) {
        assert!(matches!(last, Received::Nothing), "whole before its last piece");
        let piece = Transfer {
            version: Some(NEXT.into()),
            base: None,
            total_bytes: bytes.len() as u64,
            sha256: Digest::of(bytes).as_bytes().to_vec(),
            offset: offset as u64,
            data: data.to_vec().into(),
            fingerprint: Vec::new(),
        };
        last = receiver.receive(ControllerMessage { kind: Some(Kind::Transfer(piece)) });
    }
    match (last, ResourceSet::decode(bytes)) {
        (Received::Whole(incoming), Ok(set)) => {
            assert!(incoming.set == set && incoming.version == NEXT && incoming.base.is_none());
            Some(set)
        }
        (Received::Refused { .. }, Err(_)) => None,
        (last, decoded) => panic!("{last:?} of {decoded:?}"),
    }
}

fn full(set: &ResourceSet) {
    let (mut empty, mut based) = (Compiler::default(), base());
    let applied = apply_full(&mut empty, set).is_some();
    assert_eq!(apply_full(&mut based, set).is_some(), applied, "what is a state depends on the state before");
    if applied {
        assert_eq!(resources(&empty), resources(&based));
        let again = apply_full(&mut based, set).expect("it was applied before");
        // To take away what is not there is nothing.
        assert!(again.delta.entries.values().all(Option::is_none), "{:?}", again.delta);
    }
}

fn apply_full(compiler: &mut Compiler, set: &ResourceSet) -> Option<Compiled> {
    let fingerprint = fingerprint_after(compiler, set, true);
    apply(compiler, Incoming { version: NEXT, base: None, set: set.clone(), fingerprint })
}

fn change(set: ResourceSet) {
    let mut compiler = base();
    let fingerprint = fingerprint_after(&compiler, &set, false);
    apply(&mut compiler, Incoming { version: NEXT, base: Some(BASE), set, fingerprint });
    // Whatever came, a person can still take one release for everything, and let go again.
    let stages: Vec<_> = compiler.snapshot().stages().cloned().collect();
    for stage in stages {
        for release in [stage.backends.first().map(|backend| backend.release), Some(u32::MAX), None] {
            check(&compiler.set_override(&stage.text, release));
        }
    }
    let version = compiler.snapshot().version.expect("one was applied").next();
    let good = fixture::full(version, &[fixture::zone("a", "a.example")]);
    assert!(apply(&mut compiler, good).is_some(), "nothing can be applied any more");
}

/// A state with two stages, one of which is split.
fn base() -> Compiler {
    let mut compiler = Compiler::default();
    let resources = [
        fixture::zone("staging", "staging.example.com"),
        fixture::stage("hello/staging", &[1, 2]),
        fixture::split("hello/staging", &[(1, 9), (2, 1)]),
        fixture::endpoints("hello/staging", 1, &["127.0.0.1:81"]),
        fixture::stage("other/staging", &[7]),
    ];
    compiler.apply(fixture::full(BASE, &resources)).expect("good resources");
    compiler
}

/// The fingerprint to announce; anything, if the set is none.
fn fingerprint_after(compiler: &Compiler, set: &ResourceSet, full: bool) -> Vec<u8> {
    let Ok(delta) = Delta::read(set.clone()) else { return Vec::new() };
    let resources = compiler.resources();
    let delta = if full { resources.difference_to(delta) } else { delta };
    resources.fingerprint_after(&delta).to_bytes().to_vec()
}

/// Applies a change and checks what must hold either way. What was applied, if it was.
fn apply(compiler: &mut Compiler, incoming: Incoming) -> Option<Compiled> {
    let (before, held, announced) = (compiler.snapshot().clone(), resources(compiler), incoming.fingerprint.clone());
    match compiler.apply(incoming) {
        Ok(compiled) => {
            assert_eq!(compiled.fingerprint.to_bytes()[..], announced[..]);
            let mut counted = Fingerprint::default();
            compiler.resources().to_set().upserts.iter().for_each(|resource| counted.add(resource));
            assert_eq!(counted, compiled.fingerprint, "counted anew");
            check(&compiled.snapshot);
            Some(compiled)
        }
        Err(rejections) => {
            assert!(!rejections.is_empty(), "refused without a reason");
            assert!(Arc::ptr_eq(&before, compiler.snapshot()) && held == resources(compiler), "refused, and not whole");
            None
        }
    }
}

fn resources(compiler: &Compiler) -> BTreeMap<(String, String), Vec<u8>> {
    let set = compiler.resources().to_set().upserts.into_iter();
    set.map(|resource| ((resource.kind, resource.name), resource.body.to_vec())).collect()
}

fn check(snapshot: &Snapshot) {
    let (mut stages, mut backends) = (HashSet::new(), HashSet::new());
    for stage in snapshot.stages() {
        assert!(stages.insert(stage.slot), "two stages in one place");
        assert!(stage.backends.is_sorted_by(|a, b| a.release < b.release), "{:?}", stage.backends);
        assert!(stage.backends.iter().all(|backend| backends.insert(backend.slot)), "two backends in one place");
        for (weight, place) in &stage.weighted {
            assert!(*weight > 0 && *place < stage.backends.len(), "a weight for nobody");
        }
        assert!(stage.rules.iter().all(|rule| rule.backend < stage.backends.len()), "a rule that leads to nobody");
        let Some(sticky) = &stage.sticky else { continue };
        for place in [0, 1, u64::MAX / 3, 1 << 63, u64::MAX] {
            let has_weight = |to: usize| stage.weighted.iter().any(|(_, weighted)| *weighted == to);
            assert!(sticky.at(place).map_or(stage.weighted.is_empty(), has_weight), "callers of nobody");
        }
    }
}

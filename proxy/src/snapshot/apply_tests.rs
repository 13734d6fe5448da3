use api::fleet::Welcome;
use proptest::prelude::*;

use super::*;
use crate::snapshot::fixture;

const V2: Version = Version { term: 1, number: 2 };

/// A state in pieces of `size` bytes.
fn pieces(size: usize) -> Vec<Transfer> {
    let set = ResourceSet {
        upserts: (0..40).map(|n| fixture::stage(&format!("s{n}/staging"), &[1, 2])).collect(),
        removals: Vec::new(),
    };
    let bytes = set.encode_to_vec();
    let sha256 = Digest::of(&bytes).as_bytes().to_vec();
    let piece = |(n, data): (usize, &[u8])| Transfer {
        version: Some(V2.into()),
        base: None,
        total_bytes: bytes.len() as u64,
        sha256: sha256.clone(),
        offset: (n * size) as u64,
        data: data.to_vec().into(),
        fingerprint: vec![7; 32],
    };
    bytes.chunks(size).enumerate().map(piece).collect()
}

fn transfer(piece: Transfer) -> ControllerMessage {
    ControllerMessage { kind: Some(Kind::Transfer(piece)) }
}

fn refused_field(received: &Received) -> Option<&str> {
    match received {
        Received::Refused { rejections, .. } => Some(&rejections[0].field),
        _ => None,
    }
}

#[test]
fn pieces_become_a_whole() {
    let mut receiver = Receiver::default();
    assert!(matches!(
        receiver.receive(ControllerMessage { kind: Some(Kind::Welcome(Welcome::default())) }),
        Received::Welcome
    ));
    assert!(matches!(receiver.receive(ControllerMessage { kind: None }), Received::Nothing));
    for size in [64, 1 << 20] {
        let mut last = Received::Nothing;
        for piece in pieces(size) {
            assert!(matches!(last, Received::Nothing));
            last = receiver.receive(transfer(piece));
        }
        let Received::Whole(incoming) = last else { panic!("{last:?}") };
        assert_eq!((incoming.version, incoming.set.upserts.len(), incoming.base), (V2, 40, None));
    }
}

#[test]
fn an_empty_state_is_a_state() {
    let piece = Transfer {
        version: Some(V2.into()),
        sha256: Digest::of(b"").as_bytes().to_vec(),
        fingerprint: vec![0; 32],
        ..Transfer::default()
    };
    assert!(matches!(Receiver::default().receive(transfer(piece)), Received::Whole(_)));
}

#[test]
fn hostile_h80_a_gigabyte_announced_is_refused_before_it_is_held() {
    let mut receiver = Receiver::default();
    let first = Transfer { total_bytes: 1 << 30, ..pieces(64).remove(0) };
    let second = Transfer { total_bytes: 1 << 30, ..pieces(64).remove(1) };
    assert_eq!(refused_field(&receiver.receive(transfer(first))), Some("total_bytes"));
    // The rest of it is dropped in silence: one refusal is enough.
    assert!(matches!(receiver.receive(transfer(second)), Received::Nothing));
    let mut last = Received::Nothing;
    for piece in pieces(64) {
        last = receiver.receive(transfer(piece));
    }
    assert!(matches!(last, Received::Whole(_)), "{last:?}");
}

#[test]
fn hostile_h80_lost_repeated_and_mixed_pieces_are_refused() {
    let good = pieces(64);
    let other = |piece: &Transfer| Transfer { version: Some(V2.next().into()), ..piece.clone() };
    for (sequence, field) in [
        (vec![good[1].clone()], "offset"),
        (vec![good[0].clone(), good[2].clone()], "offset"),
        (vec![good[0].clone(), good[1].clone(), good[1].clone()], "offset"),
        (vec![good[0].clone(), other(&good[1])], "offset"),
        (vec![Transfer { total_bytes: 3, ..good[0].clone() }], "data"),
        (vec![Transfer { data: Vec::new().into(), ..good[0].clone() }], "data"),
    ] {
        let mut receiver = Receiver::default();
        let refused: Vec<String> = sequence
            .into_iter()
            .filter_map(|piece| refused_field(&receiver.receive(transfer(piece))).map(str::to_owned))
            .collect();
        assert_eq!(refused, [field]);
    }
}

#[test]
fn hostile_h80_a_change_says_what_it_builds_on() {
    let change = |base: Option<Version>, set| ControllerMessage {
        kind: Some(Kind::Change(Change {
            version: Some(V2.into()),
            base: base.map(Into::into),
            set,
            fingerprint: vec![7; 32],
        })),
    };
    let mut receiver = Receiver::default();
    assert_eq!(refused_field(&receiver.receive(change(None, Some(ResourceSet::default())))), Some("base"));
    assert_eq!(refused_field(&receiver.receive(change(Some(V2), None))), Some("set"));
    assert!(matches!(receiver.receive(change(Some(V2), Some(ResourceSet::default()))), Received::Whole(_)));
}

proptest! {
    #[test]
    fn hostile_h80_a_flipped_bit_or_a_cut_never_passes(size in 16usize..600, which in any::<usize>(), bit in 0u8..8, cut in any::<bool>()) {
        let mut sent = pieces(size);
        let piece = which % sent.len();
        let mut data = sent[piece].data.to_vec();
        let byte = which % data.len();
        if cut {
            data.truncate(byte);
        } else {
            data[byte] ^= 1 << bit;
        }
        sent[piece].data = data.into();
        let mut receiver = Receiver::default();
        for piece in sent {
            let received = receiver.receive(transfer(piece));
            prop_assert!(!matches!(received, Received::Whole(_)));
        }
    }
}

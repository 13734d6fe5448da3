//! Changes and whole states as messages, in pieces where they are large.
//!
//! Must not know: what is in them.

use api::fleet::controller_message::Kind;
use api::fleet::{Change, ControllerMessage, ResourceSet, Transfer};
use api::{CHANGE_BYTES, Digest, Fingerprint, PIECE_BYTES, Version};
use prost::Message;

/// A change as one message, or as pieces when it is large.
pub(super) fn change_messages(change: &Change) -> Vec<ControllerMessage> {
    if change.encoded_len() <= CHANGE_BYTES {
        return vec![ControllerMessage { kind: Some(Kind::Change(change.clone())) }];
    }
    let set = change.set.clone().unwrap_or_default();
    let version = change.version.map(Version::from).unwrap_or_default();
    transfer(version, change.base.map(Version::from), &set, &change.fingerprint)
}

/// A state, or the difference to `base`, in pieces whatever its size.
pub(super) fn pieces(
    version: Version,
    base: Option<Version>,
    set: &ResourceSet,
    fingerprint: Fingerprint,
) -> Vec<ControllerMessage> {
    transfer(version, base, set, &fingerprint.to_bytes())
}

fn transfer(version: Version, base: Option<Version>, set: &ResourceSet, fingerprint: &[u8]) -> Vec<ControllerMessage> {
    let bytes = bytes::Bytes::from(set.encode_to_vec());
    let sha256 = Digest::of(&bytes).as_bytes().to_vec();
    let piece = |offset: usize| Transfer {
        version: Some(version.into()),
        base: base.map(Into::into),
        total_bytes: bytes.len() as u64,
        sha256: sha256.clone(),
        offset: offset as u64,
        data: bytes.slice(offset..bytes.len().min(offset + PIECE_BYTES)),
        fingerprint: fingerprint.to_vec(),
    };
    // Nothing at all is still one piece.
    let offsets = (0..bytes.len().max(1)).step_by(PIECE_BYTES);
    offsets.map(|offset| ControllerMessage { kind: Some(Kind::Transfer(piece(offset))) }).collect()
}

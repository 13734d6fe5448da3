//! Messages of the controller, put together to whole changes.
//!
//! Must not know: sockets, what resources mean, what is applied. It bounds what a peer can make us hold.
//!
//! Main type: [`Receiver`], one per connection.

use api::fleet::{
    Change, ControllerMessage, Question, Rejection, ResourceSet, Secret, Transfer, controller_message::Kind,
};
use api::{Digest, Version};
use prost::Message;

/// Largest accepted state. A stage with two backends takes some 300 bytes, so this is far beyond any real fleet.
pub(crate) const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// A whole change, not yet looked into.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) version: Version,
    /// What the difference builds on; `None`: it is the full state.
    pub(crate) base: Option<Version>,
    pub(crate) set: ResourceSet,
    /// Of the state after the change.
    pub(crate) fingerprint: Vec<u8>,
}

/// What a message led to.
#[derive(Debug)]
pub(crate) enum Received {
    /// Nothing to do yet, or a message that this version does not know.
    Nothing,
    /// The controller greets.
    Welcome,
    /// Secrets that later changes name.
    Secrets(Vec<Secret>),
    /// The controller wants to know what was decided.
    Question(Question),
    /// A change is whole.
    Whole(Incoming),
    /// A change was refused as a whole.
    Refused { version: Version, rejections: Vec<Rejection> },
}

/// Puts transfers together.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    partial: Option<Partial>,
    /// A transfer that was refused: its remaining pieces are dropped in silence.
    refused: Option<Version>,
}

#[derive(Debug)]
struct Partial {
    /// The first piece, without its data: all others must say the same.
    head: Transfer,
    data: Vec<u8>,
}

impl Receiver {
    /// Takes the next message.
    pub(crate) fn receive(&mut self, message: ControllerMessage) -> Received {
        match message.kind {
            Some(Kind::Transfer(piece)) => {
                let version: Version = piece.version.unwrap_or_default().into();
                match self.piece(piece) {
                    Ok(Some(incoming)) => Received::Whole(incoming),
                    Ok(None) => Received::Nothing,
                    Err((field, reason)) => {
                        self.partial = None;
                        self.refused = Some(version);
                        Received::Refused { version, rejections: vec![rejection(field, reason)] }
                    }
                }
            }
            Some(Kind::Change(change)) => self.change(change),
            Some(Kind::Welcome(_)) => Received::Welcome,
            Some(Kind::Secrets(secrets)) => Received::Secrets(secrets.secrets),
            Some(Kind::Question(question)) => Received::Question(question),
            None => Received::Nothing,
        }
    }

    fn change(&mut self, change: Change) -> Received {
        let version: Version = change.version.unwrap_or_default().into();
        // All changes stand in one sequence: one in the middle of a transfer means that the transfer was given up.
        self.partial = None;
        match (change.base, change.set) {
            (Some(base), Some(set)) => {
                let fingerprint = change.fingerprint;
                Received::Whole(Incoming { version, base: Some(base.into()), set, fingerprint })
            }
            (None, _) => Received::Refused { version, rejections: vec![rejection("base", "is missing".into())] },
            (_, None) => Received::Refused { version, rejections: vec![rejection("set", "is missing".into())] },
        }
    }

    fn piece(&mut self, mut piece: Transfer) -> Result<Option<Incoming>, (&'static str, String)> {
        let data = std::mem::take(&mut piece.data);
        let offset = std::mem::take(&mut piece.offset);
        if offset == 0 {
            self.refused = None;
            if piece.total_bytes > MOST_BYTES {
                let reason = format!("{} announced, at most {MOST_BYTES} are accepted", piece.total_bytes);
                return Err(("total_bytes", reason));
            }
            self.partial = Some(Partial { head: piece.clone(), data: Vec::new() });
        } else if self.refused == Some(piece.version.unwrap_or_default().into()) {
            return Ok(None);
        }
        let Some(partial) = &mut self.partial else {
            return Err(("offset", format!("begins at {offset}, not at 0")));
        };
        if partial.head != piece {
            return Err(("offset", "a piece of another transfer came before this one was whole".into()));
        }
        if offset != partial.data.len() as u64 {
            return Err(("offset", format!("is {offset}, expected was {}", partial.data.len())));
        }
        let total = piece.total_bytes;
        if offset + data.len() as u64 > total || (data.is_empty() && total > 0) {
            return Err(("data", format!("{} bytes at {offset} do not fit into {total}", data.len())));
        }
        partial.data.extend_from_slice(&data);
        if (partial.data.len() as u64) < total {
            return Ok(None);
        }
        let Partial { head, data } = self.partial.take().expect("just used");
        if Digest::of(&data).as_bytes()[..] != head.sha256[..] {
            return Err(("sha256", "the bytes are not the ones that were announced".into()));
        }
        let set = ResourceSet::decode(&data[..]).map_err(|error| ("data", format!("cannot be decoded: {error}")))?;
        Ok(Some(Incoming {
            version: head.version.unwrap_or_default().into(),
            base: head.base.map(Into::into),
            set,
            fingerprint: head.fingerprint,
        }))
    }
}

fn rejection(field: &str, reason: String) -> Rejection {
    Rejection { resource: String::new(), field: field.into(), reason }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;

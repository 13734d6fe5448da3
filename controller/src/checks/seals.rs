//! What our own proxies say by the id of an answer 404: nobody else can have sealed it, so that a check knows a closed door from
//! a release that has no such page.
//!
//! Must not know: what was asked.

use crate::engine::{Engine, Handle};
use crate::explain;

use super::line;

/// Who has the keys.
pub(super) struct Seals(Option<Handle>);

impl Seals {
    pub(super) fn of(engine: Handle) -> Self {
        Self(Some(engine))
    }

    /// Which opens nothing.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Why a proxy let the check not in, in one line; none: the id is no proxy's of ours.
    pub(super) async fn opened(&self, id: String) -> Option<String> {
        let open = move |engine: &Engine| {
            let (denial, own) = explain::open(engine.publisher.certificates().explain().keys(), &id).ok()?;
            Some(explain::opened(&engine.state, &denial, &own, None).lines.join("; "))
        };
        let why = self.0.as_ref()?.read(open).await??;
        Some(line::one(&format!("a proxy does not let it in: {why}")))
    }
}

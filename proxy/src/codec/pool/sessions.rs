//! What one pool remembers of TLS: sessions to resume, and when they are forgotten. Pure but for the library's memory.
//!
//! Main type: [`Sessions`], of one worker with one address.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use certs::endpoint::Connector;
use tokio::time::Instant;

use crate::snapshot::Tls;

/// So long after the last handshake there may be something to resume: servers mostly keep theirs for five minutes.
const KEPT: Duration = Duration::from_secs(300);

/// Sessions are forgotten so often, however much they are used: an endpoint that comes back by one shows no certificate,
/// and the one it had may have expired.
const VERIFIED_AGAIN: Duration = Duration::from_secs(3_600);

/// See the module.
#[derive(Debug)]
pub(super) struct Sessions {
    tls: Arc<Tls>,
    /// With a memory of its own.
    connector: RefCell<Connector>,
    /// Since when it remembers.
    since: Cell<Instant>,
    /// When it was last used.
    used: Cell<Instant>,
}

impl Sessions {
    pub(super) fn new(tls: &Arc<Tls>, now: Instant) -> Self {
        let connector = RefCell::new(tls.connector.with_sessions());
        Self { tls: tls.clone(), connector, since: Cell::new(now), used: Cell::new(now) }
    }

    /// What the next handshake is made with. Allocates, once a handshake.
    pub(super) fn connector(&self, now: Instant) -> Connector {
        self.used.set(now);
        if now.duration_since(self.since.get()) >= VERIFIED_AGAIN {
            self.since.set(now);
            self.connector.replace(self.tls.connector.with_sessions());
        }
        self.connector.borrow().clone()
    }

    /// Whether a further handshake may save the dear part.
    pub(super) fn may_resume(&self, now: Instant) -> bool {
        now.duration_since(self.used.get()) < KEPT
    }
}

#[cfg(test)]
mod tests {
    use certs::endpoint::{Application, Authorities};

    use super::*;

    #[tokio::test]
    async fn sessions_are_kept_while_they_may_be_of_use_and_forgotten_after_an_hour() {
        certs::install_provider();
        let connector = Connector::new(&Authorities::default(), "hello.internal", Application::Http1).expect("a name");
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let sessions = Sessions::new(&Arc::new(Tls { id: 1, connector }), start);
        let first = sessions.connector(start + 60 * second);
        for (after, kept) in [(61, true), (359, true), (360, false), (86_400, false)] {
            assert_eq!(sessions.may_resume(start + after * second), kept, "after {after} s");
        }
        // However often they are used.
        for (after, same) in [(600, true), (1_200, true), (3_599, true), (3_600, false), (3_601, false)] {
            let now = sessions.connector(start + after * second);
            assert_eq!(now.shares_sessions_with(&first), same, "after {after} s");
        }
        let second_hour = sessions.connector(start + 7_199 * second);
        assert!(second_hour.shares_sessions_with(&sessions.connector(start + 7_199 * second)));
    }
}

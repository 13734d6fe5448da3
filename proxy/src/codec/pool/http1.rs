//! HTTP/1.1: one request at a time per connection, idle ones kept for the next, the last used first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use super::{Failed, Pool};
use crate::codec::http1::endpoint::{self, Answer, Conn};
use crate::codec::http1::head::ResponseHead;
use crate::codec::prepared::Outgoing;

/// Turns of about a second after which a connection has been idle for too long: shorter than what common servers allow
/// (Node.js: 5 s), so that it is nearly always we who close. Counted, because the clock would be asked twice a request.
const IDLE: u32 = 4;
/// Most idle connections per endpoint and worker: beyond it a connection is closed after its answer.
const MOST_IDLE: usize = 256;

/// Idle connections, the last used at the back.
#[derive(Debug, Default)]
pub(super) struct Idles {
    conns: RefCell<VecDeque<Box<Conn>>>,
    turn: Cell<u32>,
}

impl Idles {
    pub(super) fn put(&self, mut conn: Box<Conn>) {
        let mut idles = self.conns.borrow_mut();
        if idles.len() < MOST_IDLE {
            conn.idle_since = self.turn.get();
            idles.push_back(conn);
        } else {
            conn.say_end();
        }
    }

    /// The last used that is still open.
    fn take(&self) -> Option<Box<Conn>> {
        loop {
            let mut conn = self.conns.borrow_mut().pop_back()?;
            if self.is_usable(&mut conn) {
                return Some(conn);
            }
        }
    }

    /// A turn: closes what is too old or was closed over there; true while any is left.
    pub(super) fn prune(&self) -> bool {
        self.turn.set(self.turn.get().wrapping_add(1));
        let mut idles = self.conns.borrow_mut();
        idles.retain_mut(|conn| self.is_usable(conn));
        !idles.is_empty()
    }

    /// One that is not is about to be closed, and is told so.
    fn is_usable(&self, conn: &mut Conn) -> bool {
        let usable = self.turn.get().wrapping_sub(conn.idle_since) < IDLE && conn.is_open();
        if !usable {
            conn.say_end();
        }
        usable
    }
}

/// Sends a request. One that a reused connection did not take, because the endpoint had closed it meanwhile, goes out
/// once more on a fresh connection when it may be sent twice without harm (RFC 9112 §9.3.1).
pub(super) async fn send(
    pool: &Pool,
    outgoing: &mut Outgoing,
    limit: Duration,
) -> Result<(ResponseHead, Answer), Failed> {
    if let Some(conn) = pool.http1.take() {
        let (head, upload) = outgoing.parts();
        match conn.send(&head, upload, limit).await {
            Err(endpoint::Failed::Stale) if outgoing.can_repeat() => {}
            other => return Ok(other?),
        }
    }
    // Connecting is rare and its state large: it does not belong into every request's.
    let conn = Conn::new(Box::pin(pool.connect()).await?, &pool.deadlines, pool.limits.clone());
    let (head, upload) = outgoing.parts();
    Ok(Box::new(conn).send(&head, upload, limit).await?)
}

//! How a worker stops: no new requests, those in flight may finish until a deadline, then everything closes.
//!
//! Must not know: why it stops, or what requests are.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::worker::Worker;

/// A client that has just connected has this long to send its request.
const LATE: Duration = Duration::from_millis(200);

/// Drains a worker until `deadline`. Returns the number of requests that were cut.
///
/// Idle connections close at once. HTTP/2 clients are told to go elsewhere (GOAWAY), HTTP/1 clients with the answer.
pub(crate) async fn drain(worker: &Rc<Worker>, accepting: Vec<JoinHandle<()>>, deadline: Instant) -> u64 {
    worker.stop_accepting();
    for task in accepting {
        let _ = task.await;
    }
    let mut late = false;
    for connection in worker.open_connections() {
        // Those who have not said anything yet, also in the listeners' queues, would close unanswered.
        if connection.is_new() { late = true } else { connection.leave() }
    }
    if late {
        tokio::time::sleep_until(deadline.min(Instant::now() + LATE)).await;
    }
    for connection in worker.open_connections() {
        connection.leave();
    }
    while worker.has_connections() {
        if tokio::time::timeout_at(deadline, worker.changed()).await.is_err() {
            break;
        }
    }
    let cut = worker.outstanding();
    for connection in worker.open_connections() {
        connection.cut();
    }
    worker.hand_over_log();
    if cut > 0 {
        tracing::warn!(requests = cut, "requests were cut at the end of the drain");
    }
    cut.into()
}

//! How a worker stops: no new requests, those in flight may finish until a deadline, then everything closes.
//!
//! Must not know: why it stops, or what requests are.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::worker::Worker;

/// A connection accepted at the last moment has this long to send its request.
const LATE: Duration = Duration::from_millis(200);

/// Drains a worker until `deadline`. Returns the number of requests that were cut.
///
/// Idle connections close at once. HTTP/2 clients are told to go elsewhere (GOAWAY), HTTP/1 clients with the answer.
pub(crate) async fn drain(worker: &Rc<Worker>, accepting: Vec<JoinHandle<()>>, deadline: Instant) -> u64 {
    let before = worker.open_connections();
    worker.stop_accepting();
    for task in accepting {
        let _ = task.await;
    }
    for connection in &before {
        connection.leave();
    }
    // Those from the listeners' queues have not said anything yet: told to leave now, they would close unanswered.
    let late = worker.open_connections();
    if late.len() > before.len() {
        tokio::time::sleep_until(deadline.min(Instant::now() + LATE)).await;
    }
    for connection in worker.open_connections() {
        connection.leave();
    }
    while !worker.open_connections().is_empty() {
        if tokio::time::timeout_at(deadline, worker.changed()).await.is_err() {
            break;
        }
    }
    let cut = worker.outstanding();
    for connection in worker.open_connections() {
        connection.cut();
    }
    if cut > 0 {
        tracing::warn!(requests = cut, "requests were cut at the end of the drain");
    }
    cut.into()
}

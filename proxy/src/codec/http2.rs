//! HTTP/2, as the library (`h2` below `hyper`) reads and writes it.

pub(crate) mod body;
pub(crate) mod server;
mod streams;
mod watched;
mod websocket;

/// Spawns on the worker's own thread, so that nothing has to be `Send`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move { drop(task.await) });
    }
}

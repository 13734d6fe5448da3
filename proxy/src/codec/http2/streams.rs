//! Streams of a client, each a task of its own, and the end of those that the client does not read.
//!
//! The library does not ask a body for more while the client gives no window, and has no deadline for that: it would
//! hold what was read of the endpoint, and the endpoint's stream, for ever. What it hands us to run is one future per
//! stream; dropping that resets the stream.
//!
//! Main types: [`Streams`], which runs them; [`Taken`], by which a body tells that it is read.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::codec::connection::Connection;
use crate::codec::idle::Idle;
use crate::totals::Cut;

thread_local! {
    /// The stream whose future runs now. The library gives no other way from a body to the task that it is in.
    static CURRENT: RefCell<Option<Rc<Taken>>> = const { RefCell::new(None) };
}

/// Runs the streams of a connection.
#[derive(Debug, Clone)]
pub(super) struct Streams(pub(super) Rc<Connection>);

/// Whether the client takes what a stream has for it.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The body gave a piece and was not asked for the next one since.
    waits: Cell<bool>,
    /// It was asked since somebody last looked.
    moved: Cell<bool>,
}

impl Taken {
    /// Of the stream that runs now.
    pub(super) fn current() -> Option<Rc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// The body was asked for a piece, and gave one or not.
    pub(super) fn asked(&self, gave: bool) {
        self.moved.set(true);
        self.waits.set(gave);
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let connection = self.0.clone();
        // Allocates with the task: two small counts a stream.
        let (taken, idle) = (Rc::<Taken>::default(), Idle::new(connection.deadlines()));
        let mut stream = Box::pin(stream);
        tokio::task::spawn_local(std::future::poll_fn(move |cx| poll(stream.as_mut(), &taken, &idle, &connection, cx)));
    }
}

fn poll<F: Future>(
    stream: Pin<&mut F>,
    taken: &Rc<Taken>,
    idle: &Idle,
    connection: &Connection,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let before = CURRENT.replace(Some(taken.clone()));
    let polled = stream.poll(cx);
    CURRENT.set(before);
    if polled.is_ready() {
        return Poll::Ready(());
    }
    if taken.moved.replace(false) || !taken.waits.get() {
        idle.progress();
    }
    if taken.waits.get() && idle.is_over(connection.limits().body, cx) {
        tracing::debug!(peer = %connection.peer().text, "a stream was reset: the client does not read it");
        connection.count(Cut::UnreadStream);
        return Poll::Ready(());
    }
    Poll::Pending
}

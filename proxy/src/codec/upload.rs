//! The client's body on its way to an endpoint, whatever it came on and goes out on.
//!
//! Main type: [`Upload`].

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::flow::{Source, SourceError};
use super::http1::client::Client;
use super::http1::framing::Framing;
use super::http1::head::ResponseHead;
use super::http2::body::Incoming;
use super::idle::Idle;
use super::rewrite::{clean_trailers, write_interim};

/// See the module.
#[derive(Debug)]
pub(crate) struct Upload {
    from: From,
    framing: Framing,
    progress: Option<Rc<Progress>>,
    touched: bool,
}

/// How it goes, for those who wait for an answer while another task has the body.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// It broke on the client's side: the release is not to blame.
    pub(crate) failed: Cell<bool>,
    /// Some of it went on since somebody last asked.
    pub(crate) moved: Cell<bool>,
}

#[derive(Debug)]
enum From {
    Nothing,
    Http1 {
        client: Rc<Client>,
        interim: bool,
        invites: bool,
    },
    Http2 {
        body: Box<Incoming>,
        idle: Idle,
        limit: Duration,
    },
    /// The exchange took it over.
    Gone,
}

impl Upload {
    /// Of an HTTP/1 client. `interim`: it understands interim answers.
    pub(crate) fn http1(client: Rc<Client>, framing: Framing, interim: bool) -> Self {
        Self { from: From::Http1 { client, interim, invites: false }, framing, progress: None, touched: false }
    }

    /// Of an HTTP/2 client; `idle` and `limit` bound the time between two pieces.
    pub(crate) fn http2(body: Incoming, idle: impl FnOnce() -> Idle, limit: Duration) -> Self {
        let framing = match (body.is_empty(), body.length()) {
            (true, _) => Framing::Length(0),
            (_, Some(length)) => Framing::Length(length),
            _ => Framing::Chunked,
        };
        let from =
            if body.is_empty() { From::Nothing } else { From::Http2 { body: Box::new(body), idle: idle(), limit } };
        Self { from, framing, progress: None, touched: false }
    }

    /// Of a request without a body.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn nothing() -> Self {
        Self { from: From::Nothing, framing: Framing::Length(0), progress: None, touched: false }
    }

    /// How it is announced to an endpoint.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the request has no body.
    pub(crate) fn is_nothing(&self) -> bool {
        self.framing == Framing::Length(0)
    }

    /// Whether the request can be sent as it was: nothing of the body was used.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// Tells how it goes from now on.
    pub(crate) fn progress(&mut self) -> Rc<Progress> {
        self.progress.get_or_insert_default().clone()
    }

    /// The endpoint is not asked whether the body may come: we say so, as soon as it is wanted.
    pub(crate) fn invite(&mut self) {
        if let From::Http1 { invites, .. } = &mut self.from {
            *invites = true;
        }
    }

    /// What is left of it, to go on beside the answer.
    pub(crate) fn take_over(&mut self) -> Self {
        let gone = Self { from: From::Gone, framing: Framing::Length(0), progress: None, touched: true };
        std::mem::replace(self, gone)
    }

    /// Passes an interim answer of the endpoint on to a client that understands it.
    pub(crate) fn inform(&mut self, head: &ResponseHead, cx: &mut Context<'_>) {
        let From::Http1 { client, interim: true, .. } = &self.from else { return };
        if head.status == 100 {
            client.was_invited();
        }
        client.inform(|out| write_interim(head, out), cx);
    }

    fn fail(&mut self, error: SourceError) -> Poll<Result<bool, SourceError>> {
        if let Some(progress) = &self.progress {
            progress.failed.set(true);
        }
        self.from = From::Gone;
        Poll::Ready(Err(error))
    }
}

impl Source for Upload {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, SourceError>> {
        let polled = match &mut self.from {
            From::Nothing => return Poll::Ready(Ok(false)),
            From::Gone => return Poll::Ready(Err(SourceError::Over)),
            From::Http1 { client, invites, .. } => {
                if std::mem::take(invites) {
                    client.invite(cx);
                }
                client.poll_body(cx)
            }
            From::Http2 { body, idle, limit } => match body.poll_ready(cx) {
                Poll::Pending if idle.is_over(*limit, cx) => Poll::Ready(Err(SourceError::Idle)),
                Poll::Pending => Poll::Pending,
                ready => {
                    idle.progress();
                    ready
                }
            },
        };
        match polled {
            Poll::Ready(Err(error)) => self.fail(error),
            Poll::Ready(Ok(true)) => {
                self.touched = true;
                if let Some(progress) = &self.progress {
                    progress.moved.set(true);
                }
                Poll::Ready(Ok(true))
            }
            other => other,
        }
    }

    fn with<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> R {
        match &mut self.from {
            From::Http1 { client, .. } => client.with_body(look),
            From::Http2 { body, .. } => body.with(look),
            From::Nothing | From::Gone => look(&[]),
        }
    }

    fn consume(&mut self, count: usize) {
        match &mut self.from {
            From::Http1 { client, .. } => client.consume_body(count),
            From::Http2 { body, .. } => body.consume(count),
            From::Nothing | From::Gone => {}
        }
    }

    fn take(&mut self) -> Bytes {
        match &mut self.from {
            From::Http1 { client, .. } => client.take_body(),
            From::Http2 { body, .. } => body.take(),
            From::Nothing | From::Gone => Bytes::new(),
        }
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        let trailers = match &mut self.from {
            From::Http1 { client, .. } => client.take_trailers(),
            From::Http2 { body, .. } => body.take_trailers(),
            From::Nothing | From::Gone => None,
        };
        trailers.and_then(clean_trailers)
    }

    fn is_empty(&self) -> bool {
        match &self.from {
            From::Nothing | From::Gone => true,
            From::Http1 { .. } => self.is_nothing(),
            From::Http2 { body, .. } => body.is_empty(),
        }
    }

    fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        }
    }
}

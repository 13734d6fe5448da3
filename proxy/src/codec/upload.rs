//! The client's body on its way to an endpoint, whatever it came on and goes out on.
//!
//! Main type: [`Upload`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;

use super::flow::{Source, SourceError};
use super::grpc_web::Base64;
use super::http1::client::Client;
use super::http1::framing::Framing;
use super::http1::head::ResponseHead;
use super::http2::body::Incoming;
use super::idle::Idle;
use super::rewrite::{clean_trailers, write_interim};
use crate::answer::BodyFault;

/// See the module.
#[derive(Debug)]
pub(crate) struct Upload {
    from: From,
    framing: Framing,
    progress: Option<Rc<Progress>>,
    touched: bool,
    /// Of gRPC-Web as text: what is decoded goes on.
    text: Option<Box<Text>>,
}

/// A body in Base64 on its way to become bytes.
#[derive(Debug, Default)]
struct Text {
    decoder: Base64,
    piece: Bytes,
}

/// What is left of a body that nobody wants any more. Dropped before the answer has gone out, the library would reset
/// the stream and the answer with it; after that it only tells the client to stop.
#[derive(Debug, Default)]
pub(crate) struct Rest(RefCell<Option<Box<Incoming>>>);

/// So much of it is thrown away, and for so long, before the client is told to stop: some clients lose an answer that is
/// followed by a reset, although they may not (RFC 9113 §8.1; curl before 8.0).
const REST_BYTES: usize = 64 * 1024;
/// See [`REST_BYTES`].
const REST: Duration = Duration::from_secs(1);

impl Rest {
    /// Whether the client may still send: the body is on its way somewhere, or nobody wants what is left of it.
    pub(crate) fn is_pending(self: &Rc<Self>) -> bool {
        Rc::strong_count(self) > 1 || self.0.borrow().as_ref().is_some_and(|body| !body.is_empty())
    }

    /// Throws it away, within bounds. `thrown`: so much was already.
    pub(crate) fn poll_end(&self, idle: &Idle, thrown: &mut usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut rest = self.0.borrow_mut();
        let Some(body) = rest.as_mut() else { return Poll::Ready(()) };
        while *thrown <= REST_BYTES {
            match body.poll_ready(cx) {
                Poll::Ready(Ok(true)) => *thrown += body.take().len(),
                Poll::Ready(_) => break,
                Poll::Pending if idle.is_over(REST, cx) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

/// How it goes, for those who wait for an answer while another task has the body.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// It broke on the client's side: the release is not to blame.
    pub(crate) failed: Cell<Option<BodyFault>>,
    /// Some of it went on since somebody last asked.
    pub(crate) moved: Cell<bool>,
    /// Nobody wants the rest of it.
    unwanted: Cell<bool>,
    /// Waits for more of it.
    waits: RefCell<Option<Waker>>,
}

impl Progress {
    /// The answer has ended, or nobody waits for it any more: the task that sends the body is told, and resets the
    /// endpoint's stream if it was not sent to its end.
    pub(crate) fn give_up(&self) {
        self.unwanted.set(true);
        if let Some(waker) = self.waits.take() {
            waker.wake();
        }
    }
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
        rest: Rc<Rest>,
    },
    /// The exchange took it over.
    Gone,
}

impl Upload {
    /// Of an HTTP/1 client. `interim`: it understands interim answers.
    pub(crate) fn http1(client: Rc<Client>, framing: Framing, interim: bool) -> Self {
        Self {
            from: From::Http1 { client, interim, invites: false },
            framing,
            progress: None,
            touched: false,
            text: None,
        }
    }

    /// Of an HTTP/2 client; `idle` and `limit` bound the time between two pieces. With it what has to be kept until the
    /// answer has gone out.
    pub(crate) fn http2(body: Incoming, idle: impl FnOnce() -> Idle, limit: Duration) -> (Self, Option<Rc<Rest>>) {
        let framing = match (body.is_empty(), body.length()) {
            (true, _) => Framing::Length(0),
            (_, Some(length)) => Framing::Length(length),
            _ => Framing::Chunked,
        };
        let mut upload = Self { from: From::Nothing, framing, progress: None, touched: false, text: None };
        if body.is_empty() {
            return (upload, None);
        }
        // Allocates: only for a request with a body.
        let rest = Rc::<Rest>::default();
        upload.from = From::Http2 { body: Box::new(body), idle: idle(), limit, rest: rest.clone() };
        (upload, Some(rest))
    }

    /// Of a request without a body.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn nothing() -> Self {
        Self { from: From::Nothing, framing: Framing::Length(0), progress: None, touched: false, text: None }
    }

    /// It comes in Base64 and goes on as what that says.
    pub(crate) fn decode_base64(&mut self) {
        if self.framing != Framing::Length(0) {
            (self.framing, self.text) = (Framing::Chunked, Some(Box::default()));
        }
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
        let gone = Self { from: From::Gone, framing: Framing::Length(0), progress: None, touched: true, text: None };
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
            progress.failed.set(Some(error.fault()));
        }
        self.from = From::Gone;
        Poll::Ready(Err(error))
    }
}

impl Upload {
    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, SourceError>> {
        if self.progress.as_ref().is_some_and(|progress| progress.unwanted.get()) {
            drop(self.take_over());
            return Poll::Ready(Err(SourceError::Over));
        }
        let polled = match &mut self.from {
            From::Nothing => return Poll::Ready(Ok(false)),
            From::Gone => return Poll::Ready(Err(SourceError::Over)),
            From::Http1 { client, invites, .. } => {
                if std::mem::take(invites) {
                    client.invite(cx);
                }
                client.poll_body(cx)
            }
            From::Http2 { body, idle, limit, .. } => match body.poll_ready(cx) {
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
            Poll::Pending => {
                if let Some(progress) = &self.progress {
                    progress.waits.replace(Some(cx.waker().clone()));
                }
                Poll::Pending
            }
            over @ Poll::Ready(Ok(false)) => over,
        }
    }

    fn take_raw(&mut self) -> Bytes {
        match &mut self.from {
            From::Http1 { client, .. } => client.take_body(),
            From::Http2 { body, .. } => body.take(),
            From::Nothing | From::Gone => Bytes::new(),
        }
    }
}

impl Source for Upload {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, SourceError>> {
        loop {
            if self.text.as_ref().is_some_and(|text| !text.piece.is_empty()) {
                return Poll::Ready(Ok(true));
            }
            let more = ready!(self.poll_raw(cx))?;
            let raw = if more && self.text.is_some() { self.take_raw() } else { Bytes::new() };
            let Some(text) = &mut self.text else { return Poll::Ready(Ok(more)) };
            match text.decoder.decode(&raw) {
                Ok(_) if !more && text.decoder.is_complete() => return Poll::Ready(Ok(false)),
                Ok(piece) if more => text.piece = piece,
                _ => return self.fail(SourceError::Broken("it is not Base64".into())),
            }
        }
    }

    fn with<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> R {
        if let Some(text) = &self.text {
            return look(&text.piece);
        }
        match &mut self.from {
            From::Http1 { client, .. } => client.with_body(look),
            From::Http2 { body, .. } => body.with(look),
            From::Nothing | From::Gone => look(&[]),
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(text) = &mut self.text {
            return text.piece.advance(count);
        }
        match &mut self.from {
            From::Http1 { client, .. } => client.consume_body(count),
            From::Http2 { body, .. } => body.consume(count),
            From::Nothing | From::Gone => {}
        }
    }

    fn take(&mut self) -> Bytes {
        match &mut self.text {
            Some(text) => std::mem::take(&mut text.piece),
            None => self.take_raw(),
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

impl Drop for Upload {
    fn drop(&mut self) {
        if let From::Http2 { body, rest, .. } = std::mem::replace(&mut self.from, From::Gone)
            && !body.is_empty()
        {
            rest.0.replace(Some(body));
        }
    }
}

//! The engine's queue: changes of traffic before everything else, otherwise in order.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Accepted, Engine, NotDone, Submission};

/// What goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Changes of traffic, and what proxies wait for.
    Traffic,
    /// Everything else.
    Normal,
}

pub(super) type Reply = oneshot::Sender<Result<Accepted, NotDone>>;

/// One piece of work for the engine.
pub(super) enum Message {
    Command(Box<Submission>, Reply),
    /// Something was seen.
    Change(Box<dyn FnOnce(&mut Engine) + Send>),
    /// Somebody wants to look.
    Read(Box<dyn FnOnce(&Engine) + Send>),
    Stop,
}

#[derive(Default)]
pub(super) struct Inbox {
    queues: Mutex<Queues>,
    filled: Condvar,
}

#[derive(Default)]
struct Queues {
    traffic: VecDeque<Message>,
    normal: VecDeque<Message>,
    closed: bool,
}

impl Inbox {
    /// The next message; `None` when there was none for `wait`.
    pub(super) fn take(&self, wait: Duration) -> Option<Message> {
        let empty = |queues: &mut Queues| queues.traffic.is_empty() && queues.normal.is_empty();
        let (mut queues, _) =
            self.filled.wait_timeout_while(self.lock(), wait, empty).unwrap_or_else(PoisonError::into_inner);
        queues.traffic.pop_front().or_else(|| queues.normal.pop_front())
    }

    /// Refuses further messages and drops those that wait: their askers learn it from the dropped reply.
    pub(super) fn close(&self) {
        let mut queues = self.lock();
        queues.closed = true;
        queues.traffic.clear();
        queues.normal.clear();
    }

    fn put(&self, message: Message, priority: Priority) {
        let mut queues = self.lock();
        if queues.closed {
            return;
        }
        match priority {
            Priority::Traffic => queues.traffic.push_back(message),
            Priority::Normal => queues.normal.push_back(message),
        }
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // A panic elsewhere leaves the queues whole: every operation on them is one push or pop.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How everybody else reaches the engine.
#[derive(Clone)]
pub(crate) struct Handle {
    inbox: Arc<Inbox>,
}

impl Handle {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox }
    }

    /// Has a command carried out.
    ///
    /// # Cancel safety
    /// Dropped after it was queued, the command is carried out all the same.
    pub(crate) async fn submit(&self, submission: Submission, priority: Priority) -> Result<Accepted, NotDone> {
        let (reply, answer) = oneshot::channel();
        self.inbox.put(Message::Command(Box::new(submission), reply), priority);
        answer.await.unwrap_or(Err(NotDone::Stopping))
    }

    /// Lets `look` read the engine and returns what it found; `None` when the controller is stopping.
    pub(crate) async fn read<T: Send + 'static>(&self, look: impl FnOnce(&Engine) -> T + Send + 'static) -> Option<T> {
        self.look(Priority::Normal, look).await
    }

    /// As [`Handle::read`], before everything that is not traffic: for what a rollback has to know first.
    pub(crate) async fn read_first<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Option<T> {
        self.look(Priority::Traffic, look).await
    }

    async fn look<T: Send + 'static>(
        &self,
        priority: Priority,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let read = move |engine: &Engine| {
            let _ = reply.send(look(engine)); // Nobody may be interested any more.
        };
        self.inbox.put(Message::Read(Box::new(read)), priority);
        answer.await.ok()
    }

    /// Tells the engine something that was seen.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Engine) + Send + 'static) {
        self.inbox.put(Message::Change(Box::new(change)), Priority::Traffic);
    }

    /// As [`Handle::tell`], and waits until the engine has heard it.
    pub(crate) async fn tell_and_wait(&self, change: impl FnOnce(&mut Engine) + Send + 'static) {
        let (reply, heard) = oneshot::channel();
        self.tell(move |engine| {
            change(engine);
            let _ = reply.send(()); // Nobody may wait any more.
        });
        let _ = heard.await; // The controller is stopping.
    }

    /// Ends the engine after what is queued as traffic.
    pub(crate) fn stop(&self) {
        self.inbox.put(Message::Stop, Priority::Traffic);
    }
}

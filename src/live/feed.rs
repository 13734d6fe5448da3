//! Replies as they come, and connecting again when they stop.

use std::time::Duration;

use api::operator::StatusReply;
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use crate::exit::Failure;
use crate::operator::{Client, is_broken_connection};
use crate::verbs::status::watching;

/// Between two attempts to connect again.
const AGAIN: Duration = Duration::from_secs(1);

/// What came.
#[derive(Debug)]
pub(super) enum News {
    /// A new state.
    Reply(Box<StatusReply>),
    /// The connection is gone, for this reason; it is being tried again.
    Lost(String),
    /// There is no sense in trying again.
    Over(Failure),
}

/// The news of one selector.
#[derive(Debug)]
pub(super) struct Feed(mpsc::Receiver<News>);

impl Feed {
    /// Connects once, then keeps at it on a task that ends with the feed.
    pub(super) async fn start(mut client: Client, selector: String) -> Result<Self, Failure> {
        let reply = client.calls.status(watching(&selector)).await;
        let stream = reply.map_err(|status| client.failure(&status))?.into_inner();
        // Little room: a slow terminal makes the controller wait, it does not pile up states.
        let (news, receiver) = mpsc::channel(2);
        tokio::spawn(keep(client, selector, stream, news));
        Ok(Self(receiver))
    }

    /// The next news.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> News {
        let over = || News::Over(Failure::refused("the watch has ended"));
        self.0.recv().await.unwrap_or_else(over)
    }
}

async fn keep(mut client: Client, selector: String, first: Streaming<StatusReply>, news: mpsc::Sender<News>) {
    let mut stream = Some(first);
    loop {
        let status = match &mut stream {
            Some(open) => match open.message().await {
                Ok(Some(reply)) => {
                    if news.send(News::Reply(Box::new(reply))).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(None) => None,
                Err(status) => Some(status),
            },
            None => match client.calls.status(watching(&selector)).await {
                Ok(reply) => {
                    stream = Some(reply.into_inner());
                    continue;
                }
                Err(status) => Some(status),
            },
        };
        stream = None;
        let told = match &status {
            // A token that was revoked, a service that is gone: the same answer would come again.
            Some(status) if !is_broken_connection(status) && is_final(status.code()) => {
                News::Over(client.failure(status))
            }
            Some(status) => News::Lost(client.failure(status).message),
            None => News::Lost("the controller has closed the connection".into()),
        };
        let over = matches!(told, News::Over(_));
        if news.send(told).await.is_err() || over {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::NotFound
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
    )
}

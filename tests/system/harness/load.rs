//! Steady load: clients that ask as fast as they are answered, counted by the release that answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::{Client, Speech, until};

/// What came back so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    pub(crate) by_release: BTreeMap<String, u64>,
    pub(crate) failed: u64,
    /// By the release that answered; empty: none did.
    pub(crate) failed_by_release: BTreeMap<String, u64>,
    /// The first failures.
    pub(crate) examples: Vec<String>,
}

/// Clients at work until dropped.
pub(crate) struct Load {
    counted: Arc<Mutex<Counted>>,
    _clients: JoinSet<()>,
}

impl Load {
    /// A client over HTTP/1.1 and one over HTTP/2, both through TLS, at each address.
    pub(crate) fn start(addresses: &[SocketAddr], authority: &str) -> Self {
        Self::of(addresses, |address, speech| Client::tls(address, speech, authority))
    }

    /// The same in clear, for proxies whose clock is not that of the test.
    pub(crate) fn plain(addresses: &[SocketAddr]) -> Self {
        Self::of(addresses, Client::plain)
    }

    /// Over TLS, with credentials.
    pub(crate) fn with(addresses: &[SocketAddr], authority: &str, key: &str, token: &str) -> Self {
        Self::of(addresses, |address, speech| Client::tls(address, speech, authority).by(Some(key), Some(token)))
    }

    fn of(addresses: &[SocketAddr], client: impl Fn(SocketAddr, Speech) -> Client) -> Self {
        let (counted, mut clients) = (Arc::<Mutex<Counted>>::default(), JoinSet::new());
        for address in addresses {
            for speech in [Speech::Http1, Speech::Http2] {
                let (mut client, counted) = (client(*address, speech), counted.clone());
                let name = format!("{speech:?} at {address}");
                clients.spawn(async move {
                    loop {
                        let answer = client.get().await;
                        let (release, problem) = match answer {
                            Ok(answer) if answer.status == 200 => (answer.release, None),
                            Ok(answer) => (answer.release.clone(), Some(format!("{answer:?}"))),
                            Err(problem) => (String::new(), Some(problem)),
                        };
                        counted.lock().expect("whole").count(release, problem, &name);
                    }
                });
            }
        }
        Self { counted, _clients: clients }
    }

    pub(crate) fn counted(&self) -> Counted {
        self.counted.lock().expect("whole").clone()
    }

    /// Waits until there were so many requests in all.
    pub(crate) async fn reaches(&self, requests: u64) {
        until(&format!("{requests} requests"), async || (self.counted().requests >= requests).then_some(())).await;
    }

    /// Waits for so many requests more.
    pub(crate) async fn goes_on(&self, requests: u64) {
        self.reaches(self.counted().requests + requests).await;
    }

    /// Ends it: nothing may have failed.
    #[track_caller]
    pub(crate) fn ends_without_failure(self) -> Counted {
        let counted = self.counted();
        assert_eq!(counted.failed, 0, "of {} requests: {:#?}", counted.requests, counted.examples);
        counted
    }
}

impl Counted {
    fn count(&mut self, release: String, problem: Option<String>, client: &str) {
        self.requests += 1;
        *self.by_release.entry(release.clone()).or_default() += 1;
        let Some(problem) = problem else { return };
        self.failed += 1;
        *self.failed_by_release.entry(release).or_default() += 1;
        if self.examples.len() < 10 {
            self.examples.push(format!("request {}, {client}: {problem}", self.requests));
        }
    }
}

//! Our side.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::{Outcome, Seen, answer, pair, read, send, sorted};
use crate::answer::{BodyFault, Own};
use crate::codec::connection::Flight;
use crate::codec::http1::endpoint::Conn;
use crate::codec::http1::server::serve;
use crate::codec::stream::Stream;
use crate::codec::told::{Calls, Told};
use crate::codec::upload::Upload;
use crate::codec::view::Head;
use crate::codec::{Exchange, Inbound, Notice, Outbound, Prepared, testing};
use crate::deadline::Deadlines;
use crate::handshake::Way;
use crate::head_check;
use crate::request_id::RequestId;
use crate::snapshot::Protocol;

/// Writes down what it is asked, and answers 404.
#[derive(Clone, Default)]
struct Recorder(Rc<RefCell<Outcome>>);

impl Exchange for Recorder {
    async fn answer(&self, inbound: Box<Inbound>, mut flight: Flight) -> Outbound {
        let view = inbound.head.view();
        if let Err(refusal) = head_check::check(view, None) {
            let own = Own::Refused(refusal);
            self.refused(own, &mut flight);
            return Outbound::Own(Notice::Http(own), flight);
        }
        let Head::Http1(head) = &inbound.head else { unreachable!("HTTP/1 was asked for") };
        let mut seen = Seen {
            first: view.method().into(),
            target: head.target().into(),
            version: view.version(),
            fields: sorted(view.fields()),
            ..Seen::default()
        };
        let mut upload = inbound.upload;
        read(&mut upload, &mut seen).await;
        let own = if seen.whole {
            Own::Hidden(policies::verdict::Why::UnknownHost)
        } else {
            Own::ClientBody(BodyFault::Broken)
        };
        self.0.borrow_mut().messages.push(seen);
        Outbound::Own(Notice::Http(own), flight)
    }

    fn way(&self, _: &rustls::server::ClientHello<'_>) -> Way {
        Way::Common
    }

    fn refused(&self, own: Own, _: &mut Flight) {
        self.0.borrow_mut().refused = Some(own.reason().into());
    }
}

/// What becomes of the bytes of a client.
pub(super) async fn requests(bytes: &[u8], piece: usize) -> Outcome {
    let (near, far) = pair().await;
    let recorder = Recorder::default();
    let connection = testing::connection("127.0.0.1", &[]);
    tokio::join!(send(near, bytes, piece), serve(Stream::Clear(far), &[], connection, recorder.clone()));
    recorder.0.take()
}

/// What becomes of the bytes of an endpoint that was asked for something.
pub(super) async fn response(bytes: &[u8], piece: usize, head_only: bool) -> Outcome {
    let (near, far) = pair().await;
    tokio::join!(ask(near, head_only), answer(far, bytes, piece)).0
}

async fn ask(stream: tokio::net::TcpStream, head_only: bool) -> Outcome {
    let method = if head_only { "HEAD" } else { "GET" };
    let head = testing::head(&format!("{method} / HTTP/1.1\nhost: a"));
    let inbound = Box::new(Inbound { head, upload: Upload::nothing(), upgrade: None });
    let id = RequestId::given(b"id").expect("a name");
    let told = Told::new(inbound.head.view(), testing::connection("127.0.0.1", &[]), id, Calls::default());
    let prepared =
        Prepared::new(inbound, None, told, Protocol::Http1, http::uri::Scheme::HTTP).expect("it can be written");
    let Prepared::Http1(mut request) = prepared else { unreachable!("HTTP/1 was asked for") };
    let conn = Box::new(Conn::new(Stream::Clear(stream), &Deadlines::new(), Rc::default()));
    let (head, upload) = request.parts();
    let (head, mut body) = match conn.send(&head, upload, Duration::from_secs(60)).await {
        Ok(answer) => answer,
        Err(failed) => return Outcome { refused: Some(format!("{failed:?}")), ..Outcome::default() },
    };
    let mut seen = Seen {
        first: format!("{} {}", head.status, head.reason()),
        version: if head.minor == 1 { "1.1" } else { "1.0" },
        fields: sorted(head.fields().iter()),
        ..Seen::default()
    };
    read(&mut body, &mut seen).await;
    Outcome { messages: vec![seen], refused: None }
}

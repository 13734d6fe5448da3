//! A client on HTTP/1: request by request, each answered once and in order, until one side has enough.
//!
//! Must not know: who answers. Main function: [`serve`].

use std::rc::Rc;

use super::client::{Client, Next};
use super::framing::{self, Framing};
use super::head::RequestHead;
use super::tunnel;
use crate::answer::Own;
use crate::codec::connection::{Connection, Flight};
use crate::codec::flow::{Sink, Source, Stopped, poll_pump};
use crate::codec::relay::Relay;
use crate::codec::rewrite::{self, Keep, Written};
use crate::codec::stream::Stream;
use crate::codec::upload::Upload;
use crate::codec::view::{AnswerHead, Head};
use crate::codec::{Exchange, Inbound, Notice, Outbound, Upgrade};
use crate::head_check::Refusal;
use crate::totals::Cut;

/// How a connection goes on after an answer.
enum After {
    /// With the next request.
    Next,
    /// It ends; the client reads what was said before that.
    Close,
    /// It breaks off: the answer is incomplete, and only that tells the client so.
    Abort,
}

/// What has to be known of a request to answer it.
#[derive(Clone, Copy)]
struct Asked {
    head_only: bool,
    /// 1 for HTTP/1.1.
    minor: u8,
    persistent: bool,
    upgrade: bool,
}

/// Serves a connection until it ends. `ahead`: what was read of it already.
pub(crate) async fn serve(stream: Stream, ahead: &[u8], connection: Rc<Connection>, exchange: impl Exchange) {
    // Allocates once per connection: a body of it may be read by another task.
    let client = Rc::new(Client::new(stream, ahead, connection.clone()));
    let mut first = true;
    loop {
        let after = match client.next(first).await {
            Next::Gone => return,
            Next::Refused(own) => {
                let mut flight = Flight::begin(&connection);
                exchange.refused(own, &mut flight);
                say(&client, own, &flight).await
            }
            Next::Request(head) => {
                let flight = Flight::begin(&connection);
                // Allocates: about a kilobyte for as long as it takes, which every idle connection would hold otherwise.
                // That much the allocator has at hand; beyond it, it would have to look for it at each request.
                Box::pin(answer(&client, inbound(&client, head), flight, &exchange)).await
            }
        };
        first = false;
        match after {
            After::Next => {}
            After::Close => return client.close(true).await,
            After::Abort => return,
        }
    }
}

#[expect(clippy::manual_async_fn, reason = "a block holds what it is given once, an async fn twice")]
fn answer(
    client: &Rc<Client>,
    understood: Result<(Asked, Box<Inbound>), Own>,
    mut flight: Flight,
    exchange: &impl Exchange,
) -> impl Future<Output = After> {
    async move {
        match understood {
            Ok((asked, inbound)) => {
                // In one expression: in a variable it would be held twice.
                send(client, asked, exchange.answer(inbound, flight).await).await
            }
            Err(own) => {
                exchange.refused(own, &mut flight);
                say(client, own, &flight).await
            }
        }
    }
}

async fn send(client: &Rc<Client>, asked: Asked, outbound: Outbound) -> After {
    match outbound {
        Outbound::Own(notice, flight) => send_notice(client, asked, &notice, &flight).await,
        Outbound::Relay(head, relay) => send_relay(client, asked, head, relay).await,
        Outbound::Tunnel(head, conn, relay) => {
            client.begin_answer(Framing::Close, |out| rewrite::write_upgrade(&head, relay.flight(), out));
            // Allocates: once for a connection that will carry no other request.
            Box::pin(tunnel::run(client, conn, relay)).await;
            After::Abort
        }
    }
}

/// What a head asks for, and how its body will be read.
fn inbound(client: &Rc<Client>, head: RequestHead) -> Result<(Asked, Box<Inbound>), Own> {
    let framing = framing::of_request(&head).map_err(|unclear| Own::Refused(Refusal::Ambiguous(unclear.0)))?;
    let upgrade = upgrade(&head, framing);
    let asked = Asked {
        head_only: head.method() == "HEAD",
        minor: head.minor,
        persistent: framing::is_persistent(head.fields(), head.minor),
        upgrade: upgrade.is_some(),
    };
    let expects = match head.fields().first("expect") {
        // HTTP/1.0 knows no expectations (RFC 9110 §10.1.1).
        Some(expected) if head.minor == 1 => {
            if !expected.eq_ignore_ascii_case(b"100-continue") || head.fields().all("expect").count() > 1 {
                return Err(Own::Refused(Refusal::Expectation));
            }
            true
        }
        _ => false,
    };
    client.begin_body(framing, expects);
    let upload = Upload::http1(client.clone(), framing, head.minor == 1);
    // Allocates: it goes from room to room and is large.
    Ok((asked, Box::new(Inbound { head: Head::Http1(head), upload, upgrade })))
}

/// The protocol that the client wants to change to. What HTTP itself could change to is ignored (RFC 9110 §7.8 lets a
/// server), and so is an `Upgrade` with a body: the bytes behind the head have to be one thing or the other.
fn upgrade(head: &RequestHead, framing: Framing) -> Option<Upgrade> {
    let mut wanted = head.fields().all("upgrade");
    let protocol = std::str::from_utf8(wanted.next()?).ok()?;
    let is_http = ["h2", "h2c", "http", "tls"].iter().any(|own| {
        let name = protocol.split('/').next().unwrap_or_default();
        name.eq_ignore_ascii_case(own)
    });
    let is_one = wanted.next().is_none() && !protocol.is_empty() && !protocol.contains(',');
    let may = head.minor == 1 && head.method() == "GET" && framing == Framing::Length(0);
    // Allocates: once for a connection that will carry no other request.
    let asks = may && is_one && !is_http && head.fields().has_token("connection", b"upgrade");
    asks.then(|| Upgrade { protocol: protocol.into(), accept: None })
}

/// Says why something is no request, and ends the connection.
async fn say(client: &Rc<Client>, own: Own, flight: &Flight) -> After {
    client.begin_answer(Framing::Length(0), |out| {
        Notice::Http(own).write(false, Keep::Close, flight, out);
    });
    match flush(client).await {
        Ok(()) => After::Close,
        Err(_) => After::Abort,
    }
}

async fn flush(client: &Rc<Client>) -> std::io::Result<()> {
    std::future::poll_fn(|cx| (&**client).poll_flush(cx)).await
}

async fn send_notice(client: &Rc<Client>, asked: Asked, notice: &Notice, flight: &Flight) -> After {
    // Where the next request begins is known only when this one was read to its end.
    let keep = keep(client, asked, flight, !notice.ends() && client.has_read_all());
    client.begin_answer(Framing::Length(0), |out| {
        notice.write(asked.head_only, keep, flight, out);
    });
    match flush(client).await {
        Err(_) => After::Abort,
        Ok(()) if keep == Keep::Close => After::Close,
        Ok(()) => After::Next,
    }
}

async fn send_relay(client: &Rc<Client>, asked: Asked, head: AnswerHead, mut relay: Box<Relay>) -> After {
    let bodiless = asked.head_only || matches!(head.status(), 204 | 304);
    let framing = match relay.length() {
        _ if bodiless => Framing::Length(0),
        Some(length) => Framing::Length(length),
        None if asked.minor == 1 => Framing::Chunked,
        None => Framing::Close,
    };
    let keep = keep(client, asked, relay.flight(), framing != Framing::Close && !client.may_skip_body());
    let written = Written { framing, bodiless, keep, flight: relay.flight() };
    client.begin_answer(framing, |out| rewrite::write_answer(&head, written, out));
    drop(head);
    let mut sink = &**client;
    if let Err(stopped) = std::future::poll_fn(|cx| poll_pump(&mut *relay, &mut sink, cx)).await {
        tracing::debug!(%stopped, "an answer broke off");
        if matches!(&stopped, Stopped::Sink(error) if error.kind() == std::io::ErrorKind::TimedOut) {
            client.connection.count(Cut::Unread);
        }
        if framing == Framing::Close {
            client.will_reset();
        }
        return After::Abort;
    }
    drop(relay);
    if keep == Keep::Close || !client.has_read_all() { After::Close } else { After::Next }
}

fn keep(client: &Client, asked: Asked, flight: &Flight, can: bool) -> Keep {
    // A refused upgrade: what comes next may be what the client wanted to say in the other protocol.
    let can = can && asked.persistent && !asked.upgrade;
    // An age in hours: this request's beginning is near enough.
    match can && !client.connection.is_leaving() && !client.connection.is_old(flight.begun) {
        false => Keep::Close,
        true if asked.minor == 0 => Keep::Asked,
        true => Keep::Open,
    }
}

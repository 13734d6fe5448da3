//! The watch: a live view on a terminal, a line per change elsewhere, a JSON document per change for programs.
//!
//! Must not know: what a status means (`render` does). It keeps the connection, the terminal and the pace.
//!
//! The rooms: `feed` (replies, and connecting again), `frame` and `rollout` (what is on the screen; pure), `screen` (the
//! terminal).

mod feed;
mod frame;
mod rollout;
mod screen;

use std::io::IsTerminal;
use std::time::Duration;

use api::operator::StatusReply;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use crate::exit::{Ended, Exit, Failure};
use crate::operator::Session;
use crate::render::{Line, Style, View, changes};
use feed::{Feed, News};
use frame::{Frame, Key, Size};
use screen::Screen;

pub(crate) use rollout::watch as rollout;

/// Least time between two frames that nobody asked for by a key.
const PACE: Duration = Duration::from_millis(250);
/// Relative times move on although nothing else does.
const TICK: Duration = Duration::from_secs(1);

/// Watches until the reader leaves.
///
/// # Errors
/// A controller that cannot be asked the first time; later losses are shown and mended.
pub(crate) async fn watch(selector: String, session: &Session) -> Ended {
    let mut feed = Feed::start(session.client()?, selector.clone()).await?;
    let output = &session.output;
    if !output.is_json() && output.is_terminal() && std::io::stdin().is_terminal() {
        view(&mut feed, &mut Frame::new(&selector), session).await?;
        return Ok(Exit::Done);
    }
    let mut before = StatusReply::default();
    loop {
        match feed.next().await {
            News::Reply(reply) if output.is_json() => output.json_line(&*reply)?,
            News::Reply(reply) => {
                output.lines(&changes(&before, &reply, &output.view()))?;
                before = *reply;
            }
            News::Lost(why) => output.aside(&Line::of(Style::Moving, format!("{why}; trying again"))),
            News::Over(failure) => return Err(failure),
        }
    }
}

/// What is on the screen.
trait Picture {
    /// A new state has come; false: it was the last one to be shown.
    fn update(&mut self, reply: StatusReply) -> bool;
    /// Whether nothing more is to be shown, although nothing has come.
    fn is_over(&self) -> bool {
        false
    }
    /// The connection is gone; the last state stays in sight.
    fn lost(&mut self, why: String);
    /// A key.
    fn press(&mut self, key: Key, size: Size);
    /// Exactly as many lines as the screen has rows, none wider than it.
    fn lines(&mut self, size: Size, view: &View) -> Vec<Line>;
}

/// The live view.
async fn view(feed: &mut Feed, frame: &mut impl Picture, session: &Session) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::refused(format!("the terminal cannot be used: {error}"));
    let stop = |kind: SignalKind| signal(kind).map_err(failed);
    let (mut term, mut hangup) = (stop(SignalKind::terminate())?, stop(SignalKind::hangup())?);
    let mut interrupt = stop(SignalKind::interrupt())?;
    let mut screen = Screen::enter(session.output.colour()).map_err(failed)?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due: Option<Instant> = Some(Instant::now());
    let mut drawn = Instant::now();
    loop {
        let at = due.unwrap_or_else(|| Instant::now() + TICK);
        tokio::select! {
            key = screen.key() => match key {
                Some(Key::Leave) | None => break,
                Some(key) => {
                    frame.press(key, screen.size());
                    due = Some(Instant::now());
                }
            },
            news = feed.next() => {
                match news {
                    News::Reply(reply) => {
                        if !frame.update(*reply) {
                            break;
                        }
                    }
                    News::Lost(why) => frame.lost(why),
                    News::Over(failure) => {
                        drop(screen);
                        return Err(failure);
                    }
                }
                due = due.or(Some(drawn + PACE));
            }
            _ = tick.tick() => match frame.is_over() {
                true => break,
                false => due = due.or(Some(drawn + PACE)),
            },
            () = tokio::time::sleep_until(at), if due.is_some() => {
                let lines = frame.lines(screen.size(), &session.output.view());
                screen.draw(&lines).map_err(failed)?;
                (due, drawn) = (None, Instant::now());
            }
            _ = term.recv() => break,
            _ = hangup.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    Ok(())
}

//! The watch of one stage's rollout: until it has ended, and nothing of the release before is in flight any more.
//!
//! Must not know: how a rollout is drawn (`render` does).

use std::time::{Duration, Instant};

use api::StageName;
use api::operator::{ExplainRolloutRequest, RolloutExplained, StageStatus, StatusReply};

use super::feed::{Feed, News};
use super::frame::{Key, Scroll, Size, as_of};
use super::{Picture, TICK, view};
use crate::exit::{Ended, Exit, Failure};
use crate::operator::{Session, asking};
use crate::render::{Line, Style, View, headline, rollout, rollout_ended, rollout_line, rollout_now};

/// So long at most the view stays after the end, while requests are in flight on the release that left.
const STAY: Duration = Duration::from_secs(30);

/// Watches until the rollout has ended or the reader leaves.
///
/// # Errors
/// A controller that cannot be asked, or a stage that there is not.
pub(crate) async fn watch(stage: &StageName, session: &Session) -> Ended {
    let mut feed = Feed::start(session.client()?, stage.to_string()).await?;
    let mut watched = Watched::of(stage);
    let output = &session.output;
    if !output.is_json() && output.is_terminal() && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        view(&mut feed, &mut watched, session).await?;
    } else {
        follow(&mut feed, &mut watched, session).await?;
    }
    if watched.left_early() {
        return Ok(Exit::Waiting);
    }
    let ended = explained(stage, watched.release, session).await?;
    if !output.is_json() {
        output.lines(&rollout_ended(&ended, &output.view()))?;
    }
    Ok(exit_of(&ended.outcome))
}

/// Without a terminal: a line whenever something else is so, or a document each time.
async fn follow(feed: &mut Feed, watched: &mut Watched, session: &Session) -> Result<(), Failure> {
    let (output, mut said) = (&session.output, String::new());
    loop {
        // Nothing may come any more while requests are in flight.
        let Ok(news) = tokio::time::timeout(TICK, feed.next()).await else {
            match watched.is_over() {
                true => return Ok(()),
                false => continue,
            }
        };
        match news {
            News::Reply(reply) => {
                let at_ms = reply.at_ms;
                let goes_on = watched.update(*reply);
                if let Some(stage) = watched.stage() {
                    let now = rollout_now(stage);
                    if output.is_json() {
                        output.json_line(stage)?;
                    } else if now != said && !now.is_empty() {
                        output.lines(&[rollout_line(stage, at_ms, &output.view())])?;
                    }
                    said = now;
                }
                if !goes_on {
                    return Ok(());
                }
            }
            News::Lost(why) => output.aside(&Line::of(Style::Moving, format!("{why}; trying again"))),
            News::Over(failure) => return Err(failure),
        }
    }
}

async fn explained(stage: &StageName, release: Option<u32>, session: &Session) -> Result<RolloutExplained, Failure> {
    let mut client = session.client()?;
    let request = ExplainRolloutRequest { stage: stage.to_string(), release };
    let reply = client.calls.explain_rollout(asking(request)).await;
    Ok(reply.map_err(|status| client.failure(&status))?.into_inner())
}

fn exit_of(outcome: &str) -> Exit {
    match outcome {
        "completed" => Exit::Done,
        // The same release has entered once more meanwhile.
        "under way" | "watched" => Exit::Waiting,
        _ => Exit::Refused,
    }
}

/// What is on the screen.
#[derive(Debug, Default)]
struct Watched {
    name: String,
    reply: Option<StatusReply>,
    lost: Option<String>,
    /// Whose rollout it is: the first that was seen. Another one that begins as this one ends is not watched.
    release: Option<u32>,
    scroll: Scroll,
    /// Since when it has ended.
    ended: Option<Instant>,
}

impl Watched {
    fn of(stage: &StageName) -> Self {
        Self { name: stage.to_string(), ..Self::default() }
    }

    fn stage(&self) -> Option<&StageStatus> {
        let services = self.reply.as_ref()?.services.iter();
        services.flat_map(|service| &service.stages).find(|stage| stage.stage == self.name)
    }

    /// The release that enters, or that was flipped to and has not passed its watch.
    fn under_way(&self) -> Option<u32> {
        let stage = self.stage()?;
        let watched = stage.watched.as_ref().filter(|watched| watched.until_ms > 0).map(|watched| watched.release);
        stage.rollout.as_ref().map(|rollout| rollout.release).or(watched)
    }

    /// Requests that releases without weight still answer.
    fn in_flight(&self) -> u64 {
        let releases = self.stage().into_iter().flat_map(|stage| &stage.releases);
        releases.filter(|release| release.weight_ppm == 0).map(|release| release.outstanding).sum()
    }

    fn left_early(&self) -> bool {
        self.ended.is_none()
    }
}

impl Picture for Watched {
    fn update(&mut self, reply: StatusReply) -> bool {
        let is_first = self.reply.is_none();
        (self.reply, self.lost) = (Some(reply), None);
        let under_way = self.under_way();
        self.release = self.release.or(under_way);
        if under_way.is_some() && under_way == self.release && self.ended.is_none() {
            return true;
        }
        let since = *self.ended.get_or_insert_with(Instant::now);
        !is_first && under_way.is_none() && self.in_flight() > 0 && since.elapsed() < STAY
    }

    fn lost(&mut self, why: String) {
        self.lost = Some(why);
    }

    fn is_over(&self) -> bool {
        self.ended.is_some_and(|since| since.elapsed() >= STAY)
    }

    fn press(&mut self, key: Key, size: Size) {
        self.scroll.press(key, room(size));
    }

    fn lines(&mut self, (columns, height): Size, view: &View) -> Vec<Line> {
        let view = View { width: Some(columns), ..view.clone() };
        let mut lines = match (&self.reply, self.stage()) {
            (Some(reply), Some(stage)) => {
                let mut head = Line::of(Style::Bold, &self.name).with(Style::Plain, "   ");
                match &self.lost {
                    Some(why) => head.append(as_of(why, reply, &view)),
                    None => head.append(headline(reply)),
                }
                let part = self.scroll.part(rollout(stage, &view), room((columns, height)), &view);
                [vec![head, Line::default()], part].concat()
            }
            _ => vec![Line::of(Style::Dim, "waiting for the controller")],
        };
        lines.resize(height, Line::default());
        lines.iter().map(|line| line.cut(columns, view.unicode)).collect()
    }
}

/// Rows between the head with its blank line and the foot.
fn room(size: Size) -> usize {
    size.1.saturating_sub(3)
}

#[cfg(test)]
mod tests {
    use api::operator::{RolloutStatus, RolloutWatched, ServiceStatus, StageRelease};

    use super::*;

    const STAGE: &str = "hello/production";

    fn reply(rollout: bool, watched_until_ms: Option<u64>, outstanding: u64) -> StatusReply {
        let stage = StageStatus {
            stage: STAGE.into(),
            rollout: rollout.then(RolloutStatus::default),
            watched: watched_until_ms.map(|until_ms| RolloutWatched { until_ms, ..RolloutWatched::default() }),
            releases: vec![StageRelease { outstanding, ..StageRelease::default() }],
            ..StageStatus::default()
        };
        let service = ServiceStatus { service: "hello".into(), stages: vec![stage], releases: vec![] };
        StatusReply { services: vec![service], ..StatusReply::default() }
    }

    #[test]
    fn rollout_watch_goes_on_until_the_end_and_until_nothing_is_in_flight() {
        let mut watched = Watched::of(&STAGE.parse().expect("a stage"));
        for (what, reply, goes_on, left_early) in [
            ("under way", reply(true, None, 0), true, true),
            ("flipped, and watched", reply(false, Some(9), 0), true, true),
            ("ended, and the other still answers", reply(false, None, 3), true, false),
            ("all has been answered", reply(false, None, 0), false, false),
            ("an objective is watched after the end", reply(false, Some(0), 0), false, false),
        ] {
            assert_eq!((watched.update(reply), watched.left_early()), (goes_on, left_early), "{what}");
        }
        let mut none = Watched::of(&STAGE.parse().expect("a stage"));
        assert!(!none.update(reply(false, None, 3)), "nothing is under way");
    }

    #[test]
    fn rollout_watch_does_not_go_on_to_another_release() {
        let of = |release| {
            let mut reply = reply(true, None, 0);
            reply.services[0].stages[0].rollout.as_mut().expect("one").release = release;
            reply
        };
        let mut watched = Watched::of(&STAGE.parse().expect("a stage"));
        assert!(watched.update(of(2)) && watched.update(of(2)));
        assert!(!watched.update(of(3)), "the queued one has entered");
        assert_eq!((watched.release, watched.left_early()), (Some(2), false));
    }

    #[test]
    fn rollout_watch_ends_with_the_code_of_the_outcome() {
        for (outcome, exit) in [("completed", 0), ("rolled back", 1), ("replaced", 1), ("failed", 1), ("under way", 4)]
        {
            assert_eq!(exit_of(outcome) as u8, exit, "{outcome}");
        }
    }

    #[test]
    fn rollout_watch_fits_the_screen_whatever_its_size() {
        let mut watched = Watched::of(&STAGE.parse().expect("a stage"));
        for with_reply in [false, true] {
            if with_reply {
                watched.update(reply(true, None, 5));
            }
            for size in [(80, 24), (10, 5), (1, 1), (0, 1)] {
                let lines = watched.lines(size, &View::of_tests());
                assert_eq!(lines.len(), size.1, "{size:?}");
                assert!(lines.iter().all(|line| line.width() <= size.0), "{size:?}");
            }
        }
    }
}

//! What is on the screen: a head that stays, the part of the tree that is scrolled to, a foot that stays.
//!
//! Must not know: the terminal and the clock; size and time are arguments.

use api::operator::StatusReply;

use super::Picture;
use crate::render::{Line, Style, View, ago, clock, headline, status};

/// Head, a blank line and column headers above; foot below.
const FIXED: usize = 4;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Top,
    Bottom,
    Leave,
    /// The size has changed, or all was asked to be drawn anew.
    Redraw,
}

/// Columns and rows.
pub(super) type Size = (usize, usize);

/// State of the view.
#[derive(Debug, Default)]
pub(super) struct Frame {
    selector: String,
    reply: Option<StatusReply>,
    lost: Option<String>,
    scroll: Scroll,
}

/// Rows of which a part is in sight.
#[derive(Debug, Default)]
pub(super) struct Scroll {
    /// Rows scrolled away above.
    above: usize,
    /// Rows there were when drawn last.
    rows: usize,
}

// === impl Scroll ===

impl Scroll {
    /// Moves, with so many rows in sight.
    pub(super) fn press(&mut self, key: Key, page: usize) {
        let page = page.max(1);
        let last = self.rows.saturating_sub(page);
        self.above = match key {
            Key::Up => self.above.saturating_sub(1),
            Key::Down => self.above + 1,
            Key::PageUp => self.above.saturating_sub(page),
            Key::PageDown => self.above + page,
            Key::Top => 0,
            Key::Bottom => last,
            Key::Leave | Key::Redraw => self.above,
        }
        .min(last);
    }

    /// The rows in sight, as many as `page`, and a foot that says how many are not.
    pub(super) fn part(&mut self, rows: Vec<Line>, page: usize, view: &View) -> Vec<Line> {
        self.rows = rows.len();
        self.above = self.above.min(self.rows.saturating_sub(page.max(1)));
        let below = self.rows.saturating_sub(self.above + page);
        let mut lines: Vec<Line> = rows.into_iter().skip(self.above).take(page).collect();
        lines.resize(page, Line::default());
        lines.push(foot(self.above, below, view));
        lines
    }
}

// === impl Frame ===

impl Frame {
    pub(super) fn new(selector: &str) -> Self {
        Self { selector: selector.to_owned(), ..Self::default() }
    }

    fn head(&self, reply: &StatusReply, view: &View) -> Line {
        let name = if self.selector.is_empty() { "pointsman" } else { &self.selector };
        let mut line = Line::of(Style::Bold, name).with(Style::Plain, "   ");
        match &self.lost {
            Some(why) => line.append(as_of(why, reply, view)),
            None => line.append(headline(reply)),
        }
        line
    }
}

/// What is said in place of the fleet while nobody answers.
pub(super) fn as_of(why: &str, reply: &StatusReply, view: &View) -> Line {
    let text = format!("as of {} ({}): {why}", clock(view, reply.at_ms), ago(view, reply.at_ms));
    Line::of(Style::Bad, text)
}

impl Picture for Frame {
    fn update(&mut self, reply: StatusReply) -> bool {
        self.reply = Some(reply);
        self.lost = None;
        true
    }

    fn lost(&mut self, why: String) {
        self.lost = Some(why);
    }

    /// Scrolls.
    fn press(&mut self, key: Key, size: Size) {
        self.scroll.press(key, room(size));
    }

    fn lines(&mut self, size: Size, view: &View) -> Vec<Line> {
        let (columns, height) = size;
        let view = View { width: Some(columns), ..view.clone() };
        let Some(reply) = &self.reply else {
            let mut lines = vec![Line::of(Style::Dim, "waiting for the controller").cut(columns, view.unicode)];
            lines.resize(height, Line::default());
            return lines;
        };
        let tree = status(reply, &view);
        let mut lines = vec![self.head(reply, &view), Line::default(), tree.head];
        lines.extend(self.scroll.part(tree.rows, room(size), &view));
        lines.truncate(height);
        lines.iter().map(|line| line.cut(columns, view.unicode)).collect()
    }
}

/// Rows for the tree.
fn room(size: Size) -> usize {
    size.1.saturating_sub(FIXED)
}

fn foot(above: usize, below: usize, view: &View) -> Line {
    let arrows = if view.unicode { "↑↓" } else { "arrows" };
    let text = match (above, below) {
        (0, 0) => "q leaves".to_owned(),
        (above, below) => format!("q leaves   {arrows} scroll: {above} lines above, {below} below"),
    };
    Line::of(Style::Dim, text)
}

#[cfg(test)]
mod tests {
    use api::operator::{ServiceStatus, StageStatus};

    use super::*;

    fn reply(stages: usize) -> StatusReply {
        let stage = |n| StageStatus { stage: format!("hello/stage-{n}"), ..StageStatus::default() };
        let service =
            ServiceStatus { service: "hello".into(), stages: (0..stages).map(stage).collect(), releases: vec![] };
        StatusReply { at_ms: View::of_tests().now_ms - 5_000, services: vec![service], ..StatusReply::default() }
    }

    fn texts(frame: &mut Frame, size: Size) -> Vec<String> {
        frame.lines(size, &View::of_tests()).iter().map(Line::text).collect()
    }

    #[test]
    fn a_frame_fits_the_screen_whatever_its_size() {
        let mut frame = Frame::new("");
        for with_reply in [false, true] {
            if with_reply {
                frame.update(reply(30));
            }
            for size in [(80, 24), (200, 60), (10, 5), (1, 1), (0, 1), (80, 3)] {
                let lines = frame.lines(size, &View::of_tests());
                assert_eq!(lines.len(), size.1, "{size:?}");
                assert!(lines.iter().all(|line| line.width() <= size.0), "{size:?}");
                frame.press(Key::PageDown, size);
            }
        }
    }

    #[test]
    fn scrolling_stops_at_both_ends_and_keeps_the_headers() {
        let (mut frame, size) = (Frame::new("hello"), (100, 14));
        frame.update(reply(10)); // 1 service + 20 rows of stages + blank + 3 rows of fleet
        assert_eq!(texts(&mut frame, size)[13], "q leaves   ↑↓ scroll: 0 lines above, 15 below");
        frame.press(Key::Up, size);
        assert_eq!(texts(&mut frame, size)[3], "hello");
        frame.press(Key::Down, size);
        assert_eq!(texts(&mut frame, size)[3], "  stage-0");
        frame.press(Key::Bottom, size);
        let bottom = texts(&mut frame, size);
        frame.press(Key::PageDown, size);
        assert_eq!(texts(&mut frame, size), bottom);
        assert!(bottom[2].starts_with("release") && bottom[12].contains("agents"), "{bottom:?}");
        // Fewer rows than were scrolled away: the end stays in sight.
        frame.update(reply(2));
        assert_eq!(texts(&mut frame, size)[3], "hello");
    }

    #[test]
    fn a_lost_connection_leaves_the_last_state_in_sight() {
        let (mut frame, size) = (Frame::new(""), (120, 14));
        frame.update(reply(1));
        frame.lost("the controller at 127.0.0.1:7400 does not answer (connection refused)".into());
        let lines = texts(&mut frame, size);
        assert!(lines[0].contains("as of 11:59 (5s ago): the controller at"), "{}", lines[0]);
        assert_eq!(lines[3], "hello");
        frame.update(reply(1));
        assert!(!texts(&mut frame, size)[0].contains("as of"));
    }
}

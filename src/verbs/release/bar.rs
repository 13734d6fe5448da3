//! One line below a log that is drawn over itself: on stderr, and on terminals only.

use std::io::{IsTerminal, Write};

use api::operator::Transfer;

use crate::output::Output;
use crate::render::{self, Pace};

/// Takes the line away: to its beginning, and what stands there is erased (ECMA-48 §8.3.41, EL).
const ERASE: &str = "\r\x1b[K";

/// The line, drawn or not.
pub(super) struct Bar<'a> {
    output: &'a Output,
    /// Nobody sees it, or it is for a file.
    is_off: bool,
    is_shown: bool,
    pace: Pace,
}

impl<'a> Bar<'a> {
    /// Not drawn yet.
    pub(super) fn of(output: &'a Output) -> Self {
        let is_off = output.is_json() || !std::io::stderr().is_terminal();
        Self { output, is_off, is_shown: false, pace: Pace::default() }
    }

    /// Draws it as it is now.
    pub(super) fn draw(&mut self, transfer: &Transfer) {
        if self.is_off {
            return;
        }
        let mut view = self.output.view();
        // The last column stays free: written to, it makes some terminals go on to the next line.
        view.width = crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns).saturating_sub(1));
        let line = render::transfer(transfer, self.pace.at(transfer, view.now_ms), &view);
        self.write(&format!("{ERASE}{}", line.painted(self.output.colour())));
        self.is_shown = true;
    }

    /// Makes room for a line of the log.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            self.write(ERASE);
        }
    }

    fn write(&self, text: &str) {
        let mut err = std::io::stderr().lock();
        // Nobody can be told that stderr is closed.
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

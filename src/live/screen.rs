//! The terminal: alternate screen, drawn in place, given back whatever happens.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::terminal::{self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use crossterm::{cursor, execute, queue};
use tokio::sync::mpsc;

use super::frame::{Key, Size};
use crate::render::Line;

/// How soon the thread that reads keys sees that the view was left.
const LOOK: Duration = Duration::from_millis(100);

/// Whether the terminal is in our state; read by the panic hook, which can see nothing else.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// A terminal that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Screen {
    keys: mpsc::Receiver<Key>,
    left: Arc<AtomicBool>,
    colour: bool,
    /// What is on the screen, to draw only rows that differ.
    shown: Vec<String>,
    size: Size,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn enter(colour: bool) -> io::Result<Self> {
        restore_on_panic();
        terminal::enable_raw_mode()?;
        ENTERED.store(true, Ordering::SeqCst);
        let left = Arc::new(AtomicBool::new(false));
        let (sender, keys) = mpsc::channel(16);
        // From here on dropping gives the terminal back.
        let screen = Self { keys, left: left.clone(), colour, shown: Vec::new(), size: size_now() };
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        std::thread::Builder::new().name("keys".into()).spawn(move || read_keys(&sender, &left))?;
        Ok(screen)
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// The next key; `None` when the terminal is gone.
    ///
    /// # Cancel safety
    /// No key is lost when the future is dropped.
    pub(super) async fn key(&mut self) -> Option<Key> {
        let key = self.keys.recv().await;
        if key == Some(Key::Redraw) {
            self.size = size_now();
            self.shown.clear();
        }
        key
    }

    /// Draws the rows that differ from those on the screen, as one update.
    pub(super) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        queue!(out, BeginSynchronizedUpdate)?;
        if self.shown.is_empty() {
            queue!(out, Clear(ClearType::All))?;
        }
        let rows: Vec<String> = lines.iter().map(|line| line.painted(self.colour)).collect();
        for (row, text) in (0..).zip(&rows) {
            if self.shown.get(usize::from(row)) != Some(text) {
                queue!(out, cursor::MoveTo(0, row))?;
                write!(out, "{text}")?;
                queue!(out, Clear(ClearType::UntilNewLine))?;
            }
        }
        queue!(out, EndSynchronizedUpdate)?;
        self.shown = rows;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.left.store(true, Ordering::SeqCst);
        restore();
    }
}

/// Gives the terminal back, once.
fn restore() {
    if ENTERED.swap(false, Ordering::SeqCst) {
        // A terminal that is gone needs no care.
        let _ = execute!(io::stdout(), EndSynchronizedUpdate, cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

fn restore_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        before(panic);
    }));
}

/// 80 by 24 where the terminal does not say (a serial line).
fn size_now() -> Size {
    match terminal::size() {
        Ok((columns, rows)) if columns > 0 && rows > 0 => (columns.into(), rows.into()),
        _ => (80, 24),
    }
}

/// Reads until the view was left or the terminal is gone. A thread, because reading keys blocks.
fn read_keys(keys: &mpsc::Sender<Key>, left: &AtomicBool) {
    while !left.load(Ordering::SeqCst) {
        let key = match event::poll(LOOK) {
            Ok(false) => continue,
            Ok(true) => match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => meaning(key),
                Ok(Event::Resize(..)) => Some(Key::Redraw),
                Ok(_) => None,
                Err(_) => return,
            },
            Err(_) => return,
        };
        if let Some(key) = key
            && keys.blocking_send(key).is_err()
        {
            return;
        }
    }
}

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c' | 'd') => Some(Key::Leave),
            KeyCode::Char('l') => Some(Key::Redraw),
            _ => None,
        };
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Leave),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
        KeyCode::PageUp | KeyCode::Char('b') => Some(Key::PageUp),
        KeyCode::PageDown | KeyCode::Char(' ') => Some(Key::PageDown),
        KeyCode::Home | KeyCode::Char('g') => Some(Key::Top),
        KeyCode::End | KeyCode::Char('G') => Some(Key::Bottom),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_meaning() {
        let plain = |code| meaning(KeyEvent::new(code, KeyModifiers::NONE));
        let control = |letter| meaning(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL));
        for (key, expected) in [
            (plain(KeyCode::Char('q')), Some(Key::Leave)),
            (plain(KeyCode::Esc), Some(Key::Leave)),
            (control('c'), Some(Key::Leave)),
            (control('l'), Some(Key::Redraw)),
            (control('q'), None),
            (plain(KeyCode::Char('j')), Some(Key::Down)),
            (plain(KeyCode::Up), Some(Key::Up)),
            (plain(KeyCode::Char('G')), Some(Key::Bottom)),
            (plain(KeyCode::Char('x')), None),
        ] {
            assert_eq!(key, expected);
        }
    }
}

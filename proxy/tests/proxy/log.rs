//! What the proxies of this process say in their log, which all tests share.
//!
//! Main function: [`says`], which waits for a line.

use std::fmt::Write;
use std::sync::{Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::support::until;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static BEGUN: Once = Once::new();

/// Begins to listen, for the rest of the process.
pub(crate) fn listen() {
    BEGUN.call_once(|| tracing::subscriber::set_global_default(Listener).expect("nobody else listens"));
}

/// Waits for a line with all of these.
pub(crate) async fn says(parts: &[&str]) {
    until(&format!("the log says {parts:?}"), || {
        let lines = LINES.lock().expect("whole");
        lines.iter().any(|line| parts.iter().all(|part| line.contains(part)))
    })
    .await;
}

struct Listener;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("pointsman")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        LINES.lock().expect("whole").push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

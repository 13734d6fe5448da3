//! How a command ends: the exit codes, and failures with the one sentence that explains them.
//!
//! Must not know: what any verb does. Scripts rely on the codes; nothing else in the command names a number.

use std::process::ExitCode;

use api::operator::{Decided, Outcome};

/// The end of a command, as scripts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All of it is done.
    Done = 0,
    /// Refused or failed; nothing was changed.
    Refused = 1,
    /// The command line was not understood.
    Usage = 2,
    /// Committed, but some proxies do not have it yet; they were named.
    Lagging = 3,
    /// On its way, not yet done; or nobody can say whether it was done.
    Waiting = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What a verb ends with.
pub(crate) type Ended = Result<Exit, Failure>;

/// Why a verb did not do what was asked: a sentence for stderr, and the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// For people; empty when there is nobody to tell (the reader of a pipe is gone).
    pub(crate) message: String,
}

impl Failure {
    /// Nothing was changed, because of this.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, message: message.into() }
    }

    /// The command line is wrong in a way that the parser cannot see.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    /// Nobody can say whether it was done, because of this.
    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self { exit: Exit::Waiting, message: message.into() }
    }

    /// Stdout could not be written. A reader that has seen enough (`| head`) is no failure.
    pub(crate) fn output(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self { exit: Exit::Done, message: String::new() },
            _ => Self::refused(format!("the output could not be written: {error}")),
        }
    }

    /// The system did not give what a command needs.
    pub(crate) fn system(what: &str, error: &std::io::Error) -> Self {
        Self::refused(format!("{what}: {error}"))
    }

    /// A file could not be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let why = match error.kind() {
            ErrorKind::NotFound => "there is no such file or folder".to_owned(),
            ErrorKind::PermissionDenied => "you do not have the permission".to_owned(),
            ErrorKind::AlreadyExists => "it exists already".to_owned(),
            ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
            _ => error.to_string(),
        };
        Self::refused(format!("{}: {why}", path.display()))
    }
}

/// The code of a change of traffic, by what the controller said until it was silent.
pub(crate) fn of_change(plan: bool, no_wait: bool, decided: Option<&Decided>, outcome: Option<&Outcome>) -> Exit {
    let is_change = decided.is_some_and(|decided| decided.event > 0);
    match (outcome, decided) {
        (Some(outcome), _) if !outcome.failed.is_empty() => Exit::Refused,
        (Some(outcome), _) if !outcome.waits.is_empty() => Exit::Waiting,
        (Some(_), _) if no_wait && is_change => Exit::Waiting,
        (Some(outcome), _) if !outcome.lagging.is_empty() => Exit::Lagging,
        (Some(_), _) => Exit::Done,
        (None, _) if plan => Exit::Done,
        // Event 0: nothing had to change.
        (None, Some(decided)) if decided.event == 0 => Exit::Done,
        (None, _) => Exit::Waiting,
    }
}

/// The code of a build, by the state of its release.
pub(crate) fn of_build(state: &str) -> Exit {
    match state {
        "ready" => Exit::Done,
        "failed" | "cancelled" | "overtaken" => Exit::Refused,
        _ => Exit::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use api::operator::Lagging;

    use super::*;

    #[test]
    fn changes_end_with_the_documented_codes() {
        let decided = |event| Decided { event, lines: vec![] };
        let failed =
            Outcome { failed: "r42 did not start".into(), lagging: vec![Lagging::default()], ..Outcome::default() };
        let lagging = Outcome { lagging: vec![Lagging::default()], ..Outcome::default() };
        let (done, waits) = (Outcome::default(), Outcome { waits: "its turn".into(), ..Outcome::default() });
        for (plan, no_wait, event, outcome, code) in [
            (false, false, 7, Some(&done), 0),
            (false, false, 7, Some(&failed), 1),
            (false, false, 7, Some(&lagging), 3),
            (false, false, 7, None, 4),
            (false, true, 7, Some(&done), 4),
            (false, true, 0, Some(&done), 0),
            (false, false, 7, Some(&waits), 4),
            (false, false, 0, Some(&waits), 4),
            (false, false, 0, None, 0),
            (true, false, 0, None, 0),
        ] {
            assert_eq!(of_change(plan, no_wait, Some(&decided(event)), outcome) as u8, code);
        }
        for (state, code) in
            [("ready", 0), ("failed", 1), ("cancelled", 1), ("overtaken", 1), ("queued", 4), ("building", 4)]
        {
            assert_eq!(of_build(state) as u8, code);
        }
        assert_eq!(Failure::usage("").exit as u8, 2);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Failure::output(&std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((closed.exit, closed.message.as_str()), (Exit::Done, ""));
        assert_eq!(Failure::output(&std::io::Error::from(std::io::ErrorKind::StorageFull)).exit, Exit::Refused);
    }
}

//! Going back past a release that is marked not reversible: said on the command line, or asked for on a terminal.

use std::io::{BufRead, IsTerminal};

use api::{ReleaseName, ReleaseNumber, ServiceName};
use clap::Args;
use tonic::Status;

use crate::exit::Failure;
use crate::operator::Session;
use crate::render::{Line, Style};

/// Longest answer that is read: no name is that long.
const ANSWER_BYTES: u64 = 1_024;

/// Of the verbs that can leave a release behind.
#[derive(Debug, Args)]
pub(crate) struct PastArgs {
    /// Go back past this release, which is marked not reversible.
    ///
    /// The highest of them, when several lie on the way. Without it the command asks for the release's name on a
    /// terminal, and refuses elsewhere. `pointsman release mark` marks a release.
    #[arg(long, value_name = "RELEASE")]
    past: Option<ReleaseNumber>,
}

/// The same, of a service.
#[derive(Debug)]
pub(super) struct Past {
    service: ServiceName,
    number: Option<ReleaseNumber>,
}

// === impl PastArgs ===

impl PastArgs {
    pub(super) fn of(self, service: &ServiceName) -> Past {
        Past { service: service.clone(), number: self.past }
    }
}

// === impl Past ===

impl Past {
    /// As a request carries it.
    pub(super) fn number(&self) -> Option<u32> {
        self.number.map(ReleaseNumber::number)
    }

    /// What a person says to a refusal that asks for it; `None` where it does not ask, or nobody is there.
    ///
    /// # Errors
    /// Somebody was asked, and did not type the release's name.
    pub(super) fn asked(&mut self, status: &Status, session: &Session) -> Result<Option<u32>, Failure> {
        let Some(number) = wanted(status).filter(|_| self.number.is_none() && is_somebody_there(session)) else {
            return Ok(None);
        };
        let name = ReleaseName::new(self.service.clone(), number);
        let output = &session.output;
        output.aside(&Line::of(Style::Moving, status.message()));
        output.aside(&Line::plain("type ").with(Style::Bold, name.to_string()).with(Style::Plain, " to do it now:"));
        if !is_name(&name, std::io::stdin().lock()) {
            return Err(Failure::refused(format!("{name} was not typed: nothing was changed")));
        }
        self.number = Some(number);
        Ok(self.number())
    }
}

/// The release that has to be named.
fn wanted(status: &Status) -> Option<ReleaseNumber> {
    let value = status.metadata().get(api::PAST_KEY)?.to_str().ok()?;
    ReleaseNumber::new(value.parse().ok()?)
}

fn is_somebody_there(session: &Session) -> bool {
    !session.output.is_json() && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Whether the next line is this name and nothing else.
fn is_name(name: &ReleaseName, from: impl BufRead) -> bool {
    let mut line = String::new();
    from.take(ANSWER_BYTES).read_line(&mut line).is_ok() && line.trim() == name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollback_goes_past_a_mark_only_by_its_whole_name() {
        let name: ReleaseName = "hello@r42".parse().expect("a name");
        let long = "hello@r42 ".repeat(1_000_000);
        for (typed, is) in [
            ("hello@r42\n", true),
            ("  hello@r42 \r\n", true),
            ("hello@r42", true),
            ("", false),
            ("\n", false),
            ("y\n", false),
            ("r42\n", false),
            ("hello@r4\n", false),
            ("\nhello@r42\n", false),
            (long.as_str(), false),
        ] {
            assert_eq!(is_name(&name, typed.as_bytes()), is, "{:.20}", typed);
        }
        assert!(!is_name(&name, &b"\xffhello@r42\n"[..]));
    }

    #[test]
    fn rollback_asks_only_when_the_refusal_names_a_release() {
        let mut status = Status::failed_precondition("r41 is behind r42");
        assert_eq!(wanted(&status), None);
        for (value, number) in [("42", ReleaseNumber::new(42)), ("0", None), ("r42", None), ("-1", None)] {
            status.metadata_mut().insert(api::PAST_KEY, value.parse().expect("a value"));
            assert_eq!(wanted(&status), number, "{value}");
        }
    }
}

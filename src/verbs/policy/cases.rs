//! `policy test`: cases as data, and what became of each.

use std::path::{Path, PathBuf};

use policies::cases::{self, Case, Cases, Expected};
use policies::policy::{Action, Decision, Document, Policies};
use serde::Serialize;

use crate::exit::{Ended, Exit, Failure};
use crate::output::Output;
use crate::render::{Line, Style};
use crate::verbs::apply;

/// What became of a case, as programs read it.
#[derive(Debug, Serialize)]
pub(super) struct Result {
    file: String,
    name: String,
    pub(super) ok: bool,
    expected: Expected,
    found: Expected,
    why: String,
    decisions: Vec<Answer>,
}

/// What policies said to one question.
#[derive(Debug, Serialize)]
struct Answer {
    action: &'static str,
    allowed: bool,
    policies: Vec<String>,
    errors: Vec<String>,
}

pub(super) fn run(access: &Path, files: &[PathBuf], output: &Output) -> Ended {
    let spec = super::access(access)?;
    let documents: Vec<_> =
        spec.documents.iter().map(|(name, text)| Document { name: name.clone(), text: text.clone() }).collect();
    let policies = Policies::read(&documents, spec.entities.as_deref(), &spec.attribute_types(), None)
        .map_err(|_| Failure::refused("its policies were right when the file was read"))?;
    let mut results = Vec::new();
    for file in apply::read_all(files)? {
        results.extend(try_all(&policies, &file.name, &file.text)?);
    }
    let failed = results.iter().filter(|result| !result.ok).count();
    output.show(&results, |_| lines(&results))?;
    Ok(if failed == 0 { Exit::Done } else { Exit::Refused })
}

/// Runs all cases of a file.
///
/// # Errors
/// It cannot be read, with its place; or a case cannot be run.
pub(super) fn try_all(policies: &Policies, file: &str, text: &str) -> std::result::Result<Vec<Result>, Failure> {
    let read: Cases = toml::from_str(text).map_err(|error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        Failure::refused(format!("{file}:{line}:{column}: {}", error.message()))
    })?;
    let tried: Vec<_> = read.cases.iter().map(|case| (case, cases::run(policies, case))).collect();
    let wrong: Vec<String> = tried
        .iter()
        .filter_map(|(case, outcome)| Some(format!("{file}: {}: {}", case.name, outcome.as_ref().err()?)))
        .collect();
    if !wrong.is_empty() {
        return Err(Failure::refused(wrong.join("\n")));
    }
    Ok(tried.into_iter().filter_map(|(case, outcome)| Some(Result::new(file, case, outcome.ok()?))).collect())
}

/// Failing cases with what decided, and a line about all of them.
pub(super) fn lines(results: &[Result]) -> Vec<Line> {
    let failed: Vec<_> = results.iter().filter(|result| !result.ok).collect();
    let mut lines: Vec<Line> = failed.iter().flat_map(|result| result.lines()).collect();
    let count = results.len();
    let cases = if count == 1 { "case" } else { "cases" };
    lines.push(match failed.len() {
        0 => Line::of(Style::Good, format!("{count} {cases}: all as expected")),
        failed => Line::of(Style::Bad, format!("{count} {cases}: {failed} not as expected")),
    });
    lines
}

// === impl Result ===

impl Result {
    fn new(file: &str, case: &Case, outcome: cases::Outcome) -> Self {
        Self {
            file: file.to_owned(),
            name: case.name.clone(),
            ok: outcome.found == case.expect,
            expected: case.expect,
            found: outcome.found,
            why: outcome.why.to_string(),
            decisions: outcome.decisions.into_iter().map(Answer::new).collect(),
        }
    }

    fn lines(&self) -> Vec<Line> {
        let Self { file, name, expected, found, why, .. } = self;
        let head = Line::of(Style::Bold, format!("{file}: {name}"));
        let head = head.with(Style::Plain, format!(": expected {expected}, found {found}: {why}"));
        std::iter::once(head).chain(self.decisions.iter().flat_map(Answer::lines)).collect()
    }
}

impl Answer {
    fn new((action, decision): (Action, Decision)) -> Self {
        Self {
            action: action.word(),
            allowed: decision.is_allowed,
            policies: decision.policies.iter().map(ToString::to_string).collect(),
            errors: decision.errors,
        }
    }

    fn lines(&self) -> Vec<Line> {
        let Self { action, allowed, policies, errors } = self;
        let said = match (allowed, policies.is_empty()) {
            (true, _) => format!("permitted by {}", policies.join(", ")),
            (false, true) => "no policy permits it".to_owned(),
            (false, false) if errors.is_empty() => format!("forbidden by {}", policies.join(", ")),
            (false, false) => format!("a policy failed beside {}", policies.join(", ")),
        };
        let head = Line::plain(format!("  {action}: {said}"));
        let failed = errors.iter().map(|error| Line::plain(format!("    failed: {error}")));
        std::iter::once(head).chain(failed).collect()
    }
}

/// Line and column of a byte, from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
}

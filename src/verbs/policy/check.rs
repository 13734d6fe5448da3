//! `policy check`: every mistake, and what is right and never applies.

use std::collections::BTreeSet;
use std::path::PathBuf;

use api::operator::{File, Mistake as Told};
use controller::core::spec::AccessSpec;
use controller::files;
use policies::policy::{Document, Policies};
use serde::Serialize;

use super::{IS_ACCESS, parse};
use crate::exit::{Ended, Exit, Failure};
use crate::output::Output;
use crate::render::Line;
use crate::verbs::apply;

/// What was found, as programs read it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) mistakes: Vec<Told>,
    pub(super) warnings: Vec<Told>,
    pub(super) issuers: usize,
    pub(super) documents: usize,
    pub(super) policies: usize,
    /// Environments that policies name, each with the place of the policy.
    #[serde(skip)]
    named: Vec<(Told, String)>,
}

pub(super) fn run(paths: &[PathBuf], output: &Output) -> Ended {
    let all = apply::with_named(apply::read_all(paths)?)?;
    let report = check(&all)?;
    if output.is_json() {
        output.json(&report)?;
    } else {
        report.mistakes.iter().for_each(|mistake| output.aside(&apply::line_of(mistake)));
        for warning in &report.warnings {
            let message = format!("warning: {}", warning.message);
            output.aside(&apply::line_of(&Told { message, ..warning.clone() }));
        }
        if report.mistakes.is_empty() {
            output.lines(&[Line::plain(report.summary())])?;
        }
    }
    Ok(if report.mistakes.is_empty() { Exit::Done } else { Exit::Refused })
}

/// Checks files, with those that they name among them.
pub(super) fn check(all: &[File]) -> Result<Report, Failure> {
    let mut report = Report::default();
    let mut accesses = 0;
    let mut environments = BTreeSet::new();
    for file in all.iter().filter(|file| file.named_by.is_empty()) {
        match parse(file, all) {
            Ok(files::File::Access(spec)) => {
                accesses += 1;
                report.add(&spec, file, all);
            }
            Ok(files::File::Environment(spec)) => {
                environments.insert(spec.name.to_string());
            }
            Ok(files::File::Service(_) | files::File::Releases(_)) => {}
            Err(mistakes) => report.mistakes.extend(mistakes.into_iter().map(told)),
        }
    }
    if accesses == 0 && report.mistakes.is_empty() {
        return Err(Failure::refused(format!("none of the files says who may pass: {IS_ACCESS}")));
    }
    // Without one of them nobody can tell which there are.
    if environments.is_empty() {
        report.named.clear();
    }
    let unknown = report.named.drain(..).filter(|(_, name)| !environments.contains(name));
    let unknown: Vec<_> = unknown
        .map(|(at, name)| Told { message: format!("none of the files describes the environment \"{name}\""), ..at })
        .collect();
    report.warnings.extend(unknown);
    if accesses > 1 {
        return Err(Failure::refused("two files say who may pass: there is one such file for the whole fleet"));
    }
    Ok(report)
}

impl Report {
    fn add(&mut self, spec: &AccessSpec, file: &File, all: &[File]) {
        let documents: Vec<_> =
            spec.documents.iter().map(|(name, text)| Document { name: name.clone(), text: text.clone() }).collect();
        // Reading the file has read them; what was wrong was told there.
        let Ok(read) = Policies::read(&documents, spec.entities.as_deref(), &spec.attribute_types(), None) else {
            return;
        };
        self.issuers = spec.issuers.len();
        self.documents = documents.len();
        self.policies = read.count();
        let told = |document: &str, line: u32, column: u32, message: String| {
            let is_it = |other: &&File| other.named_by == file.name && other.written == document;
            let name = all.iter().find(is_it).map_or(document, |other| &other.name).to_owned();
            Told { file: name, line, column, message }
        };
        let warnings =
            read.warnings().map(|warning| told(&warning.place, warning.line, warning.column, warning.message.clone()));
        self.warnings.extend(warnings);
        self.named
            .extend(read.environments().map(|(place, name)| {
                (told(&place.document, place.line, place.column, String::new()), name.to_owned())
            }));
    }

    fn summary(&self) -> String {
        let Self { issuers, documents, policies, .. } = self;
        let of = |count: &usize, one: &str, more: &str| format!("{count} {}", if *count == 1 { one } else { more });
        format!(
            "no mistakes: {} in {}, {}",
            of(policies, "policy", "policies"),
            of(documents, "document", "documents"),
            of(issuers, "issuer", "issuers")
        )
    }
}

fn told(mistake: files::Mistake) -> Told {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (line, column) = (number(mistake.line), number(mistake.column));
    Told { file: mistake.file, line, column, message: mistake.message }
}

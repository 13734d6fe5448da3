//! Figures of all rounds: medians, ratios, a table and JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::measure::Figures;
use crate::work::{Kind, Work};

/// What one contender did in one work.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    rounds: Vec<Figures>,
    /// The first that went wrong: there are no figures then, whatever other rounds said.
    problem: Option<String>,
}

/// A work and what came of it.
#[derive(Debug)]
pub(crate) struct Results {
    work: Work,
    entries: Vec<(Kind, Entry)>,
}

impl Entry {
    /// Adds a round.
    pub(crate) fn push(&mut self, round: Result<Figures, String>) {
        match round {
            Ok(figures) => self.rounds.push(figures),
            Err(problem) => drop(self.problem.get_or_insert(problem)),
        }
    }

    /// Of a figure, round by round; empty when anything went wrong.
    fn column(&self, name: &str) -> Vec<f64> {
        let good = self.problem.is_none().then_some(&self.rounds).into_iter().flatten();
        good.filter_map(|figures| figures.iter().find(|(known, _)| *known == name)).map(|(_, value)| *value).collect()
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.rounds.first().into_iter().flatten().map(|(name, _)| *name)
    }

    fn to_json(&self) -> Value {
        if let Some(problem) = &self.problem {
            return json!({ "error": problem });
        }
        let medians = self.names().map(|name| (name.to_owned(), json!(median(self.column(name)))));
        let mut all: Map<String, Value> = medians.collect();
        let rounds = self.rounds.iter().map(|figures| figures.iter().copied().collect::<BTreeMap<_, _>>());
        all.insert("rounds".into(), json!(rounds.collect::<Vec<_>>()));
        Value::Object(all)
    }
}

impl Results {
    /// Nothing yet.
    pub(crate) fn new(work: Work, contenders: &[Kind]) -> Self {
        Self { work, entries: contenders.iter().map(|kind| (*kind, Entry::default())).collect() }
    }

    /// Adds a round of a contender.
    pub(crate) fn push(&mut self, kind: Kind, round: Result<Figures, String>) {
        let entry = self.entries.iter_mut().find(|(known, _)| *known == kind);
        entry.expect("contenders are those that it was made with").1.push(round);
    }

    /// "W5a pointsman" for each that failed.
    pub(crate) fn failed(&self) -> impl Iterator<Item = String> {
        let failed = self.entries.iter().filter(|(_, entry)| entry.problem.is_some());
        failed.map(|(kind, _)| format!("{} {kind}", self.work.name))
    }

    /// By contender.
    pub(crate) fn to_json(&self) -> (String, Value) {
        let entries: Map<String, Value> =
            self.entries.iter().map(|(kind, entry)| (kind.to_string(), entry.to_json())).collect();
        (self.work.name.to_owned(), Value::Object(entries))
    }

    /// Prints medians and ratios.
    pub(crate) fn tell(&self) {
        println!("{}  {}", self.work.name, self.work.title);
        let names: Vec<&str> = self
            .entries
            .iter()
            .find(|(_, entry)| entry.problem.is_none())
            .into_iter()
            .flat_map(|(_, entry)| entry.names())
            .collect();
        print!("  {:<10}", "");
        names.iter().for_each(|name| print!(" {name:>14}"));
        println!();
        for (kind, entry) in &self.entries {
            match &entry.problem {
                Some(problem) => println!("  {kind:<10} FAILED: {problem}"),
                None => {
                    print!("  {kind:<10}");
                    names.iter().for_each(|name| print!(" {:>14}", shown(median(entry.column(name)))));
                    println!();
                }
            }
        }
        if let Some(((first, ours), others)) = self.entries.split_first() {
            for name in self.work.task.compared() {
                for (kind, theirs) in others {
                    tell_ratio(*first, *kind, name, &ours.column(name), &theirs.column(name));
                }
            }
        }
        println!();
    }
}

/// Rounds are compared one by one: what disturbs one round disturbs both.
fn tell_ratio(first: Kind, other: Kind, name: &str, ours: &[f64], theirs: &[f64]) {
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    ratios.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (ratios.first().copied(), ratios.last().copied()) {
        let middle = median(ratios).unwrap_or_default();
        println!("  {first} / {other}, {name}: {middle:.2} ({least:.2} to {most:.2})");
    }
}

/// The middle one, or the mean of the middle two; `None` without any.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((below + above) / 2.0)
}

/// Three digits or more, as they are needed.
fn shown(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.abs() < 1_000.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        for (values, expected) in
            [(vec![], None), (vec![3.0], Some(3.0)), (vec![9.0, 1.0], Some(5.0)), (vec![9.0, 1.0, 2.0], Some(2.0))]
        {
            assert_eq!(median(values.clone()), expected, "{values:?}");
        }
    }

    #[test]
    fn one_failed_round_leaves_no_figures() {
        let mut entry = Entry::default();
        entry.push(Ok(vec![("cpu_us", 1.0)]));
        assert_eq!(entry.to_json()["cpu_us"], json!(1.0));
        entry.push(Err("no".into()));
        assert_eq!(entry.to_json(), json!({ "error": "no" }));
        assert!(entry.column("cpu_us").is_empty());
    }
}

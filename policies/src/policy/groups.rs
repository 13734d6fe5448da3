//! Groups within groups, as an operator's entities.json says.
//!
//! Must not know: who is in a group.
//!
//! Main type: [`Groups`].

use std::collections::{BTreeMap, HashSet};

use cedar_policy::EntityUid;
use serde_json::Value;

use super::read::Checker;
use super::words::{TYPES, uid};
use crate::Problem;

/// Most groups that can be in others. Each holds all that it is in, so a long line of them costs its square.
const MOST: usize = 1_000;

/// Which groups each group is in, through others, too.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    above: BTreeMap<String, Vec<EntityUid>>,
}

impl Groups {
    /// Reads Cedar's JSON form of entities.
    ///
    /// # Errors
    /// It is no such thing, holds something besides groups, or groups that are in themselves.
    pub(super) fn read(json: &str, checker: &Checker) -> Result<Self, Vec<Problem>> {
        let written: Value = serde_json::from_str(json).map_err(|error| {
            let place = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let end = format!(" at line {} column {}", error.line(), error.column());
            vec![problem(place(error.line()), place(error.column()), &error.to_string().replace(&end, ""))]
        })?;
        let count = written.as_array().map_or(0, Vec::len);
        if count > MOST {
            return Err(vec![problem(0, 0, &format!("it has {count} groups, accepted are {MOST}"))]);
        }
        let others = others(&written);
        if !others.is_empty() {
            return Err(others);
        }
        let entities = checker.entities(json).map_err(|message| vec![problem(0, 0, &message)])?;
        let groups = entities.iter().filter(|entity| *entity.uid().type_name() == TYPES.group);
        let above = groups.map(|group| {
            let id = group.uid();
            let above = entities.ancestors(&id).into_iter().flatten().cloned().collect();
            (id.id().unescaped().to_owned(), above)
        });
        Ok(Self { above: above.collect() })
    }

    /// These groups and all that they are in.
    pub(super) fn closure<'a>(&self, names: impl Iterator<Item = &'a str>) -> HashSet<EntityUid> {
        let mut found = HashSet::new();
        for name in names {
            found.insert(uid(&TYPES.group, name));
            found.extend(self.above.get(name).into_iter().flatten().cloned());
        }
        found
    }
}

/// Entities that are not groups: all others come from tokens, from applications and from stages.
fn others(written: &Value) -> Vec<Problem> {
    let entities = written.as_array().into_iter().flatten();
    let others = entities.filter_map(|entity| {
        let id = entity.get("uid")?;
        let id = id.get("__entity").unwrap_or(id);
        let of_type = id.get("type")?.as_str().filter(|name| *name != "Group")?;
        let message =
            "accepted are groups: {\"uid\": {\"type\": \"Group\", \"id\": ...}, \"attrs\": {}, \"parents\": [...]}";
        Some(problem(0, 0, &format!("{of_type}::{} stands in it: {message}", id.get("id").unwrap_or(&Value::Null))))
    });
    others.collect()
}

fn problem(line: u32, column: u32, message: &str) -> Problem {
    Problem {
        place: "entities".to_owned(),
        line,
        column,
        message: message.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests;

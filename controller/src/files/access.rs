//! Who may pass: what environments and stages ask for, and `access.toml` with the policies that it names.

mod issuer;

use std::collections::BTreeMap;

use policies::policy::{Document, Policies};

use crate::core::spec::{ACCESS_BYTES, AccessSpec, Credentials, DOCUMENT_BYTES, DOCUMENTS_MOST, Denial};

use super::environment::schema;
use super::value::{not_one_of, stays_within};
use super::walk::{Section, Walk, shown};
use super::{Attached, File, Mistake};

/// Keys that tell the file from others.
pub(super) const KEYS: [&str; 3] = ["issuer", "policies", "entities"];

const DENIALS: [&str; 2] = ["hidden", "explicit"];
const CREDENTIALS: [&str; 2] = ["application", "user"];

/// Longest name of a document.
const NAME_BYTES: usize = 128;
/// Most mistakes of files that this one names.
const MOST_MISTAKES: usize = 100;

/// Reads `denial = "hidden"`.
pub(super) fn denial(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Denial> {
    let (word, at) = section.text(walk, "denial")?;
    match word.as_str() {
        "hidden" => Some(Denial::Hidden),
        "explicit" => Some(Denial::Explicit),
        other => {
            not_one_of(walk, at, "a way to deny", other, &DENIALS);
            None
        }
    }
}

/// Reads `credentials = ["application", "user"]`.
pub(super) fn credentials(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Credentials> {
    let words = section.list(walk, "credentials")?;
    let mut read = Credentials { application: false, user: false };
    for (word, at) in words {
        let asked = match word.as_str() {
            "application" => &mut read.application,
            "user" => &mut read.user,
            other => {
                not_one_of(walk, at, "a credential", other, &CREDENTIALS);
                continue;
            }
        };
        if *asked {
            walk.wrong(at, format!("`credentials` names \"{word}\" twice"));
        }
        *asked = true;
    }
    Some(read)
}

/// See [`super::named`].
pub(super) fn named(text: &str) -> Vec<String> {
    let (root, _) = toml::de::DeTable::parse_recoverable(text);
    let root = Section::root(root.get_ref());
    // Mistakes are told by whoever reads the file for good.
    let walk = &mut Walk::new("", text);
    if !KEYS.iter().any(|key| root.has(key)) || root.has("environment") || root.has("service") {
        return Vec::new();
    }
    let mut names: Vec<String> =
        root.list(walk, "policies").unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    names.extend(root.text(walk, "entities").map(|(name, _)| name));
    let issuers = root.named::<api::MemberName>(walk, "issuer");
    names.extend(issuers.iter().filter_map(|(_, section)| Some(section.text(walk, "ca_file")?.0)));
    names.retain(|name| not_a_name(name).is_none());
    names.sort_unstable();
    names.dedup();
    names
}

/// What keeps a text from being the name of a file beside this one.
fn not_a_name(name: &str) -> Option<&'static str> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    (name.len() > NAME_BYTES || !stays_within(name) || !name.bytes().all(good)).then_some(
        "is not a file beside this one: accepted is a relative path of letters, digits, \".\", \"_\", \"-\" and \"/\" without \
         \"..\", such as \"staff.cedar\"",
    )
}

/// Reads `access.toml` with the files that it names.
pub(super) fn read<'a>(
    walk: &mut Walk<'_>,
    root: &Section<'_>,
    attached: &dyn Fn(&str) -> Option<Attached<'a>>,
) -> (Option<File>, Vec<Mistake>) {
    root.check_keys(walk, &["schema", "policies", "entities", "issuer"], &[]);
    schema(walk, root);
    let files = Files { attached };
    let (issuers, are_read) = issuer::read(walk, root, &files);
    let documents = documents(walk, root, &files);
    let entities = entities(walk, root, &files);
    let texts = documents.iter().map(|(name, file)| (name.clone(), file.text.to_owned())).collect();
    let spec = AccessSpec { issuers, documents: texts, entities: entities.map(|file| file.text.to_owned()) };
    if let Some(message) = too_long(&spec) {
        let first = KEYS.map(|key| root.place(key)).into_iter().filter(|at| *at > 0).min();
        walk.wrong(first.unwrap_or_default(), message);
        return (Some(File::Access(spec)), Vec::new());
    }
    // Without an attribute that could not be read, all that reads it would be wrong.
    let found = if are_read { check(&spec, &documents, entities) } else { Vec::new() };
    (Some(File::Access(spec)), found)
}

/// What is wrong with the length of all texts together; an authority that two issuers name counts for each.
fn too_long(spec: &AccessSpec) -> Option<String> {
    let authorities = spec.issuers.values().filter_map(|issuer| issuer.ca.as_ref());
    let texts = spec.documents.values().chain(&spec.entities).chain(authorities);
    let bytes: usize = texts.map(String::len).sum();
    (bytes > ACCESS_BYTES).then(|| {
        format!(
            "the files that this one names have {bytes} bytes together: accepted are at most {ACCESS_BYTES} (8 MiB)"
        )
    })
}

/// The files that this one names.
struct Files<'f, 'a> {
    attached: &'f dyn Fn(&str) -> Option<Attached<'a>>,
}

impl<'a> Files<'_, 'a> {
    /// The one that `key` names at a place.
    fn of(&self, walk: &mut Walk<'_>, key: &str, name: &str, at: usize) -> Option<Attached<'a>> {
        if let Some(why) = not_a_name(name) {
            walk.wrong(at, format!("`{key}`: \"{}\" {why}", shown(name)));
            return None;
        }
        let found = (self.attached)(name);
        match &found {
            None => walk.wrong(at, format!("`{key}` names \"{name}\": there is no such file beside this one")),
            Some(file) if file.text.len() > DOCUMENT_BYTES => {
                let bytes = file.text.len();
                walk.wrong(at, format!("\"{name}\" has {bytes} bytes: accepted are at most {DOCUMENT_BYTES} (1 MiB)"));
                return None;
            }
            Some(_) => {}
        }
        found
    }
}

fn documents<'a>(walk: &mut Walk<'_>, root: &Section<'_>, files: &Files<'_, 'a>) -> BTreeMap<String, Attached<'a>> {
    let names = root.list(walk, "policies").unwrap_or_default();
    if names.len() > DOCUMENTS_MOST {
        let message = format!("`policies` names {} files: accepted are {DOCUMENTS_MOST}", names.len());
        walk.wrong(root.place("policies"), message);
        return BTreeMap::new();
    }
    let mut documents = BTreeMap::new();
    for (name, at) in names {
        let Some(file) = files.of(walk, "policies", &name, at) else { continue };
        if documents.insert(name.clone(), file).is_some() {
            walk.wrong(at, format!("`policies` names \"{name}\" twice"));
        }
    }
    documents
}

fn entities<'a>(walk: &mut Walk<'_>, root: &Section<'_>, files: &Files<'_, 'a>) -> Option<Attached<'a>> {
    let (name, at) = root.text(walk, "entities")?;
    files.of(walk, "entities", &name, at)
}

/// Checks policies and entities against the schema; mistakes with the names that the operator knows the files by.
fn check(
    spec: &AccessSpec,
    documents: &BTreeMap<String, Attached<'_>>,
    entities: Option<Attached<'_>>,
) -> Vec<Mistake> {
    if spec.documents.is_empty() && spec.entities.is_none() {
        return Vec::new();
    }
    let texts = spec.documents.iter().map(|(name, text)| Document { name: name.clone(), text: text.clone() });
    let texts: Vec<_> = texts.collect();
    let Err(problems) = Policies::read(&texts, spec.entities.as_deref(), &spec.attribute_types(), None) else {
        return Vec::new();
    };
    let more = problems.len().saturating_sub(MOST_MISTAKES);
    let told = problems.into_iter().take(MOST_MISTAKES).map(|problem| {
        let file = documents.get(&problem.place).or(entities.as_ref().filter(|_| problem.place == "entities"));
        let file = file.map_or(problem.place, |file| file.name.to_owned());
        let place = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Mistake { file, line: place(problem.line), column: place(problem.column), message: problem.message }
    });
    let mut told: Vec<_> = told.collect();
    if let (Some(last), true) = (told.last().cloned(), more > 0) {
        told.push(Mistake { message: format!("and {more} more mistakes"), ..last });
    }
    told
}

#[cfg(test)]
mod tests;

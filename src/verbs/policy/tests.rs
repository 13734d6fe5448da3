//! On files as they lie in a folder.

use std::path::Path;

use super::*;
use crate::render::plain;

const ACCESS: &str = "schema = 1
policies = [\"staff.cedar\", \"more.cedar\"]
entities = \"entities.json\"

[issuer.corp]
issuer = \"https://login.example.com\"
audience = [\"pointsman\"]
groups = [{ claim = \"groups\" }]
attributes = { department = { claim = \"department\", type = \"string\" } }
";

const STAFF: &str = "// Whoever works here.
permit (principal in Group::\"everybody\", action, resource in Environment::\"staging\");
@id(\"no deletes\")
forbid (principal, action == Action::\"write\", resource) when { context.method == \"DELETE\" };
";

const ENTITIES: &str =
    r#"[{"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": [{"type": "Group", "id": "everybody"}]}]"#;

const STAGING: &str = "schema = 1
environment = \"staging\"
zone = \"staging.example.com\"
target = { kind = \"agent\", group = \"any\" }
";

const CASES: &str = "schema = 1

[[case]]
name = \"staff read\"
user = { issuer = \"corp\", subject = \"alice\", groups = [\"staff\"], attributes = { department = \"sales\" } }
application = { name = \"portal\" }
stage = \"hello/staging\"
does = \"GET /orders\"
expect = \"allowed\"

[[case]]
name = \"staff delete\"
user = { issuer = \"corp\", subject = \"alice\", groups = [\"staff\"] }
application = { name = \"portal\" }
stage = \"hello/staging\"
does = \"DELETE /orders\"
expect = \"hidden\"
";

/// A folder with access.toml and what it names; `more.cedar` has this text.
fn folder(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let files = [("access.toml", ACCESS), ("staff.cedar", STAFF), ("more.cedar", more), ("entities.json", ENTITIES)];
    for (name, text) in files.into_iter().chain([("cases.toml", CASES)]) {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

fn checked(folder: &Path, names: &[&str]) -> Result<check::Report, Failure> {
    let paths: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
    check::check(&apply::with_named(apply::read_all(&paths)?)?)
}

fn policies(folder: &Path) -> policies::policy::Policies {
    use policies::policy::{Document, Policies};
    let spec = access(&folder.join("access.toml")).expect("it is right");
    let documents = spec.documents.iter().map(|(name, text)| Document { name: name.clone(), text: text.clone() });
    let documents: Vec<_> = documents.collect();
    Policies::read(&documents, spec.entities.as_deref(), &spec.attribute_types(), None).expect("they are right")
}

#[test]
fn what_is_right_is_counted() {
    let folder = folder("");
    let report = checked(folder.path(), &["access.toml"]).expect("it can be checked");
    assert!(report.mistakes.is_empty() && report.warnings.is_empty(), "{report:?}");
    assert_eq!((report.issuers, report.documents, report.policies), (1, 2, 2));
}

#[test]
fn mistakes_and_warnings_stand_in_the_file_that_people_know() {
    let wrong = folder("permit (principal, action, resource)\n  when { principal.departmnt == \"sales\" };");
    let report = checked(wrong.path(), &["access.toml"]).expect("it can be checked");
    assert_eq!(report.mistakes.len(), 1, "{report:?}");
    let mistake = &report.mistakes[0];
    let file = wrong.path().join("more.cedar").display().to_string();
    assert_eq!((&mistake.file, mistake.line, mistake.column), (&file, 2, 10), "{mistake:?}");
    assert!(mistake.message.contains("departmnt"), "{mistake:?}");

    let idle = folder("\npermit (principal, action, resource is Environment);");
    let report = checked(idle.path(), &["access.toml"]).expect("it can be checked");
    let file = idle.path().join("more.cedar").display().to_string();
    assert_eq!((report.mistakes.len(), report.warnings.len()), (0, 1), "{report:?}");
    assert_eq!((&report.warnings[0].file, report.warnings[0].line), (&file, 2), "{report:?}");
}

#[test]
fn other_files_are_checked_with_it() {
    let folder = folder("");
    std::fs::write(folder.path().join("production.toml"), "schema = 1\nenvironment = \"production\"\nzone = 3\n")
        .expect("written");
    let report = checked(folder.path(), &["access.toml", "production.toml"]).expect("it can be checked");
    assert!(report.mistakes.iter().any(|mistake| mistake.file.ends_with("production.toml")), "{report:?}");
    std::fs::write(folder.path().join("staging.toml"), STAGING).expect("written");
    let refused = checked(folder.path(), &["staging.toml"]).expect_err("it does not say who may pass");
    assert!(refused.message.contains("none of the files says who may pass"), "{refused:?}");
    let twice = checked(folder.path(), &["access.toml", "access.toml"]).expect_err("two of them");
    assert!(twice.message.contains("two files"), "{twice:?}");
}

#[test]
fn environments_that_no_file_describes_are_told_when_some_are_given() {
    let folder = folder("permit (principal, action, resource in Environment::\"prod\");");
    let of = |names: &[&str]| checked(folder.path(), names).expect("it can be checked");
    assert!(of(&["access.toml"]).warnings.is_empty());
    std::fs::write(folder.path().join("staging.toml"), STAGING).expect("written");
    let report = of(&["access.toml", "staging.toml"]);
    assert!(report.mistakes.is_empty(), "{report:?}");
    let told: Vec<_> = report.warnings.iter().map(|warning| (warning.line, warning.message.as_str())).collect();
    assert_eq!(told, [(1, "none of the files describes the environment \"prod\"")]);
}

#[test]
fn a_file_that_is_named_and_not_there_is_told_with_its_place_and_all_else() {
    let folder = folder("");
    std::fs::remove_file(folder.path().join("more.cedar")).expect("removed");
    let wrong = "permit (principal, action == Action::\"fly\", resource);";
    std::fs::write(folder.path().join("staff.cedar"), wrong).expect("written");
    let mistakes = checked(folder.path(), &["access.toml"]).expect("it can be checked").mistakes;
    let place = |mistake: &api::operator::Mistake| (mistake.line, mistake.column);
    assert_eq!((mistakes.len(), place(&mistakes[0])), (2, (2, 28)), "{mistakes:?}");
    assert!(mistakes[0].message.contains("\"more.cedar\": there is no such file beside this one"), "{mistakes:?}");
    assert!(mistakes[1].file.ends_with("staff.cedar") && mistakes[1].message.contains("fly"), "{mistakes:?}");
}

#[test]
fn cases_are_run_and_those_that_fail_are_explained() {
    let folder = folder("");
    let policies = policies(folder.path());
    let results = cases::try_all(&policies, "cases.toml", CASES).expect("they can be run");
    assert_eq!(plain(&cases::lines(&results)), "2 cases: all as expected\n");

    let other = CASES.replace("\"hidden\"", "\"allowed\"");
    let results = cases::try_all(&policies, "cases.toml", &other).expect("they can be run");
    let expected =
        "cases.toml: staff delete: expected allowed, found hidden: no policy lets the caller do this, or one forbids it
  discover: permitted by staff.cedar:2
  write: forbidden by staff.cedar \"no deletes\"
2 cases: 1 not as expected
";
    assert_eq!(plain(&cases::lines(&results)), expected);
    assert_eq!(results.iter().map(|result| result.ok).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_file_of_cases_that_cannot_be_read_has_its_place() {
    let folder = folder("");
    let policies = policies(folder.path());
    for (wrong, with, message) in [
        ("\"DELETE /orders\"", "\"DELETE orders\"", "cases.toml:16:8: \"DELETE orders\": accepted are"),
        ("expect = \"hidden\"", "expect = \"gone\"", "cases.toml:17:10: unknown variant `gone`"),
        ("does = \"GET", "do = \"GET", "cases.toml:8:1: unknown field `do`"),
        ("schema = 1", "schema = 2", "cases.toml:1:10: this version reads schema = 1"),
        (
            "department = \"sales\"",
            "departmnt = \"sales\"",
            "cases.toml: staff read: no issuer gives users the attribute \"departmnt\"",
        ),
    ] {
        let text = CASES.replace(wrong, with);
        let failure = cases::try_all(&policies, "cases.toml", &text).expect_err(message);
        assert!(failure.message.contains(message), "{}", failure.message);
        assert_eq!(failure.exit, Exit::Refused);
    }
}

#[test]
fn policies_need_a_file_that_says_who_may_pass() {
    let folder = folder("");
    let path = folder.path().join("environment.toml");
    std::fs::write(&path, "schema = 1\nenvironment = 3\n").expect("written");
    assert_eq!(access(&path).expect_err("no access").exit, Exit::Refused);
}

use super::*;
use crate::policy::AttributeTypes;

fn read(json: &str) -> Result<Groups, Vec<Problem>> {
    Groups::read(json, &Checker::new(&AttributeTypes::new()).expect("nothing is wrong with nothing"))
}

fn found(groups: &Groups, names: &[&str]) -> Vec<String> {
    let closure = groups.closure(names.iter().copied());
    let mut found: Vec<_> = closure.iter().map(|group| group.id().unescaped().to_owned()).collect();
    found.sort_unstable();
    found
}

#[test]
fn groups_are_in_all_that_theirs_are_in() {
    let json = r#"[
        {"uid": {"type": "Group", "id": "a"}, "attrs": {}, "parents": [{"type": "Group", "id": "b"}]},
        {"uid": {"__entity": {"type": "Group", "id": "b"}}, "attrs": {}, "parents": [
            {"type": "Group", "id": "c"}, {"type": "Group", "id": "d"}]}
    ]"#;
    let groups = read(json).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(found(&groups, &["a"]), ["a", "b", "c", "d"]);
    assert_eq!(found(&groups, &["b", "other"]), ["b", "c", "d", "other"]);
    assert_eq!(found(&groups, &[]), [""; 0]);
    assert_eq!(found(&read("[]").expect("no groups are none"), &["a"]), ["a"]);
}

#[test]
fn what_is_no_list_of_groups_is_refused() {
    let group = |id: &str, parent: &str| {
        format!(
            r#"{{"uid": {{"type": "Group", "id": "{id}"}}, "attrs": {{}}, "parents": [{{"type": "Group", "id": "{parent}"}}]}}"#
        )
    };
    let cycle = format!("[{}, {}]", group("a", "b"), group("b", "a"));
    let table = [
        ("[\n  {]", 2, 4, "key must be a string"),
        ("{}", 0, 0, ""),
        ("[3]", 0, 0, ""),
        (r#"[{"uid": {"type": "User", "id": "corp/alice"}, "attrs": {}, "parents": []}]"#, 0, 0, "accepted are groups"),
        (r#"[{"uid": {"type": "Action", "id": "read"}, "attrs": {}, "parents": []}]"#, 0, 0, "accepted are groups"),
        (
            r#"[{"uid": {"__entity": {"type": "Stage", "id": "a/b"}}, "attrs": {}, "parents": []}]"#,
            0,
            0,
            "accepted are groups",
        ),
        (r#"[{"uid": {"type": "Group", "id": "a"}, "attrs": {"floor": 3}, "parents": []}]"#, 0, 0, "floor"),
        (
            r#"[{"uid": {"type": "Group", "id": "a"}, "attrs": {}, "parents": [{"type": "Stage", "id": "a/b"}]}]"#,
            0,
            0,
            "Stage",
        ),
        (cycle.as_str(), 0, 0, "cycle"),
    ];
    for (json, line, column, message) in table {
        let problems = read(json).expect_err(json);
        assert_eq!(problems.len(), 1, "{json}: {problems:#?}");
        let problem = &problems[0];
        assert_eq!(
            (problem.place.as_str(), problem.line, problem.column),
            ("entities", line, column),
            "{json}: {problem:?}"
        );
        assert!(problem.message.contains(message), "{json}: {problem:?}");
    }
}

/// The longest line of groups that is accepted is read on a thread's usual 2 MiB.
#[test]
fn hostile_lines_of_groups_are_read_or_refused() {
    let line = |count: usize| {
        let group = |number: usize| {
            let parent = number + 1;
            format!(
                r#"{{"uid": {{"type": "Group", "id": "{number}"}}, "attrs": {{}}, "parents": [{{"type": "Group", "id": "{parent}"}}]}}"#
            )
        };
        format!("[{}]", (0..count).map(group).collect::<Vec<_>>().join(","))
    };
    let (longest, longer) = (line(MOST), line(MOST + 1));
    let work = move || read(&longest).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).expect("a thread");
    let groups = thread.join().expect("it ends");
    assert_eq!(found(&groups, &["0"]).len(), MOST + 1);
    let problems = read(&longer).expect_err("too many");
    assert!(problems[0].message.contains("accepted are 1000"), "{problems:?}");
}

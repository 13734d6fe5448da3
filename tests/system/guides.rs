//! The pages for people: what they tell to type is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::harness::House;

/// All commands of a page, in backticks or in blocks of `sh`, without what a shell does with them.
fn commands(page: &str) -> BTreeSet<String> {
    let (mut in_block, mut is_shell) = (false, false);
    let (mut found, mut prose) = (BTreeSet::new(), String::new());
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(language) => (in_block, is_shell) = (!in_block, language == "sh"),
            None if !in_block => prose.extend([line.trim(), " "]),
            None if is_shell && line.starts_with("pointsman ") => {
                found.insert(line.split(['>', '#', '|']).next().unwrap_or_default().trim().to_owned());
            }
            None => {}
        }
    }
    let quoted = prose.split('`').skip(1).step_by(2);
    found.extend(quoted.filter(|text| text.starts_with("pointsman ")).map(str::to_owned));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_guide_and_other_pages_name_commands_that_there_are() {
    let house = House::empty();
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|kind| kind == "md") {
            all.extend(commands(&fs::read_to_string(&path).expect("text")));
        }
    }
    assert!(all.len() >= 12, "{all:?}");
    for command in &all {
        // What comes before is read first: a verb or an option that is none is told, and not helped with.
        let words: Vec<&str> = command.split_whitespace().skip(1).chain(["--help"]).collect();
        house.run_bare(&words).await.ends(0);
    }
}

//! The pages for people, in `docs`: what they show is accepted.

use std::path::Path;

use crate::files::{File, parse};

/// A page by its name.
fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).expect("the page")
}

fn guide() -> String {
    page("rollouts.md")
}

/// What a page says, in one line.
fn said(name: &str) -> String {
    page(name).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All pages.
fn pages() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let names = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    names.filter(|name| name.ends_with(".md")).collect()
}

/// What stands between "```LANGUAGE" and "```", with the line of the page on which it begins.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (place, line) in page.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(begins) if begins == language && !is_open => {
                is_open = true;
                blocks.push((place + 2, String::new()));
            }
            Some(_) => is_open = false,
            None if is_open => blocks.last_mut().expect("opened").1.extend([line, "\n"]),
            None => {}
        }
    }
    assert!(!is_open, "a block is not closed");
    blocks
}

#[test]
fn rollout_guide_shows_files_that_are_accepted() {
    let blocks = blocks(&guide(), "toml");
    assert!(blocks.len() >= 5, "{blocks:?}");
    let mut strategies = std::collections::BTreeSet::new();
    for (line, block) in blocks {
        let text = format!("schema = 1\nservice = \"hello\"\n{block}");
        let read = parse("docs/rollouts.md", &text);
        let Ok(File::Service(spec)) = read else { panic!("line {line} and after: {read:?}") };
        for stage in spec.stages.values() {
            assert!(stage.rollout.is_sound(), "line {line}: {stage:?}");
            strategies.insert(stage.rollout.strategy.name());
        }
    }
    assert_eq!(strategies.into_iter().collect::<Vec<_>>(), ["all-at-once", "blue-green", "canary"], "one of each");
}

/// Whole files, stages of a service, policies, and answers.
#[test]
fn rollout_guide_and_other_pages_show_nothing_that_is_refused() {
    let pages = pages();
    assert!(["rollouts.md", "monitoring.md"].iter().all(|name| pages.iter().any(|page| page == name)), "{pages:?}");
    let mut seen = [0; 3];
    for name in pages {
        let text = page(&name);
        for (line, block) in blocks(&text, "toml") {
            let is_whole = block.lines().any(|line| line.starts_with("schema ="));
            let text = if is_whole { block } else { format!("schema = 1\nservice = \"hello\"\n{block}") };
            let read = parse(&name, &text);
            assert!(read.is_ok(), "{name}, line {line} and after: {read:?}");
            seen[0] += 1;
        }
        for (line, text) in blocks(&text, "cedar") {
            let document = policies::policy::Document { name: name.clone(), text };
            let read = policies::policy::Policies::read(&[document], None, &Default::default(), None);
            assert!(read.is_ok(), "{name}, line {line} and after: {:?}", read.err());
            seen[1] += 1;
        }
        for (line, block) in blocks(&text, "json") {
            let read = serde_json::from_str::<serde_json::Value>(&block);
            assert!(read.is_ok(), "{name}, line {line} and after: {read:?}");
            seen[2] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// Which of them they mean is said by the page, as constants and defaults change.
#[test]
fn rollout_guide_says_the_numbers_that_count() {
    use crate::checks::{AT_ONCE, AT_ONCE_OF_STAGE};
    use crate::core::rollout::WARM_UP_MOST;
    use crate::core::spec::{CHECK_EVERY, CHECK_FALL, CHECK_TIMEOUT, CHECKS_MOST, STEP_TIME_MOST, STEPS_MOST};
    let page = said("rollouts.md");
    for said in [
        format!("every = \"{CHECK_EVERY}\" # default"),
        format!("timeout = \"{CHECK_TIMEOUT}\" # default"),
        format!("fall = {CHECK_FALL} # default"),
        format!("{AT_ONCE} at once over all stages and {AT_ONCE_OF_STAGE} of one stage"),
        format!("most {STEPS_MOST} steps, {} days", STEP_TIME_MOST.ms() / 86_400_000),
    ] {
        assert!(page.contains(&said), "the page does not say: {said}");
    }
    assert_eq!(CHECKS_MOST, 10, "the page says ten");
    assert_eq!(WARM_UP_MOST.ms(), 300_000, "the page says five minutes");
}

#[test]
fn releases_guide_shows_files_that_are_accepted() {
    let (mut outputs, mut kinds) = ([0; 3], [0; 3]);
    for (line, block) in blocks(&page("releases.md"), "toml") {
        let is_whole = block.lines().any(|line| line.starts_with("schema ="));
        let text = if is_whole { block } else { format!("schema = 1\nservice = \"hello\"\n{block}") };
        match parse("docs/releases.md", &text) {
            Ok(File::Service(spec)) => {
                kinds[0] += 1;
                assert!(!spec.components.is_empty(), "line {line}: a service of the page keeps something");
                for one in spec.components.values() {
                    outputs[usize::from(one.image.is_some())] += 1;
                    outputs[2] += usize::from(one.folder.contains("{environment}"));
                }
            }
            Ok(File::Releases(_)) => kinds[1] += 1,
            Ok(File::Environment(_)) => kinds[2] += 1,
            other => panic!("line {line} and after: {other:?}"),
        }
    }
    assert!(kinds[0] >= 7 && kinds[1] == 1 && kinds[2] == 2, "{kinds:?}");
    assert!(outputs.iter().all(|count| *count > 0), "folders, images, one for each environment: {outputs:?}");
}

#[test]
fn releases_guide_says_the_numbers_that_count() {
    use crate::core::spec::{
        BUILD_CHECKS_MOST, BUILDERS, BUILDERS_MOST, KeepSpec, POLL, POLL_LEAST, POLL_MOST, REPOSITORY_FILES_MOST,
        UPLOADS, WORKSPACE_BYTES,
    };
    let page = said("releases.md");
    let KeepSpec { releases, logs, artifacts, back, in_registry } = KeepSpec::default();
    for said in [
        format!("poll = \"{POLL}\" # default; {} s to a day", POLL_LEAST.ms() / 1_000),
        format!("default {}GiB", WORKSPACE_BYTES >> 30),
        format!("at most {BUILD_CHECKS_MOST}, one after the other"),
        format!("builds at once, 1 to {BUILDERS_MOST}; default {BUILDERS}"),
        format!("1 to 16; default {UPLOADS}"),
        format!("default the first; at most {REPOSITORY_FILES_MOST}"),
        format!("releases = {releases} # of each service logs = \"{logs}\" artifacts = {artifacts} #"),
        format!("back = {back} #"),
        format!("in_registry = {in_registry} #"),
    ] {
        assert!(page.contains(&said), "the page does not say: {said}");
    }
    assert_eq!(POLL_MOST.ms(), 86_400_000, "the page says a day");
}

#[test]
fn releases_recipes_say_what_they_are_and_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/recipes");
    for recipe in ["buildah", "docker", "bazel"] {
        let read = |name: &str| std::fs::read_to_string(folder.join(recipe).join(name)).expect("a file");
        let spec = parse("pointsman.toml", &read("pointsman.toml"));
        let Ok(File::Service(spec)) = spec else { panic!("{recipe}: {spec:?}") };
        assert!(spec.build.is_some_and(|build| build.registry), "{recipe} pushes");
        let (text, script) = (read("README.md"), read("build.sh"));
        assert!(text.contains(&format!("pointsman init --recipe {recipe}")), "{recipe}");
        assert_eq!(text.contains("Not tested"), script.contains("Not tested"), "{recipe}: both say whether it is");
    }
}

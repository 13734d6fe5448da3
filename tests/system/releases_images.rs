//! Images: built by what is not ours, pushed to a registry that is not ours, known by digest from then on.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Docker, House, Registry, Repository, USER};
use crate::releases_recipes::Checkout;

const STATIC: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                      target = { kind = \"static\" }\n";

/// `releases.toml` that names this registry.
pub(crate) fn releases_toml(registry: &Registry, more: &str) -> String {
    let (host, ca, password) = (registry.host(), registry.authority(), registry.password());
    format!(
        "schema = 1\n{more}\n[registry]\naddress = \"{host}/pointsman\"\nca = {{ file = {ca:?} }}\n\
         credentials = {{ user = \"{USER}\", password = {{ file = {password:?} }} }}\n"
    )
}

/// A service that builds by a shipped recipe.
fn by_recipe(house: &House, recipe: &str) -> (Repository, String) {
    let repository = Repository::new(house.path("hello"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes").join(recipe);
    for name in ["build.sh", "Containerfile"] {
        repository.write(name, &fs::read_to_string(folder.join(name)).expect("shipped"));
    }
    repository.write("hello", "#!/bin/sh\necho hello\n");
    let source = house.path("hello");
    let text = format!(
        "schema = 1\nservice = \"hello\"\nsource = {{ repository = {source:?} }}\n\
         [build]\ncommand = [\"./build.sh\"]\nregistry = true\npass = [\"DOCKER_HOST\"]\n\
         [component.web]\nimage_digest_file = \"web.digest\"\nprotocol = \"h1\"\n[stage.production]\npublic = true\n"
    );
    repository.write("pointsman.toml", &text);
    repository.commit("by a recipe");
    (repository, text)
}

/// Builds hello@rN, and returns what `release show` says of it.
pub(crate) async fn built(house: &House, release: &str) -> Value {
    let said = house.run(&["release", "build", "hello"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let shown = house.json(&["release", "show", release]).await;
    assert_eq!(shown["state"], "ready", "{shown}");
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_images_by_buildah_are_known_by_the_digest_that_the_registry_has() {
    let (house, registry) = (House::with_controller().await, Registry::start().await);
    let (_repository, text) = by_recipe(&house, "buildah");
    let files =
        [("production.toml", STATIC), ("releases.toml", &releases_toml(&registry, "")), ("pointsman.toml", &text)];
    house.apply(&files).await;
    of_the_registry(&house, &registry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_images_by_docker_are_known_by_the_digest_that_the_registry_has() {
    let (mut house, registry, docker) = (House::empty(), Registry::start().await, Docker::start().await);
    for (name, value) in docker.variables() {
        house.give_all(name, &value);
    }
    house.start_controller(&[]).await;
    let (_repository, text) = by_recipe(&house, "docker");
    let files =
        [("production.toml", STATIC), ("releases.toml", &releases_toml(&registry, "")), ("pointsman.toml", &text)];
    house.apply(&files).await;
    of_the_registry(&house, &registry).await;
}

/// Builds, and asserts that what is shown is what is there, and that nobody was told who we are.
async fn of_the_registry(house: &House, registry: &Registry) {
    let shown = built(house, "hello@r1").await;
    let web = &shown["artifacts"][0];
    let digest = web["digest"].as_str().expect("a digest").to_owned();
    assert_eq!((&web["component"], &web["kind"]), (&"web".into(), &"image".into()), "{shown}");
    assert_eq!(web["reference"], format!("{}/pointsman/hello/web@{digest}", registry.host()), "{shown}");
    assert_eq!(registry.manifests("pointsman/hello/web"), [digest.clone()].into());
    let raw = registry.skopeo(&["inspect", "--raw"], &format!("pointsman/hello/web@{digest}")).await;
    assert_eq!(api::Digest::of(raw.as_bytes()).to_string(), digest, "skopeo read other bytes");
    let log = house.run(&["release", "logs", "hello@r1"]).await.ends(0).out;
    let password = fs::read_to_string(registry.password()).expect("read");
    assert!(!log.contains(&password) && !shown.to_string().contains(&password), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_of_components_and_environments_are_there_whole_or_not_at_all() {
    let (house, registry) = (House::with_controller().await, Registry::start().await);
    let (repository, text) = by_recipe(&house, "buildah");
    let text = format!("{text}[stage.staging]\n[component.ui]\nfolder = \"ui/{{environment}}\"\n");
    let recipe = fs::read_to_string(house.path("hello/build.sh")).expect("read");
    let with_ui = |environments: &str| {
        let more = "mkdir -p ui/$at; echo \"gateway of $at\" > ui/$at/config; done\n";
        format!("{recipe}for at in {environments}; do {more}")
    };
    repository.write("pointsman.toml", &text);
    repository.write("build.sh", &with_ui("staging production"));
    repository.commit("a component for each environment");
    let staging = STATIC.replace("production", "staging");
    let files = [("production.toml", STATIC), ("staging.toml", &staging), ("pointsman.toml", &text)];
    house.apply(&[("releases.toml", &releases_toml(&registry, ""))]).await;
    house.apply(&files).await;
    let shown = built(&house, "hello@r1").await;
    let mut made: Vec<_> = shown["artifacts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            (text("component"), text("environment"), text("kind"))
        })
        .collect();
    made.sort();
    let expected = [("ui", "production", "folder"), ("ui", "staging", "folder"), ("web", "", "image")];
    assert_eq!(made, expected.map(|(one, at, kind)| (one.to_owned(), at.to_owned(), kind.to_owned())), "{shown}");
    let there = |component: &str| registry.manifests(&format!("pointsman/hello/{component}"));
    assert_eq!((there("ui").len(), there("web").len()), (2, 1));
    // Kept from the registry's collector of garbage.
    let tags = registry.skopeo(&["list-tags"], "pointsman/hello/ui").await;
    assert!(tags.contains("r1-production") && tags.contains("r1-staging"), "{tags}");

    // One of three is missing: nothing of the set is kept.
    let index = fs::read(house.path("controller/artifacts/index.json")).expect("read");
    repository.write("build.sh", &with_ui("staging"));
    repository.write("other", "so that it is another image");
    repository.commit("forgets production");
    house.run(&["release", "build", "hello"]).await.ends(1);
    let shown = house.json(&["release", "show", "hello@r2"]).await;
    assert!(shown["problem"].as_str().is_some_and(|why| why.contains("ui/production")), "{shown}");
    assert_eq!(there("ui").len(), 2);
    assert_eq!(fs::read(house.path("controller/artifacts/index.json")).expect("read"), index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_added_by_a_tag_keep_the_digest_that_it_had() {
    let (house, registry) = (House::with_hello().await, Registry::start().await);
    house.apply(&[("releases.toml", &releases_toml(&registry, ""))]).await;
    let checkout = Checkout::of("buildah");
    let first = checkout.builds(&registry, &[]).await;
    let tag = format!("web={}/shop/hello/web:r7", registry.host());
    let add = ["release", "add", "hello", "--version", "7", "--image", &tag];
    house.run(&add).await.ends(0);
    let digest =
        async |release: &str| house.json(&["release", "show", release]).await["artifacts"][0]["digest"].clone();
    let was = digest("hello@r1").await;
    assert_eq!(first.trim_end().split_once('@').map(|(_, digest)| digest.into()), Some(was.clone()));
    // Somebody else moves the tag.
    checkout.changes();
    let second = checkout.builds(&registry, &[]).await;
    assert_ne!(first, second);
    assert_eq!(digest("hello@r1").await, was);
    house.run(&["release", "verify", "hello@r1"]).await.ends(0);
    house.run(&add).await.ends(0);
    assert_eq!(second.trim_end().split_once('@').map(|(_, digest)| digest.into()), Some(digest("hello@r2").await));
    for (reference, why) in [("shop/hello/web:none", "none"), ("shop/nothing:r7", "nothing")] {
        let image = format!("web={}/{reference}", registry.host());
        house.run(&["release", "add", "hello", "--version", "8", "--image", &image]).await.ends(1).complains(&[why]);
    }
    let list = house.json(&["release", "list", "hello"]).await;
    assert_eq!(list["releases"].as_array().map(Vec::len), Some(2), "{list}");
}

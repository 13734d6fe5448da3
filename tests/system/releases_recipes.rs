//! The recipes that are shipped, with the real programs and a real registry: what they say they pushed is there.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::harness::{Docker, House, PATIENCE, Registry, Repository};

/// A checkout of a service that builds by a recipe, as the controller makes it, with what it is given.
pub(crate) struct Checkout {
    house: House,
    folder: PathBuf,
    repository: Repository,
}

impl Checkout {
    pub(crate) fn of(recipe: &str) -> Self {
        let house = House::empty();
        let folder = house.path("hello");
        let repository = Repository::new(folder.clone());
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes").join(recipe);
        for name in ["build.sh", "Containerfile"] {
            repository.write(name, &fs::read_to_string(recipe.join(name)).expect("shipped"));
        }
        repository.write("hello", "#!/bin/sh\necho hello\n");
        repository.commit("by a recipe");
        Self { house, folder, repository }
    }

    /// Another commit, which is another image.
    pub(crate) fn changes(&self) {
        self.repository.write("hello", "#!/bin/sh\necho changed\n");
        self.repository.commit("changed");
    }

    /// Builds, and returns what the digest file says.
    pub(crate) async fn builds(&self, registry: &Registry, more: &[(&str, String)]) -> String {
        let home = tempfile::Builder::new().prefix("home-").tempdir_in(self.house.path("")).expect("a folder");
        let mut command = Command::new("./build.sh");
        command.current_dir(&self.folder).env_clear().kill_on_drop(true);
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", home.path());
        command.env("POINTSMAN_RELEASE", "hello@r7");
        command.env("POINTSMAN_REGISTRY", format!("{}/shop/hello", registry.host()));
        command.env("POINTSMAN_REGISTRY_CERTS", registry.authorities()).env("DOCKER_CONFIG", registry.login());
        command.env("REGISTRY_AUTH_FILE", registry.login().join("config.json"));
        let output = tokio::time::timeout(PATIENCE, command.envs(more.iter().cloned()).output()).await;
        let output = output.expect("it ends").expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {errors}", output.status);
        fs::read_to_string(self.folder.join("web.digest")).expect("written")
    }
}

/// That what a digest file says is what the registry has under the tag, and nothing else is there.
async fn is_there(said: &str, registry: &Registry) {
    let digest = said.trim_end().strip_prefix(&format!("{}/shop/hello/web@", registry.host())).expect("the image");
    assert_eq!(registry.manifests("shop/hello/web").into_iter().collect::<Vec<_>>(), [digest], "{said}");
    assert_eq!(registry.repositories().into_iter().collect::<Vec<_>>(), ["shop/hello/web"]);
    let tagged = registry.skopeo(&["inspect", "--format", "{{.Digest}}"], "shop/hello/web:r7").await;
    assert_eq!(tagged.trim_end(), digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_recipe_of_buildah_pushes_one_digest_for_one_commit() {
    let (checkout, registry) = (Checkout::of("buildah"), Registry::start().await);
    let said = checkout.builds(&registry, &[]).await;
    is_there(&said, &registry).await;
    // From nothing once more, in another home: the same bytes.
    assert_eq!(checkout.builds(&registry, &[]).await, said);
    is_there(&said, &registry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_recipe_of_docker_tells_what_it_pushed() {
    let (checkout, registry) = (Checkout::of("docker"), Registry::start().await);
    let docker = Docker::start().await;
    let said = checkout.builds(&registry, &docker.variables()).await;
    is_there(&said, &registry).await;
    assert_eq!(checkout.builds(&registry, &docker.variables()).await, said, "its layers are still there");
}

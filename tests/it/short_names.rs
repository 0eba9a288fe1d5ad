//! Names of base images without a registry: docker's meaning, and podman's where it is asked for.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::registry::Registry;

/// A Dockerfile `FROM app:1`, and a home with podman's configuration.
struct Build {
    dir: tempfile::TempDir,
}

impl Build {
    fn new(registries_conf: &str) -> Self {
        let build = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let conf = build.path("config/containers/registries.conf");
        fs::create_dir_all(conf.parent().unwrap()).unwrap();
        fs::write(conf, registries_conf).unwrap();
        fs::create_dir(build.path("context")).unwrap();
        fs::write(build.path("context/Dockerfile"), "FROM app:1\nRUN make\n").unwrap();
        build
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Plans the build; an error is what was said.
    fn plan(&self, args: &[&str], variable: &str) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_cooper"))
            .args(["build", "--plan", "--pull", "--progress=plain", "--root"])
            .arg(self.path("store"))
            .args(args)
            .arg(self.path("context"))
            .env_clear()
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("COOPER_SHORT_NAMES", variable)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(said),
            false => Err(said),
        }
    }
}

/// Counts how often the manifest of a repository's image was asked for.
fn asked(registry: &Registry, repository: &str) -> usize {
    let path = format!("/v2/{repository}/manifests/1");
    ["GET", "HEAD"]
        .map(|method| registry.count(method, &path))
        .iter()
        .sum()
}

#[test]
fn names_mean_images_of_docker_hub_unless_somebody_asks_for_more() {
    let registry = Registry::start();
    registry.put_image("library/app", "1", b"layer");
    registry.put_image("team/app", "1", b"layer");
    let build = Build::new(&format!(
        "[aliases]\napp = \"{}/team/app\"\n",
        registry.host()
    ));
    let mirror = registry.host();
    build.plan(&["--registry-mirror", &mirror], "").unwrap();
    assert!(asked(&registry, "library/app") > 0);
    assert_eq!(asked(&registry, "team/app"), 0);

    let said = build.plan(&[], "registries.conf").unwrap();
    assert!(asked(&registry, "team/app") > 0);
    let line = format!("\"app\" is {}/team/app:1 (alias of ", registry.host());
    assert!(said.contains(&line), "{said}");
    let error = build.plan(&[], "podman").unwrap_err();
    assert!(
        error.contains("expected docker.io or registries.conf"),
        "{error}"
    );
}

#[test]
fn a_file_of_aliases_comes_first() {
    let registry = Registry::start();
    registry.put_image("own", "1", b"layer");
    let build = Build::new("[aliases]\napp = \"registry.invalid/app\"\n");
    let aliases = build.path("aliases.conf");
    fs::write(
        &aliases,
        format!("[aliases]\napp = \"{}/own\"\n", registry.host()),
    )
    .unwrap();
    let aliases = aliases.to_str().unwrap();
    build
        .plan(&["--short-name-alias-conf", aliases], "")
        .unwrap();
    assert!(asked(&registry, "own") > 0);
    let missing = build.path("none").to_str().unwrap().to_owned();
    let error = build.plan(&["--short-name-alias-conf", &missing], "");
    let error = error.unwrap_err();
    assert!(error.contains("there is no such file"), "{error}");
}

#[test]
fn registries_are_searched_in_order() {
    let (first, second) = (Registry::start(), Registry::start());
    second.put_image("app", "1", b"layer");
    let search = |mode: &str| {
        let (one, two) = (first.host(), second.host());
        format!("unqualified-search-registries = [\"{one}\", \"{two}\"]\n{mode}")
    };
    Build::new(&search(""))
        .plan(&[], "registries.conf")
        .unwrap();
    assert!(asked(&first, "app") > 0 && asked(&second, "app") > 0);
    let enforcing = search("short-name-mode = \"enforcing\"\n");
    let error = Build::new(&enforcing).plan(&[], "registries.conf");
    let error = error.unwrap_err();
    assert!(error.contains("name the registry"), "{error}");
    let before = asked(&second, "app");
    let nowhere = Build::new(&format!(
        "unqualified-search-registries = [\"{}\"]",
        first.host()
    ));
    let error = nowhere.plan(&[], "registries.conf").unwrap_err();
    assert!(
        error.contains(&format!("{}/app:1", first.host())),
        "{error}"
    );
    assert_eq!(asked(&second, "app"), before);
}

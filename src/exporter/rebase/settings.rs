//! Settings of an image on another base: its own stay, those it has from its base follow. Pure.

use std::collections::BTreeMap;

use super::Obstacle;
use crate::oci::ContainerConfig;

/// Returns the settings of the image on the new base. What was made out of a setting of the old
/// base, which the new one has changed, stays as it is and is an obstacle.
pub(super) fn merge(
    image: &ContainerConfig,
    old: &ContainerConfig,
    new: &ContainerConfig,
    obstacles: &mut Vec<Obstacle>,
) -> ContainerConfig {
    let entrypoint = follow(&image.entrypoint, &old.entrypoint, &new.entrypoint);
    let working_dir = follow(&image.working_dir, &old.working_dir, &new.working_dir);
    if is_derived(&working_dir, &old.working_dir, &new.working_dir) {
        obstacles.push(Obstacle::Setting("the working directory".to_owned()));
    }
    ContainerConfig {
        user: follow(&image.user, &old.user, &new.user),
        exposed_ports: follow_each(&image.exposed_ports, &old.exposed_ports, &new.exposed_ports),
        env: environment(image, old, new, obstacles),
        // An ENTRYPOINT of the image's own says what its CMD means.
        cmd: match image.entrypoint == old.entrypoint {
            true => follow(&image.cmd, &old.cmd, &new.cmd),
            false => image.cmd.clone(),
        },
        entrypoint,
        healthcheck: follow(&image.healthcheck, &old.healthcheck, &new.healthcheck),
        volumes: follow_each(&image.volumes, &old.volumes, &new.volumes),
        working_dir,
        on_build: follow(&image.on_build, &old.on_build, &new.on_build),
        labels: follow_each(&image.labels, &old.labels, &new.labels),
        stop_signal: follow(&image.stop_signal, &old.stop_signal, &new.stop_signal),
        stop_timeout: follow(&image.stop_timeout, &old.stop_timeout, &new.stop_timeout),
        shell: follow(&image.shell, &old.shell, &new.shell),
        ..image.clone()
    }
}

/// What the image has from its base becomes what the new base has.
fn follow<T: Clone + PartialEq>(image: &T, old: &T, new: &T) -> T {
    match image == old {
        true => new.clone(),
        false => image.clone(),
    }
}

type Table<T> = Option<BTreeMap<String, T>>;

/// The same for each key.
#[expect(
    clippy::ref_option,
    reason = "these are members of the config as they are"
)]
fn follow_each<T: Clone + PartialEq>(image: &Table<T>, old: &Table<T>, new: &Table<T>) -> Table<T> {
    let empty = BTreeMap::new();
    let old = old.as_ref().unwrap_or(&empty);
    let mut merged = new.clone().unwrap_or_default();
    for (key, value) in image.iter().flatten() {
        if old.get(key) != Some(value) {
            merged.insert(key.clone(), value.clone());
        }
    }
    // Nothing in a Dockerfile takes a key away, so a missing one came later.
    (!merged.is_empty()).then_some(merged)
}

fn environment(
    image: &ContainerConfig,
    old: &ContainerConfig,
    new: &ContainerConfig,
    obstacles: &mut Vec<Obstacle>,
) -> Vec<String> {
    let split = |line: &'_ String| -> (String, String) {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (name.to_owned(), value.to_owned())
    };
    let table = |config: &ContainerConfig| -> BTreeMap<String, String> {
        config.env.iter().map(split).collect()
    };
    let (old, of_new) = (table(old), table(new));
    let mut merged = new.env.clone();
    for line in &image.env {
        let (name, value) = split(line);
        let before = old.get(&name);
        if before == Some(&value) {
            continue;
        }
        let none = String::new();
        let after = of_new.get(&name).unwrap_or(&none);
        if before.is_some_and(|before| is_derived(&value, before, after)) {
            obstacles.push(Obstacle::Setting(format!("the variable {name}")));
        }
        match merged.iter_mut().find(|other| split(other).0 == name) {
            Some(other) => other.clone_from(line),
            None => merged.push(line.clone()),
        }
    }
    merged
}

/// Says whether a value was made out of one of the old base that the new one has changed.
fn is_derived(value: &str, old: &str, new: &str) -> bool {
    let says_something = !old.is_empty() && old != "/";
    says_something && old != new && value != new && value.contains(old)
}

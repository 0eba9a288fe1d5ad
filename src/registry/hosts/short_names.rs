//! What short names mean to podman, buildah and skopeo: names of images without a registry.
//!
//! An alias decides alone: one of the file for aliases (`short-name-aliases.conf`), else one of
//! `registries.conf` and its folder, where later files win. A name without one is looked for in each
//! of the `unqualified-search-registries`, in order; with `short-name-mode = "enforcing"` several of
//! them are refused, since nobody is asked which one is meant. All of this counts only where it is
//! asked for: it changes what a Dockerfile means from machine to machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, HostFiles, registries_conf, text_of};
use crate::oci::Reference;

/// The mode in which several registries are refused.
const ENFORCING: &str = "enforcing";

/// Where the image of a short name may be, the best place first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// The full names, with tag and digest of what was asked for.
    pub references: Vec<Reference>,
    /// Whether an alias says so, rather than a list of registries.
    pub is_alias: bool,
    /// The file that says so.
    pub origin: PathBuf,
}

/// What the files say.
#[derive(Debug, Default)]
struct ShortNames {
    /// Full names, nothing where a file takes an alias away; with the file that says so.
    aliases: BTreeMap<String, (Option<Reference>, PathBuf)>,
    search: Option<(Vec<String>, PathBuf)>,
    is_enforced: bool,
    /// The last file that was read.
    last: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<String>,
    aliases: BTreeMap<String, String>,
}

/// Says where the image of a short name may be; `reference` is what docker takes it for.
pub(super) fn candidates(
    files: &HostFiles,
    alias_file: Option<&Path>,
    (short, reference): (&str, &Reference),
) -> Result<Candidates, ConfigError> {
    let names = ShortNames::read(files, alias_file)?;
    if let Some((Some(alias), origin)) = names.aliases.get(short) {
        return Ok(Candidates {
            references: vec![reference.renamed(alias)],
            is_alias: true,
            origin: origin.clone(),
        });
    }
    names.searched(short, reference)
}

impl ShortNames {
    fn read(files: &HostFiles, alias_file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut names = Self::default();
        let (conf, dirs) = (&files.registries_conf, &files.registries_conf_dirs);
        registries_conf::each(conf, dirs, |path, text| names.add(path, text))?;
        if let Some(path) = alias_file {
            let text = text_of(path)?.ok_or_else(|| ConfigError {
                path: path.to_owned(),
                reason: "there is no such file".to_owned(),
            })?;
            names.add(path, &text).map_err(|reason| ConfigError {
                path: path.to_owned(),
                reason,
            })?;
        }
        Ok(names)
    }

    /// Takes what a file says over what earlier ones said.
    fn add(&mut self, path: &Path, text: &str) -> Result<(), String> {
        let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        for (short, full) in file.aliases {
            let full = match full.as_str() {
                "" => None,
                full => Some(alias(&short, full)?),
            };
            self.aliases.insert(short, (full, path.to_owned()));
        }
        if let Some(search) = file.unqualified_search_registries {
            self.search = Some((search, path.to_owned()));
        }
        match file.short_name_mode.as_deref() {
            None | Some("") => {}
            Some(mode @ (ENFORCING | "permissive" | "disabled")) => {
                self.is_enforced = mode == ENFORCING;
            }
            Some(other) => return Err(format!("unknown short-name-mode {other:?}")),
        }
        self.last = Some(path.to_owned());
        Ok(())
    }

    /// Looks for a name in the registries that are listed.
    fn searched(self, short: &str, reference: &Reference) -> Result<Candidates, ConfigError> {
        let (registries, origin) = match self.search {
            Some((registries, origin)) if !registries.is_empty() => (registries, origin),
            _ => {
                let reason = format!(
                    "the short name {short:?} is no alias there, and no unqualified-search-registries are set"
                );
                let path = self.last.unwrap_or_else(|| "registries.conf".into());
                return Err(ConfigError { path, reason });
            }
        };
        let refused = |reason: String| ConfigError {
            path: origin.clone(),
            reason,
        };
        let mut references = Vec::new();
        for registry in &registries {
            let name: Result<Reference, _> = format!("{registry}/{short}").parse();
            let name = name.map_err(|error| refused(error.to_string()))?;
            references.push(reference.renamed(&name));
        }
        if self.is_enforced && references.len() > 1 {
            let names: Vec<String> = references.iter().map(ToString::to_string).collect();
            return Err(refused(format!(
                "the short name {short:?} may be {}, and short-name-mode is enforcing: name the registry",
                names.join(" or ")
            )));
        }
        Ok(Candidates {
            references,
            is_alias: false,
            origin,
        })
    }
}

/// Reads what an alias stands for: a name with its registry, without tag and digest.
fn alias(short: &str, full: &str) -> Result<Reference, String> {
    let reference = full.parse::<Reference>();
    let reference = reference.map_err(|error| format!("the alias {short:?}: {error}"))?;
    let is_whole = Reference::short_name(full).is_none();
    if !is_whole || reference.tag().is_some() || reference.digest().is_some() {
        return Err(format!(
            "the alias {short:?} must be a registry with a repository, without tag and digest, not {full:?}"
        ));
    }
    Ok(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks what a name means with these files: `registries.conf`, one of its folder, aliases.
    fn ask(texts: [&str; 3], name: &str) -> Result<(bool, Vec<String>), String> {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        for (name, text) in ["main", "d/more.conf", "aliases"].into_iter().zip(texts) {
            std::fs::write(path(name), text).unwrap();
        }
        let files = HostFiles {
            registries_conf: vec![path("main")],
            registries_conf_dirs: vec![path("d")],
            ..HostFiles::default()
        };
        let reference: Reference = name.parse().unwrap();
        let short = Reference::short_name(name).unwrap();
        let wanted = (short, &reference.with_default_tag());
        let aliases = path("aliases");
        let found = candidates(&files, Some(&aliases), wanted).map_err(|error| error.reason)?;
        let references = found.references.iter().map(ToString::to_string);
        Ok((found.is_alias, references.collect()))
    }

    #[test]
    fn aliases_come_first_and_registries_in_order() {
        let main = r#"
unqualified-search-registries = ["a.example", "docker.io"]
[aliases]
"fedora" = "registry.example/fedora"
"team/app" = "registry.example/app"
"gone" = "registry.example/gone"
"#;
        let more = "[aliases]\n\"gone\" = \"\"\n";
        let own = "[aliases]\n\"fedora\" = \"own.example:5000/f\"\n";
        for (name, is_alias, expected) in [
            ("fedora:39", true, &["own.example:5000/f:39"][..]),
            ("team/app", true, &["registry.example/app:latest"]),
            (
                "gone",
                false,
                &["a.example/gone:latest", "docker.io/library/gone:latest"],
            ),
            (
                "team/x:1",
                false,
                &["a.example/team/x:1", "docker.io/team/x:1"],
            ),
        ] {
            let expected = expected.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(
                ask([main, more, own], name),
                Ok((is_alias, expected)),
                "{name}"
            );
        }
        // The folder's files come on top.
        let other = "unqualified-search-registries = [\"b.example\"]";
        let found = ask([main, other, ""], "x").unwrap();
        assert_eq!(found.1, ["b.example/x:latest"]);
    }

    #[test]
    fn what_nobody_can_decide_is_refused() {
        let two = "unqualified-search-registries = [\"a.example\", \"b.example\"]\n";
        let enforcing = format!("{two}short-name-mode = \"enforcing\"");
        for (main, part) in [
            (
                enforcing.as_str(),
                "a.example/x:latest or b.example/x:latest",
            ),
            ("", "no unqualified-search-registries"),
            (
                "unqualified-search-registries = []",
                "no unqualified-search-registries",
            ),
            ("short-name-mode = \"maybe\"", "maybe"),
            ("[aliases]\nx = \"library/x\"", "must be a registry"),
            ("[aliases]\nx = \"a.example/x:1\"", "without tag"),
        ] {
            let error = ask([main, "", ""], "x").unwrap_err();
            assert!(error.contains(part), "{main}: {error}");
        }
    }
}

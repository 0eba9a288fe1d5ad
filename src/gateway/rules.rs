//! Which frontends may run: the `[frontend]` tables of BuildKit's `buildkitd.toml`.
//!
//! ```toml
//! [frontend."dockerfile.v0"]
//! enabled = false
//! [frontend."gateway.v0"]
//! allowedRepositories = ["docker.io/me/frontend"]
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::oci::Reference;

/// The built-in frontend.
pub const DOCKERFILE: &str = "dockerfile.v0";
/// Frontends from images.
pub const GATEWAY: &str = "gateway.v0";

/// Which frontends may run; all by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontendRules {
    /// Whether the built-in frontend is switched off.
    no_dockerfile: bool,
    /// Whether frontends from images are switched off.
    no_gateway: bool,
    /// Repositories that frontends may come from, full names without tags; all where empty.
    repositories: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    frontend: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    enabled: Option<bool>,
    allowed_repositories: Vec<String>,
}

impl FrontendRules {
    /// Reads a file; what it says about other things is nobody's business here.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let is_off = |name: &str| {
            let entry = config.frontend.get(name);
            entry.is_some_and(|entry| entry.enabled == Some(false))
        };
        let gateway = config.frontend.get(GATEWAY);
        let repositories = gateway.map_or(&[][..], |entry| &entry.allowed_repositories);
        let repositories = repositories.iter().map(|name| {
            let name: Reference = name.parse().map_err(|error| format!("{name}: {error}"))?;
            Ok(repository(&name))
        });
        Ok(Self {
            no_dockerfile: is_off(DOCKERFILE),
            no_gateway: is_off(GATEWAY),
            repositories: repositories.collect::<Result<_, String>>()?,
        })
    }

    /// Says why the built-in frontend may not be used.
    pub fn refuse_dockerfile(&self) -> Result<(), String> {
        match self.no_dockerfile {
            true => Err(switched_off(DOCKERFILE)),
            false => Ok(()),
        }
    }

    /// Says why a frontend from this image may not be used.
    pub fn refuse_image(&self, source: &str) -> Result<(), String> {
        if self.no_gateway {
            return Err(switched_off(GATEWAY));
        }
        if self.repositories.is_empty() {
            return Ok(());
        }
        let name: Result<Reference, _> = source.parse();
        match name {
            Ok(name) if self.repositories.contains(&repository(&name)) => Ok(()),
            _ => Err(format!("'{source}' is not an allowed gateway source")),
        }
    }
}

fn switched_off(name: &str) -> String {
    format!("the frontend {name} is switched off in buildkitd.toml")
}

fn repository(name: &Reference) -> String {
    format!("{}/{}", name.domain(), name.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends_are_allowed_by_repository() {
        let rules = FrontendRules::parse(
            "debug = true\n[frontend.\"gateway.v0\"]\n\
             allowedRepositories = [\"me/frontend:any\", \"localhost:5000/x\"]\n",
        );
        let rules = rules.unwrap();
        for (image, allowed) in [
            ("me/frontend", true),
            ("docker.io/me/frontend:2@sha256:", false),
            ("docker.io/me/frontend:2", true),
            ("localhost:5000/x:latest", true),
            ("localhost:5000/x/y", false),
            ("you/frontend", false),
        ] {
            assert_eq!(rules.refuse_image(image).is_ok(), allowed, "{image}");
        }
        assert_eq!(
            rules.refuse_image("you/frontend").unwrap_err(),
            "'you/frontend' is not an allowed gateway source"
        );
        assert!(rules.refuse_dockerfile().is_ok());
    }

    #[test]
    fn frontends_are_switched_off() {
        let off = "[frontend.\"dockerfile.v0\"]\nenabled = false\n\
                   [frontend.\"gateway.v0\"]\nenabled = false\n";
        let rules = FrontendRules::parse(off).unwrap();
        assert!(
            rules
                .refuse_dockerfile()
                .unwrap_err()
                .contains("dockerfile.v0")
        );
        assert!(rules.refuse_image("a").unwrap_err().contains("gateway.v0"));
        assert_eq!(FrontendRules::parse("").unwrap(), FrontendRules::default());
        assert!(FrontendRules::parse("frontend = 1").is_err());
        let bad = "[frontend.\"gateway.v0\"]\nallowedRepositories = [\"A B\"]";
        assert!(FrontendRules::parse(bad).unwrap_err().starts_with("A B: "));
    }
}

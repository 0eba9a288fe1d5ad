//! The rules: names, what they are about, where to read more.
//!
//! Names and links are BuildKit's, so that a `# check=skip=…` and a reader find the same thing
//! here and there. Each rule has a page `docs/rules/NAME.md`.

/// A rule that Dockerfiles are checked against.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, as `skip=` takes it.
    pub name: &'static str,
    /// What it is about: one sentence.
    pub description: &'static str,
    /// Where to read more.
    pub url: &'static str,
    /// Whether it is off until `experimental=` switches it on.
    pub experimental: bool,
}

/// A row of the table: the name, the description, and the last part of the link.
macro_rules! rules {
    ($($name:literal $page:literal $description:literal)*) => {
        &[$(Rule {
            name: $name,
            description: $description,
            url: concat!("https://docs.docker.com/go/dockerfile/rule/", $page, "/"),
            experimental: matches!($name.as_bytes(), b"InvalidDefinitionDescription"),
        }),*]
    };
}

/// All rules, by name.
pub static RULES: &[Rule] = rules! {
    "ConsistentInstructionCasing" "consistent-instruction-casing"
        "Keywords of one Dockerfile are written in one case, upper or lower"
    "CopyIgnoredFile" "copy-ignored-file"
        "What COPY and ADD take is not excluded by the ignore file"
    "DuplicateStageName" "duplicate-stage-name"
        "No two stages have the same name"
    "ExposeInvalidFormat" "expose-invalid-format"
        "EXPOSE names ports of the container only: no address, no port of the host"
    "ExposeProtoCasing" "expose-proto-casing"
        "Protocols in EXPOSE are in lower case"
    "FromAsCasing" "from-as-casing"
        "AS is written in the same case as its FROM"
    "FromPlatformFlagConstDisallowed" "from-platform-flag-const-disallowed"
        "FROM --platform takes its value from a variable"
    "InvalidBaseImagePlatform" "invalid-base-image-platform"
        "A base image is for the platform that is being built"
    "InvalidDefaultArgInFrom" "invalid-default-arg-in-from"
        "FROM names an image even when no build argument is given"
    "InvalidDefinitionDescription" "invalid-definition-description"
        "A comment right above FROM or ARG begins with the name that it describes"
    "JSONArgsRecommended" "json-args-recommended"
        "CMD and ENTRYPOINT are JSON lists, so that signals reach the program"
    "LegacyKeyValueFormat" "legacy-key-value-format"
        "ENV and LABEL put `=` between a name and its value"
    "MaintainerDeprecated" "maintainer-deprecated"
        "The author of an image is a label, not a MAINTAINER"
    "MultipleInstructionsDisallowed" "multiple-instructions-disallowed"
        "CMD, ENTRYPOINT and HEALTHCHECK stand in a stage at most once each"
    "NoEmptyContinuation" "no-empty-continuation"
        "No blank lines stand between continued lines"
    "RedundantTargetPlatform" "redundant-target-platform"
        "FROM --platform does not repeat the platform that is built anyway"
    "ReservedStageName" "reserved-stage-name"
        "No stage is named scratch or context"
    "SecretsUsedInArgOrEnv" "secrets-used-in-arg-or-env"
        "Secrets are not passed in ARG or ENV"
    "StageNameCasing" "stage-name-casing"
        "Names of stages are in lower case"
    "UndefinedArgInFrom" "undefined-arg-in-from"
        "Variables in FROM are declared by an ARG before the first FROM"
    "UndefinedVar" "undefined-var"
        "Variables are set before they are used"
    "WorkdirRelativePath" "workdir-relative-path"
        "The first WORKDIR of a stage is an absolute path"
};

impl Rule {
    /// Finds a rule by name.
    pub fn named(name: &str) -> Option<&'static Self> {
        let found = RULES.binary_search_by_key(&name, |rule| rule.name);
        found.ok().map(|index| &RULES[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_name() {
        assert_eq!(RULES.len(), 22);
        for rule in RULES {
            assert_eq!(Rule::named(rule.name), Some(rule));
        }
        assert_eq!(Rule::named("UnusedBuildArg"), None);
    }
}

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
    /// Where to read more; for the one rule without a page there, our own page.
    pub url: &'static str,
    /// Whether it is off until `experimental=` switches it on.
    pub experimental: bool,
}

/// A row of the table: the name, the link, and the description.
macro_rules! rules {
    ($($name:literal $url:literal $description:literal)*) => {
        &[$(Rule {
            name: $name,
            description: $description,
            url: $url,
            experimental: matches!($name.as_bytes(), b"InvalidDefinitionDescription"),
        }),*]
    };
}

/// All rules, by name.
pub static RULES: &[Rule] = rules! {
    "ConsistentInstructionCasing" "https://docs.docker.com/go/dockerfile/rule/consistent-instruction-casing/"
        "Keywords of one Dockerfile are written in one case, upper or lower"
    "CopyIgnoredFile" "https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/"
        "What COPY and ADD take is not excluded by the ignore file"
    "DuplicateStageName" "https://docs.docker.com/go/dockerfile/rule/duplicate-stage-name/"
        "No two stages have the same name"
    "ExposeInvalidFormat" "https://docs.docker.com/go/dockerfile/rule/expose-invalid-format/"
        "EXPOSE names ports of the container only: no address, no port of the host"
    "ExposeProtoCasing" "https://docs.docker.com/go/dockerfile/rule/expose-proto-casing/"
        "Protocols in EXPOSE are in lower case"
    "FromAsCasing" "https://docs.docker.com/go/dockerfile/rule/from-as-casing/"
        "AS is written in the same case as its FROM"
    "FromPlatformFlagConstDisallowed" "https://docs.docker.com/go/dockerfile/rule/from-platform-flag-const-disallowed/"
        "FROM --platform takes its value from a variable"
    "InvalidBaseImagePlatform" "docs/rules/InvalidBaseImagePlatform.md"
        "A base image is for the platform that is being built"
    "InvalidDefaultArgInFrom" "https://docs.docker.com/go/dockerfile/rule/invalid-default-arg-in-from/"
        "FROM names an image even when no build argument is given"
    "InvalidDefinitionDescription" "https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/"
        "A comment right above FROM or ARG begins with the name that it describes"
    "JSONArgsRecommended" "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
        "CMD and ENTRYPOINT are JSON lists, so that signals reach the program"
    "LegacyKeyValueFormat" "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/"
        "ENV and LABEL put `=` between a name and its value"
    "MaintainerDeprecated" "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/"
        "The author of an image is a label, not a MAINTAINER"
    "MultipleInstructionsDisallowed" "https://docs.docker.com/go/dockerfile/rule/multiple-instructions-disallowed/"
        "CMD, ENTRYPOINT and HEALTHCHECK stand in a stage at most once each"
    "NoEmptyContinuation" "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/"
        "No blank lines stand between continued lines"
    "RedundantTargetPlatform" "https://docs.docker.com/go/dockerfile/rule/redundant-target-platform/"
        "FROM --platform does not repeat the platform that is built anyway"
    "ReservedStageName" "https://docs.docker.com/go/dockerfile/rule/reserved-stage-name/"
        "No stage is named scratch or context"
    "SecretsUsedInArgOrEnv" "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/"
        "Secrets are not passed in ARG or ENV"
    "StageNameCasing" "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"
        "Names of stages are in lower case"
    "UndefinedArgInFrom" "https://docs.docker.com/go/dockerfile/rule/undefined-arg-in-from/"
        "Variables in FROM are declared by an ARG before the first FROM"
    "UndefinedVar" "https://docs.docker.com/go/dockerfile/rule/undefined-var/"
        "Variables are set before they are used"
    "WorkdirRelativePath" "https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/"
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

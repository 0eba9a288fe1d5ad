//! What the machine of a build says about itself in provenance: the run of a GitHub workflow, and
//! the files of a folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::env::Environment;

/// Variable with a folder whose JSON files are members of the provenance.
const FOLDER: &str = "COOPER_PROVENANCE_DIR";
/// Largest such file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Variables of a GitHub workflow, under buildx's names in lower case. A group is told as a whole.
const GITHUB: [&[&str]; 5] = [
    &["GITHUB_EVENT_NAME"],
    &["GITHUB_ACTOR", "GITHUB_ACTOR_ID", "GITHUB_TRIGGERING_ACTOR"],
    &[
        "GITHUB_REF",
        "GITHUB_REF_NAME",
        "GITHUB_REF_PROTECTED",
        "GITHUB_REF_TYPE",
    ],
    &[
        "GITHUB_REPOSITORY",
        "GITHUB_REPOSITORY_ID",
        "GITHUB_REPOSITORY_OWNER",
        "GITHUB_REPOSITORY_OWNER_ID",
    ],
    &[
        "GITHUB_JOB",
        "GITHUB_RUN_ATTEMPT",
        "GITHUB_RUN_ID",
        "GITHUB_RUN_NUMBER",
        "GITHUB_SERVER_URL",
        "GITHUB_WORKFLOW",
        "GITHUB_WORKFLOW_REF",
        "GITHUB_WORKFLOW_SHA",
    ],
];

/// Collects the members.
pub(crate) fn environment(environment: &Environment) -> Result<BTreeMap<String, Value>, String> {
    let mut members = BTreeMap::new();
    if environment.text("GITHUB_ACTIONS").as_deref() == Some("true") {
        for group in GITHUB {
            let filled = |name: &&'static str| {
                let value = environment.text(name).filter(|text| !text.is_empty())?;
                Some((*name, value))
            };
            let group: Option<Vec<(&str, String)>> = group.iter().map(filled).collect();
            for (name, value) in group.unwrap_or_default() {
                members.insert(name.to_lowercase(), Value::String(value));
            }
        }
    }
    if let Some(folder) = environment.text(FOLDER).filter(|f| !f.is_empty()) {
        read_folder(Path::new(&folder), &mut members)?;
    }
    Ok(members)
}

/// Reads the files in the order of their names; later ones win.
fn read_folder(folder: &Path, members: &mut BTreeMap<String, Value>) -> Result<(), String> {
    let refused = |path: &Path, reason: String| {
        format!("cannot use {} of {FOLDER}: {reason}", path.display())
    };
    let entries = std::fs::read_dir(folder).map_err(|e| refused(folder, e.to_string()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    paths.sort();
    for path in paths {
        let size = path.metadata().map_err(|e| refused(&path, e.to_string()))?;
        if size.len() > FILE_BYTES_MAX {
            let reason = format!("it has more than {FILE_BYTES_MAX} bytes");
            return Err(refused(&path, reason));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| refused(&path, e.to_string()))?;
        let read: Result<BTreeMap<String, Value>, _> = serde_json::from_str(&text);
        members.extend(read.map_err(|error| refused(&path, error.to_string()))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<String, String> {
        let members = environment(&Environment::of(pairs))?;
        Ok(serde_json::to_string(&members).unwrap())
    }

    #[test]
    fn a_workflow_is_told_group_by_group() {
        let actor = [
            ("GITHUB_ACTOR", "me"),
            ("GITHUB_ACTOR_ID", "7"),
            ("GITHUB_TRIGGERING_ACTOR", "me"),
            ("GITHUB_REF", "refs/heads/main"),
        ];
        assert_eq!(of(&actor).unwrap(), "{}");
        let running = [&actor[..], &[("GITHUB_ACTIONS", "true")]].concat();
        assert_eq!(
            of(&running).unwrap(),
            r#"{"github_actor":"me","github_actor_id":"7","github_triggering_actor":"me"}"#
        );
    }

    #[test]
    fn files_of_a_folder_are_members() {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a.json", r#"{"x": 1, "y": 1}"#),
            ("b.json", r#"{"y": {"z": 2}}"#),
            ("c.txt", "no"),
        ] {
            std::fs::write(temp.path().join(name), text).unwrap();
        }
        let folder = temp.path().to_str().unwrap();
        assert_eq!(of(&[(FOLDER, folder)]).unwrap(), r#"{"x":1,"y":{"z":2}}"#);
        std::fs::write(temp.path().join("d.json"), "[]").unwrap();
        let error = of(&[(FOLDER, folder)]).unwrap_err();
        assert!(error.contains("d.json of COOPER_PROVENANCE_DIR"), "{error}");
    }
}

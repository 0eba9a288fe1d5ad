//! Whether a working tree holds anything else than its commit.

use std::path::Path;
use std::process::Stdio;

use super::git_command::isolated;

/// Settings of a repository that name programs which git would run to compare files.
const FILTERS: &str = r"^filter\..*\.(clean|process|required)$";

/// Asks git whether anything in a working tree differs from its commit; files that are not
/// tracked count, and so do ignored ones.
///
/// # Errors
///
/// Fails with a reason when git cannot be asked.
pub async fn is_dirty(root: &Path) -> Result<bool, String> {
    let filters = run(
        root,
        &["config", "--name-only", "--get-regexp", FILTERS],
        &[],
    )
    .await?;
    // Without them a filtered file that was touched counts as changed, which is the safe side.
    let off = filters.stdout.lines().map(|name| {
        let value = if name.ends_with(".required") {
            "false"
        } else {
            ""
        };
        (name.to_owned(), value.to_owned())
    });
    let off: Vec<(String, String)> = off.collect();
    let status = run(root, &["status", "--porcelain", "--ignored"], &off).await?;
    match status.succeeded {
        true => Ok(!status.stdout.trim().is_empty()),
        false => Err(format!("git status failed: {}", status.stderr.trim())),
    }
}

/// What a command said.
struct Said {
    succeeded: bool,
    stdout: String,
    stderr: String,
}

async fn run(
    root: &Path,
    arguments: &[&str],
    settings: &[(String, String)],
) -> Result<Said, String> {
    let mut command = isolated(root, settings.iter().cloned());
    command
        .args(arguments)
        // Nothing is written, not even what git found out about times of files.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "git is not installed".to_owned(),
        _ => format!("git cannot be run: {error}"),
    })?;
    Ok(Said {
        succeeded: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::working_tree::tests::git;

    #[tokio::test]
    async fn what_no_commit_holds_is_dirt() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
        git(root, &["init", "-q"]);
        write("file", "one");
        write(".gitignore", "ignored\n");
        git(root, &["add", "."]);
        git(root, &["commit", "-q", "-m", "one"]);
        assert_eq!(is_dirty(root).await, Ok(false));
        for (name, text) in [("ignored", "x"), ("new", "x"), ("file", "two")] {
            let before = std::fs::read(root.join(name)).ok();
            write(name, text);
            assert_eq!(is_dirty(root).await, Ok(true), "{name}");
            match before {
                Some(bytes) => std::fs::write(root.join(name), bytes).unwrap(),
                None => std::fs::remove_file(root.join(name)).unwrap(),
            }
        }
        assert_eq!(is_dirty(root).await, Ok(false));
    }

    #[tokio::test]
    async fn programs_of_the_repository_do_not_run() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        git(root, &["init", "-q"]);
        std::fs::write(root.join("file"), "one").unwrap();
        git(root, &["add", "."]);
        git(root, &["commit", "-q", "-m", "one"]);
        let touch = |name: &str| format!("touch {}", root.join(name).display());
        for (key, value) in [
            ("filter.f.clean", touch("ran-filter")),
            ("filter.f.required", "true".to_owned()),
            ("core.fsmonitor", touch("ran-monitor")),
        ] {
            git(root, &["config", key, &value]);
        }
        std::fs::write(root.join(".git/info/attributes"), "* filter=f\n").unwrap();
        std::fs::write(root.join("file"), "two").unwrap();
        assert_eq!(is_dirty(root).await, Ok(true));
        assert!(!root.join("ran-filter").exists() && !root.join("ran-monitor").exists());
    }

    #[tokio::test]
    async fn a_folder_without_a_repository_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let error = is_dirty(temp.path()).await.unwrap_err();
        assert!(error.contains("not a git repository"), "{error}");
    }
}

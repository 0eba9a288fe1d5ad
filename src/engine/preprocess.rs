//! Dockerfiles whose names end in `.in`: they go through the C preprocessor, as with buildah.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::{EngineError, ErrorKind};

/// The preprocessor, looked up in `PATH`.
const PROGRAM: &str = "cpp";
/// How names of such files end.
const EXTENSION: &str = "in";
/// Largest text that the preprocessor may make.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// Returns the text of a Dockerfile as it is to be read.
pub(super) fn preprocessed(
    path: &Path,
    text: String,
    flags: &[String],
) -> Result<String, EngineError> {
    match path.extension() {
        Some(extension) if extension == EXTENSION => run(PROGRAM, path, text, flags),
        _ => Ok(text),
    }
}

/// Runs the preprocessor; `#include "…"` counts from the folder of the file.
fn run(program: &str, path: &Path, text: String, flags: &[String]) -> Result<String, EngineError> {
    let failed = |reason: &str| {
        let text = format!("cannot preprocess {}: {reason}", path.display());
        EngineError::new(ErrorKind::User, text)
    };
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let mut command = Command::new(program);
    command
        .args(["-E", "-iquote"])
        .arg(folder.unwrap_or(Path::new(".")))
        .args(["-traditional", "-undef"])
        .args(flags)
        .arg("-")
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = command.spawn().map_err(|error| {
        let reason = format!("{program} cannot be started: {error}");
        failed(&reason).with_hint("Dockerfiles whose names end in .in need cpp: install it")
    })?;
    let input = process.stdin.take();
    // Who writes and reads in one thread may wait for itself.
    let writer = std::thread::spawn(move || {
        input.map_or(Ok(()), |mut input| input.write_all(text.as_bytes()))
    });
    let errors = process.stderr.take();
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        let read = errors.map(|errors| errors.take(OUTPUT_BYTES_MAX).read_to_string(&mut text));
        // What cannot be read cannot be shown.
        let _ = read;
        text
    });
    let mut made = String::new();
    let output = process.stdout.take();
    let read = output.map(|output| output.take(OUTPUT_BYTES_MAX).read_to_string(&mut made));
    let status = process.wait().map_err(|error| failed(&error.to_string()))?;
    let complaints = complaints.join().unwrap_or_default();
    if let Some(Err(error)) = read {
        return Err(failed(&error.to_string()));
    }
    // A preprocessor that fails early need not have read everything.
    let _ = writer.join();
    if !status.success() {
        return Err(failed(complaints.trim()));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(folder: &Path, text: &str) -> String {
        let path = folder.join("cpp");
        std::fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_preprocessor_gets_text_folder_and_flags() {
        let temp = tempfile::tempdir().unwrap();
        let cpp = script(temp.path(), "echo \"# $*\"\ncat");
        let flags = ["-DBASE=alpine".to_owned()];
        let made = run(
            &cpp,
            Path::new("sub/D.in"),
            "FROM BASE\n".to_owned(),
            &flags,
        )
        .unwrap();
        let expected = "# -E -iquote sub -traditional -undef -DBASE=alpine -\nFROM BASE\n";
        assert_eq!(made, expected);
        let plain = preprocessed(Path::new("Dockerfile"), "FROM a".to_owned(), &flags);
        assert_eq!(plain.unwrap(), "FROM a");
    }

    #[test]
    fn what_the_preprocessor_complains_of_is_shown() {
        let temp = tempfile::tempdir().unwrap();
        let cpp = script(temp.path(), "echo 'no such header' >&2\nexit 1");
        let error = run(&cpp, Path::new("D.in"), String::new(), &[]).unwrap_err();
        assert_eq!(error.to_string(), "cannot preprocess D.in: no such header");
        let error = run("/no/such/cpp", Path::new("D.in"), String::new(), &[]).unwrap_err();
        assert!(error.to_string().contains("cannot be started"), "{error}");
    }
}

//! What was typed after `-o`, `--push` and `--load` becomes what is meant.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::args::csv;
use super::args::value::LOCAL_DELETE;
use super::engines::{EngineChoice, Engines};
use crate::engine::request::{LocalMode, OutputSpec, PushOptions, Stream, Target};

/// What the user typed about outputs.
#[derive(Debug, Clone)]
pub(crate) struct TypedOutputs<'a> {
    /// `-o`, in order.
    pub(crate) outputs: &'a [String],
    /// `--push`.
    pub(crate) push: bool,
    /// `--load`: which engine, if any.
    pub(crate) load: Option<EngineChoice>,
    /// The engines of this machine.
    pub(crate) engines: &'a Engines,
    /// Whether stdout is a terminal, on which no archive may land.
    pub(crate) stdout_is_terminal: bool,
}

/// Returns the outputs that are meant.
pub(crate) fn meant(typed: TypedOutputs<'_>) -> Result<Vec<OutputSpec>, String> {
    let mut outputs = Vec::new();
    for text in typed.outputs {
        outputs.push(one(text, &typed)?);
    }
    let streams = outputs.iter().filter(|output| is_stdout(output)).count();
    if streams > 1 {
        return Err("only one output can be written to stdout".to_owned());
    }
    let has_image = outputs
        .iter()
        .any(|output| matches!(output, OutputSpec::Image { .. }));
    // `--push` and `--load` change an image output that is there, or else add one.
    let load = typed.load.as_ref();
    if !has_image && (outputs.is_empty() || typed.push || load.is_some()) {
        outputs.push(OutputSpec::default_image());
    }
    for output in &mut outputs {
        if let OutputSpec::Image {
            push, store, load, ..
        } = output
        {
            if typed.push && push.is_none() {
                *push = Some(PushOptions::default());
            }
            if let Some(choice) = &typed.load {
                *store = true;
                *load = Some(typed.engines.find(choice)?);
            }
        }
    }
    Ok(outputs)
}

/// Refuses outputs that would remove files from folders which the user may not have meant:
/// anything but a folder below `current`, unless it is allowed.
pub(crate) fn check_deletions(
    outputs: &[OutputSpec],
    is_allowed: bool,
    current: &Path,
) -> Result<(), String> {
    for output in outputs {
        let OutputSpec::Local { directory, options } = output else {
            continue;
        };
        if options.mode != LocalMode::Delete || is_allowed {
            continue;
        }
        let current = resolved(current);
        let target = resolved(&current.join(directory));
        if target == current || !target.starts_with(&current) {
            return Err(format!(
                "local output mode=delete for destination {:?} requires --allow={LOCAL_DELETE}",
                directory.display().to_string()
            ));
        }
    }
    Ok(())
}

/// Follows the links of a path as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let mut real = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            real.pop();
        } else {
            let next = real.join(component);
            real = next.canonicalize().unwrap_or(next);
        }
    }
    real
}

/// Says whether an output goes to stdout.
fn is_stdout(output: &OutputSpec) -> bool {
    use crate::engine::request::{ArchiveDestination, Destination};
    let destination = match output {
        OutputSpec::Oci { destination, .. } | OutputSpec::Docker { destination, .. } => {
            match destination {
                ArchiveDestination::Tar(destination) => destination,
                ArchiveDestination::Directory(_) => return false,
            }
        }
        OutputSpec::Tar { destination, .. } => destination,
        _ => return false,
    };
    matches!(destination, Destination::Stream(_))
}

/// Reads one `-o`: `type=…,key=value…`, or a folder, or `-`.
fn one(text: &str, typed: &TypedOutputs<'_>) -> Result<OutputSpec, String> {
    let stdout_is_terminal = typed.stdout_is_terminal;
    if text.is_empty() {
        return Err("invalid output: it is empty".to_owned());
    }
    let fields = csv::fields(text)?;
    if let [only] = fields.as_slice()
        && !only.starts_with("type=")
    {
        let (kind, target) = match only.as_str() {
            "-" => ("tar", stdout(stdout_is_terminal, "tar")?),
            folder => ("local", Target::Path(folder.into())),
        };
        return OutputSpec::from_attributes(kind, target, &BTreeMap::new())
            .map_err(|error| error.to_string());
    }
    let mut attributes = BTreeMap::new();
    let (mut kind, mut dest) = (None, None);
    for (key, value) in csv::pairs(text)? {
        match key.as_str() {
            "type" => kind = Some(value),
            "dest" => dest = Some(value),
            _ => {
                attributes.insert(key, value);
            }
        }
    }
    let kind = kind.ok_or_else(|| "type is required for output".to_owned())?;
    // As buildx: an archive without a destination is meant for a pipe, or for docker.
    let is_folder = attributes.get("tar").is_some_and(|tar| tar == "false");
    let to_stdout = matches!(kind.as_str(), "oci" | "tar") && !is_folder;
    let docker_context = match kind.as_str() {
        "docker" => attributes.remove("context"),
        _ => None,
    };
    let target = match dest.as_deref() {
        Some("-") => stdout(stdout_is_terminal, &kind)?,
        None if kind == "docker" && !is_folder => {
            let choice = EngineChoice::DockerOrOther(docker_context);
            Target::Engine(typed.engines.find(&choice)?)
        }
        None if to_stdout => stdout(stdout_is_terminal, &kind)?,
        Some("") | None => Target::Nowhere,
        Some(path) => Target::Path(path.into()),
    };
    OutputSpec::from_attributes(&kind, target, &attributes).map_err(|error| error.to_string())
}

fn stdout(is_terminal: bool, kind: &str) -> Result<Target, String> {
    if is_terminal {
        return Err(format!(
            "dest file is required for {kind} exporter. refusing to write to console"
        ));
    }
    Ok(Target::Stream(Stream::new(io::stdout())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::TreeOptions;

    fn show(outputs: &[OutputSpec]) -> String {
        let one = |output: &OutputSpec| format!("{output:?}");
        let all: Vec<String> = outputs.iter().map(one).collect();
        let text = all.join("; ");
        // Options that are the default are left out.
        let default = format!("{:?}", crate::engine::request::ImageOptions::default());
        let text = text.replace(&format!("options: {default}"), "default");
        let default = format!("{:?}", crate::engine::request::TreeOptions::default());
        text.replace(&format!(", options: {default}"), "")
    }

    fn check(outputs: &[&str], push: bool, load: bool, expected: &str) {
        let owned: Vec<String> = outputs.iter().map(|text| (*text).to_owned()).collect();
        let typed = TypedOutputs {
            outputs: &owned,
            push,
            load: load.then_some(EngineChoice::Podman),
            engines: &Engines::default(),
            stdout_is_terminal: false,
        };
        let shown = match meant(typed) {
            Ok(outputs) => show(&outputs),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(shown, expected, "{outputs:?} {push} {load}");
    }

    #[test]
    fn outputs_are_what_docker_means_by_them() {
        let image = "Image { default, store: true, push: None, load: None }";
        let loaded = "Image { default, store: true, push: None, load: Some(Podman) }";
        let pushed = "Image { default, store: true, push: Some(PushOptions { by_digest: false, insecure: false, join: None }), load: None }";
        let local = r#"Local { directory: "out" }"#;
        check(&[], false, false, image);
        check(&[], true, false, pushed);
        check(&[], false, true, loaded);
        check(&["type=registry"], false, false, pushed);
        check(&["type=image,push=true"], false, false, pushed);
        check(&["type=image"], true, false, pushed);
        check(&["out"], false, false, local);
        check(&["out"], false, true, &format!("{local}; {loaded}"));
        check(
            &["type=local,dest=out"],
            true,
            false,
            &format!("{local}; {pushed}"),
        );
        check(&["-"], false, false, "Tar { destination: Stream(Stream) }");
        check(
            &["type=tar"],
            false,
            false,
            "Tar { destination: Stream(Stream) }",
        );
        check(
            &["type=oci,dest=a.tar"],
            false,
            false,
            r#"Oci { default, destination: Tar(File("a.tar")) }"#,
        );
        check(
            &["type=oci,dest=a,tar=false"],
            false,
            false,
            r#"Oci { default, destination: Directory("a") }"#,
        );
        check(&["type=cacheonly"], false, false, "CacheOnly");
        check(
            &["type=docker,dest=-"],
            false,
            false,
            "Docker { default, destination: Tar(Stream(Stream)) }",
        );
        check(
            &["type=local,dest=out,mode=delete"],
            false,
            false,
            r#"Local { directory: "out", options: TreeOptions { platform_split: None, epoch: OfBuild, attestation_prefix: "", mode: Delete } }"#,
        );
    }

    #[test]
    fn outputs_that_contradict_themselves_are_refused() {
        for (text, error) in [
            (
                "type=image,compression=estargz,oci-mediatypes=false",
                "exporter option \"compression=estargz\" conflicts with \"oci-mediatypes=false\"",
            ),
            (
                "type=oci,dest=x,compatibility-version=10,compression=zstd",
                "compatibility-version=10 conflicts with \"compression=zstd\"",
            ),
            (
                "type=image,compatibility-version=11",
                "unsupported compatibility-version \"11\": expected 10, 20 or 30",
            ),
            (
                "type=local,dest=x,mode=move",
                "invalid local exporter mode \"move\": expected copy or delete",
            ),
            (
                "type=docker",
                "there is no container engine to load the image into: neither docker's socket \
                 nor podman was found; write an archive with dest=FILE",
            ),
        ] {
            check(&[text], false, false, &format!("error: {error}"));
        }
    }

    #[test]
    fn wrong_outputs_are_refused_in_dockers_words() {
        for (text, error) in [
            ("dest=x,name=y", "type is required for output"),
            ("type=local", "dest is required for local exporter"),
            (
                "type=local,dest=-",
                "dest cannot be stdout for local exporter",
            ),
            ("type=oci,tar=false", "dest is required for oci exporter"),
            (
                "type=nope",
                "unknown output type \"nope\": expected image, registry, oci, docker, tar, local or cacheonly",
            ),
            (
                "type=image,push=perhaps",
                "non-bool value specified for push: \"perhaps\"",
            ),
            (
                "type=oci,dest=x,compression=lzma",
                "unsupported layer compression \"lzma\": expected gzip, zstd, zstd:chunked, estargz or uncompressed",
            ),
            (
                "type=oci,dest=x,compression=nydus",
                "compression=nydus is not written: nydusify converts images to it; zstd:chunked and estargz layers can be read before they are fetched whole, too",
            ),
            (
                "type=oci,dest=x,compression=zstd,compression-level=99",
                "invalid compression level \"99\" for zstd: expected 0 to 22",
            ),
            (
                "type=image,oops=1",
                "unknown attribute \"oops\" for output type image",
            ),
            (
                "type=image,oops",
                "invalid field \"oops\": must be a key=value pair",
            ),
        ] {
            check(&[text], false, false, &format!("error: {error}"));
        }
        check(
            &["-", "type=oci"],
            false,
            false,
            "error: only one output can be written to stdout",
        );
        let outputs = ["-".to_owned()];
        let typed = TypedOutputs {
            outputs: &outputs,
            push: false,
            load: None,
            engines: &Engines::default(),
            stdout_is_terminal: true,
        };
        assert!(
            meant(typed)
                .unwrap_err()
                .contains("refusing to write to console")
        );
    }

    #[test]
    fn files_are_removed_below_the_current_folder_only() {
        let temp = tempfile::tempdir().unwrap();
        let current = temp.path().join("here");
        std::fs::create_dir(&current).unwrap();
        std::os::unix::fs::symlink("..", current.join("up")).unwrap();
        let outside = temp.path().join("out");
        for (folder, is_fine) in [
            ("out", true),
            ("out/new/folder", true),
            (".", false),
            ("", false),
            ("out/..", false),
            ("..", false),
            ("../here-too", false),
            ("up/out", false),
            (outside.to_str().unwrap(), false),
        ] {
            let check = |mode, is_allowed| {
                let options = TreeOptions {
                    mode,
                    ..TreeOptions::default()
                };
                let output = OutputSpec::Local {
                    directory: folder.into(),
                    options,
                };
                check_deletions(&[output], is_allowed, &current)
            };
            let refused = check(LocalMode::Delete, false);
            assert_eq!(refused.is_ok(), is_fine, "{folder}: {refused:?}");
            assert_eq!(check(LocalMode::Delete, true), Ok(()), "{folder}");
            assert_eq!(check(LocalMode::Copy, false), Ok(()), "{folder}");
        }
    }
}

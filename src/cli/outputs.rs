//! What was typed after `-o`, `--push` and `--load` becomes what is meant.

use std::collections::BTreeMap;
use std::io;

use super::args::csv;
use crate::engine::request::{OutputSpec, PushOptions, Stream, Target};

/// What the user typed about outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TypedOutputs<'a> {
    /// `-o`, in order.
    pub(crate) outputs: &'a [String],
    /// `--push`.
    pub(crate) push: bool,
    /// `--load`.
    pub(crate) load: bool,
    /// Whether stdout is a terminal, on which no archive may land.
    pub(crate) stdout_is_terminal: bool,
}

/// Returns the outputs that are meant.
pub(crate) fn meant(typed: TypedOutputs<'_>) -> Result<Vec<OutputSpec>, String> {
    let mut outputs = Vec::new();
    for text in typed.outputs {
        outputs.push(one(text, typed.stdout_is_terminal)?);
    }
    let streams = outputs.iter().filter(|output| is_stdout(output)).count();
    if streams > 1 {
        return Err("only one output can be written to stdout".to_owned());
    }
    let has_image = outputs
        .iter()
        .any(|output| matches!(output, OutputSpec::Image { .. }));
    // `--push` and `--load` change an image output that is there, or else add one.
    if !has_image && (outputs.is_empty() || typed.push || typed.load) {
        outputs.push(OutputSpec::default_image());
    }
    for output in &mut outputs {
        if let OutputSpec::Image { push, store, .. } = output {
            if typed.push && push.is_none() {
                *push = Some(PushOptions::default());
            }
            *store |= typed.load;
        }
    }
    Ok(outputs)
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
fn one(text: &str, stdout_is_terminal: bool) -> Result<OutputSpec, String> {
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
    // As buildx: an archive without a destination is meant for a pipe.
    let is_folder = attributes.get("tar").is_some_and(|tar| tar == "false");
    let to_stdout = matches!(kind.as_str(), "oci" | "docker" | "tar") && !is_folder;
    let target = match dest.as_deref() {
        Some("-") => stdout(stdout_is_terminal, &kind)?,
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
            load,
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
        let image = "Image { default, store: true, push: None }";
        let pushed = "Image { default, store: true, push: Some(PushOptions { by_digest: false, insecure: false, join: None }) }";
        let local = r#"Local { directory: "out" }"#;
        check(&[], false, false, image);
        check(&[], true, false, pushed);
        check(&[], false, true, image);
        check(&["type=registry"], false, false, pushed);
        check(&["type=image,push=true"], false, false, pushed);
        check(&["type=image"], true, false, pushed);
        check(&["out"], false, false, local);
        check(&["out"], false, true, &format!("{local}; {image}"));
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
                "unsupported layer compression \"lzma\": expected gzip, zstd or uncompressed",
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
            load: false,
            stdout_is_terminal: true,
        };
        assert!(
            meant(typed)
                .unwrap_err()
                .contains("refusing to write to console")
        );
    }
}

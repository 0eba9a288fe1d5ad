//! `cooper build --llb`: what is built is a definition that an LLB client made.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::args::BuildArgs;
use super::failure::Failure;
use crate::engine::request::{Definition, GivenDefinition, NamedContext};
use crate::engine::{EngineError, ErrorKind};

/// Largest definition that is read.
const DEFINITION_BYTES_MAX: u64 = 256 << 20;
/// Begins what names a folder that is an OCI layout.
const OCI_LAYOUT: &str = "oci-layout://";

/// Reads the definition that is to be built, if it is one.
pub(crate) fn definition(args: &BuildArgs) -> Result<Option<GivenDefinition>, Failure> {
    let Some(path) = args.llb.as_deref() else {
        return Ok(None);
    };
    let refused = match path {
        "-" if args.context == "-" => "stdin cannot be both the definition and the build context",
        "-" if args.reproduce.verify => "--verify reads the definition twice: name a file",
        _ => return read(path).map(Some),
    };
    Err(Failure::Usage(refused.to_owned()))
}

/// Refuses questions about Dockerfiles.
pub(crate) fn check_call(args: &BuildArgs) -> Result<(), Failure> {
    match args.llb {
        None => Ok(()),
        Some(_) => {
            let text = "--llb builds: it cannot go with --call, --check and --fix";
            Err(Failure::Usage(text.to_owned()))
        }
    }
}

/// Reads a definition; `-` stands for stdin.
pub(crate) fn read(path: &str) -> Result<GivenDefinition, Failure> {
    let stdin = path == "-";
    let name = if stdin { "stdin" } else { path };
    let mut bytes = Vec::new();
    let opened: std::io::Result<Box<dyn Read>> = match stdin {
        true => Ok(Box::new(std::io::stdin())),
        false => std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let read = opened.and_then(|file| {
        let mut limited = file.take(DEFINITION_BYTES_MAX + 1);
        limited.read_to_end(&mut bytes)
    });
    read.map_err(|error| Failure::file("read", Path::new(name), error))?;
    let user = |reason: String| {
        let text = format!("cannot read {name}: {reason}");
        Failure::from(EngineError::new(ErrorKind::User, text))
    };
    if bytes.len() as u64 > DEFINITION_BYTES_MAX {
        return Err(user(format!(
            "it has more than {DEFINITION_BYTES_MAX} bytes"
        )));
    }
    let definition = Definition::from_bytes(&bytes).map_err(|error| user(error.to_string()))?;
    Ok(GivenDefinition {
        name: name.to_owned(),
        definition,
    })
}

/// Reads `--build-context` as definitions use it: folders and OCI layouts under any name.
pub(crate) fn named_contexts(texts: &[String]) -> Result<BTreeMap<String, NamedContext>, String> {
    texts.iter().map(|text| named_context(text)).collect()
}

fn named_context(text: &str) -> Result<(String, NamedContext), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| format!("invalid context value: {text}, expected key=value"))?;
    let context = match value.strip_prefix(OCI_LAYOUT) {
        Some(folder) => NamedContext::OciLayout {
            path: PathBuf::from(folder),
            tag: None,
            digest: None,
        },
        None if Path::new(value).is_dir() => NamedContext::Directory(value.into()),
        None => {
            return Err(format!(
                "build context {name:?} of a definition is a folder or {OCI_LAYOUT}folder, not {value:?}"
            ));
        }
    };
    Ok((name.to_owned(), context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_layouts_have_any_name() {
        let read = |text: &str| named_context(text);
        let folder = NamedContext::Directory("/".into());
        assert_eq!(read("A b=/").unwrap(), ("A b".to_owned(), folder));
        let layout = NamedContext::OciLayout {
            path: "/x".into(),
            tag: None,
            digest: None,
        };
        assert_eq!(read("s=oci-layout:///x").unwrap(), ("s".to_owned(), layout));
        for wrong in ["x", "=x", "x=", "x=docker-image://y", "x=/absent"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

//! `cooper manifest …` and `cooper imagetools …`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::args::manifest::{
    AddArgs, AnnotateArgs, CreateArgs, EntryArgs, ImagetoolsCommand, ImagetoolsCreateArgs,
    ImagetoolsInspectArgs, ManifestCommand, ManifestInspectArgs, ManifestPushArgs,
};
use super::args::{ProgressArgs, ProgressMode, value};
use super::failure::Failure;
use super::images::reference;
use super::program::Program;
use super::registries;
use crate::engine::manifest::{Choice, EntryChange, Ingredients};
use crate::engine::{EngineError, ErrorKind};
use crate::oci::{Descriptor, Reference};

/// Progress of commands that show none.
const SILENT: ProgressArgs = ProgressArgs {
    progress: Some(ProgressMode::Quiet),
    quiet: true,
};

/// Runs `cooper manifest …`.
pub(crate) fn run(program: &Program, command: ManifestCommand) -> Result<(), Failure> {
    match command {
        ManifestCommand::Create(args) => create(program, &args),
        ManifestCommand::Add(args) => add(program, &args),
        ManifestCommand::Annotate(args) => annotate(program, &args),
        ManifestCommand::Inspect(args) => inspect(program, &args),
        ManifestCommand::Remove(args) => {
            let list = reference(&args.list)?;
            let root = program.engine()?.remove_from_index(&list, &args.image)?;
            tell(program, &list, &root)
        }
        ManifestCommand::Push(args) => push(program, &args),
        ManifestCommand::Rm(args) => {
            let engine = program.engine()?;
            for list in &args.lists {
                let list = reference(list)?;
                engine.remove_index(&list)?;
                print(program, &format!("Untagged: {}", list.familiar()))?;
            }
            Ok(())
        }
        ManifestCommand::Exists(args) => {
            let list = reference(&args.list)?;
            match program.engine()?.is_index(&list)? {
                true => Ok(()),
                false => Err(Failure::Shown(super::exit_code::BUILD_STEP)),
            }
        }
    }
}

/// Runs `cooper imagetools …`.
pub(crate) fn imagetools(program: &Program, command: ImagetoolsCommand) -> Result<(), Failure> {
    match command {
        ImagetoolsCommand::Inspect(args) => inspect_remote(program, &args),
        ImagetoolsCommand::Create(args) => create_remote(program, &args),
    }
}

fn create(program: &Program, args: &CreateArgs) -> Result<(), Failure> {
    let list = reference(&args.list)?;
    let ingredients = Ingredients {
        images: args.images.clone(),
        choice: choice(args.all),
        annotations: annotations(&args.annotations)?,
        ..Ingredients::default()
    };
    let engine = program.engine_with(&args.registry)?;
    let session = registries::session(program, &args.registry, &named(&args.images))?;
    let (made, journal) = program.show(&SILENT, async |_, _| {
        engine
            .create_index(&list, &ingredients, args.amend, &session)
            .await
    })?;
    let root = made.map_err(|error| program.fail(error, &journal))?;
    tell(program, &list, &root)
}

fn add(program: &Program, args: &AddArgs) -> Result<(), Failure> {
    let list = reference(&args.list)?;
    let ingredients = Ingredients {
        images: args.images.clone(),
        choice: choice(args.all),
        change: change(&args.entry)?,
        ..Ingredients::default()
    };
    let engine = program.engine_with(&args.registry)?;
    let session = registries::session(program, &args.registry, &named(&args.images))?;
    let (made, journal) = program.show(&SILENT, async |_, _| {
        engine.add_to_index(&list, &ingredients, &session).await
    })?;
    let root = made.map_err(|error| program.fail(error, &journal))?;
    tell(program, &list, &root)
}

fn annotate(program: &Program, args: &AnnotateArgs) -> Result<(), Failure> {
    let list = reference(&args.list)?;
    let change = change(&args.entry)?;
    let engine = program.engine()?;
    let root = engine.annotate_index(&list, args.image.as_deref(), &change)?;
    tell(program, &list, &root)
}

fn inspect(program: &Program, args: &ManifestInspectArgs) -> Result<(), Failure> {
    let name = reference(&args.image)?;
    let engine = program.engine_with(&args.registry)?;
    let session = registries::session(program, &args.registry, [&name])?;
    let (read, journal) = program.show(&SILENT, async |_, _| {
        engine.raw_document(&name, true, &session).await
    })?;
    let (_, bytes) = read.map_err(|error| program.fail(error, &journal))?;
    print(program, &String::from_utf8_lossy(&bytes))
}

fn push(program: &Program, args: &ManifestPushArgs) -> Result<(), Failure> {
    let list = reference(&args.list)?;
    let destination = match &args.destination {
        Some(text) => reference(text.strip_prefix("docker://").unwrap_or(text))?,
        None => list.clone(),
    };
    let engine = program.engine_with(&args.registry)?;
    let session = registries::session(program, &args.registry, [&destination])?;
    let (pushed, journal) = program.show(&args.progress, async |progress, cancel| {
        let pushing = engine.push_index(&list, &destination, &session, &progress, &cancel);
        pushing.await
    })?;
    let root = pushed.map_err(|error| program.fail(error, &journal))?;
    if args.remove {
        engine.remove_index(&list)?;
    }
    tell(program, &destination, &root)
}

fn inspect_remote(program: &Program, args: &ImagetoolsInspectArgs) -> Result<(), Failure> {
    let name = reference(&args.image)?;
    let engine = program.engine_with(&args.registry)?;
    let session = registries::session(program, &args.registry, [&name])?;
    let (read, journal) = program.show(&SILENT, async |_, _| {
        engine.raw_document(&name, false, &session).await
    })?;
    let (root, bytes) = read.map_err(|error| program.fail(error, &journal))?;
    if args.raw {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&bytes).and_then(|()| out.flush());
        return written.map_err(Failure::stdout);
    }
    print(program, &described(&name, &root, &bytes).join("\n"))
}

/// Describes a document for people, as `docker buildx imagetools inspect` does.
fn described(name: &Reference, root: &Descriptor, bytes: &[u8]) -> Vec<String> {
    let mut lines = vec![
        format!("Name:      {name}"),
        format!("MediaType: {}", root.media_type),
        format!("Digest:    {}", root.digest),
    ];
    let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let Some(manifests) = document["manifests"].as_array() else {
        return lines;
    };
    lines.extend([String::new(), "Manifests:".to_owned()]);
    for manifest in manifests {
        let entry: Result<Descriptor, _> = serde_json::from_value(manifest.clone());
        let Ok(entry) = entry else { continue };
        lines.push(format!("  Name:        {}@{}", name.name(), entry.digest));
        lines.push(format!("  MediaType:   {}", entry.media_type));
        if let Some(platform) = &entry.platform {
            lines.push(format!("  Platform:    {platform}"));
        }
        if !entry.annotations.is_empty() {
            lines.push("  Annotations:".to_owned());
            let pairs = entry.annotations.iter();
            lines.extend(pairs.map(|(key, value)| format!("    {key}: {value}")));
        }
        lines.push(String::new());
    }
    lines.pop();
    lines
}

fn create_remote(program: &Program, args: &ImagetoolsCreateArgs) -> Result<(), Failure> {
    if args.names.is_empty() && !args.dry_run {
        let text = "name the index with --tag, or ask for --dry-run".to_owned();
        return Err(Failure::Usage(text));
    }
    let mut ingredients = Ingredients {
        choice: match args.platforms.is_empty() {
            true => Choice::All,
            false => Choice::Platforms(args.platforms.clone()),
        },
        annotations: annotations(&args.annotations)?,
        ..Ingredients::default()
    };
    for source in &args.sources {
        ingredients.images.push(format!("docker://{source}"));
    }
    for path in &args.files {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| Failure::file("read", path, error))?;
        read_sources(&text, &mut ingredients).map_err(Failure::Usage)?;
    }
    let engine = program.engine_with(&args.registry)?;
    let session = registries::session(
        program,
        &args.registry,
        &named_with(&args.names, &args.sources),
    )?;
    let (made, journal) = program.show(&args.progress, async |progress, cancel| {
        let making = engine.remote_index(&args.names, &ingredients, args.append, &session);
        let index = making.await?;
        if args.dry_run {
            return Ok((index, None));
        }
        if index.manifests.is_empty() {
            return Err(EngineError::new(ErrorKind::User, "no image was named"));
        }
        let names = &args.names;
        let pushing = engine.push_remote_index(&index, names, &session, &progress, &cancel);
        let root = pushing.await?;
        Ok((index, Some(root)))
    })?;
    let (index, root) = made.map_err(|error| program.fail(error, &journal))?;
    match root {
        None => print(program, &format!("{:#}", json!(index))),
        Some(root) => {
            for name in &args.names {
                tell(program, name, &root)?;
            }
            Ok(())
        }
    }
}

/// Reads a file of sources: a name on each line, or one descriptor or a list of them as JSON.
fn read_sources(text: &str, ingredients: &mut Ingredients) -> Result<(), String> {
    let malformed = |error: serde_json::Error| format!("malformed descriptor: {error}");
    match text.trim_start().chars().next() {
        Some('[') => {
            let list: Vec<Descriptor> = serde_json::from_str(text).map_err(malformed)?;
            ingredients.descriptors.extend(list);
        }
        Some('{') => {
            let one: Descriptor = serde_json::from_str(text).map_err(malformed)?;
            ingredients.descriptors.push(one);
        }
        _ => {
            let lines = text.lines().map(str::trim);
            let names = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            let names = names.map(|name| format!("docker://{name}"));
            ingredients.images.extend(names);
        }
    }
    Ok(())
}

/// Reads the texts that are names of images; others are ids of the local store.
fn named(texts: &[String]) -> Vec<Reference> {
    let texts = texts
        .iter()
        .map(|text| text.strip_prefix("docker://").unwrap_or(text));
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn named_with(names: &[Reference], texts: &[String]) -> Vec<Reference> {
    let mut all = names.to_vec();
    all.extend(named(texts));
    all
}

fn choice(all: bool) -> Choice {
    match all {
        true => Choice::All,
        false => Choice::Host,
    }
}

fn change(args: &EntryArgs) -> Result<EntryChange, Failure> {
    Ok(EntryChange {
        os: args.os.clone(),
        architecture: args.arch.clone(),
        variant: args.variant.clone(),
        os_version: args.os_version.clone(),
        os_features: args.os_features.clone(),
        annotations: annotations(&args.annotations)?,
    })
}

fn annotations(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let bare = texts.iter().map(|text| {
        let text = text.strip_prefix("index:").unwrap_or(text);
        text.to_owned()
    });
    let bare: Vec<String> = bare.collect();
    value::pairs(&bare, |_| Some(String::new())).map_err(Failure::Usage)
}

fn tell(program: &Program, name: &Reference, root: &Descriptor) -> Result<(), Failure> {
    print(program, &format!("{name}@{}", root.digest))
}

fn print(program: &Program, text: &str) -> Result<(), Failure> {
    program.console.result(text).map_err(Failure::stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;

    #[test]
    fn sources_are_names_or_descriptors() {
        let entry = Descriptor::of(media_type::OCI_MANIFEST, b"x");
        let one = serde_json::to_string(&entry).unwrap();
        for (text, images, descriptors) in [
            ("a\n# no\n\n b:1 \n", 2, 0),
            (one.as_str(), 0, 1),
            (&format!("[{one}, {one}]"), 0, 2),
        ] {
            let mut ingredients = Ingredients::default();
            read_sources(text, &mut ingredients).unwrap();
            let found = (ingredients.images.len(), ingredients.descriptors.len());
            assert_eq!(found, (images, descriptors), "{text}");
        }
        assert!(read_sources("{", &mut Ingredients::default()).is_err());
    }

    #[test]
    fn an_index_is_described_line_by_line() {
        let index = json!({"manifests": [
            {"mediaType": "m", "digest": format!("sha256:{}", "0".repeat(64)), "size": 1,
             "platform": {"os": "linux", "architecture": "arm64"}, "annotations": {"k": "v"}},
        ]});
        let name: Reference = "r.example/a:1".parse().unwrap();
        let root = Descriptor::of("t", b"x");
        let lines = described(&name, &root, index.to_string().as_bytes());
        assert_eq!(lines[0], "Name:      r.example/a:1");
        assert!(lines.contains(&"  Platform:    linux/arm64".to_owned()));
        assert_eq!(lines.last().unwrap(), "    k: v");
    }
}

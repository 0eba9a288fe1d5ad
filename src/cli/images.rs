//! The commands about images: pull, push, tag, images, rmi, save, load, inspect, history.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::args::{
    HistoryArgs, ImagesArgs, InspectArgs, ListFormat, LoadArgs, PullArgs, PushArgs, RmiArgs,
    SaveArgs, SaveFormat, TagArgs, value,
};
use super::encryption;
use super::failure::Failure;
use super::program::Program;
use super::program::now;
use super::progress::text;
use super::registries;
use super::table::{Table, age};
use crate::engine::ErrorKind;
use crate::engine::request::{
    ArchiveForm, Destination, HistoryEntry, ImageDetails, ImageSummary, LoadRequest, LoadSource,
    PullRequest, PushRequest, Removed, SaveRequest, Stream,
};
use crate::oci::Reference;

/// Columns of a command in `history`.
const COMMAND_COLUMNS: usize = 45;

/// `cooper pull`.
pub(crate) fn pull(program: &Program, args: &PullArgs) -> Result<(), Failure> {
    let keys = encryption::decryption(&args.decryption)?;
    let engine = program.engine_with(&args.registry)?;
    let references: Result<Vec<Reference>, Failure> =
        args.images.iter().map(|image| reference(image)).collect();
    let references = references?;
    let session = registries::session(program, &args.registry, &references)?;
    for (image, reference) in args.images.iter().zip(references) {
        let request = PullRequest {
            reference,
            platform: args.platform.clone(),
            decryption_keys: Arc::clone(&keys),
        };
        let (result, journal) = program.show(&args.progress, async |progress, cancel| {
            engine.pull(request, &session, &progress, &cancel).await
        })?;
        program.warn_of(&journal);
        let pulled = result.map_err(|error| program.fail(error, &journal))?;
        if args.progress.quiet {
            print(program, &pulled.id.to_string())?;
        } else {
            let name = pulled
                .name
                .as_ref()
                .map_or(image.clone(), Reference::to_string);
            print(program, &format!("{name}@{}", pulled.manifest.digest))?;
        }
    }
    Ok(())
}

/// `cooper push`.
pub(crate) fn push(program: &Program, args: &PushArgs) -> Result<(), Failure> {
    let engine = program.engine_with(&args.registry)?;
    let references: Result<Vec<Reference>, Failure> =
        args.images.iter().map(|image| reference(image)).collect();
    let references = references?;
    let session = registries::session(program, &args.registry, &references)?;
    let request = PushRequest {
        references: references.clone(),
        join: registries::join(&program.environment, &args.join),
        encryption: encryption::encryption(&args.encryption)?,
    };
    let (result, journal) = program.show(&args.progress, async |progress, cancel| {
        engine.push(request, &session, &progress, &cancel).await
    })?;
    let pushed = result.map_err(|error| program.fail(error, &journal))?;
    for (reference, pushed) in references.iter().zip(pushed) {
        print(program, &format!("{reference}@{}", pushed.digest))?;
    }
    Ok(())
}

/// `cooper tag`.
pub(crate) fn tag(program: &Program, args: &TagArgs) -> Result<(), Failure> {
    let target = reference(&args.target)?;
    Ok(program.engine()?.tag(&args.source, &target)?)
}

/// `cooper images`.
pub(crate) fn list(program: &Program, args: &ImagesArgs) -> Result<(), Failure> {
    let mut images = program.engine()?.images()?;
    if let Some(wanted) = &args.repository {
        let wanted: Reference = wanted
            .parse()
            .map_err(|error| Failure::Usage(format!("{error}")))?;
        images.retain(|image| {
            let name = image.name.as_ref();
            name.is_some_and(|name| {
                name.name() == wanted.name()
                    && (wanted.tag().is_none() || wanted.tag() == name.tag())
            })
        });
    }
    let text = match (args.quiet, args.format) {
        (true, _) => ids(&images, args.no_trunc),
        (false, ListFormat::Json) => images.iter().map(image_json).collect(),
        (false, ListFormat::Table) => images_table(&images, args.no_trunc),
    };
    print_all(program, &text)
}

/// `cooper rmi`.
pub(crate) fn remove(program: &Program, args: &RmiArgs) -> Result<(), Failure> {
    let engine = program.engine()?;
    let mut failed = None;
    for image in &args.images {
        match engine.remove(image) {
            Ok(removed) => {
                for one in removed {
                    let line = match one {
                        Removed::Untagged(name) => format!("Untagged: {}", name.familiar()),
                        Removed::Deleted(digest) => format!("Deleted: {digest}"),
                    };
                    print(program, &line)?;
                }
            }
            Err(error) if args.force && error.kind == ErrorKind::User => {}
            // The others are still removed.
            Err(error) => {
                let failure = Failure::from(error);
                program.report(&failure, None);
                failed = Some(Failure::Shown(failure.exit_code()));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// `cooper save`.
pub(crate) fn save(program: &Program, args: &SaveArgs) -> Result<(), Failure> {
    let destination = match args.output.as_deref() {
        Some(path) if path != Path::new("-") => Destination::File(path.to_owned()),
        _ if program.console.stdout_is_terminal() => {
            let message = "cowardly refusing to save to a terminal: use -o or redirect";
            return Err(Failure::Usage(message.to_owned()));
        }
        _ => Destination::Stream(Stream::new(std::io::stdout())),
    };
    let request = SaveRequest {
        images: args.images.clone(),
        format: match args.format {
            SaveFormat::Docker => ArchiveForm::Docker,
            SaveFormat::Oci => ArchiveForm::Oci,
        },
        platform: args.platform.clone(),
        destination,
    };
    let engine = program.engine()?;
    let (result, journal) = program.show(&args.progress, async |progress, cancel| {
        engine.save(request, &progress, &cancel).await
    })?;
    result.map_err(|error| program.fail(error, &journal))
}

/// `cooper load`.
pub(crate) fn load(program: &Program, args: &LoadArgs) -> Result<(), Failure> {
    let archive = match args.input.as_deref() {
        Some(path) if path != Path::new("-") => LoadSource::Path(path.to_owned()),
        _ => LoadSource::Stream(Box::new(std::io::stdin())),
    };
    let request = LoadRequest {
        archive,
        platform: args.platform.clone(),
    };
    let engine = program.engine()?;
    let (result, journal) = program.show(&args.progress, async |progress, cancel| {
        engine.load(request, &progress, &cancel).await
    })?;
    program.warn_of(&journal);
    for image in result.map_err(|error| program.fail(error, &journal))? {
        let line = match &image.name {
            Some(name) => format!("Loaded image: {}", name.familiar()),
            None => format!("Loaded image ID: {}", image.id),
        };
        print(program, &line)?;
    }
    Ok(())
}

/// `cooper inspect`.
pub(crate) fn inspect(program: &Program, args: &InspectArgs) -> Result<(), Failure> {
    let engine = program.engine()?;
    let mut documents = Vec::new();
    for image in &args.images {
        if args.attestations {
            documents.extend(engine.statements(image, args.platform.as_ref())?);
            continue;
        }
        documents.push(details_json(
            &engine.inspect(image, args.platform.as_ref())?,
        ));
    }
    print(program, &format!("{:#}", json!(documents)))
}

/// `cooper history`.
pub(crate) fn history(program: &Program, args: &HistoryArgs) -> Result<(), Failure> {
    let entries = program
        .engine()?
        .history(&args.image, args.platform.as_ref())?;
    let lines = match args.format {
        ListFormat::Json => entries.iter().map(history_json).collect(),
        ListFormat::Table => history_table(&entries, args.no_trunc),
    };
    print_all(program, &lines)
}

pub(crate) fn reference(text: &str) -> Result<Reference, Failure> {
    value::reference(text).map_err(Failure::Usage)
}

fn print(program: &Program, line: &str) -> Result<(), Failure> {
    program.console.result(line).map_err(Failure::stdout)
}

fn print_all(program: &Program, lines: &[String]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    print(program, &lines.join("\n"))
}

fn ids(images: &[ImageSummary], whole: bool) -> Vec<String> {
    let mut ids: Vec<String> = images.iter().map(|image| id(image, whole)).collect();
    let mut seen = BTreeSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    ids
}

fn id(image: &ImageSummary, whole: bool) -> String {
    match whole {
        true => image.id.to_string(),
        false => image.id.0.short().to_owned(),
    }
}

fn images_table(images: &[ImageSummary], whole: bool) -> Vec<String> {
    let mut table = Table::new(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    for image in images {
        let (repository, tag) = match &image.name {
            Some(name) => {
                let familiar = name.familiar();
                let tag = name.tag().unwrap_or("<none>").to_owned();
                let repository = familiar.strip_suffix(&format!(":{tag}"));
                (repository.unwrap_or(&familiar).to_owned(), tag)
            }
            None => ("<none>".to_owned(), "<none>".to_owned()),
        };
        table.row([
            repository,
            tag,
            id(image, whole),
            age(image.created.as_deref(), now()),
            text::bytes(image.size_bytes),
        ]);
    }
    table.lines()
}

fn image_json(image: &ImageSummary) -> String {
    let platforms: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
    json!({
        "name": image.name.as_ref().map(ToString::to_string),
        "id": image.id.to_string(),
        "digest": image.manifest.digest.to_string(),
        "created": image.created,
        "size": image.size_bytes,
        "platforms": platforms,
    })
    .to_string()
}

fn details_json(details: &ImageDetails) -> serde_json::Value {
    let names: Vec<String> = details.names.iter().map(Reference::familiar).collect();
    let digest = &details.root.digest;
    let platforms: Vec<String> = details.platforms.iter().map(ToString::to_string).collect();
    let pinned = details.names.iter();
    let pinned: BTreeSet<String> = pinned
        .map(|name| format!("{}@{digest}", name.name()))
        .collect();
    json!({
        "Id": details.manifest.config.digest.to_string(),
        "RepoTags": names,
        "RepoDigests": pinned,
        "Descriptor": details.descriptor,
        "Platforms": platforms,
        "Architecture": details.config.architecture,
        "Variant": details.config.variant,
        "Os": details.config.os,
        "Created": details.config.created,
        "Author": details.config.author,
        "Config": details.config.config,
        "RootFS": {"Type": details.config.rootfs.kind, "Layers": details.config.rootfs.diff_ids},
        "Size": details.manifest.layers.iter().map(|layer| layer.size).sum::<u64>(),
        "Manifest": details.manifest,
        "History": details.config.history,
    })
}

fn history_json(entry: &HistoryEntry) -> String {
    json!({
        "created": entry.created,
        "created_by": entry.created_by,
        "comment": entry.comment,
        "layer": entry.layer,
    })
    .to_string()
}

fn history_table(entries: &[HistoryEntry], whole: bool) -> Vec<String> {
    let mut table = Table::new(&["CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for entry in entries {
        let command: String = entry
            .created_by
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let command = match whole {
            false if command.chars().count() > COMMAND_COLUMNS => {
                let cut: String = command.chars().take(COMMAND_COLUMNS - 1).collect();
                format!("{cut}…")
            }
            _ => command,
        };
        let size = entry.layer.as_ref().map_or(0, |layer| layer.size);
        table.row([
            age(entry.created.as_deref(), now()),
            text::clip(&command, usize::MAX),
            text::bytes(size),
            entry.comment.clone(),
        ]);
    }
    table.lines()
}

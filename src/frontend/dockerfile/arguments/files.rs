//! COPY and ADD: sources, heredocs, destination.

use std::collections::BTreeMap;

use super::Arguments;
use super::command::warn_about_lost_list;
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::ast::Word;
use crate::frontend::dockerfile::heredoc::MarkerName;
use crate::frontend::dockerfile::instruction::{
    AddInstruction, CopyInstruction, FileArguments, Heredoc,
};
use crate::frontend::dockerfile::json;
use crate::frontend::dockerfile::lexer::Slice;
use crate::frontend::dockerfile::words::split_plain;

/// `COPY`
pub(super) fn copy(
    arguments: Arguments<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<CopyInstruction, Diagnostic> {
    let from = arguments.flags.value("from");
    let parents = arguments.flags.boolean("parents").unwrap_or(false);
    Ok(CopyInstruction {
        files: file_arguments(arguments, warnings)?,
        from,
        parents,
    })
}

/// `ADD`
pub(super) fn add(
    arguments: Arguments<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<AddInstruction, Diagnostic> {
    let checksum = arguments.flags.value("checksum");
    let keep_git_dir = arguments.flags.boolean("keep-git-dir");
    let unpack = arguments.flags.boolean("unpack");
    Ok(AddInstruction {
        files: file_arguments(arguments, warnings)?,
        checksum,
        keep_git_dir,
        unpack,
    })
}

/// A word of the arguments: a path, or the marker of a heredoc.
enum Argument {
    Path(Word),
    Heredoc(Heredoc),
}

fn file_arguments(
    arguments: Arguments<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<FileArguments, Diagnostic> {
    let name = arguments.keyword.name();
    let needs = || format!("{name} needs a source and a destination");
    let mut words = words(&arguments, warnings)?;
    let destination = match words.pop() {
        Some(Argument::Path(destination)) => destination,
        Some(Argument::Heredoc(heredoc)) if words.is_empty() => {
            return Err(Diagnostic::error(heredoc.span, needs())
                .with_help("write the path of the file after the heredoc"));
        }
        Some(Argument::Heredoc(heredoc)) => {
            let message = format!("{name} cannot have a heredoc as its destination");
            return Err(Diagnostic::error(heredoc.span, message)
                .with_help("put the heredoc before the path the file goes to"));
        }
        None => return Err(arguments.error(needs()).with_label("nothing follows")),
    };
    if words.is_empty() {
        return Err(Diagnostic::error(destination.span, needs())
            .with_label("only one path")
            .with_help(format!(
                "write `{name} {} .` to use the working directory",
                destination.raw
            )));
    }
    let (mut sources, mut heredocs) = (Vec::new(), Vec::new());
    for word in words {
        match word {
            Argument::Path(path) => sources.push(path),
            Argument::Heredoc(heredoc) => heredocs.push(heredoc),
        }
    }
    let flags = &arguments.flags;
    Ok(FileArguments {
        sources,
        destination,
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.boolean("link"),
        excludes: flags.values("exclude"),
        heredocs,
    })
}

/// The words of either form, in order.
fn words(
    arguments: &Arguments<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Vec<Argument>, Diagnostic> {
    let paths = match json::parse_list(arguments.slice)? {
        Some(list) => list,
        None => {
            warn_about_lost_list(arguments.slice, "paths", warnings);
            split_plain(arguments.slice)
                .iter()
                .map(Slice::word)
                .collect()
        }
    };
    let bodies: BTreeMap<&str, &Heredoc> = arguments
        .heredocs
        .iter()
        .map(|heredoc| (heredoc.name.as_str(), heredoc))
        .collect();
    let read = |path: Word| match MarkerName::parse(&path.raw) {
        Ok(Some(marker)) => Argument::Heredoc(marker.find(path.span, &bodies)),
        _ => Argument::Path(path),
    };
    let words: Vec<Argument> = paths.into_iter().map(read).collect();
    for word in &words {
        if let Argument::Path(path) = word
            && path.raw == "<<"
            && !arguments.heredocs.is_empty()
        {
            let message = "`<<` alone is a path, not the start of a heredoc";
            return Err(
                Diagnostic::error(path.span, message).with_help("take the space behind it out")
            );
        }
    }
    Ok(words)
}

//! COPY and ADD: sources, heredocs, destination.

use super::Arguments;
use super::command::warn_about_lost_list;
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::ast::Word;
use crate::frontend::dockerfile::instruction::{AddInstruction, CopyInstruction, FileArguments};
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

fn file_arguments(
    arguments: Arguments<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<FileArguments, Diagnostic> {
    let mut sources = match json::parse_list(arguments.slice)? {
        Some(list) => list,
        None => {
            warn_about_lost_list(arguments.slice, "paths", warnings);
            plain_words(&arguments)
        }
    };
    let name = arguments.keyword.name();
    let needs = || format!("{name} needs a source and a destination");
    let Some(destination) = sources.pop() else {
        return Err(match arguments.heredocs.first() {
            Some(heredoc) => Diagnostic::error(heredoc.span, needs())
                .with_help("write the path of the file after the heredoc"),
            None => arguments.error(needs()).with_label("nothing follows"),
        });
    };
    if let Some(heredoc) = arguments
        .heredocs
        .last()
        .filter(|last| last.span > destination.span)
    {
        let message = format!("{name} cannot have a heredoc as its destination");
        return Err(Diagnostic::error(heredoc.span, message)
            .with_help("put the heredoc before the path the file goes to"));
    }
    if sources.is_empty() && arguments.heredocs.is_empty() {
        return Err(Diagnostic::error(destination.span, needs())
            .with_label("only one path")
            .with_help(format!(
                "write `{name} {} .` to use the working directory",
                destination.raw
            )));
    }
    let flags = &arguments.flags;
    Ok(FileArguments {
        sources,
        destination,
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.boolean("link"),
        excludes: flags.values("exclude"),
        heredocs: arguments.heredocs,
    })
}

/// The words of the plain form, heredoc markers left out.
fn plain_words(arguments: &Arguments<'_>) -> Vec<Word> {
    let mut words: Vec<Slice<'_>> = Vec::new();
    let mut start = 0;
    for marker in &arguments.markers {
        words.extend(split_plain(arguments.slice.part(start..marker.start)));
        start = marker.end;
    }
    words.extend(split_plain(arguments.slice.from(start)));
    words.iter().map(Slice::word).collect()
}

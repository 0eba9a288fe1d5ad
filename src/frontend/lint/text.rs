//! Rules about the text of single instructions, in stages that are built and in those that are
//! not.

use super::config::{Checks, attribute};
use super::stages::from_casing;
use crate::frontend::diagnostic::{Diagnostic, Diagnostics, Severity, Span};
use crate::frontend::dockerfile::{Dockerfile, Instruction, InstructionKind};

/// Checks the instructions one by one, up to the first mistake; `findings` are the parser's.
///
/// # Errors
///
/// Gives back the parser's errors, if there are any.
pub(in crate::frontend) fn of_text(
    file: &Dockerfile,
    findings: Vec<Diagnostic>,
    checks: &Checks,
    warnings: &mut Vec<Diagnostic>,
) -> Result<(), Diagnostics> {
    let (errors, found) = findings
        .into_iter()
        .partition::<Vec<_>, _>(|finding| finding.severity == Severity::Error);
    warnings.extend(found);
    let first_error = errors.iter().map(|error| error.span.start).min();
    let instructions = file.stages.iter().flat_map(|stage| {
        let header = std::iter::once(&stage.header);
        header.chain(&stage.instructions)
    });
    for instruction in file.global_args.iter().chain(instructions) {
        if first_error.is_some_and(|error| error < instruction.span.start) {
            break;
        }
        let start = warnings.len();
        warnings.extend(of_instruction(instruction, checks));
        attribute(warnings, start, instruction);
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Diagnostics(errors)),
    }
}

fn of_instruction(instruction: &Instruction, checks: &Checks) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    match &instruction.kind {
        InstructionKind::Maintainer(_) => warnings.push(maintainer(instruction.keyword_span)),
        InstructionKind::From(from) => {
            warnings.extend(from_casing(instruction, from));
            if let Some(name) = &from.name {
                let name = name.raw.to_lowercase();
                warnings.extend(description(instruction, &[&name], checks));
            }
        }
        InstructionKind::Arg(arg) => {
            let names: Vec<&str> = arg.args.iter().map(|arg| arg.name.raw.as_str()).collect();
            warnings.extend(description(instruction, &names, checks));
        }
        _ => {}
    }
    warnings
}

fn maintainer(span: Span) -> Diagnostic {
    let message = "MAINTAINER is deprecated: the author of an image is a label";
    Diagnostic::warning("MaintainerDeprecated", span, message)
        .with_help("write LABEL org.opencontainers.image.authors=…")
}

/// A comment right above that does not describe what the instruction defines.
fn description(instruction: &Instruction, names: &[&str], checks: &Checks) -> Option<Diagnostic> {
    const RULE: &str = "InvalidDefinitionDescription";
    let comment = instruction.comments.last()?;
    let first = names.first()?;
    let described = comment.raw.split(' ').next().unwrap_or_default();
    if names.contains(&described) || !checks.is_on(RULE, instruction) {
        return None;
    }
    let name = if names.len() > 1 { "NAME" } else { first };
    let keyword = instruction.kind.keyword();
    let message =
        format!("the comment above {keyword} should have the form `# {name} <description>`");
    let help = "where it is no description, put an empty comment `#` below it";
    Some(Diagnostic::warning(RULE, comment.span, message).with_help(help))
}

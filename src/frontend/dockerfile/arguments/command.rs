//! RUN, CMD, ENTRYPOINT and HEALTHCHECK: what runs processes.

use std::time::Duration;

use super::Arguments;
use crate::frontend::diagnostic::{Diagnostic, Severity};
use crate::frontend::dockerfile::ast::Word;
use crate::frontend::dockerfile::duration::parse_duration;
use crate::frontend::dockerfile::instruction::{
    CommandLine, Healthcheck, HealthcheckCommand, RunInstruction,
};
use crate::frontend::dockerfile::json;
use crate::frontend::dockerfile::lexer::Slice;
use crate::frontend::dockerfile::mount::check_mount;
use crate::frontend::dockerfile::run_value::{
    FlagError, parse_device, parse_network, parse_security,
};
use crate::frontend::dockerfile::words::split_first;

/// The JSON form, or text for the shell.
pub(super) fn command_line(
    arguments: &Arguments<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<CommandLine, Diagnostic> {
    read_command(arguments.slice, warnings)
}

fn read_command(
    slice: Slice<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<CommandLine, Diagnostic> {
    if let Some(list) = json::parse_list(slice)? {
        return Ok(CommandLine::Exec(list));
    }
    warn_about_lost_list(slice, "a shell command", warnings);
    Ok(CommandLine::Shell(slice.word()))
}

/// Warns about text that was meant to be a JSON list but is not one.
pub(super) fn warn_about_lost_list(
    slice: Slice<'_>,
    read_as: &str,
    warnings: &mut Vec<Diagnostic>,
) {
    if json::looks_like_list(slice.text) {
        let finding = Diagnostic::error(slice.span(), "this is not valid JSON")
            .with_label(format!("read as {read_as}"))
            .with_help("JSON strings stand in double quotes, with commas between them");
        warnings.push(Diagnostic {
            severity: Severity::Warning,
            ..finding
        });
    }
}

/// `RUN`
pub(super) fn run(
    arguments: Arguments<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<RunInstruction, Diagnostic> {
    let command = command_line(&arguments, warnings)?;
    if matches!(&command, CommandLine::Shell(text) if text.raw.is_empty()) {
        let finding = arguments
            .error("RUN has no command")
            .with_label("nothing follows");
        warnings.push(Diagnostic {
            severity: Severity::Warning,
            ..finding
        });
    }
    let flags = &arguments.flags;
    let mounts = flags.values("mount");
    for mount in &mounts {
        check_mount(&mount.raw).map_err(|error| flag_error(mount, error))?;
    }
    let devices = flags.values("device");
    for device in devices.iter().filter(|device| !device.raw.contains('$')) {
        parse_device(&device.raw).map_err(|error| flag_error(device, error))?;
    }
    let network = flags.values("network").pop();
    if let Some(mode) = network.as_ref().filter(|mode| !mode.raw.contains('$')) {
        parse_network(&mode.raw).map_err(|error| flag_error(mode, error))?;
    }
    let security = flags.values("security").pop();
    if let Some(mode) = security.as_ref().filter(|mode| !mode.raw.contains('$')) {
        parse_security(&mode.raw).map_err(|error| flag_error(mode, error))?;
    }
    let heredocs = arguments.heredocs;
    Ok(RunInstruction {
        command,
        heredocs,
        mounts,
        network,
        security,
        devices,
    })
}

/// The finding for the value of a flag, pointing at the field that is wrong.
fn flag_error(value: &Word, error: FlagError) -> Diagnostic {
    error.diagnostic(value)
}

/// `HEALTHCHECK`
pub(super) fn healthcheck(
    arguments: &Arguments<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Healthcheck, Diagnostic> {
    let (kind, rest) = split_first(arguments.slice);
    let help = "write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`";
    match kind.text.to_ascii_uppercase().as_str() {
        "" => return Err(arguments.nothing("CMD or NONE").with_help(help)),
        "NONE" if rest.text.is_empty() => return Ok(Healthcheck::None),
        "NONE" => {
            return Err(Diagnostic::error(
                rest.span(),
                "HEALTHCHECK NONE takes no arguments",
            ));
        }
        "CMD" => {}
        _ => {
            let message = format!("`{}` is neither CMD nor NONE", kind.text);
            return Err(Diagnostic::error(kind.span(), message).with_help(help));
        }
    }
    let command = read_command(rest, warnings)?;
    let is_empty = match &command {
        CommandLine::Shell(text) => text.raw.is_empty(),
        CommandLine::Exec(list) => list.is_empty(),
    };
    if is_empty {
        return Err(Diagnostic::error(
            kind.span(),
            "HEALTHCHECK CMD needs a command",
        ));
    }
    let duration = |name: &str| duration_flag(arguments, name);
    Ok(Healthcheck::Command(Box::new(HealthcheckCommand {
        command,
        interval: duration("interval")?,
        timeout: duration("timeout")?,
        start_period: duration("start-period")?,
        start_interval: duration("start-interval")?,
        retries: retries(arguments)?,
    })))
}

fn duration_flag(arguments: &Arguments<'_>, name: &str) -> Result<Option<Duration>, Diagnostic> {
    let Some(value) = arguments.flags.value(name) else {
        return Ok(None);
    };
    parse_duration(&value.raw).map(Some).map_err(|error| {
        let message = format!("`{}` cannot be the {name}: {error}", value.raw);
        Diagnostic::error(value.span, message)
            .with_help("write a number with a unit, for example `30s` or `1m30s`")
    })
}

fn retries(arguments: &Arguments<'_>) -> Result<Option<u32>, Diagnostic> {
    let Some(value) = arguments.flags.value("retries") else {
        return Ok(None);
    };
    match value.raw.parse::<i32>().map(u32::try_from) {
        Ok(Ok(count)) => Ok(Some(count)),
        _ => {
            let message = format!("`{}` is not a number of retries", value.raw);
            Err(Diagnostic::error(value.span, message).with_help("write for example `--retries=3`"))
        }
    }
}

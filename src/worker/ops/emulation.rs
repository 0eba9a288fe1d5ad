//! Steps on another platform than the machine's: they need an emulator that the kernel knows.
//!
//! What counts is the program, not what the image says of itself: an image may be labelled
//! wrongly, and a program of this machine's kind runs whatever its label.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::executor::{DEFAULT_PATH, ExecutorError};
use crate::llb::pb;
use crate::oci::Platform;
use crate::progress::{Event, Warning};
use crate::solver::{FailureKind, OpContext, OpError};
use crate::sys::binfmt::{self, Table};
use crate::sys::root::Root;

/// What the kernel says of a program that nothing can run.
const FORMAT_ERROR: &str = "exec format error";
/// How an emulator is installed.
const INSTALL: &str = "install emulators, on Debian with `apt-get install qemu-user-static`, or \
                       build on a machine of that kind";
/// How emulation is avoided.
const CROSS: &str = "a stage that begins with FROM --platform=$BUILDPLATFORM runs without an \
                     emulator: compile there for $TARGETPLATFORM";

/// The platforms of which a build has told the user that they are emulated.
#[derive(Debug, Default)]
pub(in crate::worker) struct Announced(Mutex<BTreeSet<String>>);

impl Announced {
    /// Warns, once for each platform, that steps for it are emulated.
    pub(super) fn warn(&self, platform: &Platform, context: &OpContext) {
        let host = Platform::host();
        if binfmt::is_native(&platform.architecture, &host.architecture) {
            return;
        }
        let name = platform.to_string();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.insert(name.clone()) {
            return;
        }
        let table = Table::read().unwrap_or_default();
        let Some(emulator) = table.emulator(&platform.architecture) else {
            return;
        };
        let interpreter = emulator.interpreter.display();
        context.progress.build().send(Event::Warning(Warning {
            short: format!(
                "RUN steps for {name} are emulated by {interpreter}: expect them to take \
                 several times as long"
            ),
            detail: vec![CROSS.to_owned()],
            ..Warning::default()
        }));
    }
}

/// Explains why a program could not be started, where its kind is the reason.
pub(super) fn explain(error: &ExecutorError, meta: &pb::Meta, root: &Path) -> Option<OpError> {
    let ExecutorError::Start {
        program, reason, ..
    } = error
    else {
        return None;
    };
    let host = Platform::host();
    let kind = kind_of(root, program, meta)?;
    let platform = Platform::linux(kind, "");
    let is_foreign = !binfmt::is_native(kind, &host.architecture);
    let emulator = Table::read().and_then(|table| table.emulator(kind).cloned());
    match emulator {
        None if reason == FORMAT_ERROR && is_foreign => {
            let text = format!(
                "cannot run {program:?}: {FORMAT_ERROR}: it is a program for {platform}, this \
                 machine is {host}, and no emulator is registered with its kernel"
            );
            Some(config_error(text).hint(INSTALL).hint(CROSS))
        }
        Some(emulator) if is_foreign && !emulator.is_fixed => {
            let interpreter = emulator.interpreter.display();
            let text = format!(
                "cannot run {program:?}: {reason}: programs for {platform} are run by \
                 {interpreter}, which is not in the image"
            );
            Some(config_error(text).hint(
                "register the emulator with the flag F (`qemu-user-static` does), so that it \
                 works in every root",
            ))
        }
        _ => None,
    }
}

fn config_error(text: String) -> OpError {
    OpError::new(FailureKind::Config, text)
}

/// Returns for which processor a program in a root is.
fn kind_of(root: &Path, program: &str, meta: &pb::Meta) -> Option<&'static str> {
    let root = Root::open(root).ok()?;
    let mut paths = meta.env.iter().filter_map(|v| v.strip_prefix("PATH="));
    let candidates = binfmt::in_path(program, paths.next().unwrap_or(DEFAULT_PATH));
    let file = candidates.iter().find_map(|path| {
        let path = Path::new(&meta.cwd).join(path);
        root.open_read(&path).ok()
    });
    binfmt::architecture_of(&binfmt::header(file?).ok()?)
}

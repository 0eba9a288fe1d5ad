//! `RUN`: a process in the file system so far.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use super::name::summary;
use super::run_mount::Mounts;
use super::{Lowerer, Lowering, StageState, location, text_of, with_shell};
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::Word;
use crate::frontend::dockerfile::instruction::{CommandLine, RunInstruction};
use crate::frontend::dockerfile::run_value::{
    FlagError, RunNetwork, RunSecurity, parse_device, parse_network, parse_security,
};
use crate::frontend::expand::Lookup;
use crate::frontend::plan::Step;
use crate::llb::mount::{BindAccess, Mount, MountKind};
use crate::llb::pb;
use crate::llb::state::{About, Exec, FileAction, FileOp, Output};

/// Where a script with an interpreter line is mounted.
const SCRIPT_DIRECTORY: &str = "/dev/pipes/";

/// What a `RUN` runs.
struct Command {
    args: Vec<String>,
    /// Name and text of a script that must be there.
    script: Option<(String, String)>,
    /// What the name of the step says of a heredoc.
    summary: String,
}

impl Lowerer<'_> {
    /// `RUN`
    pub(super) fn run(
        &mut self,
        state: &mut StageState,
        step: &Step<'_>,
        run: &RunInstruction,
    ) -> Lowering<()> {
        let mut mounts = self.mounts(state, step, run)?;
        let command = command(state, run);
        if let Some((name, text)) = command.script {
            mounts.mounts.push(self.script_mount(name, text));
        }
        if let Some(size_bytes) = self.options.shm_size_bytes.filter(|size| *size > 0) {
            mounts.mounts.push(Mount {
                target: "/dev/shm".to_owned(),
                kind: MountKind::Tmpfs {
                    size_bytes,
                    readonly: false,
                },
            });
        }
        let shown = format!("{}{}", text_of(&step.instruction), command.summary);
        let about = About {
            name: self.run_name(state, step, &shown, &mounts),
            command: Some(text_of(&step.instruction).to_owned()),
            platform: Some(Arc::clone(&state.platform)),
            ignore_cache: self.plan.stages[state.index].ignore_cache,
            locations: vec![location(step.span())],
            after: state.after.clone(),
            progress_group: None,
        };
        let exec = Exec {
            network: self.network(state, run.network.as_ref())?,
            security: self.security(state, run.security.as_ref())?,
            devices: self.devices(state, &run.devices)?,
            args: command.args,
            ..self.exec(state, mounts)
        };
        self.use_everything(state.root);
        let text = history_text(state, &exec.args);
        state.root = Some(self.builder.exec(exec, about));
        self.commit_layer(state, text);
        Ok(())
    }

    /// Names the step; values of secrets are masked.
    fn run_name(
        &self,
        state: &mut StageState,
        step: &Step<'_>,
        text: &str,
        mounts: &Mounts,
    ) -> String {
        let environment = &state.environment;
        let variables = Lookup(|name: &str| {
            let is_secret = mounts
                .secrets
                .iter()
                .any(|s| s.env.as_deref() == Some(name));
            if is_secret {
                return Some("****".to_owned());
            }
            environment.get(name).map(str::to_owned)
        });
        let text = self.shown_command(text, &variables);
        self.name_of(state, step, &text)
    }

    /// Names a step and counts it.
    pub(super) fn name_of(&self, state: &mut StageState, step: &Step<'_>, text: &str) -> String {
        match step.trigger_of {
            Some(_) => self.trigger_name(state, text),
            None => self.step_name(state, text),
        }
    }

    /// Fills in what every process of the build gets.
    fn exec(&self, state: &StageState, mounts: Mounts) -> Exec {
        let options = self.options;
        let sandbox_name = self.args.given.get("BUILDKIT_SANDBOX_HOSTNAME");
        let hostname = sandbox_name.unwrap_or(&options.hostname).clone();
        let hosts = options.add_hosts.iter().map(|(host, address)| pb::HostIp {
            host: host.clone(),
            ip: address.to_string(),
        });
        let ulimits = options.ulimits.iter().map(|limit| pb::Ulimit {
            name: limit.name.clone(),
            soft: limit.soft,
            hard: limit.hard,
        });
        Exec {
            root: state.root,
            env: state.environment.shared(),
            cwd: state.cwd.clone(),
            user: state.image.config.user.clone(),
            hostname,
            cgroup_parent: options.cgroup_parent.clone(),
            proxy: self.args.proxies(),
            extra_hosts: hosts.collect(),
            ulimits: ulimits.collect(),
            mounts: mounts.mounts,
            secrets: mounts.secrets,
            ssh: mounts.ssh,
            ..Exec::default()
        }
    }

    fn network(&mut self, state: &StageState, word: Option<&Word>) -> Lowering<pb::NetMode> {
        let by_default = self.options.network.into();
        let Some(word) = word else {
            return Ok(by_default);
        };
        let text = self.expand(state, word)?;
        let network = parse_network(&text).map_err(|error| flag_error(&error, word))?;
        Ok(match network {
            RunNetwork::Default => by_default,
            RunNetwork::None => pb::NetMode::None,
            RunNetwork::Host => pb::NetMode::Host,
        })
    }

    fn security(&mut self, state: &StageState, word: Option<&Word>) -> Lowering<pb::SecurityMode> {
        let Some(word) = word else {
            return Ok(pb::SecurityMode::Sandbox);
        };
        let text = self.expand(state, word)?;
        let security = parse_security(&text).map_err(|error| flag_error(&error, word))?;
        Ok(match security {
            RunSecurity::Sandbox => pb::SecurityMode::Sandbox,
            RunSecurity::Insecure => pb::SecurityMode::Insecure,
        })
    }

    fn devices(&mut self, state: &StageState, words: &[Word]) -> Lowering<Vec<pb::CdiDevice>> {
        let mut devices = Vec::new();
        for word in words {
            let text = self.expand(state, word)?;
            let device = parse_device(&text).map_err(|error| flag_error(&error, word))?;
            devices.push(pb::CdiDevice {
                name: device.name,
                optional: !device.required,
            });
        }
        Ok(devices)
    }

    /// Mounts a script as a file, so that its interpreter line counts.
    fn script_mount(&mut self, name: String, text: String) -> Mount {
        let source = self.inline_file(&name, text, 0o755);
        Mount {
            target: SCRIPT_DIRECTORY.to_owned(),
            kind: MountKind::Bind {
                source: Some(source),
                selector: "/".to_owned(),
                access: BindAccess::ReadOnly,
            },
        }
    }

    /// Makes a file system with one file whose text stands in the Dockerfile.
    pub(super) fn inline_file(&mut self, name: &str, text: String, mode: i32) -> Output {
        let mkfile = pb::FileActionMkFile {
            path: crate::frontend::paths::absolute("/", name),
            mode,
            data: text.into_bytes(),
            owner: None,
            timestamp: -1,
        };
        let file = FileOp {
            base: None,
            actions: vec![FileAction {
                source: None,
                owner: None,
                action: pb::file_action::Action::Mkfile(mkfile),
            }],
        };
        let about = About::named("[internal] preparing inline document");
        self.builder.file(file, about)
    }
}

/// Shows a mistake in the value of a flag.
pub(super) fn flag_error(error: &FlagError, word: &Word) -> Box<Diagnostic> {
    let at = word.raw.find(&error.field).unwrap_or_default();
    let span = word.part_span(at, at + error.field.len());
    let finding = Diagnostic::error(span, error.message.clone());
    Box::new(finding.with_help_if(error.help.clone()))
}

/// Finds out what to run.
///
/// A heredoc that is the whole command is a script: with an interpreter line it is mounted and
/// run, else its text is given to the shell. Other heredocs are left to the shell to read.
fn command(state: &StageState, run: &RunInstruction) -> Command {
    let text: Cow<'_, str> = match (&run.command, run.sole_heredoc()) {
        (CommandLine::Exec(words), _) => {
            return Command {
                args: words.iter().map(|word| word.raw.clone()).collect(),
                script: None,
                summary: String::new(),
            };
        }
        (CommandLine::Shell(_), Some(heredoc)) => {
            let body = heredoc.body();
            let summary = format!(" ({})", summary(&body));
            if state.image.os == "windows" || !body.starts_with("#!") {
                return Command {
                    args: with_shell(&state.image, &body),
                    script: None,
                    summary,
                };
            }
            let path = format!("{SCRIPT_DIRECTORY}{}", heredoc.name);
            return Command {
                args: with_shell(&state.image, &path),
                script: Some((heredoc.name.clone(), body)),
                summary,
            };
        }
        (CommandLine::Shell(word), None) => match run.shell_text() {
            Some(text) if !run.heredocs.is_empty() => Cow::Owned(text),
            _ => Cow::Borrowed(&word.raw),
        },
    };
    Command {
        args: with_shell(&state.image, &text),
        script: None,
        summary: String::new(),
    }
}

/// Writes the history entry: the declared arguments with their values, then the command.
fn history_text(state: &StageState, args: &[String]) -> String {
    let mut declared: Vec<(&str, &str)> = Vec::new();
    for (name, value) in &state.declared {
        let value = state
            .environment
            .get(name)
            .or(value.as_deref())
            .unwrap_or_default();
        match declared.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => declared.push((name, value)),
        }
    }
    let mut text = String::from("RUN ");
    if !declared.is_empty() {
        let _ = write!(text, "|{} ", declared.len());
        for (name, value) in declared {
            let _ = write!(text, "{name}={value} ");
        }
    }
    for arg in args {
        text += arg;
        text.push(' ');
    }
    text + "# buildkit"
}

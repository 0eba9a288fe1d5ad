//! Runs the `git` program so that neither the machine's configuration nor the repository can
//! make it run anything else.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::Error;
use super::git_options::GitOptions;
use super::git_remote::Remote;
use crate::progress::{LogStream, VertexProgress};
use crate::sys::process::set_umask;

/// Most output of one command that is kept.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;
/// Most of what one command says about its failure that is kept.
const SAID_BYTES_MAX: usize = 64 << 10;
/// Mask of the files that git makes, whatever the mask of this process is.
const UMASK: u32 = 0o022;
/// The option for a fetch without history.
pub(super) const SHALLOW: &str = "--depth=1";
/// What holds for every command.
const SETTINGS: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    // Logs of refs would hold the name of this machine.
    ("core.logAllRefUpdates", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.autocrlf", "false"),
    ("credential.helper", ""),
    ("transfer.bundleURI", "false"),
    ("transfer.fsckObjects", "true"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("protocol.version", "2"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "master"),
    ("safe.directory", "*"),
    // A server that sends nothing for half a minute is given up.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "30"),
];
/// Harmless mistakes that real old repositories hold (`git help fsck-msgids`).
const TOLERATED: [&str; 16] = [
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badName",
    "badTimezone",
    "missingAuthor",
    "missingCommitter",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "multipleAuthors",
    "nullSha1",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
    "treeNotSorted",
];
/// Variables of the user's environment that would change what git does.
const FOREIGN: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CURL_VERBOSE",
    "GIT_DEFAULT_HASH",
    "GIT_DEFAULT_REF_FORMAT",
    "GIT_DIR",
    "GIT_EDITOR",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_LAZY_FETCH",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_PROTOCOL",
    "GIT_PROTOCOL_FROM_USER",
    "GIT_PROXY_COMMAND",
    "GIT_PROXY_SSL_CAINFO",
    "GIT_QUARANTINE_PATH",
    "GIT_REDIRECT_STDERR",
    "GIT_REDIRECT_STDIN",
    "GIT_REDIRECT_STDOUT",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_SSH",
    "GIT_SSH_VARIANT",
    "GIT_SSL_CERT",
    "GIT_SSL_KEY",
    "GIT_SSL_NO_VERIFY",
    "GIT_TRACE",
    "GIT_TRACE2",
    "GIT_TRACE2_EVENT",
    "GIT_TRACE2_PERF",
    "GIT_TRACE_CURL",
    "GIT_TRACE_PACKET",
    "GIT_TRACE_SETUP",
    "GIT_WORK_TREE",
];

/// How to talk to a remote, and where.
#[derive(Clone, Copy)]
pub(super) struct Git<'a> {
    pub(super) options: &'a GitOptions,
    pub(super) remote: &'a Remote,
    /// Folder that commands run in.
    pub(super) dir: &'a Path,
    /// The repository, where it is not found from `dir`.
    pub(super) repository: Option<&'a Path>,
    /// Whether the remote is a repository on this machine, which only our own are.
    pub(super) is_local: bool,
    pub(super) progress: &'a VertexProgress,
}

/// Why a command did not succeed.
struct Failed {
    status: ExitStatus,
    /// What it printed about that.
    said: String,
}

impl<'a> Git<'a> {
    /// Returns the same in another folder.
    pub(super) fn at(self, dir: &'a Path) -> Self {
        let repository = None;
        Self {
            dir,
            repository,
            ..self
        }
    }

    /// Returns what asks and fetches from where commits come from, and what git is given for
    /// that: the remote, or a bundle.
    pub(super) fn origin(self) -> (Self, String) {
        match &self.options.bundle {
            None => (self, self.remote.as_str().to_owned()),
            Some(bundle) => {
                let path = bundle.to_string_lossy().into_owned();
                let is_local = true;
                (Self { is_local, ..self }, path)
            }
        }
    }

    /// Makes an error that names the remote.
    pub(super) fn failed(&self, reason: impl Into<String>) -> Error {
        Error::Git {
            url: self.remote.as_str().to_owned(),
            reason: reason.into(),
        }
    }

    /// Makes an error about something that the remote does not hold.
    pub(super) fn absent(&self, reason: impl Into<String>) -> Error {
        Error::NotInGit {
            url: self.remote.as_str().to_owned(),
            reason: reason.into(),
        }
    }

    /// Runs a command; returns what it printed.
    pub(super) async fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String, Error> {
        let outcome = self.start(self.command(), arguments).await?;
        outcome.map_err(|failed| self.explained(arguments, &failed))
    }

    /// Returns the same in a repository that commands do not find by themselves.
    pub(super) fn at_mirror(self, repository: &'a Path) -> Self {
        Self {
            repository: Some(repository),
            ..self
        }
    }

    /// Runs a command; returns the bytes that it printed.
    pub(super) async fn run_raw(&self, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        let outcome = self.start_raw(self.command(), arguments).await?;
        outcome.map_err(|failed| self.explained(arguments, &failed))
    }

    /// Runs a command that works on a tree of files which is not the one of the repository.
    pub(super) async fn run_in_tree<A: AsRef<OsStr>>(
        &self,
        tree: &Path,
        index: &Path,
        arguments: &[A],
    ) -> Result<String, Error> {
        let mut command = self.command();
        command
            .env("GIT_WORK_TREE", tree)
            .env("GIT_INDEX_FILE", index);
        let outcome = self.start(command, arguments).await?;
        outcome.map_err(|failed| self.explained(arguments, &failed))
    }

    /// Runs a command with [`SHALLOW`]; without it if the server does not know what that is.
    pub(super) async fn run_shallow(&self, arguments: &[&str]) -> Result<String, Error> {
        let failed = match self.start(self.command(), arguments).await? {
            Ok(printed) => return Ok(printed),
            Err(failed) => failed,
        };
        if !failed.said.contains("shallow") && !failed.said.contains("--depth") {
            return Err(self.explained(arguments, &failed));
        }
        let deep = arguments.iter().filter(|one| **one != SHALLOW).copied();
        self.run(&deep.collect::<Vec<_>>()).await
    }

    async fn start<A: AsRef<OsStr>>(
        &self,
        command: Command,
        arguments: &[A],
    ) -> Result<Result<String, Failed>, Error> {
        let outcome = self.start_raw(command, arguments).await?;
        Ok(outcome.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn start_raw<A: AsRef<OsStr>>(
        &self,
        mut command: Command,
        arguments: &[A],
    ) -> Result<Result<Vec<u8>, Failed>, Error> {
        command.args(arguments);
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NoGit {
                url: self.remote.as_str().to_owned(),
            },
            _ => self.failed(error.to_string()),
        })?;
        let mut child = Group { child };
        let stdout = child.child.stdout.take();
        let stderr = child.child.stderr.take();
        let (printed, said) = tokio::join!(read_all(stdout), self.log(stderr));
        let status = child.child.wait().await;
        let status = status.map_err(|error| self.failed(error.to_string()))?;
        Ok(match status.success() {
            true => Ok(printed),
            false => Err(Failed { status, said }),
        })
    }

    fn explained<A: AsRef<OsStr>>(&self, arguments: &[A], failed: &Failed) -> Error {
        let verb = arguments
            .first()
            .map(|verb| verb.as_ref().to_string_lossy());
        let verb = verb.unwrap_or_default();
        // Submodules have remotes of their own, which git names.
        let is_ours = verb != "submodule";
        let reason = explanation(&failed.said, self.remote).filter(|_| is_ours);
        let weighty = weighty_line(&failed.said);
        self.failed(reason.unwrap_or_else(|| match weighty.is_empty() {
            true => format!("{verb} failed ({})", failed.status),
            false => format!("{verb} failed: {weighty}"),
        }))
    }

    fn command(&self) -> Command {
        let tolerated = TOLERATED.map(|id| (format!("fetch.fsck.{id}"), "ignore".to_owned()));
        let mut command = isolated(self.dir, tolerated.into_iter().chain(self.header()));
        let protocols = match self.is_local {
            true => "file".to_owned(),
            false => self.options.protocols.join(":"),
        };
        command
            .env("GIT_ALLOW_PROTOCOL", protocols)
            .env("GIT_SSH_COMMAND", self.ssh_command())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        set_umask(&mut command, UMASK);
        if let Some(repository) = self.repository {
            command.env("GIT_DIR", repository);
        }
        match &self.options.ssh_agent {
            Some(agent) => command.env("SSH_AUTH_SOCK", agent.socket()),
            None => command.env_remove("SSH_AUTH_SOCK"),
        };
        command
    }

    /// Makes the setting that sends credentials to where they are meant for.
    fn header(&self) -> Option<(String, String)> {
        let lent = self.options.authorization.as_ref();
        let header = match lent {
            Some(lent) => &lent.header,
            None => self.remote.login()?,
        };
        let scope = self.remote.scope(lent.is_some_and(|lent| lent.for_host))?;
        let value = format!("Authorization: {}", header.0);
        Some((format!("http.{scope}.extraHeader"), value))
    }

    fn ssh_command(&self) -> String {
        let hosts = match &self.options.known_hosts {
            Some(path) => format!(
                "-o StrictHostKeyChecking=yes -o UserKnownHostsFile={}",
                shell_quoted(&path.to_string_lossy())
            ),
            None => "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null".to_owned(),
        };
        // Keys come from the agent only, not from the user's home.
        format!(
            "ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15 \
             -o IdentityFile=none -o GlobalKnownHostsFile=/dev/null -o LogLevel=ERROR {hosts}"
        )
    }

    /// Passes on what git says, and returns it.
    async fn log(&self, stream: Option<impl AsyncRead + Unpin>) -> String {
        let mut said = String::new();
        let Some(stream) = stream else {
            return said;
        };
        let mut lines = BufReader::new(stream.take(OUTPUT_BYTES_MAX)).split(b'\n');
        while let Ok(Some(mut line)) = lines.next_segment().await {
            if said.len() < SAID_BYTES_MAX {
                said.push_str(String::from_utf8_lossy(&line).trim());
                said.push('\n');
            }
            line.push(b'\n');
            self.progress.log(LogStream::Stderr, &line);
        }
        said
    }
}

/// Makes a command that reads no configuration but the repository's and ours: [`SETTINGS`] and
/// those given.
pub(super) fn isolated(dir: &Path, settings: impl Iterator<Item = (String, String)>) -> Command {
    let mut command = Command::new("git");
    for variable in FOREIGN {
        command.env_remove(variable);
    }
    command
        .current_dir(dir)
        .env("HOME", "/dev/null")
        .env("XDG_CONFIG_HOME", "/dev/null")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        // Empty: repositories, also those of submodules, get no hooks.
        .env("GIT_TEMPLATE_DIR", "")
        .env("GIT_TERMINAL_PROMPT", "0")
        // Empty: neither these programs nor those of the settings ask anybody.
        .env("GIT_ASKPASS", "")
        .env("SSH_ASKPASS", "");
    let own = SETTINGS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    // In the environment, not on the command line, which everybody on the machine can read.
    let mut count = 0;
    for (at, (name, value)) in own.chain(settings).enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{at}"), name);
        command.env(format!("GIT_CONFIG_VALUE_{at}"), value);
        count = at + 1;
    }
    command.env("GIT_CONFIG_COUNT", count.to_string());
    command
}

/// Says in the user's words what well-known failures mean.
fn explanation(said: &str, remote: &Remote) -> Option<String> {
    let is_said = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let refused = [
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "requested URL returned error: 401",
        "requested URL returned error: 403",
    ];
    let no_repository = [
        "not found",
        "does not appear to be a git repository",
        "not valid: is this a git repository",
        "requested URL returned error: 404",
    ];
    if is_said(&refused) {
        let host = remote.host().unwrap_or_default();
        return Some(format!(
            "access was refused: give a token with `--secret id=GIT_AUTH_TOKEN.{host},env=VARIABLE`"
        ));
    }
    if is_said(&["Permission denied (", "no such identity"]) {
        let hint = "give the agent that holds the key with `--ssh default`";
        return Some(format!("access was refused: {hint}"));
    }
    if is_said(&["Host key verification failed"]) {
        return Some("the key of the host is not the known one".to_owned());
    }
    let is_absent = said.lines().any(|line| {
        line.contains("repository") && no_repository.iter().any(|text| line.contains(text))
    });
    is_absent.then(|| {
        let text = "there is no git repository, or none for the public (a token can be given with";
        format!("{text} `--secret id=GIT_AUTH_TOKEN,env=VARIABLE`)")
    })
}

/// Returns the first line that says what failed, or the last line.
fn weighty_line(said: &str) -> &str {
    let mut lines = said.lines().filter(|line| !line.is_empty());
    let last = said.lines().rfind(|line| !line.is_empty());
    let is_weighty = |line: &&str| line.starts_with("fatal: ") || line.starts_with("error: ");
    lines.find(is_weighty).or(last).unwrap_or_default()
}

/// Kills git together with the helpers it started, when the caller gives up.
struct Group {
    child: Child,
}

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself in between.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

async fn read_all(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What cannot be read shows as a failure of the command itself.
        let _ = stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    bytes
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

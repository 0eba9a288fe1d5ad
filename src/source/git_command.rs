//! Runs the `git` program so that neither the machine's configuration nor the repository can
//! make it run anything else.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::Error;
use super::git::GitOptions;
use super::git_url::GitUrl;
use crate::progress::{LogStream, VertexProgress};

/// Most output of one command that is kept.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;
/// What holds for every command.
const SETTINGS: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.autocrlf", "false"),
    ("credential.helper", ""),
    ("transfer.bundleURI", "false"),
    ("transfer.fsckObjects", "true"),
    // Harmless mistakes that real old repositories hold.
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("protocol.version", "2"),
    ("gc.auto", "0"),
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "main"),
    ("safe.directory", "*"),
    // A server that sends nothing for half a minute is given up.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "30"),
];

/// A repository folder and how to talk to its remote.
pub(super) struct Git<'a> {
    pub(super) options: &'a GitOptions,
    pub(super) url: &'a GitUrl,
    pub(super) dir: &'a Path,
    pub(super) progress: &'a VertexProgress,
}

impl Git<'_> {
    /// Runs a command; returns what it printed.
    pub(super) async fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String, Error> {
        let failed = |reason: String| Error::Git {
            url: self.url.remote.clone(),
            reason,
        };
        let mut command = self.command();
        command.args(arguments);
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failed("the program git is not installed".to_owned()),
            _ => failed(error.to_string()),
        })?;
        let mut child = Group { child };
        let stdout = child.child.stdout.take();
        let stderr = child.child.stderr.take();
        let (printed, said) = tokio::join!(read_all(stdout), self.log(stderr));
        let status = child.child.wait().await;
        let status = status.map_err(|error| failed(error.to_string()))?;
        if status.success() {
            return Ok(printed);
        }
        let verb = arguments
            .first()
            .map(|verb| verb.as_ref().to_string_lossy().into_owned());
        let verb = verb.unwrap_or_default();
        Err(failed(if said.is_empty() {
            format!("{verb} failed ({status})")
        } else {
            format!("{verb} failed: {said}")
        }))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(self.dir)
            .env("HOME", self.dir)
            .env("XDG_CONFIG_HOME", self.dir)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS", "/bin/false")
            .env("GIT_ALLOW_PROTOCOL", self.options.protocols.join(":"))
            .env("GIT_SSH_COMMAND", self.ssh_command())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for variable in [
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GIT_EXEC_PATH",
        ] {
            command.env_remove(variable);
        }
        match &self.options.ssh_auth_sock {
            Some(socket) => command.env("SSH_AUTH_SOCK", socket),
            None => command.env_remove("SSH_AUTH_SOCK"),
        };
        let settings = SETTINGS
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        // In the environment, not on the command line, which everybody on the machine can read.
        let settings: Vec<(String, String)> = settings.chain(self.header()).collect();
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (at, (name, value)) in settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{at}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        command
    }

    /// Makes the setting that sends credentials to the remote's own origin only.
    fn header(&self) -> Option<(String, String)> {
        let url = reqwest::Url::parse(&self.url.remote).ok()?;
        let basic = |text: String| {
            let encoded = base64::engine::general_purpose::STANDARD.encode(text);
            format!("Basic {encoded}")
        };
        let value = match (&self.options.auth_header, &self.options.auth_token) {
            (Some(header), _) => header.0.trim().to_owned(),
            (None, Some(token)) => basic(format!("x-access-token:{}", token.0.trim())),
            (None, None) => {
                let (user, password) = self.url.login.as_ref()?;
                basic(format!("{user}:{password}"))
            }
        };
        let origin = url.origin().ascii_serialization();
        matches!(url.scheme(), "http" | "https").then(|| {
            (
                format!("http.{origin}/.extraHeader"),
                format!("Authorization: {value}"),
            )
        })
    }

    fn ssh_command(&self) -> String {
        let hosts = match &self.options.known_hosts {
            Some(path) => format!(
                "-o StrictHostKeyChecking=yes -o UserKnownHostsFile={}",
                shell_quoted(&path.to_string_lossy())
            ),
            None => "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null".to_owned(),
        };
        format!("ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=10 {hosts}")
    }

    /// Passes on what git says; returns its last line of weight.
    async fn log(&self, stream: Option<impl AsyncRead + Unpin>) -> String {
        let Some(stream) = stream else {
            return String::new();
        };
        let mut lines = BufReader::new(stream.take(OUTPUT_BYTES_MAX)).split(b'\n');
        let (mut first_fatal, mut last) = (None, String::new());
        while let Ok(Some(mut line)) = lines.next_segment().await {
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            if text.starts_with("fatal: ") || text.starts_with("error: ") {
                first_fatal.get_or_insert(text.clone());
            }
            if !text.is_empty() {
                last = text;
            }
            line.push(b'\n');
            self.progress.log(LogStream::Stderr, &line);
        }
        first_fatal.unwrap_or(last)
    }
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

async fn read_all(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What cannot be read shows as a failure of the command itself.
        let _ = stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

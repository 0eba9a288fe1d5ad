//! `cooper login` and `cooper logout`.

use std::io::Read as _;
use std::path::PathBuf;

use super::args::RegistryArgs;
use super::args::login::{LoginArgs, LogoutArgs};
use super::args::{ProgressArgs, ProgressMode};
use super::failure::Failure;
use super::program::Program;
use super::prompt;
use super::registries;
use crate::engine::{EngineError, ErrorKind, login};
use crate::session::{Credential, CredentialFile, Keeper};

/// Where images without a registry in their name are.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Longest password that is read.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// `cooper login`.
pub(crate) fn run(program: &Program, args: &LoginArgs) -> Result<(), Failure> {
    let registry = registry(args.registry.as_deref());
    let mut file = open(program, args.authfile.as_ref())?;
    let credential = credential(program, args)?;
    let reach = RegistryArgs {
        cert_dir: args.cert_dir.clone(),
        tls_verify: args.tls_verify,
        ..RegistryArgs::default()
    };
    let settings = registries::settings(program, &reach)?;
    let progress = ProgressArgs {
        progress: Some(ProgressMode::Quiet),
        quiet: true,
    };
    let (checked, journal) = program.show(&progress, async |_, _| {
        login::check(&registry, &credential, &settings).await
    })?;
    checked.map_err(|error| program.fail(error, &journal))?;
    if let Keeper::File(path) = file.keep(&registry, &credential).map_err(cannot_keep)? {
        let path = path.display();
        let text = format!("the password can be read in {path}: a credential helper hides it");
        program.console.warn(&text);
    }
    let result = program.console.result("Login Succeeded");
    result.map_err(Failure::stdout)
}

/// `cooper logout`.
pub(crate) fn forget(program: &Program, args: &LogoutArgs) -> Result<(), Failure> {
    let mut file = open(program, args.authfile.as_ref())?;
    let registries = match args.all {
        true => file.registries(),
        false => vec![registry(args.registry.as_deref())],
    };
    for registry in registries {
        let found = file.forget(&registry).map_err(cannot_keep)?;
        let line = match found {
            true => format!("Removing login credentials for {registry}"),
            false => format!("Not logged in to {registry}"),
        };
        program.console.result(&line).map_err(Failure::stdout)?;
    }
    Ok(())
}

/// Returns the registry that is meant, without what people put around it.
fn registry(typed: Option<&str>) -> String {
    let text = typed.unwrap_or(DEFAULT_REGISTRY);
    let text = text.trim_start_matches("https://");
    let text = text.trim_start_matches("http://");
    match text.split('/').next().unwrap_or(text) {
        "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
        host => host.to_owned(),
    }
}

fn open(program: &Program, typed: Option<&PathBuf>) -> Result<CredentialFile, Failure> {
    let files = program
        .environment
        .credential_files(typed.map(PathBuf::as_path));
    let Some(path) = files.first() else {
        let text = "no place for credentials: HOME is not set";
        let error = EngineError::new(ErrorKind::Config, text);
        return Err(error.with_hint("name a file with --authfile").into());
    };
    CredentialFile::open(path).map_err(cannot_keep)
}

fn cannot_keep(error: crate::session::Error) -> Failure {
    let text = "cannot change the registry credentials";
    EngineError::new(ErrorKind::Config, text)
        .with_source(error)
        .into()
}

/// Reads user name and password from wherever they come.
fn credential(program: &Program, args: &LoginArgs) -> Result<Credential, Failure> {
    if args.password.is_some() {
        let text = "--password can be seen by others: use --password-stdin";
        program.console.warn(text);
    }
    let username = match &args.username {
        Some(username) => username.clone(),
        None => prompt::line("Username: ")?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => {
            let mut text = String::new();
            let mut stdin = std::io::stdin().lock().take(PASSWORD_BYTES_MAX);
            stdin.read_to_string(&mut text).map_err(|error| {
                Failure::Usage(format!("cannot read the password from stdin: {error}"))
            })?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => prompt::password("Password: ")?,
    };
    if username.is_empty() || password.is_empty() {
        let text = "user name and password must not be empty".to_owned();
        return Err(Failure::Usage(text));
    }
    Ok(Credential::Basic { username, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_in_several_ways() {
        for (typed, expected) in [
            (None, "docker.io"),
            (Some("https://index.docker.io/v1/"), "docker.io"),
            (Some("r.example:5000"), "r.example:5000"),
            (Some("http://r.example/team"), "r.example"),
        ] {
            assert_eq!(registry(typed), expected);
        }
    }
}

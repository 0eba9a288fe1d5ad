//! What commands tell the engine about registries: how they are reached, and as whom.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::args::{JoinArgs, RegistryArgs};
use super::env::Environment;
use super::failure::Failure;
use super::program::{Program, now};
use super::prompt;
use crate::engine::request::{HostOptions, Hosts, JoinOptions, RegistrySettings, RetryPolicy};
use crate::engine::{EngineError, ErrorKind};
use crate::oci::Reference;
use crate::session::{Credential, Credentials, Session};

/// Returns how registries are reached.
pub(crate) fn settings(
    program: &Program,
    args: &RegistryArgs,
) -> Result<RegistrySettings, Failure> {
    let mut mirrors = Vec::new();
    for text in &args.mirrors {
        mirrors.push(mirror(text).map_err(Failure::Usage)?);
    }
    if let Some(dir) = args.cert_dir.as_ref().filter(|dir| !dir.is_dir()) {
        let text = format!("--cert-dir {} is not a folder", dir.display());
        return Err(Failure::Usage(text));
    }
    let mut retry = RetryPolicy::default();
    if let Some(times) = args.retry {
        retry.tries_max = times.saturating_add(1);
    }
    if let Some(delay) = args.retry_delay {
        retry.first_pause = delay;
        retry.pause_max = retry.pause_max.max(delay);
    }
    Ok(RegistrySettings {
        hosts: Hosts::new(HostOptions {
            files: program.environment.host_files(),
            cert_dir: args.cert_dir.clone(),
            tls_verify: args.tls_verify,
            mirrors,
        }),
        insecure: program.global.insecure_registries.clone(),
        proxies: program.environment.proxies(),
        retry,
    })
}

/// Reads the credentials of registries. What was typed is for the registries of `names`, and for
/// all where nothing is named: nobody else is to hear of it.
pub(crate) fn credentials<'a>(
    environment: &Environment,
    args: &RegistryArgs,
    names: impl IntoIterator<Item = &'a Reference>,
) -> Result<Arc<Credentials>, Failure> {
    let files: Vec<PathBuf> = environment.credential_files(args.authfile.as_deref());
    let read = Credentials::from_files(&files).map_err(|error| {
        let message = "cannot read registry credentials";
        EngineError::new(ErrorKind::Config, message).with_source(error)
    })?;
    let Some(text) = &args.creds else {
        return Ok(Arc::new(read));
    };
    let (username, password) = match text.split_once(':') {
        Some((username, password)) => (username, password.to_owned()),
        None => (text.as_str(), prompt::password("Password: ")?),
    };
    let typed = Credential::Basic {
        username: username.to_owned(),
        password,
    };
    let registries: BTreeSet<&str> = names.into_iter().map(Reference::domain).collect();
    if registries.is_empty() {
        return Ok(Arc::new(read.with_everywhere(typed)));
    }
    let add = |read: Credentials, registry| read.with_credential(registry, typed.clone());
    Ok(Arc::new(registries.into_iter().fold(read, add)))
}

/// Lends what a command needs that only moves images.
pub(crate) fn session<'a>(
    program: &Program,
    args: &RegistryArgs,
    names: impl IntoIterator<Item = &'a Reference>,
) -> Result<Session, Failure> {
    Ok(Session {
        credentials: credentials(&program.environment, args, names)?,
        ..Session::default()
    })
}

/// Returns how this job joins others, if it does.
pub(crate) fn join(environment: &Environment, args: &JoinArgs) -> Option<JoinOptions> {
    let typed = args.join.as_ref()?;
    let run = match typed.is_empty() {
        true => environment.run_id().unwrap_or_default(),
        false => typed.clone(),
    };
    Some(JoinOptions {
        run,
        started_s: now().as_second(),
        platforms: args.join_platforms.clone(),
        ..JoinOptions::default()
    })
}

/// Reads `[REGISTRY=]HOST[/PATH]`.
fn mirror(text: &str) -> Result<(String, String), String> {
    let (registry, location) = text.split_once('=').unwrap_or(("docker.io", text));
    let location = location
        .trim_start_matches("https://")
        .trim_end_matches('/');
    let is_host = |text: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_:/[]".contains(&b);
        !text.is_empty() && !text.contains("://") && text.bytes().all(allowed)
    };
    match is_host(registry) && is_host(location) {
        true => Ok((registry.to_owned(), location.to_owned())),
        false => Err(format!(
            "invalid mirror {text:?}: expected host[/path] or registry=host[/path]"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read() {
        for (text, expected) in [
            ("m.example", Ok(("docker.io", "m.example"))),
            ("https://m.example/hub/", Ok(("docker.io", "m.example/hub"))),
            (
                "r.example=10.0.0.1:5000",
                Ok(("r.example", "10.0.0.1:5000")),
            ),
            ("", Err(())),
            ("http://m.example", Err(())),
            ("=x", Err(())),
            ("a b", Err(())),
        ] {
            let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
            assert_eq!(mirror(text).map_err(|_| ()), expected, "{text}");
        }
    }

    #[test]
    fn the_run_is_typed_or_that_of_the_machine() {
        let environment = Environment::of(&[("GITHUB_RUN_ID", "17"), ("BUILD_TAG", "b")]);
        for (typed, expected) in [(None, None), (Some(""), Some("17")), (Some("x"), Some("x"))] {
            let args = JoinArgs {
                join: typed.map(str::to_owned),
                ..JoinArgs::default()
            };
            let run = join(&environment, &args).map(|join| join.run);
            assert_eq!(run.as_deref(), expected, "{typed:?}");
        }
    }
}

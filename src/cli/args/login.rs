//! The options of `cooper login` and `cooper logout`.

use std::path::PathBuf;

use clap::Args;

use super::value;

/// `cooper login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub(crate) registry: Option<String>,
    /// User name
    #[arg(long, short = 'u')]
    pub(crate) username: Option<String>,
    /// Password or token; others on this machine can see it
    #[arg(long, short = 'p', conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from stdin
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// File to keep the credentials in [default: docker's config.json]
    ///
    /// Environment: REGISTRY_AUTH_FILE.
    #[arg(long, value_name = "PATH")]
    pub(crate) authfile: Option<PathBuf>,
    /// Folder with certificates for the registry: *.crt, *.cert, *.key
    #[arg(long = "cert-dir", value_name = "DIR")]
    pub(crate) cert_dir: Option<PathBuf>,
    /// Check the certificate and refuse plain HTTP
    #[arg(long = "tls-verify", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = value::boolean, value_name = "BOOL")]
    pub(crate) tls_verify: Option<bool>,
}

/// `cooper logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "REGISTRY", conflicts_with = "all")]
    pub(crate) registry: Option<String>,
    /// Forget the credentials of all registries in the file
    #[arg(long, short = 'a')]
    pub(crate) all: bool,
    /// File that the credentials are kept in [default: docker's config.json]
    ///
    /// Environment: REGISTRY_AUTH_FILE.
    #[arg(long, value_name = "PATH")]
    pub(crate) authfile: Option<PathBuf>,
}

//! Asking a registry whether it takes a password.

use std::sync::Arc;

use super::error::{EngineError, ErrorKind};
use super::request::RegistrySettings;
use crate::registry;
use crate::session::{Credential, Credentials};
use crate::solver::error::chain;

/// Presents a credential to a registry; fails when it is refused.
pub async fn check(
    registry: &str,
    credential: &Credential,
    settings: &RegistrySettings,
) -> Result<(), EngineError> {
    let credentials = Credentials::default().with_everywhere(credential.clone());
    let client = settings.client(Arc::new(credentials), Vec::new());
    let checked = client.log_in(registry).await;
    checked.map_err(|error| EngineError::new(ErrorKind::Registry, chain(&error)).with_source(error))
}

impl RegistrySettings {
    /// Makes a client that presents `credentials`, and that checks less at `insecure` registries.
    pub(super) fn client(
        &self,
        credentials: Arc<Credentials>,
        insecure: Vec<String>,
    ) -> registry::Client {
        let known = self.insecure.iter().cloned();
        registry::Client::new(registry::Options {
            credentials,
            insecure: known.chain(insecure).collect(),
            hosts: self.hosts.clone(),
            proxies: self.proxies.clone(),
            retry: self.retry.clone(),
            ..registry::Options::default()
        })
    }
}

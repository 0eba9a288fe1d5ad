//! How TLS is spoken with one host: whom we trust there, and who we are.

use std::fmt;
use std::sync::Arc;

use reqwest::{Certificate, ClientBuilder, Identity};

/// Certificates for one host, beside those that the system trusts.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tls {
    /// Whether the host's certificate is not checked.
    pub(super) unchecked: bool,
    /// Authorities that are trusted as well, in PEM.
    pub(super) authorities: Vec<Vec<u8>>,
    /// Our own certificate followed by its key, in PEM.
    pub(super) identity: Option<Vec<u8>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("unchecked", &self.unchecked)
            .field("authorities", &self.authorities.len())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

impl Tls {
    /// Returns what holds for a host to which this one sends us: the same authorities, but
    /// neither our name nor our indulgence.
    pub(super) fn for_strangers(&self) -> Option<Arc<Self>> {
        (!self.authorities.is_empty()).then(|| {
            Arc::new(Self {
                authorities: self.authorities.clone(),
                ..Self::default()
            })
        })
    }

    /// Makes a client speak so.
    pub(super) fn apply(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, String> {
        if self.unchecked {
            builder = builder.tls_danger_accept_invalid_certs(true);
        } else {
            let mut authorities = Vec::new();
            for pem in &self.authorities {
                let read = Certificate::from_pem_bundle(pem);
                authorities.extend(read.map_err(|_| "a CA certificate is malformed".to_owned())?);
            }
            builder = builder.tls_certs_merge(authorities);
        }
        match &self.identity {
            None => Ok(builder),
            Some(pem) => match Identity::from_pem(pem) {
                Ok(identity) => Ok(builder.identity(identity)),
                Err(_) => Err("a client certificate or its key is malformed".to_owned()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_learn_nothing_and_keys_are_not_shown() {
        let tls = Tls {
            unchecked: true,
            authorities: vec![b"ca".to_vec()],
            identity: Some(b"hunter2".to_vec()),
        };
        let other = tls.for_strangers().unwrap();
        assert_eq!((other.unchecked, other.identity.clone()), (false, None));
        assert_eq!(other.authorities, tls.authorities);
        let unchecked = Tls {
            unchecked: true,
            ..Tls::default()
        };
        assert_eq!(unchecked.for_strangers(), None);
        assert!(!format!("{tls:?}").contains("hunter2"));
    }
}

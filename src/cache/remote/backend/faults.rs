//! What HTTP says of a failure, in the words of the port.

use reqwest::Response;

use crate::cache::remote::store::{FaultKind, StoreError};
use crate::registry::{self, Client};

/// Classifies an answer of a status nobody wanted, with what the server says.
pub(super) async fn of_status(client: &Client, what: &str, response: Response) -> StoreError {
    let kind = kind_of(response.status().as_u16());
    let error = client.http().status_error(what, response).await;
    StoreError::new(kind, error.to_string()).caused_by(error)
}

/// Classifies what went wrong on the way.
pub(super) fn of_registry(error: registry::Error) -> StoreError {
    let kind = match &error {
        registry::Error::Unreachable { .. } => FaultKind::Transient,
        registry::Error::Status { status, .. } => {
            let code = status.split(' ').next().and_then(|code| code.parse().ok());
            kind_of(code.unwrap_or_default())
        }
        registry::Error::NotFound { .. } => FaultKind::Missing,
        _ => FaultKind::Permanent,
    };
    StoreError::new(kind, error.to_string()).caused_by(error)
}

/// Classifies a status.
pub(super) fn kind_of(status: u16) -> FaultKind {
    match status {
        404 | 410 => FaultKind::Missing,
        409 | 412 => FaultKind::Conflict,
        408 | 425 | 429 | 500..=599 => FaultKind::Transient,
        _ => FaultKind::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_classified() {
        use FaultKind::{Conflict, Missing, Permanent, Transient};
        for (status, kind) in [
            (404, Missing),
            (412, Conflict),
            (409, Conflict),
            (429, Transient),
            (503, Transient),
            (401, Permanent),
            (403, Permanent),
        ] {
            assert_eq!(kind_of(status), kind, "{status}");
        }
    }
}

//! Errors on the wire: gRPC's status with BuildKit's details.

use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::google::rpc;
use prost::Message;
use tonic::{Code, Status};

use super::bridge::{BridgeError, Detail};

impl From<BridgeError> for Status {
    fn from(error: BridgeError) -> Self {
        if error.details.is_empty() {
            return Self::new(error.code, error.message);
        }
        let details = to_wire(&error).encode_to_vec();
        Self::with_details(error.code, error.message, details.into())
    }
}

/// Writes an error as a message.
pub(super) fn to_wire(error: &BridgeError) -> rpc::Status {
    let details = error.details.iter().map(|detail| Any {
        type_url: detail.kind.clone(),
        value: detail.json.clone(),
    });
    rpc::Status {
        code: error.code as i32,
        message: error.message.clone(),
        details: details.collect(),
    }
}

/// Reads an error from its message.
pub(super) fn from_wire(status: rpc::Status) -> BridgeError {
    let details = status.details.into_iter().map(|detail| Detail {
        kind: detail.type_url,
        json: detail.value,
    });
    BridgeError {
        code: Code::from_i32(status.code),
        message: status.message,
        details: details.collect(),
        failed: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = BridgeError::invalid("no").with_detail("kind", &serde_json::json!({"a": 1}));
        assert_eq!(from_wire(to_wire(&error)), error);
        let status = Status::from(error.clone());
        let read = rpc::Status::decode(status.details()).unwrap();
        assert_eq!(from_wire(read), error);
        assert_eq!(error.detail("kind").unwrap()["a"], 1);
        assert!(error.detail("other").is_none());
    }
}

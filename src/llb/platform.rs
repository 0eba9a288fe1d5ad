//! Platforms on the wire.

use super::pb;
use crate::oci::Platform;

/// Converts a platform to its message.
pub fn to_pb(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// Converts a message to a platform, with aliases resolved and default variants dropped.
pub fn from_pb(message: &pb::Platform) -> Platform {
    Platform {
        architecture: message.architecture.clone(),
        os: message.os.clone(),
        os_version: message.os_version.clone(),
        os_features: message.os_features.clone(),
        variant: message.variant.clone(),
    }
    .normalized()
}

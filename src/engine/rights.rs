//! Rights that a definition needs and a user grants.
//!
//! | right | what it is for |
//! |---|---|
//! | `network.host` | a step in the host's network |
//! | `security.insecure` | a step without confinement |
//! | `device`, `device=NAME` | a step with a device that is not free for all |

use std::collections::BTreeMap;

use super::error::{EngineError, ErrorKind};
use super::request::{BuildRequest, Entitlement, NetworkMode};
use crate::executor::NamedDevices;
use crate::llb::{Vertex, pb};

/// What was granted to a build.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    entitlements: Vec<Entitlement>,
    network: NetworkMode,
}

impl Granted {
    /// Reads what a request grants.
    pub(super) fn of(request: &BuildRequest) -> Self {
        Self {
            entitlements: request.entitlements.clone(),
            network: request.network,
        }
    }

    /// Returns the names that stand for other devices.
    fn aliases(&self) -> BTreeMap<String, String> {
        let aliases = self.entitlements.iter().filter_map(|right| match right {
            Entitlement::Device {
                name,
                alias: Some(alias),
            } => Some((alias.clone(), name.clone())),
            _ => None,
        });
        aliases.collect()
    }
}

/// Refuses a definition that needs rights which were not granted.
pub(super) fn check(
    vertices: &[Vertex],
    granted: &Granted,
    devices: &NamedDevices,
) -> Result<(), EngineError> {
    let has = |right: &Entitlement| granted.entitlements.contains(right);
    for vertex in vertices {
        let pb::op::Op::Exec(exec) = &vertex.op else {
            continue;
        };
        let host = exec.network == pb::NetMode::Host as i32 && granted.network != NetworkMode::Host;
        let insecure = exec.security != pb::SecurityMode::Sandbox as i32;
        let missing = if host && !has(&Entitlement::NetworkHost) {
            "network.host".to_owned()
        } else if insecure && !has(&Entitlement::SecurityInsecure) {
            "security.insecure".to_owned()
        } else {
            match forbidden_device(exec, granted, devices)? {
                Some(device) => format!("device={device}"),
                None => continue,
            }
        };
        return Err(self::missing(&missing, &vertex.name()));
    }
    Ok(())
}

/// Refuses a network that was not granted.
pub(super) fn check_network(network: i32, request: &BuildRequest) -> Result<(), EngineError> {
    let host = network == pb::NetMode::Host as i32 && request.network != NetworkMode::Host;
    match host && !request.entitlements.contains(&Entitlement::NetworkHost) {
        true => Err(missing("network.host", "a container of a frontend")),
        false => Ok(()),
    }
}

/// Says whether processes may run without confinement.
pub(super) fn may_be_insecure(request: &BuildRequest) -> bool {
    request
        .entitlements
        .contains(&Entitlement::SecurityInsecure)
}

/// Says that a right was not granted.
pub(super) fn missing(right: &str, what: &str) -> EngineError {
    EngineError::new(ErrorKind::User, format!("{right} is not allowed: {what}"))
        .with_hint(format!("grant it with --allow {right}"))
}

/// Returns the names that stand for other devices in this build.
pub(super) fn device_aliases(request: &BuildRequest) -> BTreeMap<String, String> {
    Granted::of(request).aliases()
}

/// Finds a device of a step that nobody granted.
fn forbidden_device(
    exec: &pb::ExecOp,
    granted: &Granted,
    devices: &NamedDevices,
) -> Result<Option<String>, EngineError> {
    if granted.entitlements.contains(&Entitlement::AnyDevice) {
        return Ok(None);
    }
    let aliases = granted.aliases();
    let mut named = Vec::new();
    for right in &granted.entitlements {
        if let Entitlement::Device { name, alias: None } = right {
            named.extend(devices.find(name));
        }
    }
    for device in &exec.cdi_devices {
        if aliases.contains_key(&device.name) {
            continue;
        }
        let found = match device.optional {
            true => devices.find(&device.name),
            false => devices.require(&device.name).map_err(|error| {
                EngineError::new(ErrorKind::User, error.to_string()).with_source(error)
            })?,
        };
        let mut found = found.into_iter();
        if let Some(name) = found.find(|name| !named.contains(name) && !devices.is_free(name)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

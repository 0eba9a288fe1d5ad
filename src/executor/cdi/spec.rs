//! One CDI file: what a vendor says its devices need, as JSON or YAML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file of devices of one kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    /// `vendor/class` of the devices.
    pub(super) kind: String,
    /// Remarks that hold for every device.
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, Value>,
    /// The devices.
    #[serde(default)]
    pub(super) devices: Vec<Device>,
    /// What a container with any of them gets.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// A device.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    /// Its name within the kind.
    pub(super) name: String,
    /// Remarks.
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, Value>,
    /// What a container with it gets.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// What a container gets.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Edits {
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    /// Nodes below `/dev`.
    pub(super) device_nodes: Vec<Node>,
    /// Files and folders of the host.
    pub(super) mounts: Vec<HostMount>,
    /// Further groups of the process.
    #[serde(rename = "additionalGids")]
    pub(super) additional_gids: Vec<u32>,
    /// Programs of the host that change the container; not supported.
    pub(super) hooks: Vec<Value>,
}

/// A node below `/dev`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    /// Path in the container.
    pub(super) path: String,
    /// Path on the host; the same where not given.
    pub(super) host_path: Option<PathBuf>,
    /// `c`, `u`, `b` or `p`; as on the host where not given.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    /// Major number; as on the host where not given.
    pub(super) major: Option<u32>,
    /// Minor number.
    pub(super) minor: Option<u32>,
    /// Permission bits.
    pub(super) file_mode: Option<u32>,
    /// What may be done with it: `rwm`.
    pub(super) permissions: Option<String>,
    /// Owner.
    pub(super) uid: Option<u32>,
    /// Group.
    pub(super) gid: Option<u32>,
}

/// A file or folder of the host.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostMount {
    /// Path on the host.
    pub(super) host_path: PathBuf,
    /// Path in the container.
    pub(super) container_path: String,
    /// Options of the mount, of which `ro` is minded.
    #[serde(default)]
    pub(super) options: Vec<String>,
}

impl Spec {
    /// Reads a file; the text says what is wrong with it.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let size = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if size.len() > FILE_BYTES_MAX {
            return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let is_json = path
            .extension()
            .is_some_and(|extension| extension == "json");
        let spec = Self::parse(&text, is_json)?;
        spec.check()?;
        Ok(spec)
    }

    fn parse(text: &str, is_json: bool) -> Result<Self, String> {
        if is_json {
            serde_json::from_str(text).map_err(|error| error.to_string())
        } else {
            serde_saphyr::from_str(text).map_err(|error| error.to_string())
        }
    }

    fn check(&self) -> Result<(), String> {
        let vendor_and_class = self.kind.split_once('/');
        let is_kind = vendor_and_class.is_some_and(|(vendor, class)| {
            !vendor.is_empty() && !class.is_empty() && !class.contains(['/', '='])
        });
        if !is_kind {
            return Err(format!("the kind {:?} is not vendor/class", self.kind));
        }
        let all = self.devices.iter().map(|device| &device.container_edits);
        for edits in all.chain([&self.container_edits]) {
            if let Some(bad) = edits.env.iter().find(|env| env.find('=').unwrap_or(0) == 0) {
                return Err(format!("{bad:?} is not NAME=value"));
            }
        }
        Ok(())
    }
}

/// Returns a remark as text: YAML makes `true` something else.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
